"""Data from the model itself: it writes a user's prompts, then answers them.

A chat model that is left at the start of a user's turn writes what users wrote in its training. Candidate i is a
function of (seed, i) alone, so an interrupted synthesis goes on as if it had not been.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from forerun.errors import OptionError
from forerun.runtime.generation import Generation
from forerun.runtime.model import Model
from forerun.training.data import Conversation, DataFolder
from forerun.training.lock import locked

__all__ = ["Budget", "Recipe", "add_texts", "locked", "synthesize"]

Progress = Callable[[str, float], None]

_MARK = "\N{SNOWMAN}"  # stands in for a prompt where the template shows what is around it
_CHUNKS = 8  # candidates tried together, in numbers of sequences: few run alone at the end of a chunk


@dataclass(frozen=True)
class Recipe:
    """What decides which conversations are written.

    Attributes:
        seed: of all draws.
        prompt_tokens: a prompt that does not end within so many is dropped.
        answer_tokens: longer answers are cut.
        prompt_temperature: of the draws in prompts.
        temperatures: of answers, in turn. 0 (greedy) is what most answers of small models are run with.
        least_distinct: an answer is dropped if less than this part of its 4-grams are distinct: a model caught in a
            loop teaches nothing.
        prompts: "self", or what names the prompts given.
    """

    seed: int = 0
    prompt_tokens: int = 160
    answer_tokens: int = 256
    prompt_temperature: float = 1.0
    temperatures: tuple[float, ...] = (0.0, 0.8)
    least_distinct: float = 0.4
    prompts: str = "self"

    def described(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "temperatures": list(self.temperatures)}


@dataclass(frozen=True)
class Budget:
    """When to stop: whichever comes first. None is no limit."""

    tokens: int | None = None
    seconds: float | None = None

    def spent(self, tokens: int, seconds: float) -> float:
        """The part used, 0 … 1."""
        parts = [0.0]
        if self.tokens is not None:
            parts.append(tokens / self.tokens)
        if self.seconds is not None:
            parts.append(seconds / self.seconds)
        return min(max(parts), 1.0)


@dataclass(frozen=True)
class Turn:
    """Token ids around a user's prompt: from the start of the text to it, and from its end to the answer."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def user_turn(model: Model) -> Turn:
    """What the model's chat template puts around a first prompt; raises `OptionError` without a template."""
    template, tokenizer = model.language.chat_template, model.language.tokenizer
    if template is None:
        raise OptionError(
            f"model {model.name!r} has no chat template, so it cannot write a user's prompts; give prompts or texts"
        )
    rendered = template.render([{"role": "user", "content": _MARK}])
    before, mark, after = rendered.partition(_MARK)
    if not mark:
        raise OptionError(f"the chat template of model {model.name!r} does not show the user's message")
    return Turn(tuple(tokenizer.encode(before)), tuple(tokenizer.encode(after)))


def synthesize(
    model: Model,
    folder: DataFolder,
    recipe: Recipe,
    budget: Budget,
    *,
    prompts: Sequence[Sequence[int]] | None = None,
    progress: Progress | None = None,
) -> None:
    """Add conversations to the folder until the budget is spent or the prompts are.

    Args:
        model: loaded for as many sequences as shall run together.
        folder: made with this recipe; what it holds counts towards the budget of tokens.
        prompts: token ids of prompts to answer, the template included; None: the model writes its own.
        progress: called with what has been done and the part of the budget used.

    Raises:
        DataError, OptionError, BatchError.
    """
    turn = user_turn(model) if prompts is None else None
    seen = {conversation.prompt_ids for conversation in folder.conversations()}
    started, started_with = time.monotonic(), folder.state.tokens
    chunk = _CHUNKS * model.sequences
    while True:
        seconds = time.monotonic() - started
        spent = budget.spent(folder.state.tokens, seconds)
        if progress is not None:
            rate = (folder.state.tokens - started_with) / seconds if seconds else 0.0
            done = f"{folder.state.conversations:,} conversations, {folder.state.tokens:,} tokens"
            progress(f"{done}, {rate:,.0f} tokens/s", spent)
        first = folder.state.next_index
        last = first + chunk if prompts is None else min(first + chunk, len(prompts))
        if spent >= 1 or first == last:
            return
        dropped: Counter[str] = Counter()
        candidates = range(first, last)
        if turn is not None:
            written = _write_prompts(model, turn, recipe, candidates, dropped)
        else:
            assert prompts is not None
            written = {index: tuple(prompts[index]) for index in candidates}
        fresh = _distinct(written, seen, dropped)
        folder.append(_answer(model, fresh, recipe, dropped), last, dropped)


def _write_prompts(
    model: Model, turn: Turn, recipe: Recipe, candidates: Sequence[int], dropped: Counter[str]
) -> dict[int, tuple[int, ...]]:
    """Let the model write prompts; the ids up to the answer, by candidate."""
    each = [{"seed": _seed(recipe, index, 0)} for index in candidates]
    answers = model.generate_batch(
        [turn.before] * len(candidates),
        each=each,
        max_tokens=recipe.prompt_tokens,
        temperature=recipe.prompt_temperature,
    )
    written = {}
    for index, answer in zip(candidates, answers, strict=True):
        if answer.finish_reason != "stop":
            dropped["prompt without an end"] += 1
        elif len(answer.text.split()) < 2:
            dropped["prompt too short"] += 1
        else:
            written[index] = (*turn.before, *_without_end(answer, model), *turn.after)
    return written


def _distinct(
    written: dict[int, tuple[int, ...]], seen: set[tuple[int, ...]], dropped: Counter[str]
) -> dict[int, tuple[int, ...]]:
    """Those that have not been seen; all of them count as seen from now on."""
    fresh = {}
    for index, ids in written.items():
        if ids in seen:
            dropped["prompt seen before"] += 1
        else:
            seen.add(ids)
            fresh[index] = ids
    return fresh


def _answer(
    model: Model, prompts: dict[int, tuple[int, ...]], recipe: Recipe, dropped: Counter[str]
) -> list[Conversation]:
    """Answer prompts and keep what is worth training on; end tokens are kept: drafts should know ends, too."""
    each = [
        {
            "seed": _seed(recipe, index, 1),
            "temperature": recipe.temperatures[index % len(recipe.temperatures)],
        }
        for index in prompts
    ]
    answers = model.generate_batch(list(prompts.values()), each=each, max_tokens=recipe.answer_tokens)
    kept = []
    for ids, answer in zip(prompts.values(), answers, strict=True):
        if len(answer.ids) < 4:
            dropped["answer too short"] += 1
        elif distinct_part(answer.ids) < recipe.least_distinct:
            dropped["answer repeats itself"] += 1
        else:
            kept.append(Conversation(ids, tuple(answer.ids)))
    return kept


def distinct_part(token_ids: Sequence[int], size: int = 4) -> float:
    """How many of the n-grams are distinct, as a part of all; 1 for fewer ids than one n-gram has."""
    grams = [tuple(token_ids[start : start + size]) for start in range(len(token_ids) - size + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def _without_end(answer: Generation, model: Model) -> list[int]:
    ids = answer.ids
    return ids[:-1] if ids and ids[-1] in model.language.end_token_ids else ids


def _seed(recipe: Recipe, index: int, part: int) -> int:
    """A seed for each part of each candidate, far from those of other recipes."""
    return (recipe.seed << 40 | index << 1 | part) & (2**64 - 1)


def add_texts(folder: DataFolder, texts: Sequence[Sequence[int]], piece_tokens: int = 512) -> None:
    """Add texts as token ids, cut into pieces, to be learned from as they are. Pieces that are there already are not
    added again; raises `DataError`."""
    seen = {conversation.answer_ids for conversation in folder.conversations() if not conversation.prompt_ids}
    pieces: dict[tuple[int, ...], None] = {}
    for text in texts:
        for start in range(0, len(text), piece_tokens):
            piece = tuple(text[start : start + piece_tokens])
            if len(piece) > 1 and piece not in seen:
                pieces.setdefault(piece)
    conversations = [Conversation((), piece) for piece in pieces]
    folder.append(conversations, folder.state.next_index, {})
