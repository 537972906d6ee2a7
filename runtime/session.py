"""The Python face of the native core: sessions of sequences over an opened program.

Legend of shapes: M rows, V vocabulary, D hidden size, K key/value heads, d head size, L layers, F feature size.
"""

import ctypes
from collections.abc import Sequence
from ctypes import byref
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from forerun.errors import OptionError, OutputError, RuntimeFailure, SavedSequenceError
from forerun.runtime.abilities import Abilities
from forerun.runtime.arrays import StepNumbers, address_of, float_rows, int32_array, parent_array
from forerun.runtime.drawing import Drawing, native_samplings
from forerun.runtime.library import (
    ALL,
    MAX_INT32,
    Handle,
    NativeOptions,
    NativeRequest,
    NativeResult,
    NativeState,
    check,
    load_library,
)
from forerun.runtime.no_drafts import NoDrafts
from forerun.runtime.profile import Profiler
from forerun.runtime.program import LoadedProgram, ModelConfig, Step, full_steps
from forerun.runtime.protocol import DraftsLike, Drawable
from forerun.runtime.settings import Sampling
from forerun.runtime.views import ResultViews

if TYPE_CHECKING:
    from forerun.runtime.native_loop import NativeLoop

__all__ = ["ForwardResult", "LoadedProgram", "ModelConfig", "Session", "Step", "full_steps"]


@dataclass(frozen=True)
class ForwardResult:
    """What one forward gave. The arrays are views that the next forward overwrites: copy to keep."""

    logits: np.ndarray  # [rows asked for, V] float32; [0, V] with `draws`
    taps: dict[int, np.ndarray]  # layer → [rows, D] float32, hidden states after that layer
    elapsed_ms: float
    carried_rows: int = 0  # pending ancestors that were taken along
    passes: int = 1  # runs through the program that it took
    drawable: Sequence[Drawable] = ()  # with `draws`: what stands in for each row's logits


class Session(Drawing):
    """Sequences over one program, with their key/value cache and a team of threads.

    A sequence holds committed positions 0 … length-1, then staged rows, numbered from 0 since the last commit
    or rewind. `forward` computes staged rows, `commit` keeps a path of them. A session serves one thread at a
    time.
    """

    abilities = Abilities()

    def __init__(
        self,
        program: LoadedProgram,
        *,
        sequences: int = 1,
        capacity: int | None = None,
        threads: int | None = None,
        team_of: "Session | None" = None,
    ) -> None:
        """Reserve all memory: `sequences` at a time, `capacity` positions each, staged rows included (default:
        the model's context length), `threads` (default: one per physical core this process may use).

        With `team_of` it runs on that session's threads: two teams on the same cores would halve both. Either
        session may be closed first; a second thread in one of them while the other runs is refused.

        Raises `OptionError` for a number out of range, `RuntimeFailure` if the system refuses memory or
        threads.
        """
        for name, value in (("sequences", sequences), ("capacity", capacity), ("threads", threads)):
            if value is not None and not 1 <= value <= MAX_INT32:
                raise OptionError(f"{name} is {value}; it must be 1 or more")
        self._library = load_library()
        self._program = program.handle
        self.config = program.config
        options = NativeOptions(
            sequences, capacity or 0, threads or 0, None if team_of is None else team_of.pointer
        )
        pointer = ctypes.c_void_p()
        status = self._library.forerun_session_create(program.handle.pointer, byref(options), byref(pointer))
        check(status, OptionError)
        assert pointer.value is not None
        self._handle: Handle | None = Handle(pointer.value, self._library.forerun_session_release)
        check(self._library.forerun_session_describe(pointer, byref(options)))
        self.sequences: int = options.sequences
        self.capacity: int = options.capacity
        self.threads: int = options.threads
        self.drafts: DraftsLike = NoDrafts()  # those of its bundle, where the model is loaded with them
        self.native_loop: NativeLoop | None = None  # likewise
        self._make_buffers()

    def _make_buffers(self) -> None:
        """Everything a call needs again and again, made once."""
        super()._make_buffers()
        self._state = NativeState()
        self._result = NativeResult()
        self._rows = np.zeros((self.config.max_rows, 2), np.int32)
        self._drawable = tuple(Drawable(index) for index in range(self.config.max_rows))
        self._request = NativeRequest(rows=self._rows.ctypes.data)
        self._steps = StepNumbers()
        self._views = ResultViews(self._open_handle, self.config)

    # ---- sequences ----

    def create_sequence(self) -> int:
        """A new, empty sequence. Raises `RuntimeFailure` if all are in use."""
        number = ctypes.c_int32()
        check(self._library.forerun_sequence_create(self.pointer, byref(number)))
        return number.value

    def release_sequence(self, seq: int) -> None:
        """Give the sequence's number back."""
        check(self._library.forerun_sequence_release(self.pointer, seq))

    def fork(self, seq: int) -> int:
        """A new sequence with the committed rows of `seq` (staged ones are not copied)."""
        number = ctypes.c_int32()
        check(self._library.forerun_sequence_fork(self.pointer, seq, byref(number)))
        return number.value

    def length(self, seq: int) -> int:
        """Committed positions."""
        return int(self._describe(seq).length)

    def staged(self, seq: int) -> int:
        """Staged rows."""
        return int(self._describe(seq).staged)

    def pending(self, seq: int) -> int:
        """Committed rows that are not at full depth yet."""
        return int(self._describe(seq).pending)

    def save(self, seq: int, path: Path) -> None:
        """Write the committed rows to a file, aside and renamed; staged rows are not part of it.

        Raises `OutputError` if it cannot be written: an old file of that name is as it was.
        """
        check(self._library.forerun_sequence_save(self.pointer, seq, bytes(path)), file_error=OutputError)

    def restore(self, path: Path) -> int:
        """A new sequence with the rows of a saved one, bit for bit.

        Raises `SavedSequenceError` for a file that is damaged, or of another bundle or target, `ContextFullError` if
        it holds more positions than a sequence of this session, `RuntimeFailure` if all sequences are in use.
        """
        number = ctypes.c_int32()
        status = self._library.forerun_sequence_restore(self.pointer, bytes(path), byref(number))
        check(status, file_error=SavedSequenceError)
        return number.value

    def token_ids(self, seq: int) -> list[int]:
        """Tokens of the committed rows; -1 for a row given by its hidden state."""
        ids, count = np.empty(self.capacity, np.int32), ctypes.c_int32()
        room = (ids.ctypes.data, len(ids), byref(count))
        check(self._library.forerun_sequence_tokens(self.pointer, seq, *room))
        return [int(token_id) for token_id in ids[: count.value]]

    # ---- rows ----

    def stage(
        self,
        seq: int,
        token_ids: Sequence[int],
        parents: Sequence[int] | None = None,
        features: np.ndarray | None = None,
    ) -> range:
        """Stage a row for each token; returns their indices. Nothing is computed yet.

        `parents[i]` is the index of an earlier staged row, -1 for a child of the last committed position;
        None makes a chain that continues from the last staged row. `features` ([n, F] float32) come with the
        tokens of programs that have them; they are kept until `forward`. Raises `ContextFullError` if they do
        not fit.
        """
        first = self.staged(seq)
        tokens = int32_array(token_ids, "token ids")
        above = parent_array(parents, len(tokens))
        if features is None:
            status = self._library.forerun_stage(
                self.pointer, seq, len(tokens), address_of(tokens), address_of(above)
            )
        elif self.config.feature_size == 0:
            raise RuntimeFailure("this program's tokens have no features; stage tokens alone")
        else:
            given = float_rows(features, "features", self.config.feature_size, len(tokens))
            status = self._library.forerun_stage_features(
                self.pointer, seq, len(tokens), address_of(tokens), address_of(given), address_of(above)
            )
        check(status)
        return range(first, first + len(tokens))

    def stage_hidden(
        self, seq: int, hidden: np.ndarray, *, start: int = 0, parents: Sequence[int] | None = None
    ) -> range:
        """Stage rows given by hidden states ([n, D] float32) that enter at sublayer `start`; see `stage`.

        They have no keys and values in layers below, so no descendant can run those.
        """
        first = self.staged(seq)
        states = float_rows(hidden, "hidden states", self.config.hidden_size)
        above = parent_array(parents, len(states))
        check(
            self._library.forerun_stage_hidden(
                self.pointer, seq, len(states), address_of(states), address_of(above), start
            )
        )
        return range(first, first + len(states))

    def commit(self, seq: int, path: Sequence[int]) -> None:
        """Keep the staged rows `path` (root first, each the parent of the next), drop the others.

        Rows below full depth stay pending. Raises `RuntimeFailure` for a path that is no chain or holds an
        inexact row.
        """
        rows = int32_array(path, "rows of a path")
        check(self._library.forerun_commit(self.pointer, seq, len(rows), address_of(rows)))

    def rewind(self, seq: int, length: int) -> None:
        """Go back to `length` committed positions, as if later ones had never been; drops staged rows."""
        check(self._library.forerun_rewind(self.pointer, seq, length))

    def row_depth(self, seq: int, slot: int) -> int:
        """Sublayers passed by the row in `slot` (committed positions, then staged rows)."""
        done = ctypes.c_int32()
        check(self._library.forerun_row_done(self.pointer, seq, slot, byref(done)))
        return done.value

    # ---- computing ----

    def forward(
        self,
        rows: Sequence[tuple[int, int]],
        *,
        steps: Sequence[Step] | None = None,
        logits: Sequence[int] | None = None,
        taps: Sequence[int] = (),
        draws: bool = False,
        sampling: Sequence[Sampling] = (),
    ) -> ForwardResult:
        """Run staged rows, given as (sequence, index), through `steps` (None: the whole model).

        A row skips the steps it has passed before. If what remains is not the next sublayers in order it
        becomes inexact: readable, but it can be neither committed nor continued. Pending ancestors are taken
        along through exactly what they miss. `logits` are indices into `rows` (None: all), `taps` layers. With
        `draws` those rows get no logits, but can be given to `draw`, most quickly as `sampling` says for each of them
        and at the position after the row's own. Raises `RuntimeFailure`.
        """
        request, result, count = self._request, self._result, len(rows)
        if count > self.config.max_rows:
            raise RuntimeFailure(f"{count} rows; one forward takes at most {self.config.max_rows}")
        if count:
            self._set_rows(rows)
        request.row_count = count
        sublayers = self._steps.of(steps)
        request.steps = address_of(sublayers)
        request.step_count = ALL if sublayers is None else len(sublayers)
        wanted = None if logits is None else int32_array(logits, "logits rows")
        request.logits_rows, request.logits_count = address_of(wanted), ALL if wanted is None else len(wanted)
        layers = int32_array(taps, "taps") if taps else None
        request.taps, request.tap_count = address_of(layers), 0 if layers is None else len(layers)
        outputs = count if wanted is None else len(wanted)
        likely = native_samplings(sampling, outputs)
        request.draws, request.sampling = draws, None if likely is None else ctypes.addressof(likely)
        check(self._library.forerun_forward(self.pointer, byref(request), byref(result)))
        return ForwardResult(
            logits=self._views.logits(result, 0 if draws else outputs),
            taps=self._views.taps(result, taps, count),
            elapsed_ms=result.elapsed_ms,
            carried_rows=result.carried_rows,
            passes=result.passes,
            drawable=self._drawable[:outputs] if draws else (),
        )

    def read_kv(self, seq: int, layer: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values of slots start … stop-1 (committed positions, then staged rows) of one layer.

        Returns two arrays [K, stop - start, d] float32. Raises `RuntimeFailure` for rows that have not passed
        there.
        """
        kv_heads, head_dim = ctypes.c_int32(), ctypes.c_int32()
        library, float_pointer = self._library, ctypes.POINTER(ctypes.c_float)
        check(library.forerun_bundle_layer(self._program.pointer, layer, byref(kv_heads), byref(head_dim)))
        shape = (kv_heads.value, max(stop - start, 0), head_dim.value)
        keys, values = np.empty(shape, np.float32), np.empty(shape, np.float32)
        pointers = (keys.ctypes.data_as(float_pointer), values.ctypes.data_as(float_pointer))
        check(library.forerun_read_kv(self.pointer, seq, layer, start, stop, *pointers))
        return keys, values

    def profiler(self) -> Profiler:
        """Times every kernel of the forwards from now until it is closed; one at a time."""
        return Profiler(self._open_handle, self._program, self.threads, self.config.layers)

    def close(self) -> None:
        """Free the session and its drafts'; its memory goes when the last array that `forward` gave out does."""
        self.drafts.close()
        if self.native_loop is not None:
            self.native_loop.close()
        self._handle = None
        del self._views

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- the rest is between this class and ctypes ----

    @property
    def _open_handle(self) -> Handle:
        if self._handle is None:
            raise RuntimeFailure("the session is closed")
        return self._handle

    @property
    def pointer(self) -> int:
        """The native session, for other parts of the runtime; raises `RuntimeFailure` after `close`."""
        return self._open_handle.pointer

    def _set_rows(self, rows: Sequence[tuple[int, int]]) -> None:
        try:
            self._rows[: len(rows)] = rows
        except (OverflowError, TypeError, ValueError) as error:
            raise RuntimeFailure(f"rows must be pairs (sequence, index): {error}") from error

    def _describe(self, seq: int) -> NativeState:
        check(self._library.forerun_sequence_describe(self.pointer, seq, byref(self._state)))
        return self._state
