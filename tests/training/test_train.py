"""Training on a text that can be learned: it learns, goes on where it was interrupted, and says what is wrong."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learnable import Learnable, make_learnable

from forerun.errors import DataError, OptionError, TrainingError
from forerun.models.drafts import Batch, Component
from forerun.training import trainer as trainer_module
from forerun.training.batches import Targets, load_pack, pack, steps
from forerun.training.cache import TOP, TeacherCache
from forerun.training.data import create_data
from forerun.training.exported import export_draft_folder
from forerun.training.folder import load_draft, model_facts, restore, save_draft
from forerun.training.score import Acceptance, count_accepted, loss_of
from forerun.training.train import Request, train
from forerun.training.trainer import CHECKPOINT_FILE, Plan, Trainer

PLAN = Plan(epochs=30, rate=3e-3, warmup=5, rows=128, packs=2, every=10, held_out=0.1, bf16=False)


@pytest.fixture(scope="module")
def learnable(tmp_path_factory: pytest.TempPathFactory) -> Learnable:
    torch.set_num_threads(1)
    return make_learnable(tmp_path_factory.mktemp("learnable"))


@pytest.fixture(scope="module")
def caches(learnable: Learnable, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TeacherCache]:
    made: dict[str, TeacherCache] = {}
    root = tmp_path_factory.mktemp("caches")

    def make(name: str) -> TeacherCache:
        if name not in made:
            made[name] = learnable.cache(learnable.component(name), root / name)
        return made[name]

    return make


def follow_the_text(cache: TeacherCache) -> TeacherCache:
    """The same with targets that are the text itself: a random model's own opinions cannot be learned."""
    ids = np.zeros((len(cache.token_ids), TOP), np.uint16)
    probabilities = np.zeros(ids.shape, np.float16)
    ids[:-1, 0], probabilities[:, 0] = cache.token_ids[1:], 1
    return replace(cache, top_ids=ids, top_probabilities=probabilities)


@pytest.mark.parametrize("name", ["feature", "heads", "exit"])
def test_it_learns(
    learnable: Learnable, caches: Callable[[str], TeacherCache], name: str, tmp_path: Path
) -> None:
    """Phrases of six tokens: five of six next tokens can be known for sure."""
    trainer = Trainer(learnable.component(name), follow_the_text(caches(name)), PLAN, tmp_path)
    before, _ = trainer.evaluate()
    trainer.run()
    last = trainer.log[-1]
    assert last.held_out_loss < 0.6 * before
    assert last.agreement[0] > 0.5
    assert last.accepted_length > 1.5
    assert (tmp_path / CHECKPOINT_FILE).exists()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [one.step for one in trainer.log]


def test_an_interrupted_run_ends_with_the_same_weights(
    learnable: Learnable, caches: Callable[[str], TeacherCache], tmp_path: Path
) -> None:
    plan = replace(PLAN, epochs=10, every=5)
    cache = caches("feature")
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = learnable.component("feature")
    Trainer(whole, cache, plan, tmp_path / "whole").run()

    def interrupt(told: str, part: float) -> None:
        if "step 13 " in told:
            raise KeyboardInterrupt

    first = Trainer(learnable.component("feature"), cache, plan, tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        first.run(interrupt)
    parts = learnable.component("feature")
    second = Trainer(parts, cache, plan, tmp_path / "parts")
    assert second.resume()
    second.run()
    assert second.total_steps > 15
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, parts.state_dict()[name]), name


def test_a_loss_that_is_no_number_leaves_the_checkpoint(
    learnable: Learnable, caches: Callable[[str], TeacherCache], tmp_path: Path
) -> None:
    plan = replace(PLAN, every=2)
    component = learnable.component("exit")
    trainer = Trainer(component, caches("exit"), plan, tmp_path)

    def poison(told: str, part: float) -> None:
        if "step 3 " in told:
            component.head_norm.weight.data[0] = math.nan

    with pytest.raises(TrainingError, match="the loss at step 4 is nan"):
        trainer.run(poison)
    again = learnable.component("exit")
    resumed = Trainer(again, caches("exit"), plan, tmp_path)
    assert resumed.resume() and resumed.log[-1].step == 2
    assert all(bool(weight.isfinite().all()) for weight in again.state_dict().values())


def test_a_full_disk_leaves_the_checkpoint_before(
    learnable: Learnable,
    caches: Callable[[str], TeacherCache],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = replace(PLAN, every=2)
    trainer = Trainer(learnable.component("exit"), caches("exit"), plan, tmp_path)
    saved = torch.save

    def fill_up(state: dict, path: Path) -> None:
        if state["step"] == 4:
            path.write_bytes(b"half")
            raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")
        saved(state, path)

    monkeypatch.setattr(trainer_module.torch, "save", fill_up)
    with pytest.raises(TrainingError, match="No space left on device; the one before is intact"):
        trainer.run()
    resumed = Trainer(learnable.component("exit"), caches("exit"), plan, tmp_path)
    assert resumed.resume() and resumed.log[-1].step == 2


def test_a_checkpoint_of_another_run_is_refused(
    learnable: Learnable, caches: Callable[[str], TeacherCache], tmp_path: Path
) -> None:
    plan = replace(PLAN, epochs=0.2, every=1)
    Trainer(learnable.component("exit"), caches("exit"), plan, tmp_path).run()
    other = Trainer(learnable.component("exit"), caches("exit"), replace(plan, rate=1e-4), tmp_path)
    with pytest.raises(TrainingError, match="was made with plan"):
        other.resume()
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"half a checkpoint")
    with pytest.raises(TrainingError, match="cannot be read"):
        other.resume()


def test_it_stops_when_it_gets_no_better(
    learnable: Learnable, caches: Callable[[str], TeacherCache], tmp_path: Path
) -> None:
    plan = replace(PLAN, rate=1e-9, every=1, patience=3, epochs=50)
    trainer = Trainer(learnable.component("exit"), caches("exit"), plan, tmp_path)
    trainer.run()
    assert trainer.log[-1].step < trainer.total_steps


def test_packs_are_whole_conversations_and_every_epoch_has_all(caches: Callable[[str], TeacherCache]) -> None:
    cache = caches("exit")
    packs = pack(cache, range(cache.conversations), 100)
    assert sorted(index for one in packs for index in one) == list(range(cache.conversations))
    assert all(sum(map(cache.length, one)) <= 100 or len(one) == 1 for one in packs)
    from_start = steps(cache, 36, 5, 100, 2, 0)
    later = steps(cache, 36, 5, 100, 2, 7)
    for _ in range(7):
        next(from_start)
    assert [next(from_start) for _ in range(30)] == [next(later) for _ in range(30)]


def test_loss_is_the_cross_entropy_by_hand(
    learnable: Learnable, caches: Callable[[str], TeacherCache]
) -> None:
    component = learnable.component("exit")
    batch, targets = load_pack(caches("exit"), [0, 1], torch.device("cpu"))
    (prediction,) = component.predict(batch)
    with torch.no_grad():
        probabilities = torch.softmax(component.logits(prediction.hidden), dim=1)
        expected = 0.0
        for row in range(len(batch.token_ids)):
            for token, wanted in zip(targets.ids[row], targets.probabilities[row], strict=True):
                expected -= float(wanted) * math.log(float(probabilities[row, token]))
        expected /= len(batch.token_ids)
        assert float(loss_of(component, batch, targets)) == pytest.approx(expected, rel=1e-4)


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

    def predict(self, batch: Batch) -> list:
        from forerun.models.drafts import Prediction

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
    lengths = (7, 12)
    tokens = torch.from_numpy(rng.integers(0, 3, sum(lengths)))
    says = [torch.from_numpy(rng.integers(0, 3, sum(lengths))) for _ in range(3)]
    ends = np.repeat(np.cumsum(lengths) - 1, lengths)
    batch = Batch(tokens, torch.zeros(19, 1, 4), torch.zeros(19), torch.from_numpy(ends))
    acceptance = Acceptance()
    count_accepted(Knowing(component, says), batch, acceptance)
    drafted, kept = [0, 0, 0], [0, 0, 0]
    for row in range(19):
        good = True
        for place in range(3):
            follows = row + place + 2
            if follows > ends[row]:
                break
            drafted[place] += 1
            good = good and bool(says[place][row] == tokens[follows])
            kept[place] += good
    assert (acceptance.drafted, acceptance.kept) == (drafted, kept)
    assert acceptance.accepted_length == pytest.approx(
        1 + sum(k / d for k, d in zip(kept, drafted, strict=True))
    )


def request_for(learnable: Learnable, given: Path, output: Path, **changes: object) -> Request:
    plan = Plan(epochs=2, rows=128, packs=2, every=2, bf16=False)
    request = Request(
        str(learnable.checkpoint.source), given, "feature", output, vocabulary_size=100, plan=plan
    )
    return replace(request, threads=1, **changes)  # type: ignore[arg-type]


def write_data(learnable: Learnable, folder: Path, tokenizer: str | None = None) -> Path:
    import hashlib

    text = learnable.checkpoint.read_tokenizer().tokenizer_json
    own = hashlib.sha256(text.encode()).hexdigest()[:16]
    data = create_data(folder, {"name": "tiny", "tokenizer": tokenizer or own}, {})
    data.append(learnable.conversations, 0, {})
    return folder


def test_a_trained_draft_is_read_again_with_the_rows_of_its_model(
    learnable: Learnable, tmp_path: Path
) -> None:
    data = write_data(learnable, tmp_path / "data")
    report = train(request_for(learnable, data, tmp_path / "draft"))
    assert report.last.step == report.steps > 2 and report.has_curves
    assert (tmp_path / "draft" / "curves.png").read_bytes().startswith(b"\x89PNG")
    draft = load_draft(tmp_path / "draft")
    assert draft.training["accepted_length"] == report.last.accepted_length
    component = restore(draft, learnable.model)
    for name, weight in component.named_parameters():
        assert torch.equal(weight, draft.weights[name])
    assert component.exported()["head.weight"].shape == (100, 64)
    other = make_learnable(tmp_path / "other", seed=1)
    assert model_facts(other.checkpoint, other.model)["weights"] != draft.model["weights"]


def test_mistakes_are_named(learnable: Learnable, tmp_path: Path) -> None:
    data = write_data(learnable, tmp_path / "data")
    foreign = write_data(learnable, tmp_path / "foreign", tokenizer="another")
    empty = tmp_path / "empty"
    create_data(empty, {"tokenizer": "any"}, {})
    cases = [
        (OptionError, "unknown component 'eagle'", {"component": "eagle"}),
        (OptionError, "vocabulary has 1 ids", {"vocabulary_size": 1}),
        (DataError, "another tokenizer", {"data": foreign}),
        (DataError, "no data folder", {"data": tmp_path}),
        (DataError, "another tokenizer", {"data": empty}),
    ]
    for kind, message, changes in cases:
        with pytest.raises(kind, match=message):
            train(request_for(learnable, data, tmp_path / "out", **changes))
    with pytest.raises(TrainingError, match="holds no trained draft"):
        load_draft(tmp_path)


def test_damaged_drafts_are_refused(learnable: Learnable, tmp_path: Path) -> None:
    component = learnable.component("exit")
    facts = model_facts(learnable.checkpoint, learnable.model)
    save_draft(tmp_path, component, learnable.vocabulary, facts, {})
    description = json.loads((tmp_path / "draft.json").read_text())
    (tmp_path / "draft.json").write_text(json.dumps({**description, "version": 99}))
    with pytest.raises(TrainingError, match="version 99"):
        load_draft(tmp_path)
    (tmp_path / "draft.json").write_text(json.dumps({**description, "model": {**facts, "layers": 30}}))
    with pytest.raises(TrainingError, match="a model with layers 30, this one has 3"):
        restore(load_draft(tmp_path), learnable.model)
    size = os.path.getsize(tmp_path / "draft.safetensors")
    os.truncate(tmp_path / "draft.safetensors", size // 2)
    with pytest.raises(TrainingError, match="cannot be read"):
        load_draft(tmp_path)


def test_a_draft_can_be_trained_further(learnable: Learnable, tmp_path: Path) -> None:
    data = write_data(learnable, tmp_path / "data")
    train(request_for(learnable, data, tmp_path / "first"))
    still = Plan(epochs=0.1, rate=1e-12, rows=128, packs=2, every=1, bf16=False)
    again = request_for(learnable, data, tmp_path / "again", start_from=tmp_path / "first", plan=still)
    train(again)
    first, second = load_draft(tmp_path / "first"), load_draft(tmp_path / "again")
    for name, weight in first.weights.items():
        torch.testing.assert_close(second.weights[name], weight, atol=1e-3, rtol=1e-3)
    with pytest.raises(TrainingError, match="has another form"):
        train(replace(again, component="exit", output=tmp_path / "exit"))
    with pytest.raises(TrainingError, match=r"another (vocabulary|form)"):
        train(replace(again, vocabulary_size=90, output=tmp_path / "smaller"))


def test_other_weights_of_the_same_shape_are_told(learnable: Learnable, tmp_path: Path) -> None:
    facts = model_facts(learnable.checkpoint, learnable.model)
    told: list[str] = []
    for place, known in enumerate((facts, {**facts, "weights": "0123456789abcdef"})):
        folder = tmp_path / str(place)
        folder.mkdir()
        save_draft(folder, learnable.component("exit"), learnable.vocabulary, known, {})
        source = str(learnable.checkpoint.source)
        export_draft_folder(source, folder, tmp_path / f"export{place}", warn=told.append)
    assert len(told) == 1 and "trained for weights 0123456789abcdef" in told[0]


def test_targets_of_a_batch_are_those_of_its_rows(caches: Callable[[str], TeacherCache]) -> None:
    cache = caches("exit")
    batch, targets = load_pack(cache, [3, 1], torch.device("cpu"))
    assert isinstance(targets, Targets)
    length = cache.length(3)
    start = int(cache.starts[1])
    assert batch.token_ids[length:].tolist() == cache.token_ids[start : start + cache.length(1)].tolist()
    assert batch.lasts[0] == length - 1 and int(batch.lasts[-1]) == len(batch.token_ids) - 1
    assert batch.positions[length] == 0
