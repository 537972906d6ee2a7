"""Gemma 3 270M from its file (Q4_K_M): against transformers, against the float model, and with every drafter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gemma3_file import gemma3_file
from sample_prompts import PROMPTS
from transformers import AutoModelForCausalLM

import forerun
from forerun.__main__ import main
from forerun.compiler import compile_export
from forerun.export import export_model
from forerun.export.check import eager_logits, encode_text, measure_quality
from forerun.export.reader import read_manifest
from forerun.models import Decoder, load_model
from forerun.quality import BundleLogits
from forerun.runtime.model import Model
from forerun.runtime.program import LoadedProgram

TEXT = (Path(__file__).parent / "text.txt").read_text(encoding="utf-8")
WINDOW = 512


@pytest.fixture(scope="module")
def file() -> Path:
    return gemma3_file()


@pytest.fixture(scope="module")
def export(file: Path, build_folder: Callable[[str], Path]) -> Path:
    folder = build_folder("gemma3-export")
    if not (folder / "export.json").exists():
        export_model(file, folder, "keep")
    return folder


@pytest.fixture(scope="module")
def bundle(export: Path, build_folder: Callable[[str], Path]) -> Path:
    folder = build_folder("gemma3-bundle")
    if not (folder / "manifest.json").exists():
        compile_export(export, folder)
    return folder


@pytest.fixture(scope="module")
def model(bundle: Path) -> Iterator[Model]:
    with forerun.load(bundle, context=2048, threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def eager(file: Path) -> Decoder:
    return load_model(file)


def test_the_eager_network_equals_transformers_beyond_the_window(
    file: Path, eager: Decoder, rng: np.random.Generator
) -> None:
    ids = torch.from_numpy(rng.integers(0, eager.config.vocabulary_size, WINDOW + 60))
    reference = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    with torch.no_grad():
        ours, theirs = eager(ids).logits, reference(ids[None]).logits[0]
    assert (ours - theirs).abs().max() <= 1e-4


def test_every_matrix_keeps_the_numbers_of_its_file(export: Path) -> None:
    """Q4_K, Q5_0, Q6_K and Q8_0, none of them by a detour through more bits."""
    schemes = read_manifest(export).schemes
    named = {name: scheme for name, scheme in schemes.items() if not name.endswith("norm.weight")}
    assert set(named.values()) == {"affine4", "symmetric5", "symmetric6", "symmetric8"}
    assert {scheme for name, scheme in named.items() if name.endswith("gate_proj.weight")} == {"symmetric5"}
    assert {scheme for name, scheme in named.items() if name.endswith("o_proj.weight")} == {"affine4"}


def test_the_compiled_model_is_near_the_float_model(export: Path, bundle: Path, eager: Decoder) -> None:
    """Mean KL in nats with quantized activations and a float16 cache."""
    ids = encode_text(read_manifest(export), TEXT, 1024)
    quality = measure_quality(BundleLogits(bundle), eager_logits(eager), ids, window=1024)
    print(quality)
    assert quality.mean_kl <= 0.005
    assert quality.top1 >= 0.93


@pytest.mark.parametrize("drafter", ["lookup", "auto", "self:layers=16,tokens=2", "self:skip=a3+f3"])
@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {"temperature": 0.8, "seed": 5}], ids=("greedy", "sampled")
)
def test_no_drafter_changes_a_token(model: Model, drafter: str, settings: dict[str, float]) -> None:
    long = TEXT[: 4 * (WINDOW + 200)]
    for prompt in (*PROMPTS[:4], long):
        options = {"max_tokens": 48, "ignore_end": True, "raw": True, **settings}
        plain = model.generate(prompt, drafter="none", **options).complete()
        drafted = model.generate(prompt, drafter=drafter, **options).complete()
        assert drafted.ids == plain.ids
    assert len(plain.prompt_ids) > WINDOW


def test_sliding_layers_take_the_memory_of_their_window(bundle: Path) -> None:
    """15 of 18 layers see 512 positions and keep 1,024 slots, beside 8,192 of those that see all."""
    with LoadedProgram(bundle) as program:
        assert program.cache_bytes(8192) == (15 * 1024 + 3 * 8192) * 2 * 256 * 2


def test_the_command_answers(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(bundle), "-p", "The capital of France is", "--max-tokens", "12", "--stats"]) == 0
    printed = capsys.readouterr()
    assert "capital" in printed.out + printed.err
