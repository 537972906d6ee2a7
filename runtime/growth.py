"""Growing a draft tree level by level: the drafter offers candidates, the shape selects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from forerun.runtime.protocol import Candidate, Shape
from forerun.runtime.tree import Tree


@dataclass
class GrowingTree:
    """A tree under construction; lists as in `Tree`, and every row's depth and the draft probability of its path."""

    token_ids: list[int]
    parents: list[int] = field(default_factory=lambda: [-1])
    depths: list[int] = field(default_factory=lambda: [0])
    reach: list[float] = field(default_factory=lambda: [1.0])

    def add(self, candidate: Candidate) -> int:
        """Append a candidate as a row and return its index."""
        self.token_ids.append(candidate.token_id)
        self.parents.append(candidate.parent)
        self.depths.append(self.depths[candidate.parent] + 1)
        self.reach.append(self.reach[candidate.parent] * candidate.probability)
        return len(self.token_ids) - 1

    def freeze(self) -> Tree:
        """The finished tree."""
        return Tree(tuple(self.token_ids), tuple(self.parents))


class Expanded:
    """Which rows of a growing tree were given children, in the order in which they were staged in a session."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self._places = {-1: -1}

    def add(self, tree: GrowingTree, rows: Sequence[int]) -> tuple[list[int], list[int]]:
        """Rows that are to be staged now; the places of their parents among those staged, and their own."""
        parents = [self._places[tree.parents[row]] for row in rows]
        places = list(range(len(self.rows), len(self.rows) + len(rows)))
        self._places.update(zip(rows, places, strict=True))
        self.rows += rows
        return parents, places

    def first(self, tree: Tree) -> Tree:
        """The same tree with these rows before all others, as they were staged."""
        if self.rows == list(range(len(self.rows))):
            return tree
        others = sorted(set(range(len(tree))) - set(self.rows))
        order = [*self.rows, *others]
        place = {row: index for index, row in enumerate(order)} | {-1: -1}
        return Tree(
            tuple(tree.token_ids[row] for row in order), tuple(place[tree.parents[row]] for row in order)
        )


Offer = Callable[[GrowingTree, Sequence[int], int], list[Candidate]]


def grow(root: int, shape: Shape, row_limit: int, depth_limit: int, offer: Offer) -> Tree:
    """Grow a tree below `root`. `offer(tree, rows, width)` gives up to `width` children for each of `rows`.

    Stops at the shape's depth, at the limits, or when nothing is offered or selected.
    """
    tree = GrowingTree([root])
    level_rows: Sequence[int] = (0,)
    for level in range(1, min(shape.depth, depth_limit) + 1):
        room = row_limit - len(tree.token_ids)
        if room <= 0:
            break
        offered = offer(tree, level_rows, shape.width(level))
        chosen, expanded = shape.select(level, offered, tree.reach)
        level_rows = [tree.add(candidate) for candidate in chosen[:room]][:expanded]
        if not level_rows:
            break
    return tree.freeze()
