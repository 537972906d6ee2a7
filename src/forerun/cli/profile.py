"""`forerun bench --profile`: where the time of one call goes, beside what the machine's memory would allow."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from forerun.errors import OptionError
from forerun.runtime.profile import Kernel, Times
from forerun.runtime.session import LoadedProgram, Session

CALLS = 12  # timed calls in a repetition, and as many without the profiler between them
PASSES = 7  # over memory, in each repetition

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Share:
    """What one kernel takes in all its layers, or all kernels of one layer; milliseconds are those of one call.

    `ms` is the way from the barrier before to the barrier behind, averaged over the threads; `waited_ms` is the
    part of it that a thread spends waiting. `gap_ms` is what lies above `bytes` / read bandwidth.
    """

    module: str  # of a kernel; "" for a layer
    name: str  # a kernel's, or embed, the layer's number, head
    layers: int
    ms: float
    waited_ms: float
    bytes: int
    gb_per_s: float
    share: float  # of the call, 0 … 1
    gap_ms: float


@dataclass(frozen=True)
class CallProfile:
    """One call of `rows` rows after `context` positions; kernels and core add up to `profiled_ms`.

    `call_ms` is the same call without the profiler, `draw_ms` drawing its rows' tokens greedily after it.
    `read_gb_per_s` is the machine's read bandwidth with the same threads over `bytes` bytes, `weights_gb_per_s`
    over the weights as they are mapped; `floor_ms` is `bytes` / `read_gb_per_s`, `reached` is `floor_ms` /
    `call_ms`.
    """

    rows: int
    context: int
    threads: int
    call_ms: float
    profiled_ms: float
    core_ms: float
    draw_ms: float
    bytes: int
    read_gb_per_s: float
    weights_gb_per_s: float
    floor_ms: float
    reached: float
    kernels: tuple[Share, ...]  # largest first
    layers: tuple[Share, ...]  # in order, embed first, head last


@dataclass
class Point:
    """One call to profile, and what its repetitions gave so far.

    `bytes` [L, N] is what each kernel of the program reads in each layer; 0 in layers that do not run it.
    """

    rows: int
    context: int
    kernels: tuple[Kernel, ...]
    bytes: np.ndarray
    plain_ms: list[float] = field(default_factory=list)
    timed_ms: list[float] = field(default_factory=list)
    times: list[Times] = field(default_factory=list)
    draw_ms: list[float] = field(default_factory=list)
    read_gb_per_s: list[float] = field(default_factory=list)
    weights_gb_per_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Cells:
    """Averages of a call's kernels in each layer, [L, N] each."""

    ms: np.ndarray
    waited_ms: np.ndarray
    bytes: np.ndarray
    total_ms: float
    gb_per_s: float  # the machine's read bandwidth

    def share(self, module: str, name: str, chosen: np.ndarray, layers: int) -> Share:
        """The sums over the cells `chosen` ([L, N] bool)."""
        ms, size = float(self.ms[chosen].sum()), int(self.bytes[chosen].sum())
        return Share(
            module=module,
            name=name,
            layers=layers,
            ms=ms,
            waited_ms=float(self.waited_ms[chosen].sum()),
            bytes=size,
            gb_per_s=size / ms / 1e6 if ms else 0.0,
            share=ms / self.total_ms,
            gap_ms=ms - size / self.gb_per_s / 1e6,
        )


def profile_bundle(
    bundle: Path,
    target: str | None,
    threads: int | None,
    rows: Sequence[int],
    contexts: Sequence[int],
    repetitions: int,
    progress: Progress,
) -> list[CallProfile]:
    """Profile a call of each of `rows` at each of `contexts`. Raises `OptionError` for what does not fit."""
    with LoadedProgram(bundle, target) as program:
        check_fit(program, rows, contexts)
        with Session(program, capacity=max(contexts) + max(rows), threads=threads) as session:
            sequence, results = session.create_sequence(), []
            for done, context in enumerate(sorted(contexts)):
                progress(f"context {context}", done / len(contexts))
                fill(session, sequence, context)
                results += profile_context(session, sequence, rows, repetitions, weights_size(program))
    return results


def weights_size(program: LoadedProgram) -> int:
    """Size of a bundle's weights file, which opening has checked."""
    return (program.path / "weights.bin").stat().st_size


def check_fit(program: LoadedProgram, rows: Sequence[int], contexts: Sequence[int]) -> None:
    """Raise `OptionError` for calls that the program cannot carry."""
    config = program.config
    if not rows or not contexts:
        raise OptionError("--profile needs --rows and --contexts of at least 1")
    if max(rows) > config.max_rows:
        raise OptionError(f"--rows asks for {max(rows)} rows; a call carries at most {config.max_rows}")
    if max(contexts) + max(rows) > config.context_length:
        raise OptionError(
            f"--contexts asks for {max(contexts)} positions and {max(rows)} rows after them;"
            f" the model has {config.context_length} positions"
        )


def fill(session: Session, sequence: int, context: int) -> None:
    """Make the sequence `context` positions long with tokens spread over the vocabulary."""
    while (length := session.length(sequence)) < context:
        count = min(context - length, session.config.max_rows)
        staged = stage(session, sequence, count)
        session.forward(staged, logits=())
        session.commit(sequence, [index for _, index in staged])


def stage(session: Session, sequence: int, count: int) -> list[tuple[int, int]]:
    """Stage a chain of `count` filler tokens; return its rows."""
    first, size = session.length(sequence), session.config.vocabulary_size
    tokens = [7919 * (first + index + 1) % size for index in range(count)]
    return [(sequence, index) for index in session.stage(sequence, tokens)]


def profile_context(
    session: Session, sequence: int, rows: Sequence[int], repetitions: int, mapped_bytes: int
) -> list[CallProfile]:
    """Profile a call of each of `rows` after the sequence; they take turns, so that none has a better time."""
    points = [open_point(session, sequence, count) for count in rows]
    for _ in range(repetitions):
        for point in points:
            add_repetition(session, sequence, point, mapped_bytes)
    return [summarize(point, session.threads) for point in points]


def open_point(session: Session, sequence: int, count: int) -> Point:
    """Run the call once, to see which layer runs which kernel."""
    with session.profiler() as profiler:
        kernels = profiler.kernels
        point = Point(count, session.length(sequence), kernels, np.zeros(0, np.int64))
        call(session, sequence, point)
        runs = profiler.read().ran_ms.sum(axis=0) > 0
    read = [kernel.bytes_read(count, point.context + count) for kernel in kernels]
    point.bytes = np.array(read, np.int64) * runs
    return point


def add_repetition(session: Session, sequence: int, point: Point, mapped_bytes: int) -> None:
    """Time calls with and without the profiler in turn, then memory."""
    call(session, sequence, point)  # leaves the caches as they are between calls
    for _ in range(CALLS):
        point.plain_ms.append(call(session, sequence, point))
        with session.profiler() as profiler:
            point.timed_ms.append(call(session, sequence, point))
            point.times.append(profiler.read())
    size = int(point.bytes.sum())
    with session.profiler() as profiler:
        point.read_gb_per_s.append(profiler.read_bandwidth(size, PASSES))
        speed = profiler.read_bandwidth(min(size, mapped_bytes), PASSES, weights=True)
        point.weights_gb_per_s.append(speed)


def call(session: Session, sequence: int, point: Point) -> float:
    """Milliseconds of one call whose rows are all drawn from, as an answer's are; nothing is kept."""
    result = session.forward(stage(session, sequence, point.rows), draws=True)
    started = time.perf_counter()
    for position, row in enumerate(result.drawable):
        session.draw(row, temperature=0.0, top_k=0, top_p=1.0, seed=0, position=point.context + position + 1)
    point.draw_ms.append(1000 * (time.perf_counter() - started))
    session.commit(sequence, [])
    return result.elapsed_ms


def summarize(point: Point, threads: int) -> CallProfile:
    """Average the middle half of the calls, by their time: like a median, but parts still add up."""
    order = np.argsort(point.timed_ms)
    chosen = [point.times[index] for index in order[len(order) // 4 : len(order) - len(order) // 4]]
    waited_ms = np.mean([times.waited_ms.mean(axis=0) for times in chosen], axis=0)
    ran_ms = np.mean([times.ran_ms.mean(axis=0) for times in chosen], axis=0)
    core_ms = float(np.mean([times.core_ms.mean() for times in chosen]))
    total_ms = float(ran_ms.sum() + waited_ms.sum()) + core_ms
    gb_per_s, size = float(np.median(point.read_gb_per_s)), int(point.bytes.sum())
    cells = Cells(ran_ms + waited_ms, waited_ms, point.bytes, total_ms, gb_per_s)
    call_ms, floor_ms = float(np.median(point.plain_ms)), size / gb_per_s / 1e6
    return CallProfile(
        rows=point.rows,
        context=point.context,
        threads=threads,
        call_ms=call_ms,
        profiled_ms=total_ms,
        core_ms=core_ms,
        draw_ms=float(np.median(point.draw_ms)),
        bytes=size,
        read_gb_per_s=gb_per_s,
        weights_gb_per_s=float(np.median(point.weights_gb_per_s)),
        floor_ms=floor_ms,
        reached=floor_ms / call_ms,
        kernels=tuple(sorted(kernel_shares(point, cells), key=lambda share: -share.ms)),
        layers=tuple(layer_shares(point, cells)),
    )


def kernel_shares(point: Point, cells: Cells) -> Iterator[Share]:
    """Each kernel that runs, in all its layers."""
    for index, kernel in enumerate(point.kernels):
        chosen = np.zeros(cells.ms.shape, bool)
        chosen[:, index] = True
        layers = int((cells.ms[:, index] > 0).sum())
        if layers:
            yield cells.share(kernel.module, kernel.name, chosen, layers)


def layer_shares(point: Point, cells: Cells) -> Iterator[Share]:
    """Each layer's kernels, embed before and head after them."""
    modules = np.array([kernel.module.split("_")[0] for kernel in point.kernels])  # head_maxima is head
    outer = np.isin(modules, ("embed", "head"))
    numbers = np.arange(len(cells.ms))[:, None]
    yield cells.share("", "embed", (numbers >= 0) & (modules == "embed"), 1)
    for layer in range(len(cells.ms)):
        yield cells.share("", str(layer), (numbers == layer) & ~outer, 1)
    yield cells.share("", "head", (numbers >= 0) & (modules == "head"), 1)
