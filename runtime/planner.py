"""Whether a draft pays: what calls cost on this device, how often drafts have been right, what a row is worth.

Times are in units of a plain call, T(1). With tokens coming at `rate` per such unit, a unit of time is worth `rate`
tokens, so a row pays if the chance that it is accepted exceeds `rate` times what it adds to the call. That rule, with
the rate that drafting really reaches, gives the most tokens for the time in the long run (the price of time in a
renewal process; Smith's rule for one machine). The rate is 1 or more: plain decoding is always possible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from forerun.runtime.costs import KeptCosts, LiveCosts, measure_rows
from forerun.runtime.protocol import Candidate, SessionLike

Path: TypeAlias = tuple[int, ...]  # tokens from below the root to a row

MOST_LEVELS = 8
_CHILDREN = 3  # candidates looked at below a row
_LEARNING = 0.1  # what a new time counts for
_LEAST_PATIENCE, _MOST_PATIENCE = 16, 256  # calls between trials of a network that does not pay
_TRIAL = 4  # calls that a trial lasts
_LINGERING, _NOTICE = 4, 8  # calls for which its rows are kept after it drafted, and before it is tried
# How often the first token of a copy is right, before anything was seen, by the length of the match.
_COPY_CHANCES = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8)

FORGETTING = 0.98  # what an observation is worth at the next one of its kind: about the last fifty count
ASSUMED = 4.0  # observations that the assumption before the first one counts for


@dataclass
class Frequency:
    """How often something came true, recent times counting most; `assumed` before anything was seen."""

    assumed: float
    hits: float = 0.0
    tries: float = 0.0

    @property
    def value(self) -> float:
        """The estimate."""
        return (self.hits + ASSUMED * self.assumed) / (self.tries + ASSUMED)

    def note(self, came_true: bool) -> None:
        """One more observation."""
        self.hits = FORGETTING * self.hits + came_true
        self.tries = FORGETTING * self.tries + 1.0


@dataclass
class Average:
    """A mean of numbers, recent ones counting most."""

    total: float = 0.0
    weight: float = 0.0

    def value(self, assumed: float) -> float:
        """The estimate; `assumed` before anything was seen."""
        return (self.total + ASSUMED * assumed) / (self.weight + ASSUMED)

    def note(self, number: float) -> None:
        """One more."""
        self.total = FORGETTING * self.total + number
        self.weight = FORGETTING * self.weight + 1.0


class NetworkPlan:
    """What is known of one draft network: what its own probabilities are worth, and what it costs.

    `cells` count how often rows were accepted, given that their parents were, by the network's probability in tenths
    and whether the row was its first choice. Costs are in units of a plain call: of the root's level, and of each
    further one.
    """

    def __init__(self) -> None:
        self.cells: dict[tuple[int, bool], Frequency] = {}
        self.first_choices: list[Frequency] = []
        self.first_cost = self.level_cost = 0.1
        self._gains = Average()
        self._waited = self._patience = _LEAST_PATIENCE
        self._trial = 0
        self._paused = False

    def begin(self) -> None:
        """Another text, where it may be worth more or less: to be tried at once."""
        self._waited = self._patience = _LEAST_PATIENCE
        self._trial = 0

    def cell(self, probability: float, rank: int) -> Frequency:
        """Where drafts like this one are counted; at first their probability is taken at its word."""
        tenth = min(int(10 * probability), 9)
        return self.cells.setdefault((tenth, rank == 0), Frequency((tenth + 0.5) / 10))

    def at_depth(self, depth: int) -> Frequency:
        """How often the first choice at this depth (1 = below the root) is right."""
        while len(self.first_choices) < depth:
            self.first_choices.append(Frequency(0.5))
        return self.first_choices[depth - 1]

    def expected_gain(self, costs: LiveCosts, rate: float, reach: float, rows_before: int) -> float:
        """Tokens that a draft should bring beyond what its time is worth; 0 or less: do not draft. `reach` is the
        chance that it matters at all: where it is 1, what drafts have brought counts, and else, or before there were
        any, what a chain of the best length should bring.
        """
        alone = reach == 1
        gain = best = -rate * self.first_cost
        for depth in range(1, MOST_LEVELS + 1):
            reach *= self.at_depth(depth).value
            gain += reach - rate * costs.marginal(rows_before + depth - 1)
            best = max(best, gain)
            gain -= rate * self.level_cost
        return self._gains.value(best) if alone else best

    def note_gain(self, costs: LiveCosts, rate: float, levels: int, rows: int, accepted: int) -> None:
        """A draft of so many levels, for which nothing was copied, made a call of `rows` rows of which `accepted` were
        right.
        """
        time = self.first_cost + (levels - 1) * self.level_cost + costs.relative(rows) - 1
        self._gains.note(accepted - rate * time)

    def is_due(self, gain: float) -> bool:
        """Whether to draft: because it should pay, or, ever more rarely and for some calls, to see whether it does."""
        self._paused = self._waited > 0
        if gain > 0:
            self._patience, self._trial = _LEAST_PATIENCE, 0
        elif self._trial > 0:
            self._trial -= 1
        elif self._waited < self._patience:
            self._waited += 1
            return False
        else:
            self._patience, self._trial = min(2 * self._patience, _MOST_PATIENCE), _TRIAL - 1
        self._waited = 0
        return True

    @property
    def wants_states(self) -> bool:
        """Whether it may draft soon; a network that does not pay is not followed until shortly before its trial."""
        return self._waited < _LINGERING or self._waited >= self._patience - _NOTICE

    def note_time(self, time: float, levels: int) -> None:
        """A draft of so many levels took this long. The first one after a pause has rows to catch up with and says
        little.
        """
        if self._paused:
            return
        if levels <= 1:
            self.first_cost += _LEARNING * (time - self.first_cost)
        else:
            self.level_cost += _LEARNING * (max(time - self.first_cost, 0.0) / (levels - 1) - self.level_cost)


class Pace:
    """How fast text comes: tokens for the time of a plain call; recent steps count most."""

    def __init__(self) -> None:
        self._tokens = self._time = 0.0

    @property
    def rate(self) -> float:
        """At least 1."""
        return max(self._tokens / self._time, 1.0) if self._time > 0 else 1.0

    def note(self, tokens: int, time: float) -> None:
        """One verify call and the draft before it."""
        self._tokens = FORGETTING * self._tokens + tokens
        self._time = FORGETTING * self._time + time


class Planner:
    """What is known of a model's drafts on this machine; shared by all answers of a session."""

    def __init__(self, kept: Callable[[], KeptCosts] | None = None) -> None:
        """`kept()` is where costs are kept from one process to the next, None: nowhere."""
        self._kept = kept
        self._costs: LiveCosts | None = None
        self._networks: dict[str, NetworkPlan] = {}
        self._copied: dict[tuple[int, int], Frequency] = {}

    def costs_of(self, session: SessionLike, sequence: int, token_id: int) -> LiveCosts:
        """The costs of calls, which are measured at the first time."""
        if self._costs is None:
            kept = None if self._kept is None else self._kept()
            measured = None if kept is None else kept.load()
            if measured is None:
                measured = measure_rows(session, sequence, token_id)
                if kept is not None and measured.is_whole:
                    kept.save(measured)
            self._costs = LiveCosts(measured)
        return self._costs

    def network(self, name: str) -> NetworkPlan:
        """What is known of a network."""
        return self._networks.setdefault(name, NetworkPlan())

    def copied(self, size: int, depth: int) -> Frequency:
        """How often the token at this depth of a copy was right, of a match of so many tokens."""
        key = min(size, len(_COPY_CHANCES) - 1), min(depth, 4)
        return self._copied.setdefault(key, Frequency(_COPY_CHANCES[key[0]] if depth == 1 else 0.75))


class PlannedShape:
    """A tree that grows as long as it pays; one for each draft.

    `reach` is the chance that the draft matters at all, `rows_before` the rows that the call has already, the root
    included. `counted` gets, for each path of tokens that was chosen, the frequencies that its outcome counts for.
    """

    name: ClassVar[str] = "planned"
    summary: ClassVar[str] = "as many rows as pay, by measured costs and acceptance"
    depth = MOST_LEVELS

    def __init__(
        self, costs: LiveCosts, plan: NetworkPlan, rate: float, *, reach: float = 1.0, rows_before: int = 1
    ) -> None:
        self.levels = 0
        self.counted: dict[Path, list[Frequency]] = {}
        self._costs, self._plan, self._rate, self._before = costs, plan, rate, rows_before
        self._reach = [reach]
        self._paths: list[Path] = [()]

    def width(self, level: int) -> int:
        """The same at every level."""
        return _CHILDREN

    def select(
        self, level: int, candidates: Sequence[Candidate], reach: Sequence[float]
    ) -> tuple[list[Candidate], int]:
        """The rows that pay, likeliest first, and how many of them should get children."""
        self.levels += 1
        rated = []
        for one in candidates:
            frequency = self._plan.cell(one.probability, one.rank)
            rated.append((self._reach[one.parent] * frequency.value, frequency, one))
        rated.sort(key=lambda entry: -entry[0])
        chosen = []
        for chance, frequency, one in rated:
            if chance <= self._rate * self._costs.marginal(self._before + len(self._paths) - 1):
                break
            path = (*self._paths[one.parent], one.token_id)
            self.counted[path] = [frequency, *([self._plan.at_depth(level)] if one.rank == 0 else [])]
            self._paths.append(path)
            self._reach.append(chance)
            chosen.append(one)
        return chosen, self._expanded(level, [entry[0] for entry in rated[: len(chosen)]])

    def _expanded(self, level: int, chances: Sequence[float]) -> int:
        """How many of the new rows should get children: as many as bring the most, or none."""
        right = self._plan.at_depth(level + 1).value
        best, best_count, gain = 0.0, 0, -self._rate * self._plan.level_cost
        for count, chance in enumerate(chances, start=1):
            gain += chance * right
            gain -= self._rate * self._costs.marginal(self._before + len(self._paths) - 2 + count)
            if gain > best:
                best, best_count = gain, count
        return best_count
