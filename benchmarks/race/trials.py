"""The tests of the race as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ROWS = (1, 2, 4, 8, 16)
CONTEXTS = (128, 512, 2048, 8192)
PROMPTS = (128, 512)
SEQUENCES = (1, 16)
# Positions a worker reserves: the model's limit, and enough for every sequence of `together`.
CONTEXT, TOGETHER_CONTEXT = 8192, 256
DECODED, DECODED_AT_CONTEXT = 64, 32
ROWS_CONTEXT, ROWS_CALLS = 128, 8
READ_BYTES = 100_000_000
BANDWIDTH = "read bandwidth, GB/s"
FEW_ROWS_PEERS = ("forerun", "llama.cpp")


@dataclass(frozen=True)
class Trial:
    """One test. The first `ids` tokens of the text, if any, go to the runner's `operation` with `arguments`. The
    value is `amount` / time in `unit`, or the time itself where amount is None. Peers not in `peers` (None: all) are
    left out.
    """

    name: str
    group: str
    operation: str
    ids: int
    arguments: dict[str, Any]
    unit: str
    amount: float | None
    threads: int = 2
    sequences: int = 1
    peers: tuple[str, ...] | None = None
    context: int = CONTEXT
    # A worker that holds a long context takes no other test, which would make it read the context again.
    slot: str = ""

    def value(self, ms: float) -> float:
        """The time as the trial's unit."""
        return ms if self.amount is None else 1000 * self.amount / ms


def decode_trials() -> tuple[Trial, ...]:
    """64 tokens after one, on 2 threads and on 1."""
    return tuple(
        Trial(name, "tg", "decode", 1, {"tokens": DECODED}, "tokens/s", DECODED, threads=threads)
        for name, threads in (("tg64", 2), ("tg64, 1 thread", 1))
    )


def rows_trials() -> tuple[Trial, ...]:
    """Calls of several rows."""
    return tuple(
        Trial(
            f"rows {rows}",
            "rows",
            "rows",
            ROWS_CONTEXT,
            {"rows": rows, "calls": ROWS_CALLS},
            "ms",
            None,
        )
        for rows in ROWS
    )


def prefill_trials() -> tuple[Trial, ...]:
    """Prompts read into an empty cache."""
    return tuple(Trial(f"pp{count}", "pp", "prefill", count, {}, "tokens/s", count) for count in PROMPTS)


def context_trials() -> tuple[Trial, ...]:
    """Decoding far into a text. The last leaves room for what is decoded, and slow peers out: they would spend
    minutes reading it.
    """
    trials = []
    for context in CONTEXTS:
        ids = min(context, CONTEXT - DECODED_AT_CONTEXT - 8)
        peers = None if context <= 2048 else FEW_ROWS_PEERS
        arguments = {"tokens": DECODED_AT_CONTEXT}
        trials.append(
            Trial(
                f"context {context}",
                "context",
                "decode",
                ids,
                arguments,
                "tokens/s",
                DECODED_AT_CONTEXT,
                peers=peers,
                slot=str(context) if context >= 2048 else "",
            )
        )
    return tuple(trials)


def sequence_trials() -> tuple[Trial, ...]:
    """Sequences together; tokens of all of them count."""
    return tuple(
        Trial(
            f"sequences {count}",
            "sequences",
            "together",
            count,
            {"tokens": DECODED},
            "tokens/s",
            count * DECODED,
            sequences=max(SEQUENCES),
            context=TOGETHER_CONTEXT,
            peers=FEW_ROWS_PEERS,
        )
        for count in SEQUENCES
    )


def memory_trials() -> tuple[Trial, ...]:
    """The machine's limit, over as many bytes as a token reads."""
    arguments = {"read_bytes": READ_BYTES, "passes": 8}
    return (
        Trial(BANDWIDTH, "tg", "read_memory", 0, arguments, "GB/s", READ_BYTES / 1e9, peers=("forerun",)),
    )


TIMED = (
    *decode_trials(),
    *memory_trials(),
    *rows_trials(),
    *prefill_trials(),
    *context_trials(),
    *sequence_trials(),
)
# Groups that `--tests` names; `start` and `quality` are no `Trial`s: they need processes of their own, or the float
# model. Those of `tasks` are made of a prompts file.
GROUPS = (*dict.fromkeys(trial.group for trial in TIMED), "tasks", "start", "quality")
START, MEMORY, QUALITY = "load to first forward", "peak memory", "mean KL"
