"""The loop of `generate.py` as the native core runs it: by the same specs, with the same ids, without Python between
two calls. `native/src/loop` is its code."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from ctypes import byref
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from forerun.errors import OptionError, RuntimeFailure
from forerun.runtime.acceptance.exact import Exact
from forerun.runtime.arrays import int32_array
from forerun.runtime.costs import KeptCosts, RowCosts
from forerun.runtime.generate import Begin, Run, Started, begin
from forerun.runtime.library import (
    MAX_INT32,
    MOST_DRAWN,
    Handle,
    NativeCosts,
    NativeGeneration,
    NativeSampling,
    NativeStatistics,
    Status,
    check,
    load_library,
)
from forerun.runtime.output import Output
from forerun.runtime.protocol import Drafter, ExitPolicy, SessionLike
from forerun.runtime.request import Events
from forerun.runtime.stats import Origin, Stats

if TYPE_CHECKING:
    from forerun.runtime.session import Session

LoopName: TypeAlias = Literal["auto", "native", "python"]

_CONTEXT_FULL = 3
# `forerun_origin`; the first is of drafters that have one means only.
_ORIGINS = ("", "none", "lookup", "network", "lookup+network")


@dataclass(frozen=True)
class Specs:
    """What drafts, in which shape (None: the drafter's own), and what lets rows leave early."""

    drafter: str
    shape: str | None
    exit: str


class NativeLoop:
    """The native loop over a session: an answer at a time in each of its sequences.

    What its planner learns lasts as long as the session; what calls cost is kept on this machine.
    """

    def __init__(self, session: Session, kept: Callable[[], KeptCosts]) -> None:
        """`kept()` is where costs are kept from one process to the next."""
        self._session = session
        self._kept = kept
        self._library = load_library()
        self._handle: Handle | None = None
        self._knows_costs = False
        self._token_ids = np.zeros(MOST_DRAWN, np.int32)
        self._count, self._finish = ctypes.c_int32(), ctypes.c_int()

    def begin(self, specs: Specs, run: Run, output: Output) -> Started:
        """An answer that is about to start in the run's sequence.

        Raises `OptionError` for specs that this model cannot have, `ContextFullError` for a prompt that does not fit,
        `BundleError` for a damaged draft.
        """
        sampling, prompt = run.sampling, int32_array(run.token_ids, "token ids")
        wanted = NativeGeneration(
            drafter=specs.drafter.encode(),
            shape=None if specs.shape is None else specs.shape.encode(),
            exit=specs.exit.encode(),
            sampling=NativeSampling(
                sampling.temperature, min(sampling.top_k, MAX_INT32), sampling.top_p, sampling.seed
            ),
            max_tokens=min(output.remaining, MAX_INT32),
        )
        if specs.drafter.partition(":")[0].strip() == "auto":
            self._bring_costs()
        status = self._library.forerun_generate_start(
            self._pointer, run.sequence, prompt.ctypes.data, len(prompt), byref(wanted)
        )
        check(status, OptionError if status == Status.INVALID_ARGUMENT else RuntimeFailure)
        return Started(self._steps(run, output), lambda: self._read_stats(run))

    def _steps(self, run: Run, output: Output) -> Events:
        """The answer's texts, a step at a time."""
        try:
            if output.remaining == 0:
                output.finish("length")
            while output.finish_reason is None:
                yield output.finish("cancelled") if run.cancelled() else self._step(run, output)
        finally:
            self._read_stats(run)
            self._keep_costs()

    def _step(self, run: Run, output: Output) -> str:
        """A piece of the prompt, or a draft and its verify call; the text that became certain."""
        library, pointer, token_ids = self._library, self._pointer, self._token_ids
        in_prompt = not output.token_ids
        status = library.forerun_generate_next(
            pointer, run.sequence, token_ids.ctypes.data, byref(self._count), byref(self._finish)
        )
        check(status)
        if self._finish.value == _CONTEXT_FULL:
            return output.finish("context_full")
        if in_prompt and run.on_prefill is not None:
            run.on_prefill(self._session.length(run.sequence), len(run.token_ids))
        drawn = token_ids[: self._count.value].tolist()
        if not drawn:
            return ""
        taken = output.take(drawn)
        check(library.forerun_generate_keep(pointer, run.sequence, taken.count))
        run.token_ids += drawn[: taken.count]
        return taken.text

    def _read_stats(self, run: Run) -> None:
        """Bring the run's statistics up to date."""
        if self._handle is None:  # the session was closed before the answer was over
            return
        native, layers = NativeStatistics(), np.zeros(self._session.config.layers, np.int64)
        check(self._library.forerun_generate_statistics(self._pointer, run.sequence, byref(native)))
        check(self._library.forerun_generate_exits(self._pointer, run.sequence, layers.ctypes.data))
        fill_stats(run.stats, native, layers)

    def _bring_costs(self) -> None:
        """Give the planner the costs that were kept, if there are any; else it measures them itself."""
        if self._knows_costs:
            return
        measured = self._kept().load()
        if measured is not None and len(measured.rows) <= len(NativeCosts().rows):
            costs = NativeCosts(count=len(measured.rows), whole=1)
            costs.rows[: costs.count] = measured.rows
            costs.ms[: costs.count] = measured.ms
            check(self._library.forerun_set_costs(self._pointer, byref(costs)))
            self._knows_costs = True

    def _keep_costs(self) -> None:
        """Keep what the planner measured for the next process."""
        if self._knows_costs or self._handle is None:
            return
        costs = NativeCosts()
        check(self._library.forerun_get_costs(self._pointer, byref(costs)))
        if costs.count:
            self._knows_costs = True
            if costs.whole:
                rows, ms = tuple(costs.rows[: costs.count]), tuple(costs.ms[: costs.count])
                self._kept().save(RowCosts(rows, ms))

    @property
    def _pointer(self) -> int:
        """The generator, made when it is first needed."""
        if self._handle is None:
            pointer = ctypes.c_void_p()
            check(self._library.forerun_generator_create(self._session.pointer, byref(pointer)))
            assert pointer.value is not None
            self._handle = Handle(pointer.value, self._library.forerun_generator_release)
        return self._handle.pointer

    def close(self) -> None:
        """Free the drafts; the session has to be still open."""
        self._handle = None


def choose_loop(
    loop: LoopName,
    session: SessionLike,
    drafter: str | Drafter,
    shape: str | None,
    exit: str | ExitPolicy,
    acceptance: str,
) -> Begin:
    """The loop that an answer runs in; raises `OptionError` for a native one where there can be none."""
    if loop not in ("auto", "native", "python"):
        raise OptionError(f"loop is {loop!r}; it must be auto, native or python")
    specs = isinstance(drafter, str) and isinstance(exit, str) and acceptance.strip() == Exact.name
    if loop != "python" and session.native_loop is not None and specs:
        return partial(session.native_loop.begin, Specs(str(drafter), shape, str(exit)))
    if loop == "native":
        raise OptionError(
            "the native loop takes drafters and exit policies by their specs, exact acceptance and a compiled"
            " bundle; leave loop out for the Python one"
        )
    return begin


def fill_stats(stats: Stats, native: NativeStatistics, exits: np.ndarray) -> None:
    """Take over what the core counted; `exits` [L] int64 by layer."""
    for name in ("prompt_tokens", "cached_tokens", "generated_tokens", "verify_calls", "drafted", "accepted"):
        setattr(stats, name, getattr(native, name))
    for name in ("prefill_ms", "draft_ms", "verify_ms", "commit_ms"):
        setattr(stats, name, getattr(native, name))
    drafted = list(native.drafted_at)
    depth = max((level for level, count in enumerate(drafted, start=1) if count), default=0)
    stats.drafted_per_position = drafted[:depth]
    stats.accepted_per_position = list(native.accepted_at)[:depth]
    stats.exits_per_layer = {int(layer): int(exits[layer]) for layer in np.flatnonzero(exits)}
    stats.origins = dict(_origins(native))


def _origins(native: NativeStatistics) -> Iterator[tuple[str, Origin]]:
    for name, counts in zip(_ORIGINS, native.origins, strict=True):
        if name and counts.calls:
            yield name, Origin(counts.calls, counts.drafted, counts.accepted)
