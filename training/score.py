"""How well a component's predictions fit: the loss that trains it, and how far its drafts would be accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from forerun.models.drafts import Batch, Component, Prediction
from forerun.training.batches import Targets

# What a position counts in the loss: later ones are reached less often.
POSITION_WEIGHT = 0.8


def loss_of(component: Component, batch: Batch, targets: Targets) -> torch.Tensor:
    """Cross-entropy between the model's probabilities and the component's, over its positions; a scalar."""
    total = torch.zeros((), device=batch.token_ids.device)
    weights = 0.0
    for place, prediction in enumerate(component.predict(batch)):
        weight = POSITION_WEIGHT**place
        total = total + weight * _cross_entropy(component, prediction, targets)
        weights += weight
    return total / weights


def _cross_entropy(component: Component, prediction: Prediction, targets: Targets) -> torch.Tensor:
    logits = component.logits(prediction.hidden).float()
    at = prediction.rows + prediction.ahead
    chosen = logits.gather(1, targets.ids[at]) - logits.logsumexp(dim=1, keepdim=True)
    return -(targets.probabilities[at] * chosen).sum(dim=1).mean()


@dataclass
class Acceptance:
    """Counts on held-out conversations, by draft position: rows that a draft was made for, drafts that were the token
    that follows, and those for which all before were as well.
    """

    drafted: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    @property
    def agreement(self) -> list[float]:
        """Part of the drafts that are right, each position for itself, the text before it given."""
        return [right / max(drafted, 1) for right, drafted in zip(self.right, self.drafted, strict=True)]

    @property
    def accepted_length(self) -> float:
        """Tokens of a verify call of a chain as long as the positions are: 1 + what is kept."""
        return 1 + sum(kept / max(drafted, 1) for kept, drafted in zip(self.kept, self.drafted, strict=True))


def count_accepted(component: Component, batch: Batch, acceptance: Acceptance) -> None:
    """Add the drafts of a batch to the counts."""
    right = torch.ones(len(batch.token_ids), dtype=torch.bool, device=batch.token_ids.device)
    other = component.config.other_id
    for place, prediction in enumerate(component.predict(batch)):
        follows = prediction.rows + prediction.ahead + 1
        inside = follows <= batch.lasts[prediction.rows]
        rows, follows = prediction.rows[inside], follows[inside]
        drafted = component.logits(prediction.hidden[inside]).argmax(dim=1)
        hit = (drafted == batch.token_ids[follows]) & (drafted != other)
        reached = torch.zeros_like(right)
        reached[rows] = hit
        right = right & reached
        if place == len(acceptance.drafted):
            acceptance.drafted.append(0)
            acceptance.right.append(0)
            acceptance.kept.append(0)
        acceptance.drafted[place] += len(rows)
        acceptance.right[place] += int(hit.sum())
        acceptance.kept[place] += int(right.sum())


def evaluate(component: Component, packs: Sequence[tuple[Batch, Targets]]) -> tuple[float, Acceptance]:
    """Loss and acceptance on held-out packs."""
    acceptance = Acceptance()
    losses = []
    with torch.no_grad():
        for batch, targets in packs:
            losses.append(float(loss_of(component, batch, targets)))
            count_accepted(component, batch, acceptance)
    return sum(losses) / max(len(losses), 1), acceptance
