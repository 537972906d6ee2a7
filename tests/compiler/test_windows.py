"""Layers that see a window: a ring of the cache that has come round, and everything that goes back or aside there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from histories import append, check_history
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loop_helpers import RandomTrees
from tiny_models import VARIANTS, VOCABULARY_SIZE, write_folder

import forerun
from forerun.compiler import compile_export
from forerun.errors import OptionError, RuntimeFailure
from forerun.export import export_model
from forerun.models import Decoder, load_model
from forerun.runtime.model import Model
from forerun.runtime.session import LoadedProgram, Session

CONTEXT, WINDOW, RING = 2048, 24, 640
LAYERS, WINDOWED = 3, (0, 2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = {**VARIANTS["gemma3"], "max_position_embeddings": CONTEXT}
    return write_folder(tmp_path_factory.mktemp("windows") / "source", seed=11, **changes)


@pytest.fixture(scope="module")
def bundle(source: Path) -> Path:
    """In float32, so that the eager network is near."""
    export = export_model(source, source.parent / "export", "f32").directory
    compile_export(export, source.parent / "bundle", kv="f32")
    return source.parent / "bundle"


@pytest.fixture(scope="module")
def session(bundle: Path) -> Iterator[Session]:
    with Session(LoadedProgram(bundle), threads=2, sequences=3) as session:
        yield session


@pytest.fixture(scope="module")
def eager(source: Path) -> Decoder:
    return load_model(source)


@pytest.fixture(scope="module")
def model(bundle: Path) -> Iterator[Model]:
    with forerun.load(bundle, threads=2) as model:
        yield model


def test_a_ring_that_has_come_round_equals_the_eager_network(
    session: Session, eager: Decoder, rng: np.random.Generator
) -> None:
    """float32 throughout; sums over up to 1500 positions of softmax weights stay within some hundred roundings."""
    ids = rng.integers(0, VOCABULARY_SIZE, 1500)
    sequence = session.create_sequence()
    ours = append(session, sequence, ids.tolist(), pieces=int(rng.integers(100, 257)))
    session.release_sequence(sequence)
    with torch.no_grad():
        theirs = eager(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(ours, theirs, atol=3e-4)


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_happened_before_the_next_row_is_the_same(
    session: Session, tmp_path: Path, data: st.DataObject
) -> None:
    check_history(session, tmp_path, data)


def test_going_far_back_computes_anew_what_the_ring_has_lost(session: Session) -> None:
    ids = np.random.default_rng(3).integers(0, VOCABULARY_SIZE, 1000).tolist()
    sequence = session.create_sequence()
    append(session, sequence, ids)
    nearest = 1000 - RING + WINDOW - 1  # its window begins with the oldest position of the ring
    session.rewind(sequence, nearest)
    assert session.pending(sequence) == 0, "so far back everything is still there"
    session.rewind(sequence, nearest - 1)
    assert session.pending(sequence) == session.length(sequence) > 0
    session.release_sequence(sequence)


def test_rows_given_by_hidden_states_cannot_be_computed_anew(session: Session) -> None:
    sequence = session.create_sequence()
    rows = list(session.stage_hidden(sequence, np.ones((4, session.config.hidden_size), np.float32), start=2))
    session.commit(sequence, rows)
    for _ in range(4):
        more = list(session.stage_hidden(sequence, np.ones((256, 64), np.float32), start=2))
        session.commit(sequence, more)
    with pytest.raises(RuntimeFailure, match="row 0 was not given by its token"):
        session.rewind(sequence, 100)
    assert session.length(sequence) == 4 + 4 * 256, "what fails changes nothing"
    session.rewind(sequence, 0)
    session.release_sequence(sequence)


def test_more_staged_rows_than_a_ring_has_room_for_are_refused(session: Session) -> None:
    sequence = session.create_sequence()
    session.stage(sequence, [1] * 256)
    with pytest.raises((OptionError, RuntimeFailure), match=r"309 rows would be staged; .* allow 308"):
        session.stage(sequence, [1] * 53)
    session.release_sequence(sequence)


def test_keys_that_a_ring_has_lost_are_not_read(session: Session) -> None:
    sequence = session.create_sequence()
    append(session, sequence, [5] * 700)
    whole, _ = session.read_kv(sequence, 1, 0, 700)
    assert whole.shape[1] == 700, "the layer in between has no window"
    session.read_kv(sequence, 0, 700 - RING, 700)
    with pytest.raises(RuntimeFailure, match="slot 59 is gone, the oldest is 60"):
        session.read_kv(sequence, 0, 59, 700)
    session.release_sequence(sequence)


def test_layers_with_a_window_take_the_memory_of_a_ring(bundle: Path) -> None:
    with LoadedProgram(bundle) as program:
        of_a_slot = 2 * program.config.kv_heads * program.config.head_dim * 4
        assert program.cache_bytes() == (CONTEXT + len(WINDOWED) * RING) * of_a_slot
        assert program.cache_bytes(100) == LAYERS * 112 * of_a_slot, "rounded up to whole blocks of keys"
        with pytest.raises(OptionError, match="capacity is -1"):
            program.cache_bytes(-1)


@pytest.mark.parametrize("drafter", ["lookup:min_ngram=1,branches=2", "self:layers=2", "self:skip=a1+f0", 5])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_drafter_changes_a_token_beyond_the_window(
    model: Model, drafter: str | int, temperature: float, rng: np.random.Generator
) -> None:
    prompt = rng.integers(0, VOCABULARY_SIZE, int(rng.integers(600, 1400))).tolist()
    options = {"max_tokens": 40, "temperature": temperature, "seed": 3, "ignore_end": True}
    plain = model.generate(prompt, **options).complete()
    chosen = RandomTrees(drafter) if isinstance(drafter, int) else drafter
    assert model.generate(prompt, drafter=chosen, **options).complete().ids == plain.ids
