"""Components in training against the networks they are exported as, and against what drafting will do with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from learnable import Learnable

from forerun.errors import OptionError
from forerun.models.drafts import COMPONENTS, Batch, Component, DraftNetwork
from forerun.models.drafts.differentiable import run_layer
from forerun.models.llama import chain_mask

SPECS = (
    ("feature", {}),
    ("feature", {"layers": 2, "taps": (0, 2)}),
    ("heads", {"heads": 2, "depth": 2}),
    ("exit", {"after": 1}),
    ("exit", {"after": 2, "form": "eesd"}),
)


def network_of(component: Component) -> DraftNetwork:
    """The exported form with the component's weights, all of which it must have."""
    network = DraftNetwork(component.config)
    network.load_state_dict(component.exported())
    return network.eval()


def random_batch(component: Component, lengths: tuple[int, ...], rng: np.random.Generator) -> Batch:
    """Conversations of random tokens and states."""
    rows, size = sum(lengths), component.config.network.hidden_size
    states = rng.standard_normal((rows, len(component.config.taps), size)).astype(np.float32)
    ends = np.cumsum(lengths)
    return Batch(
        torch.from_numpy(rng.integers(0, component.config.network.vocabulary_size, rows)),
        torch.from_numpy(states),
        torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])),
        torch.from_numpy(np.repeat(ends - 1, lengths)),
        lengths,
    )


def randomize(component: Component) -> None:
    """Weights of which every part shows."""
    with torch.no_grad():
        for parameter in component.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 1.0))


def test_a_differentiable_layer_is_the_layer(learnable: Learnable) -> None:
    config = learnable.model.config
    layer = learnable.model.layers[1]
    hidden, positions = torch.randn(9, config.hidden_size), torch.arange(9)
    mask = chain_mask(9, 0)
    empty = hidden.new_zeros((config.kv_heads, 0, config.head_dim))
    expected, key, value = layer.attention(hidden, positions, mask, empty, empty)
    expected = layer.feed_forward(expected)
    found, present = run_layer(layer, hidden, positions, (9,))
    assert present is not None
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(present[0], key, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(present[1], value, atol=1e-5, rtol=1e-5)


def draft_step_by_step(network: DraftNetwork, batch: Batch, row: int, steps: int) -> list[torch.Tensor]:
    """Logits of drafting from one row as the runtime does: committed rows first, then one drafted row at a time,
    each with the network's own output for features and the given token.
    """
    config = network.config.network
    first = row - int(batch.positions[row])
    size, states = config.hidden_size, batch.states.flatten(1)
    kept = torch.arange(first, row + 1)
    features = torch.cat([torch.zeros(len(kept), size), states[kept]], dim=1)
    tokens, positions = batch.token_ids[kept + 1], batch.positions[kept]
    past = [(torch.zeros(config.kv_heads, 0, config.head_dim),) * 2 for _ in network.layers]
    logits = []
    for step in range(steps):
        hidden = network.embed(tokens, features)
        mask = chain_mask(len(tokens), past[0][0].shape[1])
        for index, layer in enumerate(network.layers):
            hidden, key, value = layer.attention(hidden, positions, mask, *past[index])
            hidden = layer.feed_forward(hidden)
            past[index] = (key, value)
        logits.append(network.head(hidden)[-1])
        following = min(row + step + 2, len(batch.token_ids) - 1)
        tokens, positions = batch.token_ids[following][None], positions[-1:] + 1
        features = torch.cat([hidden[-1:], torch.zeros(1, states.shape[1])], dim=1)
    return logits


@pytest.mark.parametrize("options", [{}, {"layers": 2, "taps": (0, 2)}])
def test_what_feature_learns_is_what_it_drafts(
    learnable: Learnable, options: dict, rng: np.random.Generator
) -> None:
    """Every unrolled prediction, of rows within two conversations side by side."""
    component = learnable.component("feature", **options)
    randomize(component)
    batch = random_batch(component, (9, 12), rng)
    network = network_of(component)
    with torch.no_grad():
        predictions = component.predict(batch)
        for row in (0, 3, 5, 9, 14, 17):
            drafted = draft_step_by_step(network, batch, row, len(predictions))
            for prediction, expected in zip(predictions, drafted, strict=True):
                place = int((prediction.rows == row).nonzero())
                found = component.logits(prediction.hidden[place][None])[0]
                torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


def run_network(network: DraftNetwork, batch: Batch, ahead: int) -> torch.Tensor:
    """Logits [M, V] of heads or an exit over a conversation, as the exported network gives them."""
    hidden, config = batch.states[:, 0], network.config
    rows = len(hidden)
    first, last = 0, config.network.layers
    if config.component == "heads":
        depth = last // config.heads
        first, last = (ahead - 1) * depth, ahead * depth
    empty = hidden.new_zeros((config.network.kv_heads, 0, config.network.head_dim))
    for layer in list(network.layers)[first:last]:
        if layer.attention is not None:
            hidden, _, _ = layer.attention(hidden, batch.positions, chain_mask(rows, 0), empty, empty)
        hidden = hidden if layer.feed_forward is None else layer.feed_forward(hidden)
    logits: torch.Tensor = network.head(hidden)
    return logits


@pytest.mark.parametrize(("name", "options"), SPECS[2:])
def test_heads_and_exits_are_their_networks(
    learnable: Learnable, name: str, options: dict, rng: np.random.Generator
) -> None:
    component = learnable.component(name, **options)
    randomize(component)
    batch = random_batch(component, (11,), rng)
    network = network_of(component)
    with torch.no_grad():
        for prediction in component.predict(batch):
            found = component.logits(prediction.hidden)
            expected = run_network(network, batch, prediction.ahead)[prediction.rows]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "options"), SPECS)
def test_every_weight_of_its_own_learns(
    learnable: Learnable, name: str, options: dict, rng: np.random.Generator
) -> None:
    component = learnable.component(name, **options)
    randomize(component)
    component.requires_grad_(True)
    batch = random_batch(component, (20,), rng)
    batch.token_ids[3] = component.config.other_id
    total = sum(component.logits(one.hidden).square().mean() for one in component.predict(batch))
    assert isinstance(total, torch.Tensor)
    total.backward()
    lazy = [n for n, p in component.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert lazy == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("feature", {"layers": 0}, "layers is 0"),
        ("heads", {"heads": 0}, "must be 1 or more"),
        ("exit", {"after": 3}, "after is 3; it must be 1 to 2"),
        ("exit", {"form": "eagle"}, "kangaroo or eesd"),
    ],
)
def test_options_out_of_range(learnable: Learnable, name: str, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        COMPONENTS[name].configure(learnable.model.config, 50, options)


def test_vocabularies_hold_what_is_frequent(learnable: Learnable, tmp_path: Path) -> None:
    vocabulary = learnable.vocabulary
    used = {token for one in learnable.conversations for token in one.token_ids}
    assert used | {2} <= set(vocabulary.token_ids.tolist())
    assert vocabulary.size == 100
    ids = vocabulary.draft_ids([int(vocabulary.token_ids[7]), 287])
    assert ids.tolist() == [7, 99]
