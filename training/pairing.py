"""What a draft is worth to weights that it was not trained for: the model answers a few prompts, the draft follows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from forerun.models.checkpoint import Checkpoint
from forerun.models.drafts import Component
from forerun.models.llama import Decoder
from forerun.training.batches import load_pack
from forerun.training.cache import Vocabulary, build_cache
from forerun.training.data import Conversation
from forerun.training.folder import lend_rows
from forerun.training.prompts import prompt_ids
from forerun.training.score import Acceptance, evaluate
from forerun.training.states import StatesOf, TorchStates

PROMPTS = (
    "Explain in a few sentences how rain forms.",
    "Write a short letter to a friend about a walk in the hills.",
    "A shop sells pens at 3 euros each. How much do 14 pens cost? Explain how you know.",
    "List five things to take along on a journey by train, and say why.",
)
ANSWER_TOKENS = 48

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Worth:
    """How far drafts are accepted, and what one drafted token costs: weights that it reads, as a part of those that
    the model reads for a token."""

    acceptance: Acceptance
    cost: float

    @property
    def gain(self) -> float:
        """Tokens that a chain of the best length brings beyond what its time is worth, at the least that it can take;
        0 or less: it can only make the model slower.
        """
        gain, best = 0.0, -1.0
        for drafted, kept in zip(self.acceptance.drafted, self.acceptance.kept, strict=True):
            gain += kept / max(drafted, 1) - self.cost
            best = max(best, gain)
        return best


def measure_worth(
    checkpoint: Checkpoint,
    model: Decoder,
    component: Component,
    vocabulary: Vocabulary,
    progress: Progress | None = None,
) -> Worth:
    """Let the model answer `PROMPTS` greedily, and count what of its answers the component would have drafted."""
    states_of, files = TorchStates(model), checkpoint.read_tokenizer()
    conversations = []
    longest = model.config.context_length // 2
    for place, prompt in enumerate(ids[-longest:] for ids in prompt_ids(files, PROMPTS)):
        if progress is not None:
            progress("trying the draft on these weights", place / len(PROMPTS))
        answer = _answer(model, states_of, prompt, files.eos_token_ids)
        conversations.append(Conversation(tuple(prompt), tuple(answer)))
    with tempfile.TemporaryDirectory() as folder:
        cache = build_cache(
            Path(folder),
            lambda: nullcontext(states_of),
            "",
            lend_rows(model, vocabulary, torch.device("cpu")),
            component.config.taps,
            vocabulary,
            conversations,
            longest=model.config.context_length,
        )
        packs = [load_pack(cache, [index], torch.device("cpu")) for index in range(cache.conversations)]
        _, acceptance = evaluate(component, packs)
    own = sum(weight.numel() for weight in component.parameters() if weight.ndim == 2)
    read = sum(weight.numel() for weight in model.layers.parameters()) + model.head.weight.numel()
    return Worth(acceptance, (own + component.head_weight().numel()) / read)


def _answer(model: Decoder, states_of: StatesOf, prompt: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The model's greedy answer. It reads everything anew for each token: a cache would save seconds."""
    answer: list[int] = []
    room = min(ANSWER_TOKENS, model.config.context_length - len(prompt))
    last = model.config.layers - 1
    with torch.no_grad():
        while len(answer) < room and not (answer and answer[-1] in ends):
            state = states_of([*prompt, *answer], (last,))[-1:, 0]
            answer.append(int(model.head(state).argmax()))
    return answer
