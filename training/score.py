"""How well a component's predictions fit: the loss that trains it, and how far its drafts would be accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from forerun.models.drafts import Batch, Component
from forerun.training.batches import Targets

# What a position counts in the loss: later ones are reached less often.
POSITION_WEIGHT = 0.8


# Rows whose logits are in memory at a time: what a core's cache holds.
CHUNK = 256


def loss_of(component: Component, batch: Batch, targets: Targets) -> torch.Tensor:
    """Cross-entropy between the model's probabilities and the component's in answers, over its positions; a scalar."""
    total = torch.zeros((), device=batch.token_ids.device)
    weights = 0.0
    head = component.head_weight().detach()
    if torch.is_autocast_enabled(head.device.type):
        head = head.to(torch.get_autocast_dtype(head.device.type))
    for place, prediction in enumerate(component.predict(batch)):
        weight = POSITION_WEIGHT**place
        at = prediction.rows + prediction.ahead
        counts = targets.counts[at]
        at = at[counts]
        hidden = component.head_norm(prediction.hidden[counts])
        loss = CrossEntropy.apply(
            hidden, head, component.other_head, targets.ids[at], targets.probabilities[at]
        )
        total = total + weight * loss
        weights += weight
    return total / weights


class CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of `hidden @ head.t()` with sparse targets.

    hidden [n, D], head [V, D] of which only the last row is trained and given once more, as it is trained, in other
    [D], ids int64 [n, K] and their probabilities float32 [n, K], which sum to 1.

    Logits are larger than everything else together, so they are made and forgotten a few rows at a time, and the
    gradients are found on the way.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        other: torch.Tensor,
        ids: torch.Tensor,
        probabilities: torch.Tensor,
    ) -> torch.Tensor:
        """float32, a scalar."""
        rows = hidden.to(head.dtype)
        total = hidden.new_zeros((), dtype=torch.float32)
        to_hidden, to_other = torch.empty_like(rows), torch.zeros_like(head[-1])
        space = torch.empty((CHUNK, len(head)), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            logits = space[: len(rows[part])].copy_(rows[part] @ head.t())
            logits -= logits.amax(dim=1, keepdim=True)
            wanted = logits.gather(1, ids[part])
            sums = logits.exp_().sum(dim=1, keepdim=True)
            total += (probabilities[part] * (sums.log() - wanted)).sum()
            errors = logits.div_(sums).scatter_add_(1, ids[part], -probabilities[part]).to(head.dtype)
            to_hidden[part] = errors @ head
            to_other += errors[:, -1] @ rows[part]
        ctx.save_for_backward(to_hidden, to_other)
        ctx.count, ctx.dtypes = max(len(hidden), 1), (hidden.dtype, other.dtype)
        return total / ctx.count

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Of hidden and other."""
        to_hidden, to_other = (
            (saved * (grads[0] / ctx.count)).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return to_hidden, None, to_other, None, None


@dataclass
class Acceptance:
    """Counts on held-out answers, by draft position: rows that a draft was made for, drafts that are what the model
    finds most probable there, and those for which all before were as well.
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


def count_accepted(component: Component, batch: Batch, targets: Targets, acceptance: Acceptance) -> None:
    """Add the drafts of a batch to the counts."""
    right = torch.ones(len(batch.token_ids), dtype=torch.bool, device=batch.token_ids.device)
    other = component.config.other_id
    for place, prediction in enumerate(component.predict(batch)):
        counts = targets.counts[prediction.rows + prediction.ahead]
        rows = prediction.rows[counts]
        drafted = component.logits(prediction.hidden[counts]).argmax(dim=1)
        hit = (drafted == targets.ids[rows + prediction.ahead, 0]) & (drafted != other)
        right[rows] &= hit
        if place == len(acceptance.drafted):
            acceptance.drafted.append(0)
            acceptance.right.append(0)
            acceptance.kept.append(0)
        acceptance.drafted[place] += len(rows)
        acceptance.right[place] += int(hit.sum())
        acceptance.kept[place] += int(right[rows].sum())


def evaluate(component: Component, packs: Sequence[tuple[Batch, Targets]]) -> tuple[float, Acceptance]:
    """Loss and acceptance on held-out packs."""
    acceptance = Acceptance()
    losses = []
    with torch.no_grad():
        for batch, targets in packs:
            losses.append(float(loss_of(component, batch, targets)))
            count_accepted(component, batch, targets, acceptance)
    return sum(losses) / max(len(losses), 1), acceptance
