"""Profiles: a thread's times add up to the forward's, kernels run where they should, and results stay the same."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from reference import prefill
from tiny_model import CONTEXT, HIDDEN, LAYERS, VOCABULARY, compile_program, make_bundle, make_weights

from forerun.errors import BundleError, RuntimeFailure
from forerun.runtime.library import Status
from forerun.runtime.profile import Kernel, Times
from forerun.runtime.session import LoadedProgram, Session, full_steps

MODULES = (
    *("embed", "attention", "attention", "attention", "feed_forward", "feed_forward", "head"),
    *("head_maxima", "head_blocks"),
)


@pytest.fixture(params=[1, 2, 3])
def session(request: pytest.FixtureRequest, program: LoadedProgram) -> Iterator[Session]:
    with Session(program, threads=request.param) as session:
        yield session


def thread_sums_ns(times: Times) -> list[int]:
    """The nanoseconds of each thread, all of them."""
    total = times.ran_ms.sum(axis=(1, 2)) + times.waited_ms.sum(axis=(1, 2)) + times.core_ms
    return [round(value * 1e6) for value in total]


def test_every_threads_times_add_up_to_the_forward(session: Session) -> None:
    """No tolerance is needed: the core cuts each thread's time without gaps, from just before the clock that
    `elapsed_ms` comes from is read until just after, and all of it lies within the call as Python sees it."""
    sequence = session.create_sequence()
    with session.profiler() as profiler:
        for token in range(20):
            session.stage(sequence, [token, token + 1])
            before = time.perf_counter_ns()
            result = session.forward([(sequence, 0), (sequence, 1)])
            outside_ns = time.perf_counter_ns() - before
            sums = thread_sums_ns(profiler.read())
            session.commit(sequence, [0])
            assert len(sums) == session.threads
            assert len(set(sums)) == 1
            assert result.elapsed_ms * 1e6 - 1 <= sums[0] <= outside_ns


def test_kernels_run_in_their_layers(session: Session) -> None:
    sequence = session.create_sequence()
    with session.profiler() as profiler:
        prefill(session, sequence, [1, 2, 3])
        times = profiler.read()
    assert tuple(kernel.module for kernel in profiler.kernels) == MODULES
    assert times.ran_ms.shape == times.waited_ms.shape == (session.threads, LAYERS, len(MODULES))
    runs = times.ran_ms.sum(axis=0) > 0
    for index, module in enumerate(MODULES):
        layers = {"embed": 1, "head": 1, "head_maxima": 0, "head_blocks": 0}.get(module, LAYERS)
        assert runs[:, index].sum() == layers
        assert runs[0, index] == (layers > 0)
    assert np.all(times.core_ms > 0)


def test_only_the_steps_that_run_are_timed(session: Session) -> None:
    sequence = session.create_sequence()
    with session.profiler() as profiler:
        session.stage(sequence, [1])
        session.forward([(sequence, 0)], steps=full_steps(LAYERS)[:3], logits=())
        runs = profiler.read().ran_ms.sum(axis=0) > 0
    by_layer = [[MODULES[index] for index in np.flatnonzero(row)] for row in runs]
    assert by_layer == [list(MODULES[:6]), list(MODULES[1:4]), []]


def test_drawing_is_no_part_of_a_forward(session: Session) -> None:
    """A forward whose rows are only drawn from runs the maxima; computing blocks for a draw leaves it alone."""
    sequence = session.create_sequence()
    with session.profiler() as profiler:
        session.stage(sequence, [3])
        (row,) = session.forward([(sequence, 0)], draws=True).drawable
        before = profiler.read()
        session.draw(row, temperature=0.0, top_k=0, top_p=1.0, seed=0, position=1)
        after = profiler.read()
    assert thread_sums_ns(after) == thread_sums_ns(before)
    runs = after.ran_ms.sum(axis=(0, 1)) > 0
    assert [module for module, ran in zip(MODULES, runs, strict=True) if ran] == [*MODULES[:6], "head_maxima"]


def test_a_profile_changes_no_result(session: Session) -> None:
    plain, profiled = session.create_sequence(), None
    expected = prefill(session, plain, [3, 1, 2]).copy()
    session.rewind(plain, 0)
    with session.profiler():
        profiled = prefill(session, plain, [3, 1, 2])
        np.testing.assert_array_equal(profiled, expected)


def test_what_kernels_read(program: LoadedProgram) -> None:
    with Session(program) as session, session.profiler() as profiler:
        found = {kernel.name: kernel for kernel in profiler.kernels}
    assert found["embed_rows"].bytes_read(rows=3, positions=9) == 3 * 4 * HIDDEN
    assert found["logits"].bytes_read(rows=3, positions=9) == 4 * HIDDEN * VOCABULARY
    assert found["attend"].bytes_read(rows=3, positions=9) == 9 * 2 * 2 * 3 * 4
    assert Kernel("m", "k", 5, 7, 11).bytes_read(2, 3) == 5 + 14 + 33


def test_one_profile_at_a_time_and_none_before_a_forward(program: LoadedProgram) -> None:
    session = Session(program)
    sequence = session.create_sequence()
    profiler = session.profiler()
    with pytest.raises(RuntimeFailure, match="open one, then run a forward"):
        profiler.read()
    with pytest.raises(RuntimeFailure, match="open already"):
        session.profiler()
    prefill(session, sequence, [1])
    profiler.read()
    profiler.close()
    profiler.close()
    with pytest.raises(RuntimeFailure, match="open one") as caught:
        profiler.read()
    assert caught.value.status == Status.NOT_COMPUTED
    session.profiler().close()


def test_a_refused_forward_leaves_no_profile(program: LoadedProgram) -> None:
    with Session(program) as session, session.profiler() as profiler:
        sequence = session.create_sequence()
        prefill(session, sequence, [1])
        with pytest.raises(RuntimeFailure):
            session.forward([(sequence, 5)])
        with pytest.raises(RuntimeFailure, match="no profile to read"):
            profiler.read()


def test_a_profiler_outlives_its_session(program: LoadedProgram) -> None:
    session = Session(program)
    prefill(session, session.create_sequence(), [1])
    profiler = session.profiler()
    session.close()
    with pytest.raises(RuntimeFailure, match="no profile to read"):
        profiler.read()
    with pytest.raises(RuntimeFailure, match="closed"):
        session.profiler()


@pytest.mark.parametrize("weights", [False, True], ids=["own", "weights"])
def test_read_bandwidth_of_little_memory(session: Session, weights: bool) -> None:
    """A number, from the least there is to read: what the tiny decoder's weights have for three threads."""
    with session.profiler() as profiler:
        speed = profiler.read_bandwidth(512 * session.threads, 5, weights=weights)
    assert 0 < speed < 10_000


def test_read_bandwidth_over_large_memory_takes_time(program: LoadedProgram) -> None:
    """64 MB in no more than the 10 TB/s that no machine reaches, and in no less than a whole second."""
    with Session(program, threads=1) as session, session.profiler() as profiler:
        assert 0.064 < profiler.read_bandwidth(64_000_000, 3) < 10_000


@pytest.mark.parametrize(
    ("read_bytes", "passes", "weights"), [(511, 1, False), (10**6, 0, False), (10**6, 1, True)]
)
def test_impossible_measurements_are_refused(
    program: LoadedProgram, read_bytes: int, passes: int, weights: bool
) -> None:
    with Session(program, threads=1) as session:
        profiler = session.profiler()
        with pytest.raises(RuntimeFailure, match=r"cannot read|passes"):
            profiler.read_bandwidth(read_bytes, passes, weights=weights)


def test_a_program_without_kernels_has_no_profile(tmp_path: Path) -> None:
    library = compile_program(tmp_path / "bare.so", "-DTINY_KERNELS=0")
    bundle = make_bundle(tmp_path / "bundle", library, make_weights())
    with LoadedProgram(bundle) as program, Session(program) as session:
        with pytest.raises(RuntimeFailure, match="marks no kernels"):
            session.profiler()
        assert prefill(session, session.create_sequence(), [1]).shape == (1, VOCABULARY)


@pytest.mark.parametrize("count", [-1, 10], ids=["negative", "no table"])
def test_a_senseless_kernel_table_is_refused(tmp_path: Path, count: int) -> None:
    library = compile_program(tmp_path / "bad.so", f"-DTINY_KERNELS={count}")
    bundle = make_bundle(tmp_path / "bundle", library, make_weights())
    with pytest.raises(BundleError, match="kernel") as caught:
        LoadedProgram(bundle)
    assert caught.value.status == Status.PROGRAM


def test_the_longest_context_fits_a_profile(program: LoadedProgram) -> None:
    with Session(program, threads=2) as session, session.profiler() as profiler:
        sequence = session.create_sequence()
        for token in range(CONTEXT):
            prefill(session, sequence, [token % VOCABULARY])
        assert np.all(profiler.read().ran_ms >= 0)
