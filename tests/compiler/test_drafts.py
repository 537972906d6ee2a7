"""Draft components of every form, exported and compiled: right in ONNX Runtime's eyes, and exact in a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tiny_drafts import DRAFTS, TinyDraft, write_draft

from forerun.compiler import compile_export
from forerun.errors import RuntimeFailure
from forerun.export.check import compare_logits, random_rows, run_eager, run_oracle, tree_inputs
from forerun.export.oracle import Oracle
from forerun.export.signature import draft_form
from forerun.runtime.session import LoadedProgram, Session, Step

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


def one_by_one(session: Session, rows: Rows, path: list[int]) -> bytes:
    """The logits of the last row of a path, each row of which is run and committed alone."""
    seq = session.create_sequence()
    for at in path:
        logits = run(session, seq, taken(rows, at, at + 1))
        session.commit(seq, [0])
    session.release_sequence(seq)
    return logits.tobytes()


def random_parents(count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Mostly a chain, with branches anywhere."""
    return tuple(row - 1 if rng.random() < 0.6 else int(rng.integers(-1, row)) for row in range(count))


@pytest.mark.parametrize(("form", "quant"), [("feature-deep", "q4"), ("exit-full", "q4"), ("heads", "f32")])
def test_a_row_does_not_depend_on_what_shares_its_call(
    form: str, quant: str, compiled: Maker, rng: np.random.Generator
) -> None:
    """1 to 16 rows in a random tree, on one and two threads, on a team of its own and on another session's."""
    made = compiled(form, quant)
    rows = made.random_rows(16, rng)
    parents = random_parents(16, rng)
    with (
        Session(made.program, threads=1) as alone,
        Session(made.program, threads=2) as own,
        Session(made.program, team_of=own) as shared,
    ):
        expected = []
        for row in range(16):
            path = [row]
            while parents[path[0]] >= 0:
                path.insert(0, parents[path[0]])
            expected.append(one_by_one(alone, rows, path))
        for count in range(1, 17):
            for session in (alone, own, shared):
                seq = session.create_sequence()
                logits = run(session, seq, taken(rows, 0, count), parents[:count])
                assert [row.tobytes() for row in logits] == expected[:count]
                session.release_sequence(seq)


def test_commit_and_rewind_leave_what_one_by_one_would(compiled: Maker, rng: np.random.Generator) -> None:
    """A path of a tree is kept, more is drafted and dropped, and the cache goes on exactly."""
    made = compiled("feature-deep", "q4")
    rows = made.random_rows(10, rng)
    with Session(made.program, threads=2) as session, Session(made.program, threads=1) as alone:
        seq = session.create_sequence()
        run(session, seq, taken(rows, 0, 5), (-1, -1, 1, 0, 2))
        session.commit(seq, [1, 2, 4])
        run(session, seq, taken(rows, 5, 7))
        session.commit(seq, [0])
        run(session, seq, taken(rows, 6, 8))
        session.rewind(seq, 3)
        assert (session.length(seq), session.staged(seq)) == (3, 0)
        last = run(session, seq, taken(rows, 8, 9))[0]
        assert last.tobytes() == one_by_one(alone, rows, [1, 2, 4, 8])
        # Committed before they were computed: the next row takes them along.
        session.commit(seq, [0])
        session.commit(seq, stage(session, seq, taken(rows, 5, 7)))
        assert session.pending(seq) == 2
        result = session.forward([(seq, row) for row in stage(session, seq, taken(rows, 9, 10))])
        assert result.carried_rows == 2
        assert result.logits[0].tobytes() == one_by_one(alone, rows, [1, 2, 4, 8, 5, 6, 9])


@pytest.mark.parametrize("layer", range(3))
def test_each_head_is_used_alone(layer: int, compiled: Maker, rng: np.random.Generator) -> None:
    """One layer and the head on rows that enter there; with all layers in the way the row would be another."""
    made = compiled("heads", "f32")
    rows = made.random_rows(9, rng)
    network = made.draft.network
    with torch.no_grad():
        hidden = network.layers[layer].feed_forward(torch.from_numpy(rows["hidden"]))
        expected = network.head(hidden).numpy()
    step = Step("feed_forward", layer)
    with Session(made.program, threads=2) as session:
        seq = session.create_sequence()
        for start in (0, step.sublayer):
            staged = [(seq, row) for row in session.stage_hidden(seq, rows["hidden"], start=start)]
            found = session.forward(staged, steps=[step], taps=[layer])
            np.testing.assert_allclose(found.logits, expected, atol=1e-4)
            np.testing.assert_allclose(found.taps[layer], hidden.numpy(), atol=1e-4)
            session.commit(seq, [])


def test_a_draft_token_is_drawn_as_from_all_logits(compiled: Maker, rng: np.random.Generator) -> None:
    """The draft vocabulary is no multiple of a block of logits."""
    made = compiled("feature-deep", "q4")
    rows = made.random_rows(12, rng)
    sampling = {"temperature": 0.9, "top_k": 7, "top_p": 1.0, "seed": 5}
    with Session(made.program, threads=2) as session:
        seq = session.create_sequence()
        staged = [(seq, row) for row in stage(session, seq, rows)]
        drawn = [
            session.draw(row, position=at, **sampling)
            for at, row in enumerate(session.forward(staged, draws=True).drawable)
        ]
        session.commit(seq, [])
        logits = run(session, seq, rows)
        assert drawn == [session.sample(row, position=at, **sampling) for at, row in enumerate(logits)]


@pytest.mark.parametrize(
    ("form", "words"), [("feature", "comes with 128 features"), ("exit-full", "rows are hidden states")]
)
def test_tokens_alone_are_refused(form: str, words: str, compiled: Maker) -> None:
    with Session(compiled(form, "f32").program, threads=1) as session:
        seq = session.create_sequence()
        with pytest.raises(RuntimeFailure, match=words):
            session.stage(seq, [1])


def test_missing_parts_are_missing_in_the_program(compiled: Maker) -> None:
    source = (compiled("heads", "f32").program.path / "src" / "program.c").read_text()
    assert ".embed = " not in source
    assert ".feature_size = 0," in source
    assert "attention_step(const forerun_call *call, int32_t layer, int32_t tid) { (void)call" in source
    source = (compiled("feature", "f32").program.path / "src" / "program.c").read_text()
    assert ".feature_size = 128," in source
    assert source.count("call->features") == 1
