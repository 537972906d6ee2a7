"""Drawing a token from logits: the definition, and what draws where no compiled program does. The native twin agrees
exactly.

The noise is a pure function of (seed, position, token id), so that a run with speculation sees the noise that
a plain run sees, whatever was drafted. Adding Gumbel noise to logit / temperature and taking the largest
draws from the softmax exactly (the Gumbel-max trick: Gumbel 1954; Maddison et al., "A* Sampling", 2014).
"""

import math
from collections.abc import Sequence

import numpy as np

from forerun.runtime.settings import Sampling

_MASK = 2**64 - 1
COMPARED = 4  # best tokens that are compared to say how likely each is
_MOST_EXPONENT = 700.0
_FEW = 64  # candidates that take no vectors
_CLOSE = 1e-9  # of the largest score


def draw_token(logits: np.ndarray, sampling: Sampling, position: int) -> int:
    """The token at `position` (absolute) given `logits` ([V] float32). Ties go to the lower id."""
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    is_filtered = sampling.top_k or sampling.top_p < 1
    candidates = filter_candidates(logits, sampling) if is_filtered else range(len(logits))
    return _best(logits, candidates, sampling, position)


def filter_candidates(logits: np.ndarray, sampling: Sampling) -> list[int]:
    """Ids that may be drawn at a temperature above 0, sorted by logit descending, then id ascending.

    top_k keeps the first k. Of those, top_p keeps the smallest prefix whose softmax mass at the temperature,
    taken among the ids that top_k kept, is at least top_p (never fewer than one id).
    """
    order = np.argsort(-logits.astype(np.float64), kind="stable").tolist()
    kept: list[int] = order[: sampling.top_k] if sampling.top_k else order
    if sampling.top_p == 1:
        return kept
    largest = float(logits[kept[0]])
    masses = [math.exp((float(logits[token_id]) - largest) / sampling.temperature) for token_id in kept]
    total = 0.0
    for mass in masses:
        total += mass
    wanted, reached = sampling.top_p * total, 0.0
    for count, mass in enumerate(masses, start=1):
        reached += mass
        if reached >= wanted:
            return kept[:count]
    return kept


def rank_tokens(
    logits: np.ndarray,
    count: int,
    sampling: Sampling,
    position: int,
    token_ids: np.ndarray | None = None,
) -> list[tuple[int, float]]:
    """The up to `count` indices most likely to be drawn at `position` for all that a draft's logits [V] know, best
    first, and how probable each is.

    They are ranked with the noise of the draw itself, so the first is what these logits would draw. The first logits
    stand for `token_ids` (None: all of them for their indices), the others for tokens that are not named. Greedy, a
    probability is the softmax over all logits; else, where the noise is known and decides with them, the softmax over
    the best `COMPARED` scores and the logits that name no token.
    """
    tokens = np.arange(len(logits)) if token_ids is None else token_ids
    mine, others = np.split(logits.astype(np.float64), [len(tokens)])
    if sampling.temperature == 0:
        scores = dict(enumerate(mine.tolist()))
    else:
        scores = {
            index: float(mine[index]) / sampling.temperature
            + gumbel(sampling.seed, position, int(tokens[index]))
            for index in filter_candidates(logits[: len(tokens)], sampling)
        }
    best = sorted(scores, key=lambda index: (-scores[index], int(tokens[index])))[: max(count, COMPARED)]
    if sampling.temperature == 0:
        masses = np.exp(logits.astype(np.float64) - float(logits.max()))
        return [(index, float(masses[index] / masses.sum())) for index in best[:count]]
    largest = scores[best[0]]
    rivals = [scores[index] for index in best[:COMPARED]] + (others / sampling.temperature).tolist()
    total = sum(_mass(score, largest) for score in rivals)
    return [(index, _mass(scores[index], largest) / total) for index in best[:count]]


def _mass(score: float, largest: float) -> float:
    """e to the difference, as far as that is a number; two infinities that are equal do not differ."""
    return 1.0 if score == largest else math.exp(min(score - largest, _MOST_EXPONENT))


def gumbel(seed: int, position: int, token_id: int) -> float:
    """Standard Gumbel noise for one token at one position, in double precision."""
    key = mix(_key(seed, position) ^ (token_id * 0x8CB92BA72F3D8DD7 & _MASK))
    uniform = ((key >> 11) + 0.5) * 2.0**-53
    # A uniform that rounds to 1 would give infinite noise; (2^53 - 1 + 0.5)·2^-53 is the only such case.
    return -math.log(-math.log(uniform)) if uniform < 1.0 else math.inf


def _key(seed: int, position: int) -> int:
    """What of the noise does not depend on the token."""
    return mix(mix((seed + 0x9E3779B97F4A7C15) & _MASK) ^ (position * 0xD1B54A32D192ED03 & _MASK))


def mix(value: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)


def _best(logits: np.ndarray, candidates: Sequence[int], sampling: Sampling, position: int) -> int:
    best_id, best_score = -1, -math.inf
    for token_id in _leading(logits, candidates, sampling, position):
        score = float(logits[token_id]) / sampling.temperature + gumbel(sampling.seed, position, token_id)
        if score > best_score or (score == best_score and token_id < best_id) or best_id < 0:
            best_id, best_score = token_id, score
    return best_id


def _leading(
    logits: np.ndarray, candidates: Sequence[int], sampling: Sampling, position: int
) -> Sequence[int]:
    """Those of many candidates whose scores come near the largest, for `_best` to look at: scores in vectors may differ
    in their last bits from those that decide.
    """
    if len(candidates) < _FEW:
        return candidates
    ids = np.asarray(candidates)
    noise = _mix_all(
        np.uint64(_key(sampling.seed, position)) ^ (ids.astype(np.uint64) * np.uint64(0x8CB92BA72F3D8DD7))
    )
    uniform = ((noise >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    with np.errstate(divide="ignore"):
        scores = logits[ids].astype(np.float64) / sampling.temperature - np.log(-np.log(uniform))
    largest = float(scores.max())
    if not math.isfinite(largest):
        return candidates
    near: list[int] = ids[scores >= largest - _CLOSE * max(1.0, abs(largest))].tolist()
    return near


def _mix_all(values: np.ndarray) -> np.ndarray:
    """`mix` of every number, uint64 [n]."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed
