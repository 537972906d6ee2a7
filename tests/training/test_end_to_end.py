"""From a model file to a bundle with trained drafts, by a user's commands; then speculation changes no token."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conformance import check_conformance
from saved_answers import answer_elsewhere
from tiny_models import write_folder

import forerun
from forerun.__main__ import main
from forerun.errors import OptionError
from forerun.runtime.model import Model
from forerun.training.data import open_data

COMPONENTS = {"feature": "feature", "heads": "heads:heads=2", "exit": "exit:after=1"}
DRAFTERS: tuple[tuple[str, str | None], ...] = (
    ("auto", None),
    ("auto:network=exit", None),
    ("auto:network=heads", None),
    ("feature:tokens=5", None),
    ("feature", "grown:rows=12,reach=0,beam=3,width=3"),
    ("feature", "cape"),
    ("feature", "tree:branches=3+2+1"),
    ("heads", None),
    ("heads", "grown:reach=0"),
    ("exit:threshold=0", None),
    ("exit:threshold=0", "tree:branches=2+2"),
    ("exit:threshold=0", "cape"),
)
SETTINGS = ({}, {"temperature": 0.8, "seed": 7}, {"temperature": 1.3, "top_k": 20, "seed": 8})


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model, data, trained drafts and the bundle of all."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("end-to-end")
    write_folder(folder / "model", seed=3)
    run("export", folder / "model", "-o", folder / "export", "--quant", "q8")
    run("compile", folder / "export", "-o", folder / "plain")
    run(
        "synth",
        folder / "plain",
        "-o",
        folder / "data",
        "--tokens",
        2500,
        "--sequences",
        4,
        "--answer-tokens",
        40,
    )
    drafts = []
    for name, spec in COMPONENTS.items():
        draft, export = folder / name, folder / f"{name}-export"
        options = ("--data", folder / "data", "--component", spec, "--vocabulary", 128, "--threads", 1)
        run("train", folder / "model", "--bundle", folder / "plain", *options, "--epochs", 4, "-o", draft)
        run("export", folder / "model", "--draft", draft, "-o", export)
        drafts += ["--draft", f"{name}={export}"]
    run("compile", folder / "export", "-o", folder / "bundle", *drafts)
    return folder


@pytest.fixture(scope="module")
def model(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        with forerun.load(made / "bundle", threads=2, sequences=3) as loaded:
            yield loaded


def prompts(rng: np.random.Generator, count: int) -> list[list[int]]:
    return [[int(token) for token in rng.integers(3, 250, rng.integers(1, 80))] for _ in range(count)]


@pytest.mark.parametrize("settings", SETTINGS, ids=("greedy", "t0.8", "t1.3"))
def test_trained_drafts_change_no_token(model: Model, settings: dict, rng: np.random.Generator) -> None:
    """With the cache reused from other drafters' answers and without, to the end of the context."""
    drafted = 0
    for number, prompt in enumerate(prompts(rng, 4)):
        plain = model.generate(prompt, max_tokens=60, ignore_end=True, **settings).complete()
        for drafter, shape in DRAFTERS:
            answer = model.generate(
                prompt,
                max_tokens=60,
                ignore_end=True,
                drafter=drafter,
                shape=shape,
                reuse_cache=number % 2 == 0,
                **settings,
            ).complete()
            assert answer.ids == plain.ids, (drafter, shape)
            drafted += answer.stats.drafted
    assert drafted > 500


def test_saved_answers_go_on_in_another_process(
    made: Path, model: Model, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Networks are no part of the file: they start afresh, and change no token."""
    prompt = prompts(rng, 1)[0]
    for settings in SETTINGS[:2]:
        options = {"max_tokens": 40, "ignore_end": True, **settings}
        first = model.generate(prompt, drafter="feature", **options).complete()
        model.save(first, tmp_path / "saved")
        text = [*prompt, *first.ids]
        plain = model.generate(text, reuse_cache=False, **options).complete()
        asked = [(text, {**options, "drafter": drafter, "shape": shape}) for drafter, shape in DRAFTERS]
        found = answer_elsewhere(made / "bundle", tmp_path / "saved", asked)
        assert found == [(plain.ids, len(text) - 1)] * len(DRAFTERS)


@pytest.mark.parametrize("settings", SETTINGS, ids=("greedy", "t0.8", "t1.3"))
@pytest.mark.parametrize("exits", ["never", "confidence:layers=0,threshold=0.05"])
def test_the_native_loop_drafts_as_its_definition(
    model: Model, settings: dict, exits: str, rng: np.random.Generator
) -> None:
    """Ids and acceptance traces, with cold drafts and with those of an earlier answer."""
    for number, prompt in enumerate(prompts(rng, 3)):
        for drafter, shape in DRAFTERS:
            options = {
                "drafter": drafter,
                "shape": shape,
                "max_tokens": 50,
                "ignore_end": True,
                "exit": exits,
            }
            check_conformance(model, prompt, reuse=number == 1, **options, **settings)


def test_a_conversation_goes_on_with_what_the_draft_knows(model: Model, rng: np.random.Generator) -> None:
    prompt = prompts(rng, 1)[0][:20]
    for drafter in ("feature", "exit:threshold=0", "auto"):
        text = list(prompt)
        for _ in range(3):
            plain = model.generate(text, max_tokens=12, ignore_end=True, reuse_cache=False).complete().ids
            assert (
                model.generate(text, max_tokens=12, ignore_end=True, drafter=drafter).complete().ids == plain
            )
            text += [*plain, 9]


@pytest.mark.parametrize("drafter", ["auto", "feature", "heads", "exit:threshold=0"])
def test_answers_together_and_early_exits(model: Model, drafter: str, rng: np.random.Generator) -> None:
    some = prompts(rng, 5)
    alone = [model.generate(one, max_tokens=20, ignore_end=True).complete().ids for one in some]
    together = model.generate_batch(some, max_tokens=20, ignore_end=True, drafter=drafter)
    assert [answer.ids for answer in together] == alone
    for threshold in (0.0, 0.05):
        exits = f"confidence:layers=0,threshold={threshold}"
        plain = model.generate(some[0], max_tokens=20, ignore_end=True, exit=exits).complete().ids
        found = model.generate(some[0], max_tokens=20, ignore_end=True, exit=exits, drafter=drafter)
        assert found.complete().ids == plain


def test_data_can_be_gone_on_with(made: Path) -> None:
    before = open_data(made / "data").state
    run("synth", made / "plain", "-o", made / "data", "--tokens", 1, "--sequences", 4, "--answer-tokens", 40)
    assert open_data(made / "data").state == before


def test_a_bundle_without_the_draft_says_so(made: Path) -> None:
    with forerun.load(made / "plain", threads=1) as loaded:
        with pytest.raises(OptionError, match="no draft 'feature'; it has none"):
            loaded.generate([5], drafter="feature")
        answer = loaded.generate([5, 6, 5, 6], max_tokens=8, drafter="auto", ignore_end=True).complete()
        assert len(answer.ids) == 8


def test_a_draft_of_another_model_is_refused(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_folder(made / "other", seed=4, num_hidden_layers=3)
    assert main(["export", str(other), "--draft", str(made / "feature"), "-o", str(made / "never")]) == 2
    assert "a model with layers 2, this one has 3" in capsys.readouterr().err
    assert not (made / "never").exists()
