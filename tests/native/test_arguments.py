"""Every argument is checked, and a call that is refused changes nothing."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Reference, assert_cache, prefill
from tiny_model import CONTEXT, LAYERS, MAX_GATHER, MAX_ROWS, VOCABULARY

from forerun.errors import ContextFullError, ForerunError, OptionError, RuntimeFailure
from forerun.runtime.library import Status, load_library
from forerun.runtime.session import LoadedProgram, Session, Step

PROMPT = (3, 5, 7)


@pytest.fixture
def session(program: LoadedProgram) -> Session:
    return Session(program, sequences=2, capacity=20, threads=1)


@pytest.fixture
def sequence(session: Session) -> int:
    """A sequence with three committed positions and two staged rows."""
    number = session.create_sequence()
    prefill(session, number, PROMPT)
    session.stage(number, [1, 2])
    return number


BAD_CALLS: dict[str, Callable[[Session], object]] = {
    "sequence -1": lambda s: s.stage(-1, [1]),
    "sequence not created": lambda s: s.stage(1, [1]),
    "sequence beyond": lambda s: s.length(2),
    "no tokens": lambda s: s.stage(0, []),
    "token -1": lambda s: s.stage(0, [-1]),
    "token beyond": lambda s: s.stage(0, [VOCABULARY]),
    "token of 64 bits": lambda s: s.stage(0, [2**32 + 1]),
    "parent itself": lambda s: s.stage(0, [1], [2]),
    "parent later": lambda s: s.stage(0, [1, 1], [3, -1]),
    "parent -2": lambda s: s.stage(0, [1], [-2]),
    "too few parents": lambda s: s.stage(0, [1, 2], [-1]),
    "branch too long": lambda s: s.stage(0, [1] * (MAX_GATHER + 1), [-1, *range(2, MAX_GATHER + 2)]),
    "hidden of another size": lambda s: s.stage_hidden(0, np.zeros((1, 5), np.float32)),
    "hidden at no sublayer": lambda s: s.stage_hidden(0, np.zeros((1, 12), np.float32), start=2 * LAYERS),
    "no rows": lambda s: s.forward([]),
    "too many rows": lambda s: s.forward([(0, 0)] * (MAX_ROWS + 1)),
    "row not staged": lambda s: s.forward([(0, 2)]),
    "row -1": lambda s: s.forward([(0, -1)]),
    "row of no sequence": lambda s: s.forward([(1, 0)]),
    "row twice": lambda s: s.forward([(0, 0), (0, 0)]),
    "row that is no pair": lambda s: s.forward([(0, 0, 0)]),  # type: ignore[list-item]
    "layer beyond": lambda s: s.forward([(0, 0)], steps=[Step("attention", LAYERS)]),
    "layer -1": lambda s: s.forward([(0, 0)], steps=[Step("attention", -1)]),
    "logits of no row": lambda s: s.forward([(0, 0)], logits=[1]),
    "more logits than rows": lambda s: s.forward([(0, 0)], logits=[0, 0]),
    "tap of no layer": lambda s: s.forward([(0, 0)], taps=[LAYERS]),
    "path of no row": lambda s: s.commit(0, [2]),
    "path that does not start at a root": lambda s: s.commit(0, [1]),
    "path that goes back": lambda s: s.commit(0, [0, 0]),
    "rewind beyond": lambda s: s.rewind(0, 4),
    "rewind below": lambda s: s.rewind(0, -1),
    "keys of no layer": lambda s: s.read_kv(0, LAYERS, 0, 1),
    "keys of slots beyond": lambda s: s.read_kv(0, 0, 0, 6),
    "keys backwards": lambda s: s.read_kv(0, 0, 2, 1),
    "keys not computed": lambda s: s.read_kv(0, 0, 3, 4),
    "depth of no slot": lambda s: s.row_depth(0, 5),
    "logits of another size": lambda s: s.sample(
        np.zeros(3, np.float32), temperature=0, top_k=0, top_p=1, seed=0, position=0
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_call_changes_nothing(session: Session, sequence: int, program: LoadedProgram, name: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        BAD_CALLS[name](session)
    assert len(str(caught.value)) > 15
    assert (session.length(sequence), session.staged(sequence), session.pending(sequence)) == (3, 2, 0)
    reference = Reference(program)
    assert_cache(session, sequence, PROMPT, reference)
    logits = session.forward([(sequence, 0), (sequence, 1)]).logits
    assert np.array_equal(logits[1], reference.logits([*PROMPT, 1, 2]))


def test_capacity_is_a_limit_and_the_way_on_is_open(session: Session) -> None:
    number = session.create_sequence()
    for _ in range(2):
        prefill(session, number, [1] * 9)
    session.stage(number, [1])
    with pytest.raises(
        ContextFullError, match="18 positions are committed and 1 rows staged, 2 more"
    ) as caught:
        session.stage(number, [2, 3])
    assert caught.value.status == Status.CONTEXT_FULL
    session.stage(number, [2])
    with pytest.raises(ContextFullError):
        session.stage(number, [2])
    session.commit(number, [0, 1])
    assert session.length(number) == 20
    with pytest.raises(ContextFullError):
        session.stage(number, [2])
    session.rewind(number, 5)
    session.stage(number, [2])


def test_positions_end_with_the_models_context(program: LoadedProgram) -> None:
    session = Session(program, capacity=CONTEXT + 50, threads=1)
    number = session.create_sequence()
    for at in range(0, CONTEXT - 2, 6):
        prefill(session, number, [1] * min(6, CONTEXT - 2 - at))
    session.stage(number, [1, 2, 3, 4], [-1, 0, -1, 2])
    with pytest.raises(ContextFullError, match=f"context length of {CONTEXT}"):
        session.stage(number, [5], [3])
    session.forward([(number, 1), (number, 3)])


def test_all_sequences_in_use(session: Session) -> None:
    numbers = {session.create_sequence(), session.create_sequence()}
    assert numbers == {0, 1}
    for call in (session.create_sequence, lambda: session.fork(0)):
        with pytest.raises(RuntimeFailure, match="all 2 sequences") as caught:
            call()
        assert caught.value.status == Status.NO_SEQUENCE
    session.release_sequence(0)
    assert session.create_sequence() == 0
    assert session.length(0) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"sequences": 0},
        {"sequences": 1 << 20},
        {"capacity": 0},
        {"capacity": 1 << 30},
        {"threads": 0},
        {"threads": 9999},
    ],
)
def test_bad_session_options(program: LoadedProgram, options: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        Session(program, **options)  # type: ignore[arg-type]


def test_more_memory_than_there_is(program: LoadedProgram) -> None:
    with pytest.raises(ForerunError, match=r"no memory for .* use fewer sequences"):
        Session(program, sequences=1 << 16, capacity=1 << 26)


def test_null_pointers_are_refused() -> None:
    library = load_library()
    pointer = ctypes.c_void_p()
    assert library.forerun_bundle_open(None, None, ctypes.byref(pointer)) == Status.INVALID_ARGUMENT
    assert library.forerun_session_create(None, None, ctypes.byref(pointer)) == Status.INVALID_ARGUMENT
    assert library.forerun_sequence_create(None, None) == Status.INVALID_ARGUMENT
    assert library.forerun_forward(None, None, None) == Status.INVALID_ARGUMENT
    assert b"session is NULL" in library.forerun_last_error()
    library.forerun_bundle_release(None)
    library.forerun_session_release(None)


def test_statuses_are_those_of_the_header() -> None:
    import re

    from tiny_model import ROOT

    header = (ROOT / "runtime/native/include/forerun/forerun.h").read_text(encoding="utf-8")
    enumeration = header.split("typedef enum forerun_status")[1].split("} forerun_status")[0]
    listed = dict(re.findall(r"  FORERUN_(\w+) = (\d+)", enumeration))
    assert {name: int(value) for name, value in listed.items()} == {s.name: s.value for s in Status}


@settings(deadline=None)
@given(data=st.binary(max_size=200), seed=st.integers(0, 2**64 - 1))
def test_hash64_is_xxh64(data: bytes, seed: int) -> None:
    assert load_library().forerun_hash64(data, len(data), seed) == xxhash.xxh64_intdigest(data, seed)
