"""Shapes that look at probabilities: every row they draft can be accounted for."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forerun.errors import OptionError
from forerun.runtime.growth import Expanded, GrowingTree, grow
from forerun.runtime.protocol import Candidate, Shape
from forerun.runtime.shapes import SHAPES
from forerun.runtime.tree import Tree

# A draft that gives every row the same children: their probabilities, falling.
CHANCES = st.lists(st.floats(0.01, 0.5), min_size=1, max_size=4).map(lambda some: sorted(some, reverse=True))


def grown(shape: Shape, chances: Sequence[float], rows: int = 64) -> tuple[Tree, dict[int, float], list[int]]:
    """The tree, the chance of each row's path, and the rows that got children offered."""
    reach = {0: 1.0}
    expanded: list[int] = []

    def offer(tree: GrowingTree, at: Sequence[int], width: int) -> list[Candidate]:
        reach.update(enumerate(tree.reach))
        expanded.extend(at)
        return [
            Candidate(row, 10 * tree.depths[row] + rank, rank, chance)
            for row in at
            for rank, chance in enumerate(chances[:width])
        ]

    tree = grow(5, shape, rows, 50, offer)
    for row in range(1, len(tree)):
        reach[row] = reach[tree.parents[row]] * chances[tree.token_ids[row] % 10]
    return tree, reach, expanded


@given(chances=CHANCES, bound=st.floats(0.001, 0.6), rows=st.integers(1, 40))
def test_grown_trees_hold_the_likely_paths(chances: list[float], bound: float, rows: int) -> None:
    shape = SHAPES.create(f"grown:rows={rows},tokens=4,width=4,beam=64,reach={bound}")
    tree, reach, _ = grown(shape, chances)
    assert all(reach[row] >= bound * (1 - 1e-9) for row in range(1, len(tree)))
    assert len(tree) - 1 <= rows
    if len(tree) - 1 < rows:  # nothing likely enough was left out
        for row in range(len(tree)):
            wanted = sum(reach[row] * chance >= bound * (1 + 1e-9) for chance in chances)
            assert tree.depths[row] == 4 or tree.parents.count(row) >= wanted


def test_grown_trees_expand_their_beam() -> None:
    _, _, expanded = grown(
        SHAPES.create("grown:beam=2,width=3,tokens=3,reach=0.001,rows=60"), [0.5, 0.3, 0.1]
    )
    assert len(expanded) == 1 + 2 + 2


@given(chances=CHANCES, siblings=st.integers(0, 3), tokens=st.integers(1, 5))
def test_cape_is_a_chain_with_leaves(chances: list[float], siblings: int, tokens: int) -> None:
    tree, _, expanded = grown(SHAPES.create(f"cape:tokens={tokens},siblings={siblings}"), chances)
    beside = min(round(siblings * (1 - chances[0])), len(chances) - 1)
    assert len(tree) == 1 + tokens * (1 + beside)
    assert max(tree.depths) == tokens
    assert len(expanded) == tokens
    assert all(tree.token_ids[row] % 10 == 0 for row in expanded[1:])


@given(chances=CHANCES, siblings=st.integers(0, 3))
def test_rows_with_children_can_be_put_first(chances: list[float], siblings: int) -> None:
    tree, _, rows = grown(SHAPES.create(f"cape:siblings={siblings}"), chances)
    expanded = Expanded()
    growing = GrowingTree(list(tree.token_ids), list(tree.parents), list(tree.depths))
    for row in rows:
        parents, places = expanded.add(growing, [row])
        assert places == [len(expanded.rows) - 1]
        assert parents == [-1 if row == 0 else expanded.rows.index(tree.parents[row])]
    first = expanded.first(tree)
    assert first.token_ids[: len(rows)] == tuple(tree.token_ids[row] for row in rows)

    def paths(one: Tree) -> set[tuple[int, ...]]:
        found: list[tuple[int, ...]] = [()]
        for row in range(1, len(one)):
            found.append((*found[one.parents[row]], one.token_ids[row]))
        return set(found)

    assert paths(first) == paths(tree)


@pytest.mark.parametrize("spec", ["grown:rows=0", "grown:reach=2", "cape:tokens=0", "cape:siblings=-1"])
def test_numbers_out_of_range(spec: str) -> None:
    with pytest.raises(OptionError, match="shape '"):
        SHAPES.create(spec)
