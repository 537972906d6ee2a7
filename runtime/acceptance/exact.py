"""Exact acceptance: draw as plain decoding would and follow the draft as long as it guessed the draw."""

from collections.abc import Sequence
from typing import ClassVar

from forerun.runtime.protocol import Accepted, Draft, Drawer, RowLogits


class Exact:
    """Every token is drawn from the model's own logits with its position's noise, as plain decoding does."""

    name: ClassVar[str] = "exact"
    summary: ClassVar[str] = "draw each token from the model; keep drafted rows that hold it"
    guarantee: ClassVar[str] = "identical ids to plain decoding, greedy and sampled"
    reads_logits: ClassVar[bool] = False

    def accept(self, draft: Draft, logits: Sequence[RowLogits], draw: Drawer) -> Accepted:
        """Walk from the root to the first row none of whose children holds the drawn token."""
        path: list[int] = []
        token_ids: list[int] = []
        row: int | None = 0
        while row is not None:
            token_id = draw(logits[row], len(path))
            path.append(row)
            token_ids.append(token_id)
            row = draft.tree.child(row, token_id)
        return Accepted(tuple(path), tuple(token_ids))
