"""Drafts within a model's bundle: listed, loaded beside the model, and checked only when they are used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_drafts import DRAFT_VOCABULARY, FACTS, TinyDraft, write_draft
from tiny_models import write_folder

from forerun.__main__ import main
from forerun.cli.info import try_draft
from forerun.compiler import compile_export
from forerun.compiler.bundle import hash_file
from forerun.compiler.drafts import check_pairing
from forerun.compiler.schedules.tiling import Tiling
from forerun.errors import BundleError, CompileError, ForerunError, OptionError
from forerun.export import export_model
from forerun.runtime.bundle import read_bundle
from forerun.runtime.session import LoadedProgram, Session

# A matmul of both the model and its draft.
TUNED = "linear_symmetric8_64x96_add"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return export_model(write_folder(folder / "model", seed=5), folder / "export", "f32").directory


@pytest.fixture(scope="module")
def drafts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyDraft]:
    folder = tmp_path_factory.mktemp("drafts")
    return {form: write_draft(folder / form, form, seed=7) for form in ("heads", "exit-attention")}


@pytest.fixture(scope="module")
def bundle(model: Path, drafts: dict[str, TinyDraft], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two drafts; not to be changed."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    stages: list[tuple[str, float]] = []
    report = compile_export(
        model,
        folder,
        kv="f32",
        drafts={name: draft.directory for name, draft in drafts.items()},
        progress=lambda stage, done: stages.append((stage, done)),
    )
    assert report.bundle == folder
    assert {name: each.modules for name, each in report.drafts.items()} == {
        "heads": ("FeedForward", "Head"),
        "exit-attention": ("Attention", "Head"),
    }
    assert [done for _, done in stages] == sorted(done for _, done in stages)
    assert ("heads: importing", pytest.approx(0.05 / 3)) in stages
    return folder


@pytest.fixture
def own_bundle(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def test_a_bundle_lists_its_drafts(bundle: Path, drafts: dict[str, TinyDraft]) -> None:
    found = read_bundle(bundle).drafts
    assert list(found) == ["heads", "exit-attention"]
    heads = found["heads"]
    assert (heads.component, heads.taps, heads.layers, heads.sublayers) == (
        "heads",
        (1,),
        3,
        ("feed_forward",),
    )
    assert (heads.feature_size, heads.vocabulary_size, heads.other_id) == (0, DRAFT_VOCABULARY, 104)
    assert heads.model == FACTS
    assert heads.path == bundle / "drafts" / "heads"
    for name, draft in drafts.items():
        ids = found[name].read_vocabulary()
        assert ids.dtype == np.int32
        np.testing.assert_array_equal(ids, draft.vocabulary)
    inner = read_bundle(heads.path)
    assert inner.drafts == {}
    assert set(inner.files) == {"weights.bin", "vocabulary.bin", next(iter(inner.targets)).library}


def test_a_draft_runs_beside_the_model(bundle: Path, rng: np.random.Generator) -> None:
    """As it is used: the model's hidden states go into the draft, on one team."""
    path = read_bundle(bundle).drafts["exit-attention"].path
    with (
        Session(LoadedProgram(bundle), threads=2) as session,
        Session(LoadedProgram(path), team_of=session) as draft,
        Session(LoadedProgram(path), threads=1) as alone,
    ):
        seq, draft_seq, alone_seq = (each.create_sequence() for each in (session, draft, alone))
        for token in rng.integers(0, 288, 6):
            session.stage(seq, [int(token)])
            hidden = session.forward([(seq, 0)], taps=[1]).taps[1]
            session.commit(seq, [0])
            draft.stage_hidden(draft_seq, hidden)
            alone.stage_hidden(alone_seq, hidden)
            found = draft.forward([(draft_seq, 0)]).logits
            assert found.shape == (1, DRAFT_VOCABULARY)
            assert found.tobytes() == alone.forward([(alone_seq, 0)]).logits.tobytes()
            draft.commit(draft_seq, [0])
            alone.commit(alone_seq, [0])


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def change_vocabulary(folder: Path) -> None:
    data = bytearray((folder / "vocabulary.bin").read_bytes())
    data[0] ^= 1
    (folder / "vocabulary.bin").write_bytes(data)


def cut_weights(folder: Path) -> None:
    (folder / "weights.bin").write_bytes((folder / "weights.bin").read_bytes()[:-64])


@pytest.mark.parametrize(
    ("damage", "word"),
    [(remove, "drafts/heads"), (change_vocabulary, "vocabulary.bin"), (cut_weights, "weights.bin")],
)
def test_a_damaged_draft_spoils_only_itself(
    own_bundle: Path, damage: Callable[[Path], None], word: str
) -> None:
    info = read_bundle(own_bundle).drafts["heads"]
    damage(info.path)
    LoadedProgram(own_bundle).close()
    LoadedProgram(read_bundle(own_bundle).drafts["exit-attention"].path).close()
    with pytest.raises(BundleError, match=word):
        LoadedProgram(info.path)
    assert word in (try_draft(info).obstacle or "")


def test_a_vocabulary_of_another_size_is_refused(own_bundle: Path) -> None:
    info = read_bundle(own_bundle).drafts["heads"]
    (info.path / "vocabulary.bin").write_bytes(b"\0" * 4)
    with pytest.raises(BundleError, match="has 4 bytes, the manifest says 416"):
        info.read_vocabulary()
    (info.path / "vocabulary.bin").unlink()
    with pytest.raises(BundleError, match="cannot read"):
        info.read_vocabulary()


@pytest.mark.parametrize("path", ["../outside", "/etc"])
def test_a_draft_outside_the_bundle_is_refused(own_bundle: Path, path: str) -> None:
    text = (own_bundle / "manifest.json").read_text()
    (own_bundle / "manifest.json").write_text(text.replace('"drafts/heads"', f'"{path}"'))
    with pytest.raises(BundleError, match="outside the bundle"):
        read_bundle(own_bundle)


def test_info_lists_drafts(own_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(own_bundle), "--json"]) == 0
    heads, exits = json.loads(capsys.readouterr().out)["drafts"]
    assert (heads["component"], heads["taps"], heads["vocabulary_size"]) == ("heads", [1], DRAFT_VOCABULARY)
    files = read_bundle(own_bundle / "drafts" / "heads").files
    assert heads["bytes"] == sum((own_bundle / "drafts" / "heads" / name).stat().st_size for name in files)
    assert (exits["name"], exits["obstacle"]) == ("exit-attention", None)
    cut_weights(own_bundle / "drafts" / "heads")
    assert main(["info", str(own_bundle)]) == 0
    table = capsys.readouterr().out
    assert "exit-attention" in table
    assert "runs here" in table
    assert "weights.bin has" in " ".join(table.split())


def test_the_vocabulary_is_vouched_for(bundle: Path) -> None:
    folder = read_bundle(bundle).drafts["heads"].path
    listed = json.loads((folder / "manifest.json").read_text())["manifest"]["files"]["vocabulary.bin"]
    assert listed == {"bytes": 4 * 104, "xxh64": hash_file(folder / "vocabulary.bin")}


PAIRINGS = [
    ({"model_layers": 30}, {}, r"layers 30, .* has 2"),
    ({"model_vocabulary_size": 300}, {}, "vocabulary_size 300, .* has 288"),
    ({}, {"hidden_size": 128}, "hidden_size 64, .* has 128"),
]


@pytest.mark.parametrize(("of_draft", "of_model", "words"), PAIRINGS)
def test_a_draft_of_another_model_is_refused(
    of_draft: dict[str, Any], of_model: dict[str, Any], words: str, model: Path, drafts: dict[str, TinyDraft]
) -> None:
    draft = json.loads((drafts["heads"].directory / "export.json").read_text())
    settings = json.loads((model / "export.json").read_text())
    check_pairing(draft, settings)
    draft["draft"] |= of_draft
    settings["config"] |= of_model
    with pytest.raises(CompileError, match=words):
        check_pairing(draft, settings)


def test_what_cannot_be_put_in_a_bundle(model: Path, drafts: dict[str, TinyDraft], tmp_path: Path) -> None:
    other = write_draft(tmp_path / "other", "heads", model_layers=5).directory
    heads = drafts["heads"].directory
    before = {path.name for path in tmp_path.iterdir()}
    cases: list[tuple[type[ForerunError], str, Path, dict[str, Path]]] = [
        (CompileError, "layers 5, model has 2", model, {"a": other}),
        (CompileError, "not a draft component", model, {"a": model}),
        (CompileError, "is no export", model, {"a": tmp_path / "nowhere"}),
        (CompileError, "is a draft component itself", heads, {"a": heads}),
        (OptionError, "cannot be called '../up'", model, {"../up": heads}),
        (OptionError, "cannot be called ''", model, {"": heads}),
    ]
    for kind, words, export, given in cases:
        with pytest.raises(kind, match=words):
            compile_export(export, tmp_path / "bundle", drafts=given)
        assert {path.name for path in tmp_path.iterdir()} == before


def test_tuned_numbers_are_for_drafts_too(tmp_path: Path) -> None:
    draft = write_draft(tmp_path / "draft", "heads", "q8")
    tiling = Tiling(tile_rows=2, prefetch_bytes=256)
    report = compile_export(draft.directory, tmp_path / "bundle", tuned={TUNED: tiling})
    assert report.tuned == (TUNED,)
    kernels = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["manifest"]["kernels"]
    assert {name for name, entry in kernels.items() if entry["tuned"]} == {TUNED}
    assert kernels[TUNED]["tile_rows"] == 2
