"""The definition of sampling: filters, noise, and the distribution it draws from."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from forerun.errors import OptionError
from forerun.runtime.sample import draw_token, filter_candidates, gumbel, mix, rank_tokens
from forerun.runtime.settings import MAX_SEED, Sampling, Settings

LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=24).map(
    lambda v: np.array(v, np.float32)
)


def test_the_finaliser_is_splitmix64() -> None:
    """The published first outputs of splitmix64 for seed 1234567: the state advances by the golden gamma."""
    gamma, mask = 0x9E3779B97F4A7C15, 2**64 - 1
    outputs = [mix((1234567 + gamma * step) & mask) for step in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, MAX_SEED),
    position=st.integers(0, 2**31),
    temperature=st.floats(0.01, 4.0),
    levels=st.integers(1, 300),
    top_k=st.sampled_from([0, 100]),
)
def test_many_candidates_are_drawn_from_as_few_are(
    seed: int, position: int, temperature: float, levels: int, top_k: int
) -> None:
    """Vectors look through many candidates first; the token is that of the scalar definition."""
    logits = (np.random.default_rng(seed).integers(0, levels, 300) / 8).astype(np.float32)
    sampling = Sampling(temperature, top_k, seed=seed)
    kept = filter_candidates(logits, sampling)
    scores = {
        token_id: float(logits[token_id]) / temperature + gumbel(seed, position, token_id)
        for token_id in kept
    }
    expected = max(scores, key=lambda token_id: (scores[token_id], -token_id))
    assert draw_token(logits, sampling, position) == expected


def test_noise_is_a_function_of_seed_position_and_token() -> None:
    values = {
        gumbel(seed, position, token) for seed in range(4) for position in range(4) for token in range(4)
    }
    assert len(values) == 64
    assert gumbel(3, 2, 1) == gumbel(3, 2, 1)


def test_noise_follows_the_gumbel_distribution() -> None:
    """Kolmogorov-Smirnov distance of 20,000 draws; chance passes 0.0115 once in 100 seeds."""
    values = np.sort([gumbel(11, position, token) for position in range(100) for token in range(200)])
    expected = np.exp(-np.exp(-values))
    found = np.arange(1, len(values) + 1) / len(values)
    assert np.abs(found - expected).max() < 0.0115


@pytest.mark.parametrize(
    "sampling", [Sampling(1.0, seed=5), Sampling(0.7, top_k=3, seed=6), Sampling(1.5, top_p=0.8)]
)
def test_draws_follow_the_filtered_softmax(sampling: Sampling) -> None:
    logits = np.array([1.0, 0.2, -0.5, 0.9, -3.0], np.float32)
    kept = filter_candidates(logits, sampling)
    weights = np.exp(logits[kept].astype(np.float64) / sampling.temperature)
    draws = 8000
    counts = np.bincount([draw_token(logits, sampling, position) for position in range(draws)], minlength=5)
    assert counts.sum() == counts[kept].sum()
    # Five standard deviations of a binomial count.
    assert np.abs(counts[kept] / draws - weights / weights.sum()).max() < 5 * math.sqrt(0.25 / draws)


@given(logits=LOGITS)
def test_temperature_zero_takes_the_first_of_the_largest(logits: np.ndarray) -> None:
    assert draw_token(logits, Sampling(), 3) == min(
        i for i, value in enumerate(logits) if value == logits.max()
    )


@given(logits=LOGITS, top_k=st.integers(1, 30), seed=st.integers(0, MAX_SEED), position=st.integers(0, 10**6))
def test_top_k_keeps_the_k_largest(logits: np.ndarray, top_k: int, seed: int, position: int) -> None:
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:top_k]
    sampling = Sampling(1.0, top_k=top_k, seed=seed)
    assert filter_candidates(logits, sampling) == order
    assert draw_token(logits, sampling, position) in order


@given(logits=LOGITS, top_p=st.floats(0.01, 1.0), temperature=st.floats(0.1, 3))
def test_top_p_keeps_the_smallest_prefix_with_that_mass(
    logits: np.ndarray, top_p: float, temperature: float
) -> None:
    kept = filter_candidates(logits, Sampling(temperature, top_p=top_p))
    weights = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    mass = weights[kept].sum() / weights.sum()
    assert mass >= top_p - 1e-9
    assert len(kept) == 1 or mass - weights[kept[-1]] / weights.sum() < top_p + 1e-9


@hypothesis_settings(deadline=None)
@given(
    logits=LOGITS,
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 9),
    count=st.integers(1, 6),
)
def test_the_best_guess_is_the_draw(logits: np.ndarray, temperature: float, seed: int, count: int) -> None:
    sampling = Sampling(temperature, seed=seed)
    ranked = [index for index, _ in rank_tokens(logits, count, sampling, 17)]
    assert ranked[0] == draw_token(logits, sampling, 17)
    assert len(set(ranked)) == len(ranked) == min(count, len(logits))


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": -0.1},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"seed": -1},
        {"seed": 2**64},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(values))):
        Sampling(**values)  # type: ignore[arg-type]


def test_limits_out_of_range_are_refused() -> None:
    with pytest.raises(OptionError, match="max_tokens"):
        Settings(max_tokens=-1)
    with pytest.raises(OptionError, match="stop string"):
        Settings(stop=("",))
