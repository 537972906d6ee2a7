"""The native draw gives the token that runtime/sample.py defines, for any logits and settings."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_model import VOCABULARY, compile_program, make_bundle, make_weights

from forerun.errors import OptionError, RuntimeFailure
from forerun.runtime.library import Status
from forerun.runtime.sample import draw_token, rank_tokens
from forerun.runtime.session import LoadedProgram, Session
from forerun.runtime.settings import Sampling

LARGE = 50000
# Few distinct values make ties; wide ones make underflow and infinite ratios.
VALUES = st.one_of(
    st.floats(-20, 20, width=32),
    st.sampled_from((0.0, -0.0, 1.0, -1.0, 3.5, float("-inf"), 1e30, -1e30)),
)
LOGITS = arrays(np.float32, VOCABULARY, elements=VALUES).filter(lambda logits: np.isfinite(logits).any())


@pytest.fixture(scope="module")
def session(program: LoadedProgram) -> Session:
    return Session(program, threads=1)


def draw(session: Session, logits: np.ndarray, sampling: Sampling, position: int) -> int:
    return session.sample(
        logits,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        seed=sampling.seed,
        position=position,
    )


@settings(max_examples=400, deadline=None)
@given(
    logits=LOGITS,
    temperature=st.one_of(st.just(0.0), st.floats(0.05, 5), st.sampled_from((1e-6, 1.0, 1e6))),
    top_k=st.one_of(st.just(0), st.integers(1, VOCABULARY + 3), st.just(2**40)),
    top_p=st.one_of(st.just(1.0), st.floats(1e-9, 1.0, exclude_min=True)),
    seed=st.integers(0, 2**64 - 1),
    position=st.integers(0, 2**31),
)
def test_same_token_as_the_definition(
    session: Session,
    logits: np.ndarray,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    position: int,
) -> None:
    sampling = Sampling(temperature, top_k, top_p, seed)
    assert draw(session, logits, sampling, position) == draw_token(logits, sampling, position)


@settings(max_examples=400, deadline=None)
@given(
    logits=LOGITS,
    temperature=st.one_of(st.just(0.0), st.floats(0.05, 5)),
    top_k=st.one_of(st.just(0), st.integers(1, VOCABULARY + 3)),
    top_p=st.one_of(st.just(1.0), st.floats(1e-9, 1.0, exclude_min=True)),
    named=st.one_of(st.none(), st.integers(1, VOCABULARY)),
    count=st.integers(1, 70),
    seed=st.integers(0, 2**64 - 1),
)
def test_the_best_of_a_draft_are_those_of_the_definition(
    session: Session,
    logits: np.ndarray,
    temperature: float,
    top_k: int,
    top_p: float,
    named: int | None,
    count: int,
    seed: int,
) -> None:
    sampling = Sampling(temperature, top_k, top_p, seed)
    token_ids = np.random.default_rng(seed).permutation(10**6)[: named or VOCABULARY].astype(np.int32)
    if not np.isfinite(logits[:named]).any():
        return
    expected = rank_tokens(logits, count, sampling, 5, token_ids)
    found = session.rank(logits, count, sampling, 5, token_ids)
    assert [index for index, _ in found] == [index for index, _ in expected]
    for (_, probability), (_, exact) in zip(found, expected, strict=True):
        # 2e-6 of an exponential, as much again for the sum, and the smallest exponential that is told from 0.
        assert probability == pytest.approx(exact, rel=1e-5, abs=1e-37)


def test_ranking_refuses_what_it_cannot_do(session: Session) -> None:
    logits = np.zeros(VOCABULARY, np.float32)
    for count, named in ((0, None), (1, 0), (1, VOCABULARY + 1)):
        with pytest.raises(OptionError):
            token_ids = None if named is None else np.zeros(named, np.int32)
            session.rank(logits, count, Sampling(), 0, token_ids)
    with pytest.raises(OptionError, match=str(VOCABULARY)):
        session.rank(np.zeros(VOCABULARY + 1, np.float32), 1, Sampling(), 0)
    logits[VOCABULARY - 1] = np.nan
    with pytest.raises(RuntimeFailure, match="NaN"):
        session.rank(logits, 1, Sampling(), 0)


def test_frequencies_follow_the_softmax(session: Session) -> None:
    logits = np.full(VOCABULARY, -np.inf, np.float32)
    logits[[3, 10, 20]] = np.log([0.5, 0.3, 0.2])
    drawn = [draw(session, logits, Sampling(1.0), position) for position in range(20000)]
    counts = np.bincount(drawn, minlength=VOCABULARY) / len(drawn)
    np.testing.assert_allclose(counts[[3, 10, 20]], [0.5, 0.3, 0.2], atol=0.015)


@pytest.fixture(scope="module")
def large_session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A vocabulary of a real model's size; only its sampling is used."""
    folder = tmp_path_factory.mktemp("large")
    library = compile_program(folder / "large.so", f"-DTINY_VOCABULARY={LARGE}")
    weights = make_weights(vocabulary=LARGE)
    return Session(LoadedProgram(make_bundle(folder / "bundle", library, weights)), threads=1, capacity=16)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0, seed=1),
        Sampling(0.7, 40, 0.95, 2),
        Sampling(2.0, 0, 0.999, 3),
        Sampling(1.0, 5000, 1.0, 4),
    ],
)
@pytest.mark.parametrize("spread", [0.1, 4.0])
def test_a_vocabulary_of_real_size(large_session: Session, sampling: Sampling, spread: float) -> None:
    generator = np.random.default_rng(0)
    for position in range(3):
        logits = generator.normal(0, spread, LARGE).astype(np.float32)
        assert draw(large_session, logits, sampling, position) == draw_token(logits, sampling, position)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", math.nan),
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.nan),
    ],
)
def test_settings_out_of_range(session: Session, setting: str, value: float) -> None:
    given_settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0, "position": 0, setting: value}
    with pytest.raises(OptionError, match=setting):
        session.sample(np.zeros(VOCABULARY, np.float32), **given_settings)  # type: ignore[arg-type]


def test_logits_that_are_not_numbers(session: Session) -> None:
    logits = np.zeros(VOCABULARY, np.float32)
    logits[5] = np.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(RuntimeFailure, match="NaN") as caught:
            draw(session, logits, Sampling(temperature), 0)
        assert caught.value.status == Status.NOT_A_NUMBER
