"""export_model: which scheme each tensor gets, what the directory holds, and that it appears whole or not at
all.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from tiny_models import CHAT_TEMPLATE, TinyExport, write_folder, write_gguf

from forerun.errors import ExportError, ModelFileError, OptionError, OutputError
from forerun.export import ExportReport, export_model
from forerun.export.component import choose_schemes
from forerun.export.policies import find_policy
from forerun.export.reader import load_exported_model, read_graph, read_manifest, read_weights
from forerun.export.schemes import SCHEMES
from forerun.models import load_model, open_checkpoint
from forerun.models.checkpoint import StoredTensor

FILES = {"model.onnx", "model.onnx.data", "export.json", "tokenizer.json", "chat_template.jinja"}


@pytest.mark.real_model
def test_keep_takes_every_block_of_smollm2(smollm2_keep: ExportReport) -> None:
    assert smollm2_keep.scheme_counts() == {"affine4": 210, "float32": 61, "symmetric8": 1}
    assert smollm2_keep.differences == ()
    exact = [tensor for tensor in smollm2_keep.tensors if tensor.takes_blocks]
    assert len(exact) == 211
    assert smollm2_keep.data_bytes < 100 * 2**20


@pytest.mark.parametrize(
    ("kind", "scheme", "takes_blocks"),
    [
        ("Q4_0", "symmetric4", True),
        ("Q4_1", "affine4", True),
        ("Q5_0", "symmetric5", True),
        ("Q8_0", "symmetric8", True),
        ("Q5_1", "affine5", True),
        ("F16", "float32", False),
        ("BF16", "float32", False),
    ],
)
def test_what_keep_makes_of_each_type(kind: str, scheme: str, takes_blocks: bool, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", seed=8, kind=GGMLQuantizationType[kind])
    choices = choose_schemes(open_checkpoint(tmp_path / "tiny.gguf").tensors, find_policy("keep", "gguf"))
    matrices = [choice for name, choice in choices.items() if not name.endswith("norm.weight")]
    assert {(choice.scheme, choice.takes_blocks) for choice in matrices} == {(scheme, takes_blocks)}
    assert {choice.note for choice in matrices} == {""}


@pytest.mark.parametrize(
    ("kind", "scheme", "note"),
    [
        ("Q4_K", "affine4", "scales in two steps; they are rounded"),
        ("Q5_K", "affine5", "scales in two steps; they are rounded"),
        ("Q6_K", "symmetric6", "scales in two steps; they are rounded"),
        ("Q3_K", "symmetric6", "no scheme holds Q3_K blocks as they are"),
        ("IQ3_S", "symmetric5", "no scheme holds IQ3_S blocks as they are"),
        ("Q2_K", "symmetric8", "no scheme holds Q2_K blocks as they are"),
    ],
)
def test_the_report_says_what_is_not_exact(kind: str, scheme: str, note: str) -> None:
    blocks = StoredTensor(
        kind, (2, 256), 4.0, lambda: np.zeros((2, 256), np.float32), lambda: np.zeros((2, 8), np.uint8)
    )
    choice = find_policy("keep", "gguf").choose("layers.0.attention.q_proj.weight", blocks)
    assert choice.scheme == scheme and note in choice.note
    assert choice.takes_blocks == ("rounded" in note)


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_0", "Q5_1"])
def test_kept_weights_are_those_of_the_file(kind: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", seed=8, kind=GGMLQuantizationType[kind])
    report = export_model(tmp_path / "tiny.gguf", tmp_path / "export")
    assert report.differences == ()
    found = load_exported_model(tmp_path / "export").state_dict()
    for name, value in load_model(tmp_path / "tiny.gguf").state_dict().items():
        assert torch.equal(found[name], value), name


def rewrite_tensor(path: Path, name: str, kind: GGMLQuantizationType) -> None:
    """Give one tensor of a GGUF file random blocks of another type."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(path.with_suffix(".new"), "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        element = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(field.name, field.contents(), field.types[0], element)
    for tensor in reader.tensors:
        if tensor.name != name:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
            continue
        rows, columns = (int(size) for size in reversed(tensor.shape))
        block, size = gguf.constants.GGML_QUANT_SIZES[kind]
        blocks = np.random.default_rng(0).integers(0, 256, (rows, columns // block, size), np.uint8)
        blocks[..., :4] = np.array([0.01, 0.01], np.float16).view(np.uint8)
        writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize(
    ("quant", "layers", "vocabulary"),
    [
        ("keep", "float32", "float32"),
        ("f32", "float32", "float32"),
        ("q8", "symmetric8", "symmetric8"),
        ("q6", "symmetric6", "symmetric8"),
        ("q5", "affine5", "symmetric8"),
        ("q4", "affine4", "symmetric8"),
        (None, "symmetric8", "symmetric8"),
    ],
)
def test_schemes_of_a_float_model(quant: str | None, layers: str, vocabulary: str, tiny_folder: Path) -> None:
    for name, choice in choose_schemes(
        open_checkpoint(tiny_folder).tensors, find_policy(quant, "huggingface")
    ).items():
        expected = vocabulary if name in ("embed.weight", "head.weight") else layers
        assert choice.scheme == ("float32" if name.endswith("norm.weight") else expected), name


def test_rows_that_do_not_divide_stay_float(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", seed=2, intermediate_size=80)
    report = export_model(tmp_path / "model", tmp_path / "export", "q4")
    assert {tensor.name for tensor in report.differences} == {
        f"layers.{layer}.feed_forward.down_proj.weight" for layer in range(2)
    }
    assert "rows of 80 do not divide into groups of 32" in str(report)


def test_layers_of_different_schemes_get_functions_of_their_own(tmp_path: Path) -> None:
    """Blocks of Q4_K are written by hand, since the library only reads them."""
    path = tmp_path / "tiny.gguf"
    write_gguf(path, seed=8, hidden_size=256, intermediate_size=256)
    rewrite_tensor(path, "blk.1.ffn_up.weight", GGMLQuantizationType.Q4_K)
    report = export_model(path, tmp_path / "export")
    (different,) = report.differences
    assert (different.name, different.scheme) == ("layers.1.feed_forward.up_proj.weight", "affine4")
    assert "layers.1.feed_forward.up_proj.weight: Q4_K → affine4 (Q4_K multiplies" in str(report)
    assert [name for name in report.functions if name.startswith("FeedForward")] == [
        "FeedForward",
        "FeedForward_1",
    ]
    assert [name for name in report.functions if name.startswith("Attention")] == ["Attention"]


def test_exported_weights_are_the_quantized_ones(tiny_export: TinyExport) -> None:
    manifest = read_manifest(tiny_export("llama-multi-head", "q4"))
    weights, model = read_weights(manifest.directory), load_model(manifest.source)
    for name, scheme in manifest.schemes.items():
        expected = SCHEMES[scheme]().quantize(model.state_dict()[name].numpy())
        for suffix, array in expected.items():
            assert np.array_equal(weights[name][suffix], array), f"{name}.{suffix}"


def test_manifest(tiny_export: TinyExport) -> None:
    directory = tiny_export("qwen3", "q4")
    assert {path.name for path in directory.iterdir()} == FILES
    values = json.loads((directory / "export.json").read_text())
    assert (values["format"], values["version"], values["family"], values["quant"]) == (
        "forerun-export",
        1,
        "llama",
        "q4",
    )
    assert values["tokenizer"] == {"bos_token_id": 1, "eos_token_ids": [2, 0], "add_bos": False}
    config = values["config"]
    assert (config["layers"], config["kv_heads"], config["head_dim"], config["qk_norm"]) == (2, 2, 32, True)
    assert Path(values["source"]).is_absolute()
    assert (directory / "chat_template.jinja").read_text() == CHAT_TEMPLATE


def test_progress_rises_to_one(tmp_path: Path, tiny_folder: Path) -> None:
    parts: list[float] = []
    export_model(tiny_folder, tmp_path / "export", "f32", lambda _text, part: parts.append(part))
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    assert len(parts) > 10


def test_unknown_quantization_lists_the_known(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(OptionError, match=r"'q3'.*keep, f32, q8, q6, q5, q4"):
        export_model(tiny_folder, tmp_path / "export", "q3")
    assert not (tmp_path / "export").exists()


def test_a_shorter_context_makes_shorter_rotary_tables(tmp_path: Path, tiny_folder: Path) -> None:
    export = export_model(tiny_folder, tmp_path / "export", "f32", context=40).directory
    tables = {each.name: list(each.dims) for each in read_graph(export).graph.initializer}
    assert read_manifest(export).config.context_length == tables["rope.cos"][0] == tables["rope.sin"][0] == 40
    for context in (0, 129):
        with pytest.raises(OptionError, match=f"context is {context}; the model has 128 positions"):
            export_model(tiny_folder, tmp_path / "other", "f32", context=context)
    assert not (tmp_path / "other").exists()


def test_an_older_export_is_replaced(tmp_path: Path, tiny_folder: Path) -> None:
    target = tmp_path / "export"
    target.mkdir()
    for quant in ("q8", "f32"):
        export_model(tiny_folder, target, quant)
        assert read_manifest(target).quant == quant
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_foreign_folder_is_left_alone(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=str(tmp_path)):
        export_model(tiny_folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_unwritable_folder_is_named(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        export_model(tiny_folder, tmp_path / "file" / "export")


@pytest.mark.parametrize(("kind", "value"), [("F32", np.float32(np.nan)), ("Q8_0", np.float16(np.inf))])
def test_a_damaged_weight_is_named(kind: str, value: np.generic, tmp_path: Path) -> None:
    """The first tensor's first bytes: a number of the embedding, or the scale of its first block."""
    path = tmp_path / "tiny.gguf"
    write_gguf(path, seed=1, kind=GGMLQuantizationType[kind])
    start, data = gguf.GGUFReader(path).tensors[0].data_offset, bytearray(path.read_bytes())
    data[start : start + value.nbytes] = value.tobytes()
    path.write_bytes(data)
    with pytest.raises(ExportError, match=r"tensor embed\.weight: .*not finite"):
        export_model(path, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def run_export(tiny_folder: Path, target: Path, setup: str) -> subprocess.Popen[str]:
    """An export in a process of its own, after `setup`; ends with the name of the error."""
    program = f"""
import sys
from forerun.export import export_model
from forerun.errors import ForerunError
def report(text, part):
    print(part, flush=True)
{setup}
try:
    export_model({str(tiny_folder)!r}, {str(target)!r}, "f32", report)
except (ForerunError, KeyboardInterrupt) as error:
    print(type(error).__name__, error)
"""
    environment: dict[str, Any] = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_a_full_disk_leaves_nothing(tmp_path: Path, tiny_folder: Path) -> None:
    """A limit on file sizes stops the write in the middle, as a full disk does."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))"
    output, _ = run_export(tiny_folder, tmp_path / "export", limit).communicate(timeout=120)
    assert output.splitlines()[-1].startswith("OutputError")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(tmp_path: Path, tiny_folder: Path) -> None:
    slow = "report = lambda text, part: (print(part, flush=True), __import__('time').sleep(0.2))"
    process = run_export(tiny_folder, tmp_path / "export", slow)
    assert process.stdout is not None
    for line in process.stdout:
        if float(line) > 0.3:
            process.send_signal(signal.SIGINT)
            break
    rest, _ = process.communicate(timeout=120)
    assert rest.splitlines()[-1].strip() == "KeyboardInterrupt"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("export.json", None, "not an export directory"),
        ("export.json", "{", "cannot be read"),
        ("export.json", '{"format": "other"}', "not a forerun-export"),
        ("export.json", '{"format": "forerun-export", "version": 2}', "version 2"),
        ("export.json", '{"format": "forerun-export", "version": 1}', "malformed"),
        ("model.onnx", None, r"model\.onnx is missing"),
        ("model.onnx", "not protobuf", "cannot be read as ONNX"),
        ("model.onnx.data", "short", "truncated"),
    ],
)
def test_damaged_exports_are_refused(
    name: str, content: str | None, message: str, tmp_path: Path, tiny_export: TinyExport
) -> None:
    shutil.copytree(tiny_export("llama-multi-head", "f32"), tmp_path / "export")
    path = tmp_path / "export" / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(ExportError, match=message):
        load_exported_model(tmp_path / "export")


def test_a_missing_model_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        export_model(tmp_path / "absent.gguf", tmp_path / "export")
    assert list(tmp_path.iterdir()) == []
