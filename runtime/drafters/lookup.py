"""Prompt lookup (Saxena, 2023): the last tokens occurred before, so propose what followed then."""

from collections.abc import Sequence
from typing import ClassVar

from forerun.errors import OptionError
from forerun.runtime.growth import GrowingTree, grow
from forerun.runtime.protocol import Candidate, Draft, DraftContext, Observation, SessionLike, Shape
from forerun.runtime.tree import Tree, merge_chains, root_only

# Occurrences of one n-gram that are looked through for distinct continuations.
_OCCURRENCES = 32


class Lookup:
    """Finds the longest match, of `min_ngram` to `max_ngram` tokens, of the text's end in prompt and output.

    Up to `branches` distinct continuations, `tokens` long, the most recent first, are merged into one tree;
    shorter matches are asked when the longest has too few. With a shape, the shape picks from that tree.
    """

    name: ClassVar[str] = "lookup"
    summary: ClassVar[str] = "copy what followed the longest earlier match of the last tokens"
    taps: tuple[int, ...] = ()

    def __init__(
        self,
        max_ngram: int = 4,
        min_ngram: int = 3,
        tokens: int = 7,
        branches: int = 1,
        shape: Shape | None = None,
    ) -> None:
        if not 1 <= min_ngram <= max_ngram:
            raise OptionError(
                f"drafter 'lookup': min_ngram is {min_ngram} and max_ngram {max_ngram};"
                " they must be 1 or more, and min_ngram at most max_ngram"
            )
        if tokens < 1 or branches < 1:
            raise OptionError(
                f"drafter 'lookup': tokens is {tokens} and branches {branches}; both must be 1 or more"
            )
        self._sizes = range(max_ngram, min_ngram - 1, -1)
        self._tokens = tokens
        self._branches = branches
        self._shape = shape
        self._ends: dict[tuple[int, ...], list[int]] = {}
        self._indexed = 0

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        """Forget the last text. Raises `OptionError` for branches where the model takes chains alone."""
        if self._branches > 1 and (self._shape is None or is_wide(self._shape)):
            session.abilities.require_trees("the drafter 'lookup' with branches")
        self._ends = {}
        self._indexed = 0

    def propose(self, context: DraftContext) -> Draft:
        """The merged continuations, or the root alone when nothing matches."""
        self._extend_index(context.token_ids)
        if context.depth_limit < 1 or context.row_limit < 2:
            return Draft(root_only(context.root))
        tree = merge_chains(context.root, self._continuations(context.token_ids))
        tree = tree.limited(context.row_limit, context.depth_limit)
        return Draft(tree if self._shape is None else _pick(tree, self._shape, context))

    def match(self, token_ids: Sequence[int]) -> tuple[int, tuple[int, ...]]:
        """Tokens of the longest match of the text's end, and what followed it most recently; 0 and nothing else."""
        self._extend_index(token_ids)
        for size in self._sizes:
            ends = self._ends.get(tuple(token_ids[-size:])) if size <= len(token_ids) else None
            if ends:
                return size, _copy(token_ids, ends[-1], self._tokens)
        return 0, ()

    def observe(self, observation: Observation) -> None:
        """Nothing: `propose` sees all tokens."""

    def _extend_index(self, token_ids: Sequence[int]) -> None:
        """Enter every n-gram that is followed by a token: n-gram → positions after it, oldest first."""
        for end in range(max(self._indexed, 1), len(token_ids)):
            for size in self._sizes:
                if size <= end:
                    self._ends.setdefault(tuple(token_ids[end - size : end]), []).append(end)
        self._indexed = len(token_ids)

    def _continuations(self, token_ids: Sequence[int]) -> list[tuple[int, ...]]:
        """Distinct continuations, of the longest match first and the most recent first among equals."""
        chains: dict[tuple[int, ...], None] = {}
        for size in self._sizes:
            ends = self._ends.get(tuple(token_ids[-size:]), []) if size <= len(token_ids) else []
            for end in ends[: -_OCCURRENCES - 1 : -1]:
                chains.setdefault(_copy(token_ids, end, self._tokens))
                if len(chains) == self._branches:
                    return list(chains)
        return list(chains)


def is_wide(shape: Shape) -> bool:
    """Whether a shape lets rows have several children."""
    return any(shape.width(level) > 1 for level in range(1, shape.depth + 1))


def _copy(token_ids: Sequence[int], start: int, count: int) -> tuple[int, ...]:
    """`count` tokens from `start`; past the end, go on with the copy itself, as a repetition does."""
    copied = list(token_ids[start : start + count])
    period = len(token_ids) - start
    while len(copied) < count:
        copied.append(copied[len(copied) - period])
    return tuple(copied)


def _pick(tree: Tree, shape: Shape, context: DraftContext) -> Tree:
    """Let a shape choose from the merged continuations, siblings ranked by how recent they are."""
    children: dict[int, list[int]] = {}
    for row, parent in enumerate(tree.parents):
        children.setdefault(parent, []).append(row)
    source = [0]  # the row of `tree` behind each row of the growing one

    def offer(growing: GrowingTree, rows: Sequence[int], width: int) -> list[Candidate]:
        # Rows added since the last call are resolved now: the shape, not this function, chose them.
        for row in range(len(source), len(growing.token_ids)):
            above = source[growing.parents[row]]
            match = tree.child(above, growing.token_ids[row])
            assert match is not None, "a shape selects only what it was offered"
            source.append(match)
        return [
            Candidate(row, tree.token_ids[below], rank, 1.0)
            for row in rows
            for rank, below in enumerate(children.get(source[row], [])[:width])
        ]

    return grow(context.root, shape, context.row_limit, context.depth_limit, offer)
