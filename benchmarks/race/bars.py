"""The bars of the race: what was to be reached, what was measured, met or missed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

from benchmarks.race.interface import GEMMA
from benchmarks.race.results import Results
from benchmarks.race.tasks import best_of, named, tasks_in
from benchmarks.race.trials import BANDWIDTH, CONTEXT, CONTEXTS, MEMORY, QUALITY, START

KEEP, SYMMETRIC = "forerun Q4_1", "forerun Q4_0"
# Upper and lower (test, entrant) of a ratio; what finds them gives None where the run lacks one.
Pairs = tuple[tuple[str, str], tuple[str, str]]
FindPairs = Callable[[Results], Pairs | None]
MEMORY_ALLOWANCE_MB, LOAD_BAR_MS, KL_BAR, GROWTH_BAR, TASKS_BAR = 40.0, 30.0, 0.003, 1.15, 1.35


@dataclass(frozen=True)
class Outcome:
    """A bar with its measurement. `met` is None where the run did not measure it; `measured` says why then."""

    what: str
    bar: str
    measured: str
    met: bool | None


@dataclass(frozen=True)
class Ratio:
    """A lower bound (`at_least`) or an upper bound on one ratio of two (test, entrant) pairs."""

    what: str
    bound: float
    at_least: bool
    pairs: FindPairs

    def judge(self, results: Results) -> Outcome:
        """Median of the ratios of the repetitions, and the entrant it was taken against."""
        bar = f"{'≥' if self.at_least else '≤'} {self.bound:.2f}×"
        pairs = self.pairs(results)
        value = None if pairs is None else results.ratio(*pairs)
        if value is None or pairs is None:
            return Outcome(self.what, bar, "not measured", None)
        others = {name for _, name in pairs} - {KEEP, SYMMETRIC, f"forerun {GEMMA}"}
        against = f" (against {', '.join(sorted(others))})" if others else ""
        met = value >= self.bound if self.at_least else value <= self.bound
        return Outcome(self.what, bar, f"{value:.2f}×{against}", met)


def against_llama(
    test: str, own: str, source: str, *, is_time: bool = False, without_amx: bool = False
) -> FindPairs:
    """Our speed over that of the faster llama.cpp build with the same weights; of times, theirs over ours."""

    def pairs(results: Results) -> Pairs | None:
        names = results.of_peer("llama.cpp", source)
        names = [name for name in names if not (without_amx and "AMX" in name)]
        other = results.best(test, names, larger_is_better=not is_time)
        if other is None:
            return None
        return ((test, other), (test, own)) if is_time else ((test, own), (test, other))

    return pairs


def against_peer(peer: str) -> FindPairs:
    """Our decoding over the fastest of a peer's entrants."""

    def pairs(results: Results) -> Pairs | None:
        other = results.best("tg64", results.of_peer(peer))
        return None if other is None else (("tg64", KEEP), ("tg64", other))

    return pairs


def own(upper: str, lower: str) -> FindPairs:
    """One of our tests over another."""
    return lambda results: ((upper, KEEP), (lower, KEEP))


RATIOS = (
    Ratio(
        "plain decoding, 64 tokens, against the faster llama.cpp build",
        1.15,
        True,
        against_llama("tg64", KEEP, "Q4_1"),
    ),
    Ratio("the same on 1 thread", 1.15, True, against_llama("tg64, 1 thread", KEEP, "Q4_1")),
    Ratio("the same with Q4_0 against Q4_0", 1.00, True, against_llama("tg64", SYMMETRIC, "Q4_0")),
    Ratio(
        "Gemma 3 270M (Q4_K_M), plain decoding, 64 tokens, against llama.cpp",
        1.00,
        True,
        against_llama("tg64", f"forerun {GEMMA}", GEMMA),
    ),
    Ratio("our call of 4 rows over one of 1: T(4)/T(1)", 1.40, False, own("rows 4", "rows 1")),
    Ratio("T(8)/T(1)", 2.0, False, own("rows 8", "rows 1")),
    Ratio("T(16)/T(1)", 3.2, False, own("rows 16", "rows 1")),
    Ratio(
        "call of 4 rows against the faster working llama.cpp build",
        2.5,
        True,
        against_llama("rows 4", KEEP, "Q4_1", is_time=True),
    ),
    Ratio(
        "prompt of 128 against llama.cpp without AMX",
        3.0,
        True,
        against_llama("pp128", KEEP, "Q4_1", without_amx=True),
    ),
    Ratio(
        "prompt of 512 against llama.cpp without AMX",
        3.0,
        True,
        against_llama("pp512", KEEP, "Q4_1", without_amx=True),
    ),
    Ratio(
        "decoding at a context of 2,048 against llama.cpp",
        1.0,
        True,
        against_llama("context 2048", KEEP, "Q4_1"),
    ),
    Ratio("decoding against ONNX Runtime GenAI", 4.0, True, against_peer("onnxruntime-genai")),
    Ratio("decoding against OpenVINO GenAI", 4.0, True, against_peer("openvino-genai")),
    Ratio("decoding against transformers", 15.0, True, against_peer("transformers")),
    Ratio(
        "16 sequences together, all tokens/s, over one sequence",
        5.0,
        True,
        own("sequences 16", "sequences 1"),
    ),
)


def judge_all(results: Results) -> list[Outcome]:
    """Every bar, in the order of the table."""
    ratios = [ratio.judge(results) for ratio in RATIOS]
    return [
        *ratios,
        judge_quality(results),
        judge_load(results),
        judge_memory(results),
        judge_growth(results),
        judge_tasks(results),
    ]


def judge_quality(results: Results) -> Outcome:
    """Our mean KL, alone and beside llama.cpp's on the same file."""
    what, bar = "mean KL from the float model", f"≤ {KL_BAR}, and ≤ llama.cpp's"
    mine = results.median(QUALITY, KEEP)
    if mine is None:
        return Outcome(what, bar, "not measured", None)
    other = results.best(QUALITY, results.of_peer("llama.cpp", "Q4_1"), larger_is_better=False)
    theirs = None if other is None else results.median(QUALITY, other)
    if theirs is None:
        return Outcome(what, bar, f"{mine:.4f}; llama.cpp's not measured", None if mine <= KL_BAR else False)
    return Outcome(what, bar, f"{mine:.4f}; {other} {theirs:.4f}", mine <= KL_BAR and mine <= theirs)


def judge_load(results: Results) -> Outcome:
    """From opening the bundle to the end of the first row, imports done before."""
    what, bar = (
        "load of a bundle to first forward, after Python's imports, warm file cache",
        f"≤ {LOAD_BAR_MS:.0f} ms",
    )
    value = results.median(START, KEEP)
    if value is None:
        return Outcome(what, bar, "not measured", None)
    return Outcome(what, bar, f"{value:.1f} ms", value <= LOAD_BAR_MS)


def judge_memory(results: Results) -> Outcome:
    """Peak beyond what the process had before loading, against the weights file and the cache."""
    what, bar = (
        "peak memory without Python's imports",
        f"≤ weights file + KV cache + {MEMORY_ALLOWANCE_MB:.0f} MB",
    )
    value = results.median(MEMORY, KEEP)
    description = next((one.description for one in results.entrants if one.name == KEEP), {})
    if value is None or "weights_bytes" not in description:
        return Outcome(what, bar, "not measured", None)
    weights, cache = description["weights_bytes"] / 1e6, CONTEXT * description["kv_bytes_per_position"] / 1e6
    measured = f"{value:.0f} MB; weights file {weights:.0f}, KV cache {cache:.0f}"
    return Outcome(what, bar, measured, value <= weights + cache + MEMORY_ALLOWANCE_MB)


def judge_growth(results: Results) -> Outcome:
    """Time per token against weights and cache read at the bandwidth of the same repetition, at every context.

    Model size is not varied: the race has one model.
    """
    what, bar = "cost growth with context and model size", f"≤ {GROWTH_BAR:.2f}× bytes / bandwidth"
    description = next((one.description for one in results.entrants if one.name == KEEP), {})
    found = {}
    for context in CONTEXTS:
        gb_per_token = results.ratio((BANDWIDTH, KEEP), (f"context {context}", KEEP))
        if gb_per_token is not None and "weights_bytes" in description:
            read = description["weights_bytes"] + context * description["kv_bytes_per_position"]
            found[context] = 1e9 * gb_per_token / read
    if not found:
        return Outcome(what, bar, "not measured", None)
    shown = ", ".join(f"{value:.2f}× at {context:,}" for context, value in found.items())
    met = None if max(found.values()) <= GROWTH_BAR else False
    return Outcome(what, bar, f"{shown}; model size: see GROWTH.md", met)


def judge_tasks(results: Results) -> Outcome:
    """Drafted answers against llama.cpp's fastest way, entrant and mode, over all tasks; mean of the tasks' ratios."""
    what, bar = "answers to prompts, drafted, against llama.cpp plain or drafted", f"≥ {TASKS_BAR:.2f}×"
    tasks = tasks_in(results)
    other = best_of(results, results.of_peer("llama.cpp", "Q4_1"))
    if not tasks or other is None:
        return Outcome(what, bar, "not measured", None)
    name, mode = other
    ratios = {
        task: results.ratio((named(task, "drafted"), KEEP), (named(task, mode), name)) for task in tasks
    }
    known = {task: ratio for task, ratio in ratios.items() if ratio is not None}
    if len(known) < len(tasks):
        return Outcome(what, bar, "not measured", None)
    value, worst = mean(known.values()), min(known, key=lambda task: known[task])
    measured = f"{value:.2f}× (against {name}, {mode}; least {known[worst]:.2f}× in {worst})"
    return Outcome(what, bar, measured, value >= TASKS_BAR)
