"""Shared pieces of the loop tests: a one-letter tokenizer, an adversarial drafter, a one-call generate."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from scripted import ScriptedSession

from forerun.runtime.acceptance.exact import Exact
from forerun.runtime.drafters.none import NoDrafter
from forerun.runtime.exits.never import Never
from forerun.runtime.generate import Run, generate
from forerun.runtime.output import Output
from forerun.runtime.protocol import Draft, DraftContext, Drafter, ExitPolicy, Observation, SessionLike
from forerun.runtime.settings import Settings
from forerun.runtime.stats import Stats
from forerun.runtime.tree import Tree, merge_chains


class Letters:
    """Token 0 is "a", token 1 "b", …"""

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(chr(ord("a") + token_id) for token_id in token_ids)


class RandomTrees:
    """Proposes random trees of up to 64 rows, without a look at the model or at the limits."""

    name = "random-trees"
    summary = "adversarial"

    def __init__(self, seed: int, taps: tuple[int, ...] = ()) -> None:
        self.taps = taps
        self.observed: list[Observation] = []
        self._seed = seed

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        self._random = random.Random(self._seed)
        self._vocabulary = session.config.vocabulary_size
        self.observed = []

    def propose(self, context: DraftContext) -> Draft:
        chains = [self._chain(self._random.randint(0, 8)) for _ in range(self._random.randint(0, 12))]
        tree = merge_chains(context.root, chains)
        return Draft(tree if len(tree) <= 64 else Tree(tree.token_ids[:64], tree.parents[:64]))

    def observe(self, observation: Observation) -> None:
        self.observed.append(observation)

    def _chain(self, length: int) -> list[int]:
        return [self._random.randrange(self._vocabulary) for _ in range(length)]


class Oracle:
    """Proposes exactly what plain decoding would say, plus wrong siblings: everything gets accepted."""

    name = "oracle"
    summary = "knows the answer"
    taps: tuple[int, ...] = ()

    def __init__(self, answer: Sequence[int], tokens: int, prompt_tokens: int) -> None:
        self._answer = list(answer)
        self._tokens = tokens
        self._prompt_tokens = prompt_tokens

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        self._vocabulary = session.config.vocabulary_size

    def propose(self, context: DraftContext) -> Draft:
        drawn = len(context.token_ids) - self._prompt_tokens
        chain = self._answer[drawn : drawn + self._tokens]
        wrong = [(token_id + 1) % self._vocabulary for token_id in chain[:1]]
        return Draft(merge_chains(context.root, [wrong, chain]))

    def observe(self, observation: Observation) -> None:
        pass


@dataclass(frozen=True)
class Answer:
    ids: list[int]
    text: str
    pieces: list[str]
    reason: str | None
    stats: Stats
    cache: tuple[int, ...]
    pending: int


def answer(
    session: ScriptedSession,
    prompt: Sequence[int],
    settings: Settings,
    drafter: Drafter | None = None,
    exits: ExitPolicy | None = None,
) -> Answer:
    """Generate in a fresh sequence and release it."""
    sequence = session.create_sequence()
    run = Run(
        session, sequence, list(prompt), drafter or NoDrafter(), Exact(), exits or Never(), settings.sampling
    )
    output = Output(settings, Letters())
    try:
        pieces = list(generate(run, output))
        cache, pending = session.tokens(sequence), session.pending(sequence)
    finally:
        session.release_sequence(sequence)
    return Answer(output.token_ids, output.text, pieces, output.finish_reason, run.stats, cache, pending)
