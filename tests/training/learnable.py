"""A tiny model, and text that a draft can learn from it."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tiny_models import write_folder

from forerun.models.checkpoint import Checkpoint
from forerun.models.drafts import COMPONENTS, Component
from forerun.models.llama import Decoder
from forerun.models.sources import load_decoder, open_checkpoint
from forerun.training.cache import TeacherCache, Vocabulary, build_cache, choose_vocabulary
from forerun.training.data import Conversation
from forerun.training.folder import lend_rows
from forerun.training.states import TorchStates

LAYERS = 3


@dataclass(frozen=True)
class Learnable:
    """A model and conversations in which a few phrases come again and again."""

    checkpoint: Checkpoint
    model: Decoder
    conversations: list[Conversation]
    vocabulary: Vocabulary

    def component(self, name: str, **options: object) -> Component:
        """A component with its start weights."""
        torch.manual_seed(0)
        kind = COMPONENTS[name]
        config = kind.configure(self.model.config, self.vocabulary.size, options)
        lent = lend_rows(self.model, self.vocabulary, torch.device("cpu"))
        component = kind(config, lent)
        states = torch.randn(64, len(config.taps), self.model.config.hidden_size)
        component.start_from(self.model.state_dict(), lent, states)
        return component

    def cache(self, component: Component, folder: Path) -> TeacherCache:
        """What the model says of the conversations at the component's taps."""
        lent = lend_rows(self.model, self.vocabulary, torch.device("cpu"))
        return build_cache(
            folder,
            lambda: nullcontext(TorchStates(self.model)),
            "tiny",
            lent,
            component.config.taps,
            self.vocabulary,
            self.conversations,
            longest=96,
        )


def make_learnable(folder: Path, seed: int = 0, count: int = 40) -> Learnable:
    """Conversations of 30 to 60 tokens."""
    rng = np.random.default_rng(seed)
    checkpoint = open_checkpoint(write_folder(folder / "model", seed=seed, num_hidden_layers=LAYERS))
    phrases = [tuple(int(token) for token in rng.integers(3, 120, 6)) for _ in range(5)]
    conversations = [
        Conversation((), sum((phrases[index] for index in rng.integers(0, 5, rng.integers(5, 11))), ()))
        for _ in range(count)
    ]
    model = load_decoder(checkpoint)
    vocabulary = choose_vocabulary(conversations, model.config.vocabulary_size, 100, (2,))
    return Learnable(checkpoint, model, conversations, vocabulary)
