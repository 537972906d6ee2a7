"""Self-speculation: some of the model's own sublayers draft, all of them verify.

Two ways to choose them: the first layers and the head (LayerSkip, Elhoushi et al., 2024), whose hidden states
and keys the verify call continues; or everything but a set of skipped sublayers (Draft & Verify, Zhang et
al., 2023), whose rows are dropped and verified from the start.
"""

from collections.abc import Sequence
from typing import ClassVar

from forerun.errors import OptionError
from forerun.runtime.drafters.offers import Place, check_options, offer_children
from forerun.runtime.growth import Expanded, GrowingTree, grow
from forerun.runtime.protocol import Candidate, Draft, DraftContext, Observation, SessionLike, Shape, StepLike
from forerun.runtime.session import full_steps
from forerun.runtime.shapes.chain import Chain
from forerun.runtime.tree import root_only

_KINDS = {"a": "attention", "f": "feed_forward"}


class SelfDrafter:
    """Drafts with the first `layers` layers, or with all sublayers but `skip` (`a3+f3`: attention and
    feed-forward of layer 3, counting from 0). With neither given: the first two thirds of the layers.

    Drafts `tokens` in a chain, or as a shape says, and stops where its own probability is below `threshold`.
    """

    name: ClassVar[str] = "self"
    summary: ClassVar[str] = "the model's first layers, or all but a skip set, draft for the whole model"
    taps: tuple[int, ...] = ()

    def __init__(
        self,
        layers: int | None = None,
        skip: str = "",
        tokens: int = 3,
        threshold: float = 0.0,
        shape: Shape | None = None,
    ) -> None:
        if layers is not None and skip:
            raise OptionError("drafter 'self': give layers or skip, not both")
        check_options(self.name, threshold, tokens)
        self._layers = layers
        self._skip = parse_skip_set(skip)
        self._threshold = threshold
        self._shape = shape or Chain(tokens)
        self._steps: tuple[StepLike, ...] = ()

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        """Choose the steps for this model; raises `OptionError` for layers it does not have."""
        session.abilities.require_layer_subsets("the drafter 'self'")
        config = session.config
        steps = full_steps(config.layers)
        if self._skip:
            self._steps = tuple(step for step in steps if (step.kind, step.layer) not in self._skip)
            outside = sorted(layer for _, layer in self._skip if layer >= config.layers)
            if outside:
                raise OptionError(
                    f"drafter 'self': skip names layer {outside[0]}; the model has {config.layers} layers"
                )
            return
        layers = max(2 * config.layers // 3, 1) if self._layers is None else self._layers
        if not 1 <= layers < max(config.layers, 2):
            raise OptionError(
                f"drafter 'self': layers is {layers}; it must be between 1 and {config.layers - 1}"
                f" (the model has {config.layers} layers)"
            )
        self._steps = steps[: 2 * layers]

    def propose(self, context: DraftContext) -> Draft:
        """Grow a tree by running the draft sublayers level by level."""
        if context.depth_limit < 1 or context.row_limit < 2:
            return Draft(root_only(context.root))
        expanded = Expanded()

        def offer(tree: GrowingTree, rows: Sequence[int], width: int) -> list[Candidate]:
            return self._expand(context, tree, rows, width, expanded)

        tree = grow(context.root, self._shape, context.row_limit, context.depth_limit, offer)
        if self._skip or len(self._steps) > context.reusable_sublayers:
            context.session.commit(context.sequence, ())
            return Draft(tree)
        # The last level was proposed but not run: it is not staged yet.
        return Draft(expanded.first(tree), done=(len(self._steps),) * len(expanded.rows))

    def observe(self, observation: Observation) -> None:
        """Nothing to learn."""

    def _expand(
        self,
        context: DraftContext,
        tree: GrowingTree,
        rows: Sequence[int],
        width: int,
        expanded: Expanded,
    ) -> list[Candidate]:
        """Stage `rows`, run the draft sublayers on them and offer the best children of each."""
        parents, places = expanded.add(tree, rows)
        context.session.stage(context.sequence, [tree.token_ids[row] for row in rows], parents)
        result = context.session.forward([(context.sequence, place) for place in places], steps=self._steps)
        offers: list[Candidate] = []
        for row, logits in zip(rows, result.logits, strict=True):
            offers += offer_children(context, Place(row, tree.depths[row], width), logits, self._threshold)
        return offers


def parse_skip_set(text: str) -> frozenset[tuple[str, int]]:
    """`a3+f3+a17` → {("attention", 3), ("feed_forward", 3), ("attention", 17)}; raises `OptionError`."""
    sublayers = set()
    for part in filter(None, text.split("+")):
        if part[0] not in _KINDS or not part[1:].isascii() or not part[1:].isdigit():
            raise OptionError(
                f"drafter 'self': {part!r} in skip={text!r} is no sublayer; write a3 for the attention and"
                " f3 for the feed-forward part of layer 3, joined by +"
            )
        sublayers.add((_KINDS[part[0]], int(part[1:])))
    return frozenset(sublayers)
