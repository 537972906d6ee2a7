"""Mean KL from the float model on a text, through the same arithmetic as `forerun check`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from benchmarks.race.contest import Contest
from benchmarks.race.environments import BUILD, ROOT
from benchmarks.race.files import SOURCE
from benchmarks.race.trials import FEW_ROWS_PEERS, QUALITY

LogitsFunction = Callable[[np.ndarray], np.ndarray]
TEXT = ROOT / "tests" / "integration" / "text.txt"
TOKENS = 2048


def read_ids(count: int) -> list[int]:
    """The text's token ids by the model's own tokenizer, again from its start until there are `count`."""
    from tokenizers import Tokenizer

    from forerun.models.sources import open_checkpoint

    tokenizer = Tokenizer.from_str(open_checkpoint(SOURCE).read_tokenizer().tokenizer_json)
    ids: list[int] = tokenizer.encode(TEXT.read_text(encoding="utf-8"), add_special_tokens=False).ids
    return (ids * (count // len(ids) + 1))[:count]


def run_quality(contest: Contest, ids: Sequence[int]) -> None:
    """Every entrant that gives logits of all rows, against the float model of the GGUF file (dequantized)."""
    from forerun.export.check import eager_logits
    from forerun.models.sources import load_model

    reference = eager_logits(load_model(SOURCE))
    token_ids = np.array(ids[:TOKENS], np.int64)
    path = BUILD / "logits.npy"
    for entrant in contest.entrants:
        if entrant.peer not in FEW_ROWS_PEERS:
            continue
        contest.progress(f"{QUALITY}, {entrant.name}")
        measure = partial(mean_kl, contest.logits_of(entrant, path), reference, token_ids)
        contest.attempt(0, QUALITY, entrant, "nats", measure)
    path.unlink(missing_ok=True)


def mean_kl(tested: LogitsFunction, reference: LogitsFunction, token_ids: np.ndarray) -> float:
    """Of a text, int64 [n], cut into windows."""
    from forerun.export.check import measure_quality

    return measure_quality(tested, reference, token_ids).mean_kl
