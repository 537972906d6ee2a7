"""One sequence of an ONNX session: its committed tokens, its staged rows, and the cache of both."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from forerun.errors import RuntimeFailure
from forerun.runtime.onnx.engine import CallResult, Engine, Past
from forerun.runtime.onnx.signatures import Rows


@dataclass
class OnnxSequence:
    """`past` holds a row for each committed token, then for each of the first `ran` staged rows, then perhaps rows that
    were dropped: they are cut off before the next call, which may never come.
    """

    past: Past
    stored: int = 0  # rows in `past`
    token_ids: list[int] = field(default_factory=list)
    staged: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)  # below the last committed row, whose children have 1
    ran: int = 0

    def fork(self) -> "OnnxSequence":
        """The committed rows in a sequence of their own; the cache is shared, since calls write new ones."""
        return OnnxSequence(self.past, self.stored, list(self.token_ids))

    def stage(self, token_ids: Sequence[int], parents: Sequence[int]) -> None:
        """Add rows."""
        for token_id, parent in zip(token_ids, parents, strict=True):
            self.staged.append(token_id)
            self.parents.append(parent)
            self.depths.append(1 if parent < 0 else 1 + self.depths[parent])

    def run(self, engine: Engine, count: int, least: int, taps: Sequence[int]) -> CallResult:
        """Run the next `count` staged rows, in a call of at least `least`; the logits and taps of those alone."""
        valid = len(self.token_ids) + self.ran
        if self.stored > valid:
            self.past, self.stored = engine.keep(self.past, range(valid)), valid
        stop, extra = self.ran + count, max(least - count, 0)
        last = self.depths[stop - 1]
        depths = self.depths[:stop] + [last + more + 1 for more in range(extra)]
        rows = Rows(
            token_ids=self.staged[self.ran : stop] + [self.staged[stop - 1]] * extra,
            positions=[len(self.token_ids) + depth - 1 for depth in depths],
            parents=self.parents[:stop] + list(range(stop - 1, stop - 1 + extra)),
            committed=len(self.token_ids),
            ran=self.ran,
        )
        result = engine.run(rows, self.past, taps)
        self.past, self.stored = result.present, valid + count + extra
        self.ran += count
        kept = {layer: states[:count] for layer, states in result.taps.items()}
        return CallResult(result.logits[:count], result.present, kept)

    def commit(self, engine: Engine, path: Sequence[int]) -> None:
        """Keep staged rows that ran, each the parent of the next; raises `RuntimeFailure` for others."""
        above = -1
        for row in path:
            if not 0 <= row < self.ran or self.parents[row] != above:
                raise RuntimeFailure(
                    f"row {row} cannot be committed: a path holds rows that ran, each the parent of the next"
                )
            above = row
        length = len(self.token_ids)
        if list(path) != list(range(len(path))):
            slots = [*range(length), *(length + row for row in path)]
            self.past, self.stored = engine.keep(self.past, slots), len(slots)
        self.token_ids += [self.staged[row] for row in path]
        self.drop_staged()

    def rewind(self, length: int) -> None:
        """Go back to `length` tokens; raises `RuntimeFailure` if there are fewer."""
        if not 0 <= length <= len(self.token_ids):
            raise RuntimeFailure(
                f"cannot rewind to {length}: the sequence has {len(self.token_ids)} positions"
            )
        del self.token_ids[length:]
        self.drop_staged()

    def drop_staged(self) -> None:
        """Forget all staged rows."""
        self.staged, self.parents, self.depths, self.ran = [], [], [], 0
