"""Trees, merging, limits, shapes and growth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forerun.errors import OptionError
from forerun.runtime.growth import GrowingTree, grow
from forerun.runtime.protocol import Candidate
from forerun.runtime.shapes import SHAPES
from forerun.runtime.tree import Tree, merge_chains, root_only

CHAINS = st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=8)


def paths(tree: Tree) -> set[tuple[int, ...]]:
    """The tokens from below the root to every row."""
    found: list[tuple[int, ...]] = [()]
    for row in range(1, len(tree)):
        found.append((*found[tree.parents[row]], tree.token_ids[row]))
    return set(found)


@given(chains=CHAINS)
def test_merging_keeps_every_prefix_of_every_chain_once(chains: list[list[int]]) -> None:
    tree = merge_chains(7, chains)
    prefixes = {tuple(chain[:size]) for chain in chains for size in range(len(chain) + 1)} | {()}
    assert paths(tree) == prefixes
    assert len(tree) == len(prefixes)
    assert tree.token_ids[0] == 7


@given(chains=CHAINS, rows=st.integers(1, 20), depth=st.integers(0, 6))
def test_limits_keep_a_valid_part(chains: list[list[int]], rows: int, depth: int) -> None:
    tree = merge_chains(7, chains)
    limited = tree.limited(rows, depth)
    assert len(limited) <= rows
    assert max(limited.depths) <= depth
    assert paths(limited) <= paths(tree)
    fitting = sum(one <= depth for one in tree.depths)
    assert len(limited) == min(rows, fitting)


@given(chains=CHAINS)
def test_child_finds_exactly_the_rows_there_are(chains: list[list[int]]) -> None:
    tree = merge_chains(7, chains)
    edges = {(tree.parents[row], tree.token_ids[row]): row for row in range(1, len(tree))}
    for row in range(len(tree)):
        for token_id in range(4):
            assert tree.child(row, token_id) == edges.get((row, token_id))


@pytest.mark.parametrize(
    ("token_ids", "parents"),
    [((), ()), ((1,), (0,)), ((1, 2), (-1, 1)), ((1, 2), (-1, -1)), ((1, 2, 2), (-1, 0, 0)), ((1, 2), (-1,))],
)
def test_malformed_trees_are_refused(token_ids: tuple[int, ...], parents: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError):
        Tree(token_ids, parents)


def offer_all(tree: GrowingTree, rows: "list[int] | tuple[int, ...] | range", width: int) -> list[Candidate]:
    return [Candidate(row, 10 * rank + row % 10, rank, 1.0) for row in rows for rank in range(width)]


def grown(spec: str, row_limit: int = 64, depth_limit: int = 99) -> Tree:
    return grow(5, SHAPES.create(spec), row_limit, depth_limit, offer_all)  # type: ignore[arg-type]


def test_a_fixed_tree_has_the_branches_it_was_given() -> None:
    tree = grown("tree:branches=3+2+1")
    assert [tree.depths.count(depth) for depth in range(4)] == [1, 3, 6, 6]


def test_a_chain_is_a_chain() -> None:
    assert grown("chain:tokens=3").parents == (-1, 0, 1, 2)


def test_growth_keeps_to_the_limits() -> None:
    assert len(grown("tree:branches=3+3+3", row_limit=8)) == 8
    assert max(grown("tree:branches=3+3+3", depth_limit=2).depths) == 2
    assert grown("chain", row_limit=1) == root_only(5)


@pytest.mark.parametrize(
    "spec", ["chain:tokens=0", "tree:branches=3+0", "tree:branches=", "star", "chain:width=2"]
)
def test_impossible_shapes_are_refused(spec: str) -> None:
    with pytest.raises(OptionError):
        SHAPES.create(spec)
