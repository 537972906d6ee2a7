"""The roles around the loop in `generate.py`: a session, a drafter, its shape, acceptance, exits.

A new drafter, shape, acceptance rule or exit policy is one file in its folder and one word in that folder's
`__init__.py`; it implements the Protocol here and touches no other file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np

from forerun.runtime.abilities import Abilities
from forerun.runtime.settings import Sampling
from forerun.runtime.tree import Tree


class Config(Protocol):
    """The sizes of a model that the loop and the drafters need; `session.ModelConfig` is one."""

    @property
    def layers(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def vocabulary_size(self) -> int: ...
    @property
    def max_rows(self) -> int: ...
    @property
    def max_gather(self) -> int: ...


class StepLike(Protocol):
    """One sublayer of a `forward` call; `session.Step` is one."""

    @property
    def kind(self) -> Any: ...
    @property
    def layer(self) -> int: ...


@dataclass(frozen=True)
class Drawable:
    """A row that a token can be drawn from without its logits ever being written out; valid, as an array of
    logits would be, until the next `forward`. `index` counts the rows asked for."""

    index: int


# What a token is drawn from: a row's logits [V] float32, or a stand-in for them.
RowLogits: TypeAlias = np.ndarray | Drawable


class Result(Protocol):
    """What `forward` returns; arrays are views that the next `forward` overwrites."""

    @property
    def logits(self) -> np.ndarray: ...  # [rows asked for, V] float32; none with `draws`
    @property
    def drawable(self) -> Sequence[Drawable]: ...  # with `draws`: what stands in for each row's logits
    @property
    def taps(self) -> Mapping[int, np.ndarray]: ...  # layer → [rows, D] float32


class DraftsLike(Protocol):
    """The draft networks that a session can run beside the model; `drafts.Drafts` is one."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def planner(self) -> Any: ...  # what is known of drafts' costs and worth, a `planner.Planner`
    def open(self, name: str) -> Any: ...
    def close(self) -> None: ...


class SessionLike(Protocol):
    """The calls of `session.Session` that everything above uses, and that the tests' scripted model has."""

    @property
    def config(self) -> Config: ...
    @property
    def capacity(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def abilities(self) -> Abilities: ...
    @property
    def drafts(self) -> DraftsLike: ...
    @property
    def native_loop(self) -> Any: ...  # a `native_loop.NativeLoop` where the core can run the loop, else None
    def create_sequence(self) -> int: ...
    def release_sequence(self, seq: int) -> None: ...
    def save(self, seq: int, path: Path) -> None: ...
    def restore(self, path: Path) -> int: ...
    def token_ids(self, seq: int) -> list[int]: ...
    def length(self, seq: int) -> int: ...
    def staged(self, seq: int) -> int: ...
    def stage(self, seq: int, token_ids: Sequence[int], parents: Sequence[int] | None = None) -> range: ...
    def forward(
        self,
        rows: Sequence[tuple[int, int]],
        *,
        steps: Sequence[Any] | None = None,
        logits: Sequence[int] | None = None,
        taps: Sequence[int] = (),
        draws: bool = False,
        sampling: Sequence[Sampling] = (),
    ) -> Result: ...
    def commit(self, seq: int, path: Sequence[int]) -> None: ...
    def rewind(self, seq: int, length: int) -> None: ...
    def sample(
        self, logits: np.ndarray, *, temperature: float, top_k: int, top_p: float, seed: int, position: int
    ) -> int: ...
    def draw(
        self, row: Drawable, *, temperature: float, top_k: int, top_p: float, seed: int, position: int
    ) -> int: ...
    def rank(
        self,
        logits: np.ndarray,
        count: int,
        sampling: Sampling,
        position: int,
        token_ids: np.ndarray | None = None,
    ) -> list[tuple[int, float]]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class DraftContext:
    """What a drafter sees before each verify call.

    `token_ids` are the prompt and everything drawn, the last one being the root of the next tree, which is
    not in the cache yet. A tree may have `row_limit` rows, the root included, and be `depth_limit` deep. A
    drafter may leave rows staged for the verify call to continue, but not past `reusable_sublayers`: an exit
    policy has to see them before. `beside` is how many other answers are likely to share the call.
    """

    session: SessionLike
    sequence: int
    token_ids: Sequence[int]
    row_limit: int
    depth_limit: int
    reusable_sublayers: int
    sampling: Sampling
    beside: int = 0

    @property
    def root(self) -> int:
        """The token that was drawn last."""
        return self.token_ids[-1]

    def draw(self, logits: RowLogits, depth: int) -> int:
        """Draw the token after a row `depth` below the root, exactly as the loop will."""
        return draw(self.session, logits, self.sampling, len(self.token_ids) + depth)


def draw(session: SessionLike, logits: RowLogits, sampling: Sampling, position: int) -> int:
    """Draw the token at absolute `position` from a row's logits with the session's own sampler."""
    numbers: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "position": position,
    }
    if isinstance(logits, Drawable):
        return session.draw(logits, **numbers)
    return session.sample(logits, **numbers)


@dataclass(frozen=True)
class Draft:
    """A drafter's proposal.

    Rows that the drafter left staged in the session are the first rows of `tree`, in its order; `done` then
    holds the number of sublayers each has passed (0 for rows beyond it). `draft_probs`, for acceptance rules
    that need them, holds the draft distribution from which the children of each row were drawn ([V] float32,
    or None). `origin` says which of a drafter's means made it, where it has several.
    """

    tree: Tree
    done: tuple[int, ...] = ()
    draft_probs: Sequence[np.ndarray | None] | None = None
    origin: str = ""


@dataclass(frozen=True)
class Observation:
    """Rows that were committed: a piece of the prompt (`draft` None) or the accepted path of a verify call.

    The rows hold `token_ids` at positions `start`, `start + 1`, …; `taps` maps a layer to their hidden states
    after it ([rows, D] float32, NaN for a row that left the stack earlier), for the layers the drafter asked
    for.
    """

    token_ids: tuple[int, ...]
    start: int
    draft: Draft | None = None
    path: tuple[int, ...] = ()
    taps: Mapping[int, np.ndarray] = field(default_factory=dict)


class Drafter(Protocol):
    """Anything that proposes tokens. `taps` are the layers whose hidden states `observe` wants."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @property
    def taps(self) -> tuple[int, ...]: ...

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        """An answer to a prompt (token ids) starts in a sequence, forget the last. Raises `OptionError` for options
        the model cannot have."""

    def propose(self, context: DraftContext) -> Draft:
        """A tree whose root is `context.root`, within the limits of `context`."""

    def observe(self, observation: Observation) -> None:
        """Learn what was committed: called for every piece of the prompt and after every verify call."""


@dataclass(frozen=True)
class Candidate:
    """A possible row of a growing tree: `rank` among siblings (0 = best), `probability` given its parent."""

    parent: int
    token_id: int
    rank: int
    probability: float


class Shape(Protocol):
    """How a draft grows, level by level."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @property
    def depth(self) -> int:
        """Levels below the root at most."""

    def width(self, level: int) -> int:
        """Children wanted for each row of the level above `level` (1 = below the root)."""

    def select(
        self, level: int, candidates: Sequence[Candidate], reach: Sequence[float]
    ) -> tuple[list[Candidate], int]:
        """Those of the candidates for `level` that become rows, best first, and how many of the first get children.

        `reach[row]` is the draft probability of all of a row's path.
        """


@dataclass(frozen=True)
class Accepted:
    """The walk of one verify call: `token_ids[i]` was drawn at row `path[i]`, and `path[i + 1]` holds it."""

    path: tuple[int, ...]
    token_ids: tuple[int, ...]


class Drawer(Protocol):
    """Draws the token that follows a row at `depth` below the root."""

    def __call__(self, logits: RowLogits, depth: int) -> int: ...


class Acceptance(Protocol):
    """Which drafted rows are kept. `guarantee` says in words what the output is worth.

    A rule that looks at logits itself says so in `reads_logits`; one that only draws gets stand-ins, which are
    cheaper to compute.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    guarantee: ClassVar[str]
    reads_logits: ClassVar[bool]

    def accept(self, draft: Draft, logits: Sequence[RowLogits], draw: Drawer) -> Accepted:
        """Walk from the root; `logits[row]` is [V] float32, or what `draw` takes in its place."""


@dataclass(frozen=True)
class Evidence:
    """What an exit policy judges rows by: logits [n, V], positions [n], and if wanted hidden [n, D]."""

    layer: int
    logits: np.ndarray
    positions: tuple[int, ...]
    hidden: np.ndarray | None = None


class ExitPolicy(Protocol):
    """Which rows leave the layer stack early. A row's own evidence decides, never the rows beside it."""

    name: ClassVar[str]
    summary: ClassVar[str]
    wants_hidden: ClassVar[bool]

    def points(self, layers: int) -> tuple[int, ...]:
        """Layers after which rows may leave, ascending; raises `OptionError` for layers there are not."""

    def leaving(self, evidence: Evidence) -> Sequence[bool]:
        """For every row whether it leaves here; the logits it leaves with are final."""
