"""The session over ONNX files: logits, cache, and the ids of drafts.

The files of FROM_OPTIMUM are optimum's own output (`make_models.py`), their expected logits those of transformers.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loop_helpers import RandomTrees
from onnx_sources import FROM_OPTIMUM, HERE, MODELS

import forerun
from forerun.errors import ContextFullError, OptionError, RuntimeFailure
from forerun.export.oracle import Oracle
from forerun.runtime.bundle import read_bundle
from forerun.runtime.model import Model
from forerun.runtime.onnx.program import OnnxProgram
from forerun.runtime.onnx.session import OnnxSession
from forerun.runtime.protocol import Draft, DraftContext, Observation, SessionLike
from forerun.runtime.tree import merge_chains

MakeBundle = Callable[[str], Path]
IDS = (5, 9, 33, 4, 5, 9, 33, 60, 12, 40, 41, 42)


def open_session(bundle: Path, sequences: int = 2) -> OnnxSession:
    return OnnxProgram(read_bundle(bundle)).open_session(sequences, None, 2)


def run(
    session: OnnxSession, seq: int, token_ids: Sequence[int], parents: Sequence[int] | None = None
) -> np.ndarray:
    """Stage and run rows; a copy of their logits."""
    staged = session.stage(seq, token_ids, parents)
    return session.forward([(seq, row) for row in staged]).logits.copy()


def read(session: OnnxSession, seq: int, token_ids: Sequence[int], size: int) -> np.ndarray:
    """Commit a text in calls of `size` rows; the logits of all rows."""
    found = []
    for start in range(0, len(token_ids), size):
        found.append(run(session, seq, token_ids[start : start + size]))
        session.commit(seq, range(len(found[-1])))
    return np.concatenate(found)


@pytest.mark.parametrize("name", FROM_OPTIMUM)
@pytest.mark.parametrize("size", [1, 7, 40])
def test_logits_are_those_of_transformers(onnx_bundle: MakeBundle, name: str, size: int) -> None:
    """40 tokens, beyond gemma3's window of 12, in calls of one, of seven and of all rows."""
    expected = json.loads((HERE / name / "expected.json").read_text())
    session = open_session(onnx_bundle(name))
    logits = read(session, session.create_sequence(), expected["ids"], size)
    assert np.abs(logits[::8] - np.array(expected["logits"])).max() < 1e-4


@pytest.mark.parametrize("size", [1, 7, 60])
def test_logits_are_those_of_the_oracle(onnx_bundle: MakeBundle, size: int) -> None:
    """An export of forerun's own, with a window of 24 positions in two of its three layers."""
    bundle = onnx_bundle("forerun")
    text = (IDS * 5)[:60]
    session = open_session(bundle)
    logits = read(session, session.create_sequence(), text, size)
    expected = Oracle(bundle.parent / "export").logits(np.array(text))
    assert np.abs(logits - expected).max() < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_lone_rows_have_the_bits_of_rows_in_company(onnx_bundle: MakeBundle, name: str) -> None:
    """What the trial found for five rows holds for all of a text; without the row beside a lone one it does not."""
    session = open_session(onnx_bundle(name))
    alone, together = session.create_sequence(), session.create_sequence()
    text = (*IDS, *IDS[::-1], *IDS)
    np.testing.assert_array_equal(read(session, alone, text, 1), read(session, together, text, 36))


@pytest.mark.parametrize("name", MODELS)
def test_a_rewound_sequence_is_one_that_never_went_further(onnx_bundle: MakeBundle, name: str) -> None:
    session = open_session(onnx_bundle(name))
    straight, rewound = session.create_sequence(), session.create_sequence()
    read(session, straight, IDS[:5], 5)
    read(session, rewound, (*IDS[:5], 3, 4, 5), 8)
    session.rewind(rewound, 5)
    assert session.token_ids(rewound) == list(IDS[:5])
    expected = run(session, straight, IDS[5:])
    np.testing.assert_array_equal(run(session, rewound, IDS[5:]), expected)
    session.rewind(rewound, 0)
    assert (session.length(rewound), session.staged(rewound)) == (0, 0)


@pytest.mark.parametrize("name", MODELS)
def test_a_fork_goes_its_own_way(onnx_bundle: MakeBundle, name: str) -> None:
    session = open_session(onnx_bundle(name), sequences=3)
    trunk = session.create_sequence()
    read(session, trunk, IDS[:6], 6)
    branch = session.fork(trunk)
    read(session, branch, (7, 8, 9), 3)
    assert session.token_ids(branch) == [*IDS[:6], 7, 8, 9]
    alone = session.create_sequence()
    read(session, alone, IDS[:6], 6)
    np.testing.assert_array_equal(run(session, trunk, IDS[6:]), run(session, alone, IDS[6:]))


@pytest.mark.parametrize("name", MODELS)
def test_part_of_a_draft_is_kept(onnx_bundle: MakeBundle, name: str) -> None:
    """The rows after it are as if the others had never been drafted; also where rows are staged and run in parts."""
    session = open_session(onnx_bundle(name))
    plain, drafted = session.create_sequence(), session.create_sequence()
    expected = read(session, plain, IDS, 3)
    read(session, drafted, IDS[:4], 4)
    first = run(session, drafted, IDS[4:6])
    second = run(session, drafted, (IDS[6], 1, 1))
    np.testing.assert_array_equal(np.concatenate([first, second[:1]]), expected[4:7])
    session.commit(drafted, (0, 1, 2))
    np.testing.assert_array_equal(read(session, drafted, IDS[7:], 2), expected[7:])


def test_a_branch_of_a_tree_is_kept(onnx_bundle: MakeBundle) -> None:
    """Rows see their ancestors alone, and a committed branch is followed as a chain is, up to rounding."""
    session = open_session(onnx_bundle("forerun"))
    plain, drafted = session.create_sequence(), session.create_sequence()
    expected = read(session, plain, IDS, 12)
    read(session, drafted, IDS[:4], 4)
    tree = (IDS[4], 30, IDS[5], 31, 32, IDS[6])
    logits = run(session, drafted, tree, (-1, 0, 0, 1, 2, 2))
    np.testing.assert_allclose(logits[[0, 2, 5]], expected[4:7], atol=1e-4)
    session.commit(drafted, (0, 2, 5))
    assert session.token_ids(drafted) == list(IDS[:7])
    np.testing.assert_allclose(read(session, drafted, IDS[7:], 5), expected[7:], atol=1e-4)


def test_taps_are_hidden_states(onnx_bundle: MakeBundle) -> None:
    """The last layer's, which the head turns into logits: equal rows have equal ones, others do not."""
    session = open_session(onnx_bundle("forerun"))
    seq = session.create_sequence()
    rows = [(seq, row) for row in session.stage(seq, (4, 4, 5))]
    taps = session.forward(rows, taps=(0, 1)).taps
    assert taps[0].shape == taps[1].shape == (3, session.config.hidden_size)
    assert np.abs(taps[1]).max() > 0.1
    assert not np.array_equal(taps[0], taps[1])


class Guesses:
    """Drafts what plain decoding said, with a wrong token after `right` ones, which changes with the calls."""

    name = "guesses"
    summary = "knows the answer in part"
    taps: tuple[int, ...] = ()

    def __init__(self, answer: Sequence[int], prompt_tokens: int) -> None:
        self._answer, self._prompt_tokens, self._calls = answer, prompt_tokens, 0

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        self._vocabulary = session.config.vocabulary_size

    def propose(self, context: DraftContext) -> Draft:
        done, right = len(context.token_ids) - self._prompt_tokens, self._calls % 6
        self._calls += 1
        chain = [*self._answer[done : done + right], (context.root + 1) % self._vocabulary, 5]
        return Draft(merge_chains(context.root, [chain]))

    def observe(self, observation: Observation) -> None:
        """Nothing to learn."""


@pytest.fixture(scope="module")
def models(onnx_bundle: MakeBundle) -> dict[str, Model]:
    return {name: forerun.load(onnx_bundle(name), threads=2) for name in MODELS}


@pytest.mark.parametrize("options", [{}, {"temperature": 1.3, "seed": 4}, {"temperature": 0.9, "top_p": 0.8}])
@pytest.mark.parametrize("name", MODELS)
def test_drafts_change_no_token(models: dict[str, Model], name: str, options: dict[str, float]) -> None:
    """Greedy and sampled, with what the trial of rows found here: lone rows run in company."""
    model = models[name]
    prompt = [token_id for token_id in IDS for _ in (0, 1)]
    asked = {"max_tokens": 60, "ignore_end": True, **options}
    plain = model.generate(prompt, **asked).complete()
    guesses = Guesses(plain.ids, len(prompt))
    for drafter in ("lookup:min_ngram=1,max_ngram=2", "auto", guesses):
        found = model.generate(prompt, drafter=drafter, **asked).complete()
        assert found.ids == plain.ids
        assert found.stats.drafted > 0 or drafter == "auto"  # which goes by costs
    assert found.stats.accepted > 30


def test_trees_change_no_token(models: dict[str, Model]) -> None:
    """A file of forerun's takes trees; roundings differ there, so this holds up to near ties."""
    plain = models["forerun"].generate(IDS, max_tokens=50, ignore_end=True).complete()
    for drafter in ("lookup:min_ngram=1,max_ngram=2,branches=3", RandomTrees(5)):
        found = models["forerun"].generate(IDS, max_tokens=50, ignore_end=True, drafter=drafter).complete()
        assert found.ids == plain.ids
        assert found.stats.drafted > 0


def test_answers_together_are_those_alone(onnx_bundle: MakeBundle) -> None:
    prompts = [list(IDS[:size]) for size in (3, 5, 8)]
    with forerun.load(onnx_bundle("llama"), sequences=2) as model:
        alone = [model.generate(prompt, max_tokens=12).complete().ids for prompt in prompts]
        together = model.generate_batch(prompts, max_tokens=12, drafter="lookup")
        assert [answer.ids for answer in together] == alone


def test_an_answer_ends_where_the_context_does(onnx_bundle: MakeBundle) -> None:
    """gpt2 has a table of positions: the row beside a lone one must not fall out of it."""
    with forerun.load(onnx_bundle("gpt2")) as model:
        assert model.context_length == 127
        answer = model.generate(IDS, max_tokens=200, ignore_end=True).complete()
        assert answer.finish_reason == "context_full"
        assert len(answer.prompt_ids) + len(answer.ids) == model.context_length + 1
        with pytest.raises(ContextFullError, match="context holds 127"):
            model.generate([5] * 128)


def test_the_prompt_of_a_second_question_is_in_the_cache(models: dict[str, Model]) -> None:
    first = models["llama"].generate(IDS, max_tokens=4).complete()
    longer = [*IDS, *first.ids, 7]
    second = models["llama"].generate(longer, max_tokens=4).complete()
    fresh = models["llama"].generate(longer, max_tokens=4, reuse_cache=False).complete()
    assert second.stats.cached_tokens >= len(IDS)
    assert second.ids == fresh.ids


def test_misuse_is_refused(onnx_bundle: MakeBundle) -> None:
    session = open_session(onnx_bundle("llama"))
    seq = session.create_sequence()
    session.stage(seq, (3, 4, 5))
    with pytest.raises(RuntimeFailure, match="in order, the next is 0 of 3"):
        session.forward([(seq, 1)])
    session.forward([(seq, 0), (seq, 1)])
    for path in ((1,), (0, 2), (2,), (0, 0)):
        with pytest.raises(RuntimeFailure, match="cannot be committed"):
            session.commit(seq, path)
    with pytest.raises(RuntimeFailure, match="cannot rewind to 1"):
        session.rewind(seq, 1)
    with pytest.raises(RuntimeFailure, match="token 65 and parent 2"):
        session.stage(seq, (65,))
    with pytest.raises(ContextFullError, match="of 127 positions"):
        session.stage(seq, [3] * 125)
    with pytest.raises(RuntimeFailure, match="takes 1 to 128"):
        session.forward([])
    with pytest.raises(RuntimeFailure, match="no sequence 7"):
        session.length(7)
    with pytest.raises(OptionError, match="takes chains alone"):
        session.stage(seq, (3, 4), (-1, -1))
    with pytest.raises(OptionError, match="no hidden states after layer 1"):
        session.forward([(seq, 2)], taps=(1,))
    with pytest.raises(RuntimeFailure, match="NaN"):
        session.sample(np.full(65, np.nan), temperature=0, top_k=0, top_p=1, seed=0, position=1)
    for call in (lambda: session.save(seq, Path("x")), lambda: session.restore(Path("x"))):
        with pytest.raises(OptionError, match="no sequences"):
            call()
    session.create_sequence()
    with pytest.raises(RuntimeFailure, match="all 2 sequences"):
        session.create_sequence()
    session.close()
    with pytest.raises(RuntimeFailure, match="closed"):
        session.forward([(seq, 0)])


def test_the_rule_of_rows_decides_what_is_said(onnx_bundle: MakeBundle) -> None:
    """Where a trial had found that rows depend on each other, nothing would claim otherwise."""
    program = OnnxProgram(read_bundle(onnx_bundle("llama")))
    engine = program.open_engine(2)
    rule = program.find_rule(engine, 2)
    assert rule.chains
    assert rule.difference < 1e-4 * rule.spread
    for chains in (True, False):
        session = OnnxSession(
            engine, program.config, replace(rule, chains=chains), threads=2, bundle=program.path
        )
        assert session.abilities.bit_exact is chains
