"""ONNX Runtime on the exported file against the eager model, and the measures themselves."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from tiny_models import STRUCTURES, TinyExport, write_gguf

from forerun.errors import ExportError, ModelFileError, OptionError
from forerun.export import ExportReport, export_model
from forerun.export.check import (
    check_export,
    compare_logits,
    eager_logits,
    encode_text,
    measure_quality,
    tree_inputs,
)
from forerun.export.oracle import Oracle
from forerun.export.reader import load_exported_model, read_manifest
from forerun.models import Decoder, load_model

TOLERANCE = 1e-4
TEXT = (
    "A lighthouse keeper wrote in her log every evening for 40 years: wind, tide, ships, and one line about "
    "whatever had surprised her that day. On 3 March she wrote only: 'The fog lifted, and there was nothing "
    "behind it.' def visible(fog): return 1.0 - fog ** 2 "
)


@pytest.mark.parametrize("variant", STRUCTURES)
def test_every_variant_runs_in_onnx_runtime(variant: str, tiny_export: TinyExport) -> None:
    directory = tiny_export(variant, "f32")
    model = load_model(read_manifest(directory).source)
    errors = compare_logits(model, Oracle(directory), seed=int(torch.randint(0, 2**31, ())))
    assert errors.largest <= TOLERANCE


@pytest.mark.parametrize("quant", ["q8", "q6", "q5", "q4"])
def test_quantized_exports_run_as_their_schemes_say(quant: str, tiny_export: TinyExport) -> None:
    directory = tiny_export("qwen3", quant)
    assert compare_logits(load_exported_model(directory), Oracle(directory)).largest <= TOLERANCE
    source = load_model(read_manifest(directory).source)
    assert compare_logits(source, Oracle(directory)).largest > 10 * TOLERANCE, "quantization shows"


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_four_bit_embeddings_run_in_onnx_runtime(kind: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", seed=3, kind=GGMLQuantizationType[kind])
    export_model(tmp_path / "tiny.gguf", tmp_path / "export")
    model = load_model(tmp_path / "tiny.gguf")
    assert compare_logits(model, Oracle(tmp_path / "export")).largest <= TOLERANCE


@pytest.mark.real_model
def test_smollm2_f32_equals_eager(smollm2_f32: ExportReport, smollm2: Decoder) -> None:
    errors = compare_logits(smollm2, Oracle(smollm2_f32.directory))
    assert errors.prefill <= TOLERANCE
    assert errors.decode <= TOLERANCE
    assert errors.tree <= TOLERANCE


@pytest.mark.real_model
def test_smollm2_keep_is_the_float_model(smollm2_keep: ExportReport, smollm2: Decoder) -> None:
    report = check_export(smollm2_keep.directory, TEXT, smollm2)
    assert report.errors.largest <= TOLERANCE
    assert report.quality is not None
    assert report.quality.mean_kl < 1e-8
    assert report.quality.top1 == 1.0
    assert report.quality.tokens > 60


def test_the_oracle_gives_taps_and_caches_in_order(tiny_export: TinyExport) -> None:
    directory = tiny_export("qwen2", "f32")
    ids = np.arange(9) + 20
    ours = Oracle(directory).forward(ids, taps=(1, 0))
    with torch.no_grad():
        eager = load_exported_model(directory)(torch.from_numpy(ids))
    for layer in (0, 1):
        assert np.abs(ours.taps[layer] - eager.taps[layer].numpy()).max() <= TOLERANCE
        for found, expected in zip(ours.present[layer], eager.present[layer], strict=True):
            assert found.shape == (2, 9, 16)
            assert np.abs(found - expected.numpy()).max() <= TOLERANCE


def test_a_wrong_weight_is_noticed(tmp_path: Path, tiny_export: TinyExport) -> None:
    shutil.copytree(tiny_export("llama-multi-head", "f32"), tmp_path / "export")
    model = load_exported_model(tmp_path / "export")
    model.layers[1].attention.k_proj.weight[3, 5] += 0.5
    errors = compare_logits(model, Oracle(tmp_path / "export"))
    assert min(errors.prefill, errors.decode, errors.tree) > 10 * TOLERANCE


def test_quality_of_known_logits() -> None:
    """Two tokens with probabilities 1/2, 1/2 against 1/4, 3/4, then equal ones."""
    reference = np.log(np.array([[0.5, 0.5], [0.9, 0.1]], np.float32))
    tested = np.log(np.array([[0.25, 0.75], [0.9, 0.1]], np.float32))
    quality = measure_quality(
        lambda ids: tested[: len(ids)] + 3, lambda ids: reference[: len(ids)], np.arange(2)
    )
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert quality.mean_kl == pytest.approx(expected / 2, rel=1e-6)
    assert (quality.top1, quality.tokens) == (0.5, 2)


def test_quality_reads_windows_from_their_start(tiny_export: TinyExport) -> None:
    model = load_exported_model(tiny_export("llama-multi-head", "f32"))
    seen: list[int] = []

    def tested(ids: np.ndarray) -> np.ndarray:
        seen.append(len(ids))
        return eager_logits(model)(ids)

    quality = measure_quality(tested, eager_logits(model), np.arange(150), window=64)
    assert seen == [64, 64, 22]
    assert (quality.mean_kl, quality.top1, quality.tokens) == (0.0, 1.0, 150)


def test_check_reports_what_it_measured(tiny_export: TinyExport) -> None:
    directory = tiny_export("qwen3", "q4")
    report = check_export(directory, TEXT * 2, tokens=200)
    assert report.quality is not None
    assert report.quality.tokens == 200
    assert 0 < report.quality.mean_kl < 0.5
    assert "quantization q4" in str(report)
    assert "200 tokens" in str(report)
    assert check_export(directory).quality is None


@pytest.mark.parametrize("text", ["", "x"])
def test_a_text_too_short_is_refused(text: str, tiny_export: TinyExport) -> None:
    with pytest.raises(OptionError, match="at least 2"):
        check_export(tiny_export("qwen3", "q4"), text)


def test_a_source_that_is_gone_is_named(tmp_path: Path, tiny_export: TinyExport) -> None:
    shutil.copytree(tiny_export("llama-multi-head", "f32"), tmp_path / "export")
    path = tmp_path / "export" / "export.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "source": "/gone"}))
    with pytest.raises(ModelFileError, match="/gone does not exist"):
        check_export(tmp_path / "export", TEXT)


def test_a_file_that_onnx_runtime_refuses_is_named(tmp_path: Path, tiny_export: TinyExport) -> None:
    shutil.copytree(tiny_export("llama-multi-head", "f32"), tmp_path / "export")
    (tmp_path / "export" / "model.onnx").write_text("nothing")
    with pytest.raises(ExportError, match="ONNX Runtime cannot load"):
        Oracle(tmp_path / "export")


def test_tokens_are_those_of_the_tokenizer(tiny_export: TinyExport) -> None:
    ids = encode_text(read_manifest(tiny_export("qwen3", "q4")), "hehe<|im_end|>", 10)
    assert len(ids) == 3
    assert ids[0] == ids[1]
    assert ids[2] == 2


def test_tree_inputs_are_ancestors() -> None:
    positions, mask = tree_inputs((-1, 0, 0, 2, -1), past_rows=2)
    assert positions.tolist() == [2, 3, 3, 4, 2]
    assert mask[:, :2].all()
    assert mask[:, 2:].astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 1, 1, 0],
        [0, 0, 0, 0, 1],
    ]
