"""Which rows a step trains on: whole conversations, packed together, in an order that the seed and the step decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from forerun.models.drafts import Batch
from forerun.training.cache import TeacherCache


@dataclass(frozen=True)
class Targets:
    """The model's probabilities at every row of a batch: draft ids int64 [M, TOP], probabilities float32 [M, TOP], and
    whether they are of a token of its answer, bool [M]. What follows in a prompt is read, never drafted.
    """

    ids: torch.Tensor
    probabilities: torch.Tensor
    counts: torch.Tensor


def pack(cache: TeacherCache, order: Sequence[int], rows: int) -> list[list[int]]:
    """Conversations in that order, as many together as have up to `rows` rows."""
    packs: list[list[int]] = []
    room = 0
    for index in order:
        length = cache.length(index)
        if length > room or not packs:
            packs.append([])
            room = max(rows, length)
        packs[-1].append(index)
        room -= length
    return packs


def steps(
    cache: TeacherCache, trained: int, seed: int, rows: int, packs_per_step: int, first: int
) -> Iterator[list[list[int]]]:
    """Endless: the packs of step `first`, `first` + 1, …; every epoch has an order of its own."""
    epoch = step = 0
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(trained)
        packs = pack(cache, [int(index) for index in order], rows)
        for start in range(0, max(len(packs) - packs_per_step + 1, 1), packs_per_step):
            if step >= first:
                yield packs[start : start + packs_per_step]
            step += 1
        epoch += 1


def load_pack(cache: TeacherCache, pack: Sequence[int], device: torch.device) -> tuple[Batch, Targets]:
    """Read the rows of a pack."""
    places = [slice(int(cache.starts[index]), int(cache.starts[index + 1])) for index in pack]

    def read(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        joined = np.concatenate([array[place] for place in places])
        return torch.from_numpy(joined).to(device, dtype)

    lengths = [place.stop - place.start for place in places]
    ends = np.cumsum(lengths)
    positions = np.concatenate([np.arange(length) for length in lengths])
    batch = Batch(
        read(cache.token_ids, torch.int64),
        read(cache.states, torch.float32),
        torch.from_numpy(positions).to(device),
        torch.from_numpy(np.repeat(ends - 1, lengths)).to(device),
        tuple(lengths),
    )
    follows = [np.arange(place.start, place.stop) + 1 for place in places]
    counts = [
        (one >= cache.answers[index]) & (one < cache.starts[index + 1])
        for one, index in zip(follows, pack, strict=True)
    ]
    return batch, Targets(
        read(cache.top_ids, torch.int64),
        read(cache.top_probabilities, torch.float32),
        torch.from_numpy(np.concatenate(counts)).to(device),
    )
