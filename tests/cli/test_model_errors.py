"""`forerun export` on files that are not read: one line that names what is wrong, for GGUF files and folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_command import Forerun, check_error
from safetensors.torch import load_file, save_file
from tiny_models import write_folder, write_gguf

Make = Callable[[Path], Path]


def gguf(**metadata: Any) -> Make:
    """A file with metadata changed; __ stands for a dot."""

    def make(folder: Path) -> Path:
        changes = {key.replace("__", "."): value for key, value in metadata.items()}
        write_gguf(folder / "model.gguf", seed=1, metadata=changes)
        return folder / "model.gguf"

    return make


def folder_with(change: Callable[[Path], object]) -> Make:
    """A folder, changed."""

    def make(folder: Path) -> Path:
        change(write_folder(folder / "model", seed=1))
        return folder / "model"

    return make


def of_architecture(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "mamba"}))


def without_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")


def with_shape(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()
    save_file(tensors, folder / "model.safetensors")


def with_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "Klingon"}}')


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


CASES: dict[str, tuple[Make, tuple[str, ...]]] = {
    "gguf architecture": (gguf(general__architecture="mamba"), ("'mamba'", "supported: ", "qwen2")),
    "gguf tensor": (gguf(llama__block_count=3), ("missing", "blk.2.attn_norm.weight")),
    "gguf shape": (gguf(llama__feed_forward_length=64), ("blk.0.ffn_gate.weight", "[96, 64]", "[64, 64]")),
    "gguf tokenizer": (gguf(tokenizer__ggml__model="t5"), ("tokenizer model 't5'", "gpt2, llama")),
    "gguf pre-tokenizer": (gguf(tokenizer__ggml__pre="klingon"), ("pre-tokenizer 'klingon'", "tekken")),
    "folder architecture": (folder_with(of_architecture), ("'mamba'", "supported: ", "qwen2")),
    "folder tensor": (folder_with(without_tensor), ("missing", "model.norm.weight")),
    "folder shape": (folder_with(with_shape), ("model.norm.weight", "[63]", "[64]")),
    "folder tokenizer": (folder_with(with_tokenizer), ("tokenizer.json", "Klingon")),
    "folder without a tokenizer": (folder_with(without_tokenizer), ("tokenizer.json", "save_pretrained")),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_read_is_named_in_one_line(case: str, forerun: Forerun, tmp_path: Path) -> None:
    make, words = CASES[case]
    source = make(tmp_path)
    check_error(forerun("export", str(source), "-o", str(tmp_path / "export")), str(source), *words)
    assert not (tmp_path / "export").exists()
