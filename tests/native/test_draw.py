"""Drawing from the maxima of blocks gives the token that drawing from all logits gives, for any settings."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import VOCABULARY, compile_program, make_bundle, make_weights

from forerun.errors import OptionError, RuntimeFailure
from forerun.runtime.library import Status
from forerun.runtime.protocol import Drawable
from forerun.runtime.session import LoadedProgram, Session

LARGE = 5003  # many blocks, the last one partial
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6)
SAMPLING = st.fixed_dictionaries(
    {
        "temperature": st.one_of(st.just(0.0), st.floats(0.05, 5), st.sampled_from((1e-6, 1.0, 1e6))),
        "top_k": st.one_of(st.just(0), st.integers(1, 40), st.just(2**40)),
        "top_p": st.one_of(st.just(1.0), st.floats(1e-9, 1.0, exclude_min=True)),
        "seed": st.integers(0, 2**64 - 1),
        "position": st.integers(0, 2**31),
    }
)
GREEDY = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0, "position": 1}


@pytest.fixture(scope="module", params=[VOCABULARY, LARGE])
def sessions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Session]:
    """The same model on one and on three threads."""
    folder = tmp_path_factory.mktemp("draw")
    library = compile_program(folder / "draw.so", f"-DTINY_VOCABULARY={request.param}")
    bundle = make_bundle(folder / "bundle", library, make_weights(vocabulary=request.param))
    return [Session(LoadedProgram(bundle), threads=threads, capacity=32) for threads in (1, 3)]


@settings(max_examples=150, deadline=None)
@given(token_ids=TOKENS, sampling=SAMPLING, threads=st.integers(0, 1), data=st.data())
def test_same_token_as_from_all_logits(
    sessions: list[Session], token_ids: list[int], sampling: dict, threads: int, data: st.DataObject
) -> None:
    session = sessions[threads]
    sequence = session.create_sequence()
    try:
        rows = [(sequence, row) for row in session.stage(sequence, token_ids)]
        wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=4, unique=True))
        logits = session.forward(rows, logits=wanted).logits.copy()
        session.rewind(sequence, 0)
        session.stage(sequence, token_ids)
        result = session.forward(rows, logits=wanted, draws=True)
        assert result.logits.shape[0] == 0
        for index in data.draw(st.permutations(range(len(wanted)))):
            drawn = session.draw(result.drawable[index], **sampling)
            assert drawn == session.sample(logits[index], **sampling)
    finally:
        session.release_sequence(sequence)


def test_rows_to_draw_from_end_with_the_next_forward(sessions: list[Session]) -> None:
    session = sessions[0]
    sequence = session.create_sequence()
    session.stage(sequence, [1, 2])
    row = session.forward([(sequence, 0)], draws=True).drawable[0]
    session.draw(row, **GREEDY)
    with pytest.raises(OptionError, match="1 rows"):
        session.draw(Drawable(1), **GREEDY)
    session.forward([(sequence, 1)])
    with pytest.raises(OptionError, match="0 rows with `draws`"):
        session.draw(row, **GREEDY)
    session.release_sequence(sequence)


def test_settings_out_of_range(sessions: list[Session]) -> None:
    session = sessions[0]
    sequence = session.create_sequence()
    session.stage(sequence, [1])
    row = session.forward([(sequence, 0)], draws=True).drawable[0]
    for setting, value in (("temperature", -1.0), ("top_k", -1), ("top_p", 0.0)):
        with pytest.raises(OptionError, match=setting):
            session.draw(row, **GREEDY | {"temperature": 1.0, setting: value})
    session.release_sequence(sequence)


def test_a_broken_model_is_an_error(tmp_path: Path, tiny_library: Path) -> None:
    weights = make_weights()
    weights.head[3] = np.nan
    session = Session(LoadedProgram(make_bundle(tmp_path / "bundle", tiny_library, weights)), threads=1)
    sequence = session.create_sequence()
    session.stage(sequence, [1])
    row = session.forward([(sequence, 0)], draws=True).drawable[0]
    for temperature, top_k in ((0.0, 0), (1.0, 0), (1.0, 5)):
        with pytest.raises(RuntimeFailure, match="NaN") as caught:
            session.draw(row, **GREEDY | {"temperature": temperature, "top_k": top_k})
        assert caught.value.status == Status.NOT_A_NUMBER
