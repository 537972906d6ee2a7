"""What the model says of every token of the data, computed once: hidden states at the taps, and soft targets.

Targets are the model's probabilities over the draft vocabulary, the largest `TOP` of them. A token that the draft
vocabulary does not hold is the draft's last id, and that alone is the target there.
Legend: N tokens of all conversations, T taps, D hidden size, V draft vocabulary.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from forerun.errors import DataError
from forerun.models.drafts import ModelRows
from forerun.training.data import Conversation, digest
from forerun.training.states import StatesOf

TOP = 16
LARGEST_HALF = 65504.0
_ARRAYS = {
    "token_ids": np.uint16,
    "states": np.float16,
    "top_ids": np.uint16,
    "top_probabilities": np.float16,
}

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Vocabulary:
    """The draft vocabulary: `token_ids` int32 [V - 1] are the model's ids of all draft ids but the last."""

    token_ids: np.ndarray
    model_size: int

    @property
    def size(self) -> int:
        """Draft ids, the one for all others included."""
        return len(self.token_ids) + 1

    def draft_ids(self, token_ids: Sequence[int]) -> np.ndarray:
        """Model ids → draft ids, int64."""
        table = np.full(self.model_size, self.size - 1, np.int64)
        table[self.token_ids] = np.arange(self.size - 1)
        return table[np.asarray(token_ids, np.int64)]


def choose_vocabulary(
    conversations: Iterable[Conversation], model_size: int, size: int, always: Iterable[int]
) -> Vocabulary:
    """The most frequent ids of the data, those in `always` first; in order of id. Raises `DataError` if there is no
    data.
    """
    counts = Counter(token for one in conversations for token in one.token_ids)
    if not counts:
        raise DataError("the data holds no conversations; write some with `forerun synth`")
    ranked = [*always, *(token for token, _ in counts.most_common()), *range(model_size)]
    chosen = list(dict.fromkeys(ranked))[: min(size, model_size) - 1]
    return Vocabulary(np.array(sorted(chosen), np.int32), model_size)


@dataclass(frozen=True)
class TeacherCache:
    """Arrays on disk, mapped: draft ids [N], states [N, T, D] and targets [N, TOP] of the conversations, of which
    number i holds the tokens `starts[i]` to `starts[i + 1]`, of which those from `answers[i]` on are the model's
    answer. `identity` tells what it was made of.
    """

    identity: str
    starts: np.ndarray
    answers: np.ndarray
    token_ids: np.ndarray
    states: np.ndarray
    top_ids: np.ndarray
    top_probabilities: np.ndarray

    @property
    def conversations(self) -> int:
        """How many there are."""
        return len(self.starts) - 1

    def length(self, index: int) -> int:
        """Tokens of a conversation."""
        return int(self.starts[index + 1] - self.starts[index])


def build_cache(
    folder: Path,
    reading: Callable[[], AbstractContextManager[StatesOf]],
    reader: str,
    lent: ModelRows,
    taps: Sequence[int],
    vocabulary: Vocabulary,
    conversations: Sequence[Conversation],
    *,
    longest: int,
    progress: Progress | None = None,
) -> TeacherCache:
    """Let the model read all conversations, each cut after `longest` tokens, and write what it says.

    A cache that is whole and was made of the same is read instead: `reading` then is not called, and `reader` is what
    tells one model, and way of running it, from another. Raises `DataError` if it cannot be written or a conversation
    holds ids that the model does not have.
    """
    cut = [one.token_ids[:longest] for one in conversations]
    _check_ids(cut, vocabulary.model_size)
    starts = np.cumsum([0, *map(len, cut)])
    count = int(starts[-1])
    shapes = {
        "token_ids": (count,),
        "states": (count, len(taps), lent.config.hidden_size),
        "top_ids": (count, TOP),
        "top_probabilities": (count, TOP),
    }
    texts = digest(np.concatenate([starts, *cut]).astype(np.int64).tobytes())
    identity = f"{reader} {texts} {digest(vocabulary.token_ids.tobytes())} {list(taps)}"
    done = folder / "cache.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_whole = done.exists() and json.loads(done.read_text(encoding="utf-8")) == {"made_of": identity}
        mode: Literal["r", "w+"] = "r" if is_whole else "w+"
        arrays = {
            name: np.memmap(folder / f"{name}.bin", dtype, mode, shape=shapes[name])
            for name, dtype in _ARRAYS.items()
        }
        if not is_whole:
            done.unlink(missing_ok=True)
            with reading() as states_of:
                _fill(arrays, states_of, lent, taps, vocabulary, cut, starts, progress)
            for array in arrays.values():
                array.flush()
            done.write_text(json.dumps({"made_of": identity}), encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write the cache in {folder}: {error.strerror}") from error
    prompts = [min(len(one.prompt_ids), len(ids)) for one, ids in zip(conversations, cut, strict=True)]
    return TeacherCache(identity, starts, starts[:-1] + prompts, **arrays)


def _check_ids(cut: Sequence[Sequence[int]], model_size: int) -> None:
    largest = max((max(ids) for ids in cut if ids), default=0)
    if largest >= model_size:
        raise DataError(
            f"the data holds token id {largest}, the model has {model_size} ids: it is data of another model"
        )


def _fill(
    arrays: dict[str, np.memmap],
    states_of: StatesOf,
    lent: ModelRows,
    taps: Sequence[int],
    vocabulary: Vocabulary,
    cut: Sequence[Sequence[int]],
    starts: np.ndarray,
    progress: Progress | None,
) -> None:
    wanted = (*taps, lent.config.layers - 1)
    for index, ids in enumerate(cut):
        place = slice(int(starts[index]), int(starts[index + 1]))
        draft_ids = vocabulary.draft_ids(ids)
        with torch.no_grad():
            states = states_of(ids, wanted).float()
            last = nn.functional.rms_norm(
                states[:, -1], lent.head_norm.shape, lent.head_norm, lent.config.norm_epsilon
            )
            top = torch.softmax(last @ lent.head.t(), dim=-1).topk(TOP)
        arrays["token_ids"][place] = draft_ids
        arrays["states"][place] = states[:, :-1].clamp(-LARGEST_HALF, LARGEST_HALF).cpu().numpy()
        top_ids, probabilities = top.indices.cpu().numpy(), top.values.cpu().numpy()
        # Where the next token has no draft id, the draft has to know just that.
        is_other = np.append(draft_ids[1:] == vocabulary.size - 1, False)
        probabilities[is_other] = 0
        top_ids[is_other, 0], probabilities[is_other, 0] = vocabulary.size - 1, 1
        arrays["top_ids"][place] = top_ids
        arrays["top_probabilities"][place] = probabilities / probabilities.sum(axis=1, keepdims=True)
        if progress is not None and index % 16 == 0:
            progress(f"{int(starts[index + 1]):,} of {int(starts[-1]):,} tokens", index / len(cut))
