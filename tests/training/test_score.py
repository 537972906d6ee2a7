"""The loss and the counts of accepted drafts against what they are by hand."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from learnable import Learnable

from forerun.models.drafts import Batch, Component, Prediction
from forerun.training.batches import Targets, load_pack
from forerun.training.cache import TeacherCache
from forerun.training.score import CHUNK, POSITION_WEIGHT, Acceptance, count_accepted, loss_of


def test_loss_is_the_cross_entropy_by_hand(
    learnable: Learnable, caches: Callable[[str], TeacherCache]
) -> None:
    component = learnable.component("exit")
    batch, targets = load_pack(caches("exit"), [0, 1], torch.device("cpu"))
    (prediction,) = component.predict(batch)
    with torch.no_grad():
        probabilities = torch.softmax(component.logits(prediction.hidden), dim=1)
        expected = 0.0
        counted = torch.nonzero(targets.counts)[:, 0].tolist()
        assert 0 < len(counted) < len(batch.token_ids)
        for row in counted:
            for token, wanted in zip(targets.ids[row], targets.probabilities[row], strict=True):
                expected -= float(wanted) * math.log(float(probabilities[row, token]))
        expected /= len(counted)
        assert float(loss_of(component, batch, targets)) == pytest.approx(expected, rel=1e-4)


def test_the_loss_has_the_gradients_of_the_plain_formula(
    learnable: Learnable, caches: Callable[[str], TeacherCache]
) -> None:
    """More rows than are in memory at a time, and a prompt that does not count."""
    component = learnable.component("feature")
    cache = replace(caches("feature"), answers=caches("feature").starts[:-1] + 9)
    batch, targets = load_pack(cache, range(12), torch.device("cpu"))
    assert len(batch.token_ids) > CHUNK
    component.requires_grad_(True)
    loss_of(component, batch, targets).backward()
    found = {name: one.grad for name, one in component.named_parameters()}
    component.zero_grad()
    losses, weights = [], []
    for place, prediction in enumerate(component.predict(batch)):
        at = prediction.rows + prediction.ahead
        log = torch.log_softmax(component.logits(prediction.hidden), dim=1)
        each = -(targets.probabilities[at] * log.gather(1, targets.ids[at])).sum(dim=1)
        weights.append(POSITION_WEIGHT**place)
        losses.append(weights[-1] * each[targets.counts[at]].mean())
    (sum(losses) / sum(weights)).backward()
    for name, one in component.named_parameters():
        assert found[name] is not None and one.grad is not None, name
        torch.testing.assert_close(found[name], one.grad, atol=1e-5, rtol=1e-3, msg=name)


def test_targets_sum_to_one_and_name_unknown_tokens(
    learnable: Learnable, caches: Callable[[str], TeacherCache]
) -> None:
    cache = caches("feature")
    sums = np.asarray(cache.top_probabilities, np.float32).sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=0.01)
    other = learnable.vocabulary.size - 1
    follows = np.append(cache.token_ids[1:] == other, False)
    ends = cache.starts[1:] - 1
    follows[ends] = False
    assert (cache.top_ids[follows, 0] == other).all()


class Knowing(Component):
    """Says what it is told: for each position a token for each row."""

    def __init__(self, component: Component, says: list[torch.Tensor]) -> None:
        torch.nn.Module.__init__(self)
        self.config, self._says = component.config, says

    def predict(self, batch: Batch) -> list[Prediction]:
        rows = torch.arange(len(batch.token_ids))
        found = []
        for ahead, tokens in enumerate(self._says, start=1):
            inside = rows + ahead <= batch.lasts
            hidden = torch.nn.functional.one_hot(tokens, self.config.network.vocabulary_size).float()
            found.append(Prediction(hidden[inside], rows[inside], ahead))
        return found

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    configure = start_from = exported = None  # type: ignore[assignment]


def test_accepted_lengths_are_those_of_a_count_by_hand(
    learnable: Learnable, rng: np.random.Generator
) -> None:
    component = learnable.component("exit")
    lengths, prompts = (7, 12), (0, 4)
    ends = np.repeat(np.cumsum(lengths) - 1, lengths)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    batch = Batch(
        torch.from_numpy(rng.integers(0, 3, 19)),
        torch.zeros(19, 1, 4),
        torch.arange(19),
        torch.from_numpy(ends),
        lengths,
    )
    says = [torch.from_numpy(rng.integers(0, 3, 19)) for _ in range(3)]
    first = torch.from_numpy(rng.integers(0, 3, (19, 1)))
    follows = np.arange(19) + 1
    counts = (follows <= ends) & (follows - starts >= np.repeat(prompts, lengths))
    acceptance = Acceptance()
    targets = Targets(first, torch.ones(19, 1), torch.from_numpy(counts))
    count_accepted(Knowing(component, says), batch, targets, acceptance)
    drafted, kept = [0, 0, 0], [0, 0, 0]
    for row in range(19):
        good = True
        for place in range(3):
            at = row + place + 1
            if at > ends[row] or not counts[at]:
                continue
            drafted[place] += 1
            good = good and bool(says[place][row] == first[at, 0])
            kept[place] += good
    assert (acceptance.drafted, acceptance.kept) == (drafted, kept)
    assert min(drafted) > 0
    assert acceptance.accepted_length == pytest.approx(
        1 + sum(k / d for k, d in zip(kept, drafted, strict=True))
    )
