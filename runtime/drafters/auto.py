"""The planner as a drafter: lookup and the bundle's draft network, each as far as it pays, or nothing.

Before every call it asks what the next drafted row is likely to bring and what it costs (`planner.py`): costs are
measured on this machine, chances are what the drafts of this model have lately been worth. Free drafts come first; the
network drafts for the case that they are wrong. A network that does not pay is tried again from time to time, ever
more rarely.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from forerun.errors import OptionError
from forerun.runtime.costs import LiveCosts
from forerun.runtime.drafters.exit import ExitDrafter
from forerun.runtime.drafters.feature import FeatureDrafter
from forerun.runtime.drafters.heads import HeadsDrafter
from forerun.runtime.drafters.lookup import Lookup
from forerun.runtime.planner import Frequency, Pace, Path, PlannedShape, Planner
from forerun.runtime.protocol import Draft, DraftContext, Observation, SessionLike
from forerun.runtime.tree import merge_chains, root_only

# Networks that can draft, best first where a bundle has several.
_NETWORKS = {kind.name: kind for kind in (FeatureDrafter, ExitDrafter, HeadsDrafter)}
_COPIED = 12  # tokens that lookup may copy at most


class Auto:
    """Drafts with lookup and with a `network` of the bundle (default: the first of feature, exit, heads that it has;
    `none` for lookup alone) as far as it makes this machine faster."""

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = (
        "lookup and the bundle's draft network as far as they pay here, by measured costs"
    )

    def __init__(self, network: str = "") -> None:
        if network and network != "none" and network not in _NETWORKS:
            raise OptionError(
                f"drafter 'auto': network is {network!r}; it is none or one of {', '.join(_NETWORKS)}"
            )
        self._wanted = network
        self._network: FeatureDrafter | ExitDrafter | HeadsDrafter | None = None
        self._lookup = Lookup(max_ngram=5, min_ngram=2, tokens=_COPIED)

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        """Open the network; raises `OptionError` if it is named and the bundle does not have it."""
        self._planner: Planner = session.drafts.planner
        self._lookup.begin(session, sequence, prompt)
        self._network = self._choose(session)
        if self._network is not None:
            self._network.begin(session, sequence, prompt)
            self._planner.network(self._network.name).begin()
        self._pace = Pace()
        self._step: Step | None = None

    @property
    def taps(self) -> tuple[int, ...]:
        """Those of the network, as long as it may draft soon."""
        if self._network is None or not self._planner.network(self._network.name).wants_states:
            return ()
        return self._network.taps

    def _choose(self, session: SessionLike) -> FeatureDrafter | ExitDrafter | HeadsDrafter | None:
        if self._wanted == "none":
            return None
        found = [name for name in _NETWORKS if name in session.drafts.names]
        name = self._wanted or (found[0] if found else "")
        return _NETWORKS[name](threshold=0.0) if name else None

    def propose(self, context: DraftContext) -> Draft:
        """What pays: nothing, a copy, a tree of the network's, or both in one tree."""
        self._step = None
        if context.depth_limit < 1 or context.row_limit < 2:
            return Draft(root_only(context.root))
        costs = self._planner.costs_of(context.session, context.sequence, context.root)
        together = context.beside + 1
        step = Step(costs, self._pace.rate * together / costs.relative(together), context.beside == 0)
        draft = self._draft(context, step, self._copy(context, step))
        step.time += costs.relative(context.beside + len(draft.tree)) / together
        step.proposed_at = time.perf_counter()
        self._step = step
        return draft

    def observe(self, observation: Observation) -> None:
        """Count which rows were right, and how fast the text came."""
        if self._network is not None:
            self._network.observe(observation)
        step = self._step
        if observation.draft is None or step is None:
            return
        tree = observation.draft.tree
        if step.is_alone:
            step.costs.note(len(tree), 1000 * (time.perf_counter() - step.proposed_at))
        self._pace.note(len(observation.path), step.time)
        if step.levels and self._network is not None:
            plan = self._planner.network(self._network.name)
            plan.note_gain(step.costs, step.rate, step.levels, len(tree), len(observation.path) - 1)
        accepted = set(observation.path)
        paths: list[Path] = [()]
        for row in range(1, len(tree)):
            parent = tree.parents[row]
            paths.append((*paths[parent], tree.token_ids[row]))
            for frequency in step.counted.get(paths[row], ()) if parent in accepted else ():
                frequency.note(row in accepted)

    def _copy(self, context: DraftContext, step: "Step") -> tuple[int, ...]:
        """Tokens to copy from the text, as many as pay; sets the chance that this is not what comes."""
        size, chain = self._lookup.match(context.token_ids)
        chain = chain[: min(context.depth_limit, context.row_limit - 1)]
        kept, best, gain, chance = 0, 0.0, 0.0, 1.0
        frequencies = [self._planner.copied(size, depth) for depth in range(1, len(chain) + 1)]
        for count, frequency in enumerate(frequencies, start=1):
            chance *= frequency.value
            gain += chance - step.rate * step.costs.marginal(context.beside + count)
            if gain > best:
                kept, best = count, gain
        for depth in range(1, kept + 1):
            step.counted[chain[:depth]] = [frequencies[depth - 1]]
        step.doubt = 1 - frequencies[0].value if kept else 1.0
        return chain[:kept]

    def _draft(self, context: DraftContext, step: "Step", copied: tuple[int, ...]) -> Draft:
        """The copy and what the network adds to it, where that pays."""
        alone = Draft(merge_chains(context.root, [copied]), origin="lookup" if copied else "none")
        network = self._network
        # The model's layers that an exit network runs are staged, and rows of a copy could not come before them.
        if network is None or (copied and isinstance(network, ExitDrafter)):
            return alone
        plan = self._planner.network(network.name)
        before = 1 + len(copied) + context.beside
        gain = plan.expected_gain(step.costs, step.rate, step.doubt, before)
        if not plan.is_due(gain):
            return alone
        shape = PlannedShape(step.costs, plan, step.rate, reach=step.doubt, rows_before=before)
        network.shape = shape
        started = time.perf_counter()
        drafted = network.propose(context)
        step.time = 1000 * (time.perf_counter() - started) / step.costs.plain_ms
        plan.note_time(step.time, shape.levels)
        step.levels = 0 if copied else shape.levels
        for path, frequencies in shape.counted.items():
            step.counted.setdefault(path, []).extend(frequencies)
        if len(drafted.tree) == 1 and not drafted.done:
            return alone
        if drafted.done:
            return replace(drafted, origin="network")
        tree = merge_chains(context.root, [copied, *shape.counted])
        return Draft(
            tree.limited(context.row_limit, context.depth_limit),
            origin="lookup+network" if copied else "network",
        )


@dataclass
class Step:
    """One proposal: what it was based on, its time in plain calls, and which frequencies its rows count for.

    `doubt` is the chance that the copy is wrong from its first token on, `levels` those of a draft without a copy.
    """

    costs: LiveCosts
    rate: float
    is_alone: bool
    doubt: float = 1.0
    time: float = 0.0
    levels: int = 0
    proposed_at: float = 0.0
    counted: dict[Path, list[Frequency]] = field(default_factory=dict)
