"""The token tree of one verify call: a root that was drawn already, and the drafted tokens below it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Tree:
    """Rows of one verify call. Row 0 is the root; every other row names an earlier row as its parent.

    `token_ids` and `parents` have one entry per row; `parents[0]` is -1. Siblings hold different tokens.
    """

    token_ids: tuple[int, ...]
    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.token_ids) == len(self.parents) >= 1, "a tree has a root and one parent per row"
        assert self.parents[0] == -1, "row 0 is the root"
        if len(self.parents) == 1:
            return
        for row, parent in enumerate(self.parents[1:], start=1):
            assert 0 <= parent < row, f"row {row} names row {parent} as its parent, which does not precede it"
        edges = set(zip(self.parents, self.token_ids, strict=True))
        assert len(edges) == len(self.parents), "two siblings hold the same token"

    def __len__(self) -> int:
        return len(self.token_ids)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Depth of every row, 0 for the root."""
        depths = [0]
        for parent in self.parents[1:]:
            depths.append(depths[parent] + 1)
        return tuple(depths)

    def child(self, row: int, token_id: int) -> int | None:
        """The child of `row` that holds `token_id`, None when there is none."""
        for candidate in range(row + 1, len(self.parents)):
            if self.parents[candidate] == row and self.token_ids[candidate] == token_id:
                return candidate
        return None

    def limited(self, row_limit: int, depth_limit: int) -> "Tree":
        """The first `row_limit` rows no deeper than `depth_limit`; earlier rows are the better guesses."""
        if len(self) <= row_limit and (depth_limit >= len(self) - 1 or max(self.depths) <= depth_limit):
            return self
        kept = [row for row, depth in enumerate(self.depths) if depth <= depth_limit][: max(row_limit, 1)]
        new_index = {row: index for index, row in enumerate(kept)}
        parents = (new_index.get(self.parents[row], -1) for row in kept)
        return Tree(tuple(self.token_ids[row] for row in kept), tuple(parents))


def root_only(token_id: int) -> Tree:
    """The tree of plain decoding."""
    return Tree((token_id,), (-1,))


def merge_chains(root: int, chains: Iterable[Sequence[int]]) -> Tree:
    """Merge candidate continuations of `root` into one tree; common prefixes become one row.

    Rows come in the order of the chains, so that `Tree.limited` drops the last chains first.
    """
    token_ids, parents = [root], [-1]
    rows: dict[tuple[int, int], int] = {}
    for chain in chains:
        row = 0
        for token_id in chain:
            edge = (row, token_id)
            if edge not in rows:
                rows[edge] = len(token_ids)
                token_ids.append(token_id)
                parents.append(row)
            row = rows[edge]
    return Tree(tuple(token_ids), tuple(parents))
