"""What drafters are told: every committed row once, in order, with the taps they asked for."""

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loop_helpers import RandomTrees, answer
from scripted import ScriptedConfig, ScriptedSession

from forerun.runtime.exits.confidence import Confidence
from forerun.runtime.exits.never import Never
from forerun.runtime.settings import Settings


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    prompt=st.lists(st.integers(0, 10), min_size=1, max_size=20),
    threshold=st.sampled_from([None, 0.05, 0.2]),
)
def test_observations_are_the_committed_rows(seed: int, prompt: list[int], threshold: float | None) -> None:
    session = ScriptedSession(ScriptedConfig(max_rows=7))
    drafter = RandomTrees(seed, taps=(0, 3))
    exits = Never() if threshold is None else Confidence((0, 2), threshold)
    found = answer(session, prompt, Settings(20), drafter, exits)
    told = [token_id for one in drafter.observed for token_id in one.token_ids]
    assert tuple(told) == found.cache
    starts = [one.start for one in drafter.observed]
    assert starts == [sum(len(one.token_ids) for one in drafter.observed[:i]) for i in range(len(starts))]
    for one in drafter.observed:
        check_taps(session, found.cache, one.start, one.taps, len(one.token_ids))


def check_taps(
    session: ScriptedSession, cache: tuple[int, ...], start: int, taps: "dict[int, np.ndarray]", rows: int
) -> None:
    """A tap is that of its own row, or NaN where the row left before."""
    for layer, states in taps.items():
        assert states.shape == (rows, session.config.hidden_size)
        for index, state in enumerate(states):
            expected = session._noise(cache[: start + index + 1], 100 + layer)[: session.config.hidden_size]
            left = layer == 3 and np.isnan(state).all()
            assert left or np.array_equal(state, expected.astype(np.float32))
