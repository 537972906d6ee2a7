"""A training from its data to the draft's folder and back: what is kept, what is refused."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learnable import Learnable, make_learnable
from safetensors.torch import load_file, save_file

from forerun.errors import DataError, OptionError, TrainingError
from forerun.models.drafts import COMPONENTS
from forerun.training.cache import Vocabulary
from forerun.training.data import create_data
from forerun.training.exported import export_draft_folder
from forerun.training.folder import lend_rows, load_draft, model_facts, restore, save_draft
from forerun.training.train import Request, train
from forerun.training.trainer import Plan


def request_for(learnable: Learnable, given: Path, output: Path, **changes: object) -> Request:
    plan = Plan(epochs=2, rows=128, packs=2, every=2, bf16=False)
    request = Request(
        str(learnable.checkpoint.source), given, "feature", output, vocabulary_size=100, plan=plan
    )
    return replace(request, threads=1, **changes)  # type: ignore[arg-type]


def write_data(learnable: Learnable, folder: Path, tokenizer: str | None = None) -> Path:
    text = learnable.checkpoint.read_tokenizer().tokenizer_json
    own = hashlib.sha256(text.encode()).hexdigest()[:16]
    data = create_data(folder, {"name": "tiny", "tokenizer": tokenizer or own}, {})
    data.append(learnable.conversations, 0, {})
    return folder


def test_a_trained_draft_is_read_again_with_the_rows_of_its_model(
    learnable: Learnable, tmp_path: Path
) -> None:
    data = write_data(learnable, tmp_path / "data")
    report = train(request_for(learnable, data, tmp_path / "draft"))
    assert report.last.step == report.steps > 2 and report.has_curves
    assert (tmp_path / "draft" / "curves.png").read_bytes().startswith(b"\x89PNG")
    draft = load_draft(tmp_path / "draft")
    assert draft.training["accepted_length"] == report.last.accepted_length
    component = restore(draft, learnable.model)
    for name, weight in component.named_parameters():
        assert torch.equal(weight, draft.weights[name])
    assert component.exported()["head.weight"].shape == (100, 64)
    other = make_learnable(tmp_path / "other", seed=1)
    assert model_facts(other.checkpoint, other.model)["weights"] != draft.model["weights"]


def test_mistakes_are_named(learnable: Learnable, tmp_path: Path) -> None:
    data = write_data(learnable, tmp_path / "data")
    foreign = write_data(learnable, tmp_path / "foreign", tokenizer="another")
    empty = tmp_path / "empty"
    create_data(empty, {"tokenizer": "any"}, {})
    cases = [
        (OptionError, "unknown component 'eagle'", {"component": "eagle"}),
        (OptionError, "vocabulary has 1 ids", {"vocabulary_size": 1}),
        (DataError, "another tokenizer", {"data": foreign}),
        (DataError, "no data folder", {"data": tmp_path}),
        (DataError, "another tokenizer", {"data": empty}),
    ]
    for kind, message, changes in cases:
        with pytest.raises(kind, match=message):
            train(request_for(learnable, data, tmp_path / "out", **changes))
    with pytest.raises(TrainingError, match="holds no trained draft"):
        load_draft(tmp_path)


def test_damaged_drafts_are_refused(learnable: Learnable, tmp_path: Path) -> None:
    component = learnable.component("exit")
    facts = model_facts(learnable.checkpoint, learnable.model)
    save_draft(tmp_path, component, learnable.vocabulary, facts, {})
    description = json.loads((tmp_path / "draft.json").read_text())
    (tmp_path / "draft.json").write_text(json.dumps({**description, "version": 99}))
    with pytest.raises(TrainingError, match="version 99"):
        load_draft(tmp_path)
    (tmp_path / "draft.json").write_text(json.dumps({**description, "model": {**facts, "layers": 30}}))
    with pytest.raises(TrainingError, match="a model with layers 30, this one has 3"):
        restore(load_draft(tmp_path), learnable.model)
    size = os.path.getsize(tmp_path / "draft.safetensors")
    os.truncate(tmp_path / "draft.safetensors", size // 2)
    with pytest.raises(TrainingError, match="cannot be read"):
        load_draft(tmp_path)


def test_a_draft_can_be_trained_further(learnable: Learnable, tmp_path: Path) -> None:
    data = write_data(learnable, tmp_path / "data")
    train(request_for(learnable, data, tmp_path / "first"))
    still = Plan(epochs=0.1, rate=1e-12, rows=128, packs=2, every=1, bf16=False)
    again = request_for(learnable, data, tmp_path / "again", start_from=tmp_path / "first", plan=still)
    train(again)
    first, second = load_draft(tmp_path / "first"), load_draft(tmp_path / "again")
    for name, weight in first.weights.items():
        torch.testing.assert_close(second.weights[name], weight, atol=1e-3, rtol=1e-3)
    with pytest.raises(TrainingError, match="has another form"):
        train(replace(again, component="exit", output=tmp_path / "exit"))
    with pytest.raises(TrainingError, match=r"another (vocabulary|form)"):
        train(replace(again, vocabulary_size=90, output=tmp_path / "smaller"))


def test_other_weights_of_the_same_shape_are_tried(learnable: Learnable, tmp_path: Path) -> None:
    """A draft that is the model's own last layer: nearly as good for nearly the same weights, of no use to others."""
    model, source = learnable.model, Path(str(learnable.checkpoint.source))
    vocabulary = Vocabulary(np.arange(287, dtype=np.int32), 288)
    config = COMPONENTS["exit"].configure(model.config, vocabulary.size, {"after": 2, "form": "eesd"})
    draft = COMPONENTS["exit"](config, lend_rows(model, vocabulary, torch.device("cpu")))
    draft.layers[0].load_state_dict(model.layers[2].state_dict())
    draft.head_norm.weight.data.copy_(model.head.norm.weight)
    draft.other_head.data.zero_()
    folder = tmp_path / "draft"
    folder.mkdir()
    save_draft(folder, draft, vocabulary, model_facts(learnable.checkpoint, model), {})
    told: list[str] = []
    export_draft_folder(str(source), folder, tmp_path / "same", warn=told.append)
    assert not told
    for name, noise in (("near", 1e-3), ("far", 1.0)):
        shutil.copytree(source, tmp_path / name)
        weights = load_file(source / "model.safetensors")
        changed = {key: one + noise * one.std() * torch.randn_like(one) for key, one in weights.items()}
        save_file(changed, tmp_path / name / "model.safetensors")
    export_draft_folder(str(tmp_path / "near"), folder, tmp_path / "near-export", warn=told.append)
    (text,) = told
    found = re.search(r"(\d+)% of its first drafts on 4 prompts are right: (\d\.\d+) tokens a call", text)
    assert found is not None and int(found[1]) > 90 and float(found[2]) > 1.9
    with pytest.raises(TrainingError, match=r"costs more than it brings.*--start-from"):
        export_draft_folder(str(tmp_path / "far"), folder, tmp_path / "far-export", warn=told.append)
    assert len(told) == 1 and not (tmp_path / "far-export").exists()
