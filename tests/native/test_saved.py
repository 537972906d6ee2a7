"""Sequences in files: what comes back bit for bit (random walks with it are in test_state_machine.py), and every way in
which a file can be bad."""

import resource
import shutil
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import Reference, assert_cache, assert_same, prefill
from tiny_model import CONTEXT, LAYERS, MAX_ROWS, VOCABULARY, compile_program, make_bundle, make_weights
from xxhash import xxh64_intdigest

from forerun.errors import ContextFullError, ForerunError, OutputError, RuntimeFailure, SavedSequenceError
from forerun.runtime.library import Status
from forerun.runtime.session import LoadedProgram, Session, full_steps

STEPS = full_steps(LAYERS)
HEADER, ROW, CHECKSUM = 104, 12, 8
PIECE = 1 << 20


def seal(body: bytes) -> bytes:
    """`body` with the checksum that vouches for it."""
    digest = 0
    for at in range(0, len(body), PIECE):
        digest = xxh64_intdigest(body[at : at + PIECE], seed=digest)
    return body + struct.pack("<Q", digest)


def refused(*statuses: Status) -> pytest.RaisesExc[SavedSequenceError]:
    return pytest.raises(SavedSequenceError, check=lambda error: error.status in statuses)


def fill(session: Session, token_ids: list[int]) -> int:
    sequence = session.create_sequence()
    for at in range(0, len(token_ids), MAX_ROWS):
        prefill(session, sequence, token_ids[at : at + MAX_ROWS])
    return sequence


@pytest.fixture
def saved(program: LoadedProgram, tmp_path: Path) -> Path:
    """Five rows, the last two below full depth."""
    session = Session(program, threads=1)
    sequence = fill(session, [3, 5, 7])
    for depth, token_id in ((3, 1), (2, 2)):
        session.stage(sequence, [token_id])
        session.forward([(sequence, 0)], steps=STEPS[:depth], logits=())
        session.commit(sequence, [0])
    session.save(sequence, tmp_path / "saved")
    return tmp_path / "saved"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(token_ids=st.lists(st.integers(0, VOCABULARY - 1), max_size=CONTEXT - 1), next_id=st.integers(0, 36))
def test_any_length_comes_back(
    any_program: LoadedProgram, reference: Reference, tmp_path: Path, token_ids: list[int], next_id: int
) -> None:
    """In a session of another capacity, with other threads and rows of another sequence before."""
    path = tmp_path / "saved"
    session = Session(any_program, capacity=CONTEXT, threads=1)
    sequence = fill(session, token_ids)
    session.save(sequence, path)
    other = Session(any_program, sequences=2, capacity=len(token_ids) + 1, threads=2)
    other.create_sequence()
    restored = other.restore(path)
    assert (other.length(restored), other.pending(restored)) == (len(token_ids), 0)
    assert other.token_ids(restored) == token_ids
    for layer in range(LAYERS):
        pairs = zip(
            session.read_kv(sequence, layer, 0, len(token_ids)),
            other.read_kv(restored, layer, 0, len(token_ids)),
            strict=True,
        )
        for left, right in pairs:
            assert_same(left, right)
    assert_same(prefill(other, restored, [next_id])[0], reference.logits([*token_ids, next_id]))
    other.save(restored, tmp_path / "again")
    assert path.read_bytes() != (tmp_path / "again").read_bytes()  # one row more
    other.rewind(restored, len(token_ids))
    other.save(restored, tmp_path / "again")
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


def test_a_file_holds_what_its_format_says(saved: Path) -> None:
    data = saved.read_bytes()
    version, order, size = struct.unpack_from("<IIQ", data, 8)
    assert data[:8] == b"forerun\n" and (version, order, size) == (1, 0x01020304, len(data))
    rows = np.frombuffer(data, "<i4", 15, HEADER).reshape(5, 3)
    assert rows.tolist() == [[3, 0, 6], [5, 0, 6], [7, 0, 6], [1, 0, 3], [2, 0, 2]]
    hidden, cells = 2 * 12 * 4, sum(n * heads * 2 * 3 * 4 for n, heads in ((5, 2), (4, 1), (3, 2)))
    assert len(data) == HEADER + 5 * ROW + hidden + cells + CHECKSUM
    assert data == seal(data[:-CHECKSUM])


def test_pending_rows_are_carried_as_if_never_saved(
    program: LoadedProgram, saved: Path, tiny_bundle: Path
) -> None:
    session = Session(program, sequences=2, threads=2)
    restored = session.restore(saved)
    assert session.pending(restored) == 2
    assert [session.row_depth(restored, slot) for slot in range(5)] == [6, 6, 6, 3, 2]
    truth = Reference(LoadedProgram(tiny_bundle))
    session.stage(restored, [9])
    result = session.forward([(restored, 0)])
    assert result.carried_rows == 2
    assert_same(result.logits[0], truth.logits([3, 5, 7, 1, 2, 9]))
    session.commit(restored, [0])
    assert_cache(session, restored, [3, 5, 7, 1, 2, 9], truth)


def test_rows_given_by_hidden_states_come_back(program: LoadedProgram, tmp_path: Path) -> None:
    session = Session(program, sequences=3, threads=1)
    sequence = session.create_sequence()
    states = np.random.default_rng(1).normal(size=(2, 12)).astype(np.float32)
    session.stage_hidden(sequence, states, start=2)
    session.commit(sequence, [0, 1])
    session.save(sequence, tmp_path / "saved")
    pair = (sequence, session.restore(tmp_path / "saved"))
    assert session.token_ids(pair[1]) == [-1, -1]
    for number in pair:
        session.stage_hidden(number, states[:1], start=2)
    result = session.forward([(number, 0) for number in pair])
    assert_same(result.logits[0].copy(), result.logits[1].copy())
    session.stage(pair[1], [1])
    with pytest.raises(RuntimeFailure, check=lambda error: error.status == Status.NOT_COMPUTED):
        session.forward([(pair[1], 1)])


def test_features_that_wait_come_back(tmp_path: Path) -> None:
    library = compile_program(tmp_path / "features.so", "-DTINY_FEATURES=5")
    program = LoadedProgram(make_bundle(tmp_path / "bundle", library, make_weights()))
    session = Session(program, sequences=2, threads=1)
    sequence = session.create_sequence()
    features = np.random.default_rng(2).normal(size=(6, 5)).astype(np.float32)
    session.stage(sequence, [1, 2, 3, 4], features=features[:4])
    session.forward([(sequence, 0), (sequence, 1)])
    session.commit(sequence, [0, 1, 2, 3])
    session.save(sequence, tmp_path / "saved")
    pair = (sequence, session.restore(tmp_path / "saved"))
    assert session.pending(pair[1]) == 2
    for number in pair:
        session.stage(number, [5, 6], features=features[4:])
    rows = [(number, row) for row in range(2) for number in pair]
    first, second, third, fourth = session.forward(rows).logits.copy()
    assert_same(first, second)
    assert_same(third, fourth)


# ---- bad files ----


def test_every_cut_is_noticed(program: LoadedProgram, saved: Path) -> None:
    session, data = Session(program, threads=1), saved.read_bytes()
    for length in range(len(data)):
        saved.write_bytes(data[:length])
        with refused(Status.SIZE):
            session.restore(saved)
    saved.write_bytes(data + b"\0")
    with refused(Status.SIZE):
        session.restore(saved)


def test_every_changed_byte_is_noticed(program: LoadedProgram, saved: Path) -> None:
    session, data = Session(program, threads=1), saved.read_bytes()
    for at in range(len(data)):
        saved.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        with pytest.raises(ForerunError) as raised:
            session.restore(saved)
        assert isinstance(raised.value, SavedSequenceError | ContextFullError), at
    assert session.create_sequence() == 0  # no failure kept one


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.integers(0, (HEADER + 5 * ROW) // 4 - 1), st.integers(-(2**31), 2**31 - 1)),
        min_size=1,
        max_size=4,
    )
)
def test_a_vouched_for_file_is_sound_or_refused(
    program: LoadedProgram, saved: Path, changes: list[tuple[int, int]]
) -> None:
    """Numbers of header and rows replaced under a right checksum: nothing that comes through is outside its bounds."""
    session, data = Session(program, sequences=2, threads=1), bytearray(saved.read_bytes()[:-CHECKSUM])
    for place, value in changes:
        struct.pack_into("<i", data, 4 * place, value if place % 2 else value % 9)
    path = saved.with_name("changed")
    path.write_bytes(seal(bytes(data)))
    try:
        restored = session.restore(path)
    except (SavedSequenceError, ContextFullError):
        return
    assert all(-1 <= token_id < VOCABULARY for token_id in session.token_ids(restored))
    assert session.stage(restored, [1]) == range(1)
    try:
        assert np.isfinite(session.forward([(restored, 0)]).logits).all()
    except RuntimeFailure as error:
        assert error.status == Status.NOT_COMPUTED  # above a row given by its hidden state


@pytest.mark.parametrize(
    ("offset", "form", "value", "status", "words"),
    (
        (0, "8s", b"notes.md", Status.SAVED, "does not begin as one"),
        (8, "<I", 2, Status.VERSION, "has format version 2, this forerun reads version 1"),
        (12, "<I", 0x04030201, Status.SAVED, "of the other byte order"),
        (16, "<Q", 2**63, Status.SIZE, "its header says 9223372036854775808"),
        (24, "<Q", 1, Status.SAVED, "with another bundle"),
        (32, "5s", b"other", Status.SAVED, "for target other, this one is for tiny"),
        (96, "<i", -1, Status.SAVED, "broken header"),
        (HEADER, "<i", VOCABULARY, Status.SAVED, "row that cannot be"),
        (HEADER, "<i", -2, Status.SAVED, "row that cannot be"),
        (HEADER + 4, "<i", 1, Status.SAVED, "row that cannot be"),
        (HEADER + 8, "<i", 7, Status.SAVED, "row that cannot be"),
        (HEADER + 8, "<i", 5, Status.SAVED, "row that cannot be"),  # rows after it went further
        (HEADER + 4 * ROW + 8, "<i", 3, Status.SAVED, "size that its rows do not make"),
    ),
)
def test_what_is_wrong_is_said(
    program: LoadedProgram, saved: Path, offset: int, form: str, value: object, status: Status, words: str
) -> None:
    data = bytearray(saved.read_bytes()[:-CHECKSUM])
    struct.pack_into(form, data, offset, value)
    saved.write_bytes(seal(bytes(data)))
    with refused(status) as raised:
        Session(program, threads=1).restore(saved)
    assert words in str(raised.value) and str(saved) in str(raised.value)


def test_files_of_other_models_are_refused(
    program: LoadedProgram, half_bundle: Path, saved: Path, own_bundle: Path, tmp_path: Path
) -> None:
    with refused(Status.SAVED):
        Session(LoadedProgram(half_bundle), threads=1).restore(saved)
    Session(LoadedProgram(own_bundle), threads=1).restore(saved)  # a copy of the bundle is the same
    library = compile_program(tmp_path / "tiny.so")
    other = make_bundle(tmp_path / "other", library, make_weights(seed=1))
    with refused(Status.SAVED):
        Session(LoadedProgram(other), threads=1).restore(saved)


def test_there_has_to_be_room(program: LoadedProgram, saved: Path) -> None:
    with pytest.raises(ContextFullError, match="holds 5 positions, a sequence of this session 4"):
        Session(program, capacity=4, threads=1).restore(saved)
    session = Session(program, capacity=5, threads=1)
    session.restore(saved)
    with pytest.raises(RuntimeFailure, check=lambda error: error.status == Status.NO_SEQUENCE):
        session.restore(saved)


@pytest.mark.parametrize("make", (Path.mkdir, lambda path: __import__("os").mkfifo(path), None))
def test_what_is_no_file_is_refused(
    program: LoadedProgram, tmp_path: Path, make: Callable[[Path], None] | None
) -> None:
    if make is not None:
        make(tmp_path / "thing")
    with refused(Status.FILE):
        Session(program, threads=1).restore(tmp_path / "thing")


# ---- writing ----


def test_a_full_disk_leaves_the_old_file(program: LoadedProgram, saved: Path) -> None:
    """The system's limit on file sizes stands in for the end of the disk."""
    before, session = saved.read_bytes(), Session(program, threads=1)
    sequence = fill(session, list(range(30)))
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for most in (0, 1000, 3000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            with pytest.raises(OutputError, match=f"cannot write {saved}: File too large"):
                session.save(sequence, saved)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    session.save(sequence, saved)
    assert saved.read_bytes() != before


def test_it_is_written_for_its_owner_only_and_where_it_can_be(program: LoadedProgram, saved: Path) -> None:
    assert saved.stat().st_mode & 0o777 == 0o600
    session = Session(program, threads=1)
    sequence = fill(session, [1])
    with pytest.raises(OutputError, match="Not a directory"):
        session.save(sequence, saved / "below" / "file")
    shutil.copytree(saved.parent, saved.parent / "folder")
    with pytest.raises(OutputError, match="cannot write"):
        session.save(sequence, saved.parent / "folder")
    assert sorted(path.name for path in saved.parent.iterdir()) == ["folder", saved.name]
