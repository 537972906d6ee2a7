"""export_draft: what the directory holds, and what is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_drafts import DRAFTS, FACTS, draft_config, random_draft, write_draft
from tiny_models import TinyExport, write_folder

from forerun.errors import ExportError, ForerunError, OptionError, UnsupportedModelError
from forerun.export import export_draft, export_model
from forerun.export.check import check_export, compare_logits
from forerun.export.oracle import Oracle
from forerun.export.reader import (
    load_exported_draft,
    load_exported_model,
    read_graph,
    read_manifest,
    read_weights,
)
from forerun.models.drafts import read_draft_config

CACHE = ["positions", "tree_mask", "past_key.0", "past_value.0"]
# Form → inputs of the graph, its functions.
GRAPHS = {
    "feature": (["token_ids", "features", *CACHE], {"Embed", "Attention", "FeedForward", "Head"}),
    "heads": (["hidden"], {"FeedForward", "Head"}),
    "exit-attention": (["hidden", *CACHE], {"Attention", "Head"}),
    "exit-full": (["hidden", *CACHE], {"Attention", "FeedForward", "Head"}),
}


@pytest.mark.parametrize("form", GRAPHS)
def test_a_graph_has_the_parts_of_its_component(form: str, tmp_path: Path) -> None:
    draft = write_draft(tmp_path / "draft", form)
    assert {path.name for path in draft.directory.iterdir()} == {
        *("model.onnx", "model.onnx.data", "export.json", "vocabulary.bin")
    }
    model = read_graph(draft.directory)
    inputs, functions = GRAPHS[form]
    assert [value.name for value in model.graph.input] == inputs
    assert {function.name for function in model.functions} == functions
    assert len(model.graph.node) == sum(
        {"Embed": 1, "Head": 1}.get(name, DRAFTS[form][0]) for name in functions
    )
    onnx.checker.check_model(str(draft.directory / "model.onnx"))
    found = read_weights(draft.directory)
    assert set(found) == {name for name, _ in draft.network.named_parameters()}
    np.testing.assert_array_equal(found["head.weight"][""], draft.network.head.weight.numpy())


def test_the_features_function_takes_what_the_signature_says(tmp_path: Path) -> None:
    model = read_graph(write_draft(tmp_path / "draft", "feature", "q4").directory)
    embed = next(function for function in model.functions if function.name == "Embed")
    table = ["weight.q", "weight.scale"]
    projection = ["feature_proj.weight.q", "feature_proj.weight.scale", "feature_proj.weight.minimum"]
    assert list(embed.input) == ["token_ids", "features", "norm.weight", *table, *projection]


def test_the_manifest_describes_the_draft(tmp_path: Path) -> None:
    draft = write_draft(tmp_path / "draft", "feature-deep", "q8")
    settings = json.loads((draft.directory / "export.json").read_text())
    assert read_draft_config(settings["draft"]) == draft.network.config
    assert settings["draft"]["model"] == FACTS
    assert settings["config"]["vocabulary_size"] == 105
    assert (settings["name"], settings["quant"]) == ("feature-deep", "q8")
    manifest = read_manifest(draft.directory)
    assert manifest.draft == draft.network.config
    stored = np.fromfile(draft.directory / "vocabulary.bin", "<i4")
    np.testing.assert_array_equal(stored, draft.vocabulary)


def test_weights_of_any_float_type_are_taken(tmp_path: Path) -> None:
    network = random_draft(draft_config("exit-full"), 1)
    halves = {name: weight.to(torch.bfloat16) for name, weight in network.named_parameters()}
    ids = np.arange(network.config.other_id)
    report = export_draft(network, halves, tmp_path / "d", "f32", vocabulary=ids, model={}, name="half")
    assert {tensor.stored_as for tensor in report.tensors} == {"bfloat16"}
    found = load_exported_draft(tmp_path / "d")
    assert all(torch.equal(value, halves[name].float()) for name, value in found.named_parameters())


@pytest.mark.parametrize("form", ["feature", "heads"])
def test_a_quantized_draft_is_checked(form: str, tmp_path: Path) -> None:
    draft = write_draft(tmp_path / "draft", form, "q4")
    assert check_export(draft.directory).errors.largest < 1e-4
    oracle = Oracle(draft.directory)
    assert compare_logits(draft.network, oracle).largest > 1e-3, "quantization shows"
    network = load_exported_draft(draft.directory)
    network.layers[0].feed_forward.up_proj.weight[3, 5] += 0.5
    assert compare_logits(network, oracle).largest > 1e-3
    with pytest.raises(OptionError, match="leave the text out"):
        check_export(draft.directory, "some text")


def test_a_wrong_feature_weight_is_noticed(tmp_path: Path) -> None:
    draft = write_draft(tmp_path / "draft", "feature")
    draft.network.embed.feature_proj.weight[3, 70] += 0.5
    assert compare_logits(draft.network, Oracle(draft.directory)).largest > 1e-3


def test_drafts_and_models_are_told_apart(tmp_path: Path, tiny_export: TinyExport) -> None:
    draft = write_draft(tmp_path / "draft", "heads")
    with pytest.raises(ExportError, match="draft component heads, not a model"):
        load_exported_model(draft.directory)
    with pytest.raises(ExportError, match="not a draft component"):
        load_exported_draft(tiny_export("llama-untied", "f32"))
    (draft.directory / "vocabulary.bin").unlink()
    with pytest.raises(ExportError, match=r"vocabulary\.bin is missing"):
        read_manifest(draft.directory)


def test_a_damaged_description_is_said(tmp_path: Path) -> None:
    path = write_draft(tmp_path / "draft", "heads").directory / "export.json"
    settings = json.loads(path.read_text())
    del settings["draft"]["taps"]
    path.write_text(json.dumps(settings))
    with pytest.raises(UnsupportedModelError, match="taps"):
        read_manifest(path.parent)


WEIGHTS = dict(random_draft(draft_config("heads"), 0).named_parameters())
IDS = np.arange(104, dtype=np.int32)
REFUSED: dict[str, tuple[type[ForerunError], dict, str]] = {
    "keep": (OptionError, {"quant": "keep"}, "no blocks of a file to keep; .* f32, q8, q6, q5, q4"),
    "no such scheme": (OptionError, {"quant": "q3"}, "unknown quantization 'q3'"),
    "weight missing": (
        ExportError,
        {"weights": {name: value for name, value in WEIGHTS.items() if name != "head.weight"}},
        r"differ in head\.weight",
    ),
    "weight too many": (
        ExportError,
        {"weights": {**WEIGHTS, "layers.9.bias": torch.zeros(3)}},
        r"differ in layers\.9\.bias",
    ),
    "weight of another shape": (
        ExportError,
        {"weights": {**WEIGHTS, "head.weight": torch.zeros(104, 64)}},
        r"head\.weight has shape \[104, 64\], the network \[105, 64\]",
    ),
    "weight that is no number": (
        ExportError,
        {"weights": {**WEIGHTS, "head.weight": torch.full((105, 64), torch.nan)}},
        r"head\.weight: it holds values that are not finite",
    ),
    "too few ids": (ExportError, {"vocabulary": IDS[:-1]}, r"shape \[103\]; .* \[104\]"),
    "ids that are floats": (ExportError, {"vocabulary": IDS.astype(np.float32)}, "whole numbers"),
    "an id beyond": (ExportError, {"vocabulary": IDS + 200}, "200 to 303; the model has 0 to 287"),
    "an id below": (ExportError, {"vocabulary": IDS - 1}, "-1 to 102"),
    "an id twice": (ExportError, {"vocabulary": np.minimum(IDS, 100)}, "twice"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    kind, changes, words = REFUSED[name]
    network = random_draft(draft_config("heads"), 0)
    given = {"weights": WEIGHTS, "quant": "f32", "vocabulary": IDS, "model": {}, "name": "x", **changes}
    with pytest.raises(kind, match=words):
        export_draft(network, output=tmp_path / "draft", **given)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_the_same_sizes_is_exported_as_before(tmp_path: Path) -> None:
    """Its graph has what a draft with everything but features has, and its tied head no matrix of its own."""
    source = write_folder(tmp_path / "model", seed=3, tie_word_embeddings=True)
    model = read_graph(export_model(source, tmp_path / "export", "f32").directory)
    assert [value.name for value in model.graph.input][:3] == ["token_ids", "positions", "tree_mask"]
    assert list(model.graph.node[-1].input)[-1] == "embed.weight"
