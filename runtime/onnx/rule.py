"""Whether the bits of a row depend on the rows beside it, in this ONNX Runtime, on this machine: tried, not promised.

ONNX Runtime makes no promise. On CPUs its products of one row take another path than those of several, so a lone row
differs from the same row in company, and rows of calls of two and more have the same bits. Where a trial finds that,
lone rows run in twos, with a row that is thrown away, and drafts change no token.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from forerun.machine import cache_folder, cpu_model
from forerun.runtime.onnx.engine import Engine
from forerun.runtime.onnx.sequence import OnnxSequence
from forerun.staging import replaced_file

# Neither a multiple of what vector units take at once, and the tried rows pass one.
_PROMPT_ROWS, _TRIED_ROWS = 45, 5
# A row, then a sibling that the rows after it must not see.
_TREE_PARENTS = (-1, -1, 0, 2, 3, 4)


@dataclass(frozen=True)
class RowRule:
    """What a trial found. `least_rows`: calls of at least so many rows are what holds it. `chains`, `trees`: whether
    the bits of a row were then the same, however many shared its call, and whether in a tree.

    `difference` is the largest between logits of the same row in calls of 1 and of more rows or in a tree, `spread`
    the standard deviation of logits, to compare it with.
    """

    least_rows: int
    chains: bool
    trees: bool
    difference: float
    spread: float

    @property
    def is_sound(self) -> bool:
        """Whether differences are roundings, which activations of 8 bits make large: a fifth of the spread was seen. A
        file that takes its past wrongly is off by several times the spread.
        """
        return self.difference <= self.spread


def try_rows(engine: Engine, vocabulary_size: int, context_length: int) -> RowRule:
    """Run the same few rows together, in parts, in twos and alone; a dozen calls."""
    count = min(_PROMPT_ROWS, context_length - _TRIED_ROWS - 2)
    ids = np.random.default_rng(0).integers(0, vocabulary_size, count + _TRIED_ROWS).tolist()
    prompt = OnnxSequence(engine.empty())
    _run(engine, prompt, ids[:count], (count,), 1)
    tried = ids[count:]

    def logits(sizes: Sequence[int], least: int) -> np.ndarray:
        return _run(engine, prompt.fork(), tried, sizes, least)

    together, alone = logits((_TRIED_ROWS,), 1), logits((1,) * _TRIED_ROWS, 1)
    parts, twos = logits((2, _TRIED_ROWS - 2), 1), logits((1,) * _TRIED_ROWS, 2)
    difference = max(_distance(other, together) for other in (alone, parts, twos))
    trees = False
    if engine.signature.trees:
        branch = _run_tree(engine, prompt.fork(), tried)
        difference = max(difference, _distance(branch, together))
        trees = bool(np.array_equal(branch, together))
    same_alone, same_parts = np.array_equal(alone, together), np.array_equal(parts, together)
    return RowRule(
        least_rows=1 if same_alone or not np.array_equal(twos, together) else 2,
        chains=same_parts and (same_alone or bool(np.array_equal(twos, together))),
        trees=trees,
        difference=difference,
        spread=float(together.std()),
    )


def _run(
    engine: Engine, sequence: OnnxSequence, token_ids: Sequence[int], sizes: Sequence[int], least: int
) -> np.ndarray:
    """Logits [n, V] of a chain in calls of so many rows each, which are committed."""
    found: list[np.ndarray] = []
    for size in sizes:
        start = len(found)
        sequence.stage(token_ids[start : start + size], range(-1, size - 1))
        found += list(sequence.run(engine, size, least, ()).logits.copy())
        sequence.commit(engine, range(size))
    return np.stack(found)


def _run_tree(engine: Engine, sequence: OnnxSequence, token_ids: Sequence[int]) -> np.ndarray:
    """Logits [n, V] of a chain that has a sibling beside its first row."""
    rows = [token_ids[0], token_ids[-1], *token_ids[1:]]
    sequence.stage(rows, _TREE_PARENTS)
    logits = sequence.run(engine, len(rows), 1, ()).logits
    return np.delete(logits, 1, axis=0)


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())


def kept_rule(key: str, threads: int, engine: Engine, measure: Callable[[], RowRule]) -> RowRule:
    """The rule that was found before for a bundle, here and with so many threads; else measured, and kept."""
    facts = f"{key}|{threads}|{cpu_model()}|{engine.version}|{engine.provider}"
    path = cache_folder("onnxruntime") / f"{hashlib.sha256(facts.encode()).hexdigest()[:24]}.json"
    kept = _load(path)
    if kept is not None:
        return kept
    rule = measure()
    # A folder that cannot be written costs a trial, nothing else.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path) as partial:
            partial.write_text(json.dumps(asdict(rule)), encoding="utf-8")
    return rule


def _load(path: Path) -> RowRule | None:
    """A rule from a file; None if there is none that can be used."""
    try:
        return RowRule(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
