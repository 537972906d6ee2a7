"""Draft components of every form, exported and compiled: right in ONNX Runtime's eyes, and exact in a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from tiny_drafts import DRAFTS, TinyDraft, write_draft

from forerun.compiler import compile_export
from forerun.export.check import compare_logits, random_rows, run_eager, run_oracle, tree_inputs
from forerun.export.oracle import Oracle
from forerun.export.signature import draft_form
from forerun.runtime.session import LoadedProgram, Session

TREE = (-1, 0, 0, 1, 3, 2, -1)
PROMPT = 21

Rows = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Compiled:
    """A draft and its bundle, opened."""

    draft: TinyDraft
    program: LoadedProgram

    def random_rows(self, count: int, rng: np.random.Generator) -> Rows:
        return random_rows(draft_form(self.draft.network.config), count, rng)


Maker = Callable[[str, str], Compiled]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """A function (form, quantization) → a random draft, compiled once; float32 with a float32 cache."""
    root, made = tmp_path_factory.mktemp("drafts"), {}

    def make(form: str, quant: str) -> Compiled:
        if (form, quant) not in made:
            draft = write_draft(root / f"{form}-{quant}", form, quant, seed=len(made))
            bundle = root / f"{form}-{quant}-bundle"
            compile_export(draft.directory, bundle, kv="f32" if quant == "f32" else "f16")
            made[form, quant] = Compiled(draft, LoadedProgram(bundle))
        return made[form, quant]

    return make


def taken(rows: Rows, start: int, stop: int) -> Rows:
    return {name: array[start:stop] for name, array in rows.items()}


def stage(session: Session, seq: int, rows: Rows, parents: tuple[int, ...] | None = None) -> list[int]:
    """Stage rows of whatever kind the network has."""
    if "hidden" in rows:
        return list(session.stage_hidden(seq, rows["hidden"], parents=parents))
    return list(session.stage(seq, rows["token_ids"].tolist(), parents, rows["features"]))


def run(session: Session, seq: int, rows: Rows, parents: tuple[int, ...] | None = None) -> np.ndarray:
    """The logits of rows that are staged and left so."""
    return session.forward([(seq, row) for row in stage(session, seq, rows, parents)]).logits.copy()


def through_session(program: LoadedProgram, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The logits of PROMPT rows and of a tree after them."""
    with Session(program, threads=2) as session:
        seq = session.create_sequence()
        first = run(session, seq, taken(rows, 0, PROMPT))
        session.commit(seq, range(PROMPT))
        return first, run(session, seq, taken(rows, PROMPT, PROMPT + len(TREE)), TREE)


def through_onnx_runtime(draft: TinyDraft, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The same."""
    oracle = Oracle(draft.directory)
    first = run_oracle(oracle, taken(rows, 0, PROMPT))
    positions, mask = tree_inputs(TREE, PROMPT)
    tree = taken(rows, PROMPT, PROMPT + len(TREE))
    return first.logits, run_oracle(oracle, tree, positions, mask, first.present).logits


@pytest.mark.parametrize("form", DRAFTS)
def test_every_form_equals_onnx_runtime_and_the_eager_network(
    form: str, compiled: Maker, rng: np.random.Generator
) -> None:
    """float32 throughout: sums over 128 products at most, so 1e-4 is a hundred roundings."""
    made = compiled(form, "f32")
    assert compare_logits(made.draft.network, Oracle(made.draft.directory)).largest < 1e-4
    rows = made.random_rows(PROMPT + len(TREE), rng)
    ours, theirs = through_session(made.program, rows), through_onnx_runtime(made.draft, rows)
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    eager = run_eager(made.draft.network, taken(rows, 0, PROMPT)).logits.numpy()
    np.testing.assert_allclose(ours[0], eager, atol=1e-4)


@pytest.mark.parametrize(("form", "quant"), [("feature", "q8"), ("feature-deep", "q4"), ("exit-full", "q4")])
def test_quantized_drafts_stay_near_onnx_runtime(
    form: str, quant: str, compiled: Maker, rng: np.random.Generator
) -> None:
    """int8 activations are off by up to 1/254 of the largest of 16: some per cent of a random draft's logits."""
    made = compiled(form, quant)
    rows = made.random_rows(PROMPT + len(TREE), rng)
    ours, theirs = through_session(made.program, rows), through_onnx_runtime(made.draft, rows)
    for found, expected in zip(ours, theirs, strict=True):
        assert np.sqrt(((found - expected) ** 2).mean()) / expected.std() < 0.05
