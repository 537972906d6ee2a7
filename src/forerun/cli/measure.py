"""Measuring a model: prompt processing, decoding, calls of n rows, many sequences, speculation against plain.

All tests of one repetition run before the next repetition starts, and a drafter answers each prompt right
after plain decoding did, so that a slow spell of the machine falls on all alike. Speed-ups are ratios within
a repetition.
"""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, median, stdev
from typing import Any

from forerun.cli.bench_drafters import FixedRows, options_for
from forerun.cli.prompts import Prompt
from forerun.runtime.model import Model
from forerun.runtime.settings import Sampling
from forerun.runtime.stats import Stats

Progress = Callable[[str, float], None]
PLAIN = "none"
# Tokens in the cache when calls of n rows are timed, and calls per repetition.
ROWS_CONTEXT, ROWS_CALLS = 128, 8


@dataclass(frozen=True)
class Row:
    """One line of the result; None where a column means nothing for the test. Milliseconds are per call."""

    test: str
    category: str | None = None
    tokens_per_s: float | None = None
    tokens_per_s_std: float | None = None
    ms: float | None = None
    mean_accepted_length: float | None = None
    acceptance_rate: float | None = None
    draft_ms: float | None = None
    verify_ms: float | None = None
    speedup: float | None = None
    worst_speedup: float | None = None
    same_ids: bool | None = None
    peak_rss_bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """What to measure. `prompt_tokens`, `generated_tokens`, `rows` and `sequences` leave a test out when 0 or
    empty.
    """

    prompt_tokens: int
    generated_tokens: int
    rows: tuple[int, ...]
    drafters: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    answer_tokens: int
    repetitions: int
    sequences: tuple[int, ...] = ()
    shape: str | None = None
    sampling: Sampling = field(default_factory=Sampling)


@dataclass
class Sums:
    """Counters of one drafter over the prompts of one repetition (and category)."""

    decode_ms: float = 0.0
    draft_ms: float = 0.0
    verify_ms: float = 0.0
    decoded: int = 0
    calls: int = 0
    drafted: int = 0
    accepted: int = 0
    same_ids: bool = True
    speeds: list[float] = field(default_factory=list)  # of each answer, in the order of the prompts

    def add(self, stats: Stats, same_ids: bool) -> None:
        """Count one answer."""
        self.speeds.append(stats.tokens_per_s or 0.0)
        self.decode_ms += stats.decode_ms
        self.draft_ms += stats.draft_ms
        self.verify_ms += stats.verify_ms
        self.decoded += max(stats.generated_tokens - 1, 0)
        self.calls += stats.verify_calls
        self.drafted += stats.drafted
        self.accepted += stats.accepted
        self.same_ids &= same_ids

    @property
    def tokens_per_s(self) -> float:
        """Decoded tokens per second; 0 when nothing was decoded."""
        return 1000 * self.decoded / self.decode_ms if self.decode_ms else 0.0


# (drafter, category) → the sums of each repetition; category None is over all prompts.
SpeculationSums = dict[tuple[str, str | None], list[Sums]]


@dataclass
class Samples:
    """What the repetitions gave so far: tokens/s by test, milliseconds per call by row count; by sequence count
    the tokens/s of all together."""

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    rows_ms: dict[int, list[float]] = field(default_factory=dict)
    together: dict[int, list[float]] = field(default_factory=dict)
    speculation: SpeculationSums = field(default_factory=dict)


def measure(model: Model, plan: Plan, progress: Progress, many: Model | None = None) -> Samples:
    """Warm up and run all repetitions. `many` is the model with room for `plan.sequences`."""
    time_prefill(model, min(plan.prompt_tokens or 16, 16))
    if many is not None:
        time_together(many, max(plan.sequences), 1)
    samples = Samples()
    for repetition in range(plan.repetitions):

        def report(what: str, fraction: float, done: int = repetition) -> None:
            progress(what, (done + fraction) / plan.repetitions)

        measure_once(model, plan, samples, report)
        if many is not None:
            measure_together(many, plan, samples, report)
    return samples


def measure_once(model: Model, plan: Plan, samples: Samples, progress: Progress) -> None:
    """One repetition of every test."""
    if plan.prompt_tokens:
        progress(f"pp{plan.prompt_tokens}", 0.0)
        samples.prefill.append(time_prefill(model, plan.prompt_tokens))
    if plan.generated_tokens:
        progress(f"tg{plan.generated_tokens}", 0.1)
        samples.decode.append(time_decode(model, plan.generated_tokens))
    for count in plan.rows:
        progress(f"rows{count}", 0.2)
        samples.rows_ms.setdefault(count, []).append(time_rows(model, count))
    if plan.drafters:
        run_prompts(model, plan, samples.speculation, lambda what, part: progress(what, 0.3 + 0.7 * part))


def measure_together(many: Model, plan: Plan, samples: Samples, progress: Progress) -> None:
    """One repetition of the tests with many sequences."""
    for count in plan.sequences:
        progress(f"seq{count}", 1.0)
        samples.together.setdefault(count, []).append(time_together(many, count, plan.answer_tokens))


def time_prefill(model: Model, count: int) -> float:
    """Tokens per second of reading a prompt of `count` tokens into an empty cache."""
    generation = model.generate(filler_ids(model, count), max_tokens=1, reuse_cache=False).complete()
    return generation.stats.prefill_tokens_per_s or 0.0


def time_decode(model: Model, count: int) -> float:
    """Tokens per second of plain decoding of `count` tokens, from a prompt of one token."""
    generation = model.generate(
        filler_ids(model, 1), max_tokens=count + 1, ignore_end=True, reuse_cache=False
    ).complete()
    return generation.stats.tokens_per_s or 0.0


def time_rows(model: Model, count: int) -> float:
    """Milliseconds of a call with a chain of `count` rows, at a context of `ROWS_CONTEXT` tokens."""
    drafter = FixedRows(count, ROWS_CALLS)
    generation = model.generate(
        filler_ids(model, ROWS_CONTEXT),
        max_tokens=(ROWS_CALLS + 1) * count + 1,
        drafter=drafter,
        ignore_end=True,
    )
    drafter.on_last_call = generation.cancel
    stats = generation.complete().stats
    return stats.verify_ms / max(stats.verify_calls, 1)


def time_together(model: Model, count: int, tokens: int) -> float:
    """Tokens per second of `count` sequences that decode `tokens` tokens each, from a prompt of one token.

    The prompts are a call like the others, each giving `count` tokens, so all of the time counts.
    """
    prompts = [[token_id] for token_id in filler_ids(model, count)]
    start = time.perf_counter()
    answers = model.generate_batch(prompts, max_tokens=tokens, ignore_end=True, reuse_cache=False)
    elapsed = time.perf_counter() - start
    return sum(answer.stats.generated_tokens for answer in answers) / elapsed


def filler_ids(model: Model, count: int) -> list[int]:
    """`count` ids spread over the vocabulary, the same in every run."""
    return [(7919 * (index + 1)) % model.config.vocabulary_size for index in range(count)]


def run_prompts(model: Model, plan: Plan, sums: SpeculationSums, progress: Progress) -> None:
    """Answer every prompt with plain decoding and with every drafter, turn by turn."""
    drafters = (PLAIN, *(drafter for drafter in plan.drafters if drafter != PLAIN))
    found: dict[tuple[str, str | None], Sums] = {}
    for index, prompt in enumerate(plan.prompts):
        progress(f"prompt {prompt.id}", index / len(plan.prompts))
        messages: list[dict[str, Any]] = []
        for turn in prompt.turns:
            messages.append({"role": "user", "content": turn})
            text = answer_turn(model, plan, drafters, messages, prompt, found)
            messages.append({"role": "assistant", "content": text})
    for key, value in found.items():
        sums.setdefault(key, []).append(value)


def answer_turn(
    model: Model,
    plan: Plan,
    drafters: Sequence[str],
    messages: list[dict[str, Any]],
    prompt: Prompt,
    found: dict[tuple[str, str | None], Sums],
) -> str:
    """One turn with every drafter, the prompt read anew each time; returns plain decoding's answer."""
    plain_ids: list[int] = []
    text = ""
    source = prompt_of(model, messages)
    for drafter in drafters:
        generation = model.generate(
            source,
            max_tokens=plan.answer_tokens,
            **options_for(drafter, plan.shape, plain_ids),
            temperature=plan.sampling.temperature,
            seed=plan.sampling.seed,
            reuse_cache=False,
        ).complete()
        if drafter == PLAIN:
            plain_ids, text = generation.ids, generation.text
        for category in dict.fromkeys((None, prompt.category)):
            sums = found.setdefault((drafter, category), Sums())
            sums.add(generation.stats, generation.ids == plain_ids)
    return text


def prompt_of(model: Model, messages: list[dict[str, Any]]) -> list[dict[str, Any]] | str:
    """What to give a model for a conversation: its texts, a line each, where it has no chat template."""
    if model.language.chat_template is not None:
        return messages
    return "\n".join(message["content"] for message in messages)


def summarize(plan: Plan, samples: Samples) -> list[Row]:
    """Means and standard deviations over the repetitions."""
    rows = []
    if samples.prefill:
        rows.append(speed_row(f"pp{plan.prompt_tokens}", samples.prefill))
    if samples.decode:
        rows.append(speed_row(f"tg{plan.generated_tokens}", samples.decode))
    for count, times_ms in samples.rows_ms.items():
        speeds = [1000 * count / time_ms for time_ms in times_ms if time_ms > 0]
        rows.append(speed_row(f"rows{count}", speeds, ms=mean(times_ms)))
    rows += [together_row(count, samples.together) for count in samples.together]
    # Totals first, then the categories in the order of the prompts file.
    for key in sorted(samples.speculation, key=lambda pair: pair[1] is not None):
        rows.append(speculation_row(*key, samples.speculation))
    return rows


def speed_row(test: str, speeds: Sequence[float], ms: float | None = None) -> Row:
    """A row of one speed."""
    return Row(test, None, average(speeds), deviation(speeds), ms, peak_rss_bytes=peak_rss_bytes())


def together_row(count: int, together: dict[int, list[float]]) -> Row:
    """A row of `count` sequences: tokens/s of all together, ms from one token of a sequence to its next, and
    the speed-up over one sequence, repetition by repetition, where that was measured.
    """
    speeds = together[count]
    ratios = [own / one for own, one in zip(speeds, together.get(1, []), strict=False)]
    row = speed_row(f"seq{count}", speeds, ms=mean(1000 * count / speed for speed in speeds))
    return replace(row, speedup=average(ratios))


def speculation_row(drafter: str, category: str | None, sums: SpeculationSums) -> Row:
    """A row of one drafter: speed-up is over plain decoding of the same prompts, repetition by repetition."""
    own, plain = sums[drafter, category], sums[PLAIN, category]
    pairs = zip(own, plain, strict=True)
    ratios = [mine.tokens_per_s / base.tokens_per_s for mine, base in pairs if base.tokens_per_s]
    calls, drafted = sum(part.calls for part in own), sum(part.drafted for part in own)
    accepted = sum(part.accepted for part in own)
    speeds = [part.tokens_per_s for part in own]
    return Row(
        test=f"spec:{drafter}",
        category=category,
        tokens_per_s=average(speeds),
        tokens_per_s_std=deviation(speeds),
        mean_accepted_length=1 + accepted / calls if calls else None,
        acceptance_rate=accepted / drafted if drafted else None,
        draft_ms=sum(part.draft_ms for part in own) / calls if calls else None,
        verify_ms=sum(part.verify_ms for part in own) / calls if calls else None,
        speedup=mean(ratios) if ratios else None,
        worst_speedup=worst_of(own, plain),
        same_ids=all(part.same_ids for part in own),
        peak_rss_bytes=peak_rss_bytes(),
    )


def worst_of(own: Sequence[Sums], plain: Sequence[Sums]) -> float | None:
    """The smallest speed-up of any answer."""
    return min((ratio for ratio in answer_ratios(own, plain) if ratio is not None), default=None)


def answer_ratios(own: Sequence[Sums], plain: Sequence[Sums]) -> list[float | None]:
    """Each answer's speed-up, its median over the repetitions; None for an answer of one token: no call made it."""
    repetitions = [zip(mine.speeds, base.speeds, strict=True) for mine, base in zip(own, plain, strict=True)]
    ratios = [[a / b for a, b in pairs if b] for pairs in zip(*repetitions, strict=True)]
    return [median(known) if known else None for known in ratios]


def average(values: Sequence[float]) -> float | None:
    """The mean, None of nothing."""
    return mean(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation, 0 of a single value."""
    return stdev(values) if len(values) > 1 else (0.0 if values else None)


def peak_rss_bytes() -> int:
    """The most memory this process has had resident so far; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
