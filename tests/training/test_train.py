"""Training on a text that can be learned: it learns, goes on where it was interrupted, and says what is wrong."""

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learnable import Learnable

from forerun.errors import TrainingError
from forerun.training import trainer as trainer_module
from forerun.training.batches import Targets, load_pack, pack, steps
from forerun.training.cache import TOP, TeacherCache, Vocabulary, build_cache
from forerun.training.data import Conversation
from forerun.training.folder import lend_rows
from forerun.training.states import TorchStates
from forerun.training.trainer import CHECKPOINT_FILE, Plan, Trainer

PLAN = Plan(
    epochs=30, rate=1e-2, other_rate=1e-2, warmup=5, rows=128, packs=2, every=10, held_out=0.1, bf16=False
)


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


def test_as_many_steps_as_there_is_time_for(
    learnable: Learnable, caches: Callable[[str], TeacherCache], tmp_path: Path
) -> None:
    """It ends long before its epochs do, its rate at nothing, and goes on as planned when it is interrupted."""
    plan = replace(PLAN, epochs=10_000, minutes=0.02, every=7, patience=1000)

    def interrupt(told: str, part: float) -> None:
        if "step 9 " in told:
            raise KeyboardInterrupt

    whole = Trainer(learnable.component("exit"), caches("exit"), plan, tmp_path)
    planned = whole.total_steps
    with pytest.raises(KeyboardInterrupt):
        whole.run(interrupt)
    assert plan.warmup < whole.total_steps < planned / 10
    rest = Trainer(learnable.component("exit"), caches("exit"), plan, tmp_path)
    assert rest.resume()
    rest.run()
    assert rest.log[-1].step == rest.total_steps == whole.total_steps
    assert rest.log[-1].rate < plan.rate * 0.1


def test_targets_of_a_batch_are_those_of_its_rows(caches: Callable[[str], TeacherCache]) -> None:
    cache = caches("exit")
    batch, targets = load_pack(cache, [3, 1], torch.device("cpu"))
    assert isinstance(targets, Targets)
    length = cache.length(3)
    start = int(cache.starts[1])
    assert batch.token_ids[length:].tolist() == cache.token_ids[start : start + cache.length(1)].tolist()
    assert batch.lasts[0] == length - 1 and int(batch.lasts[-1]) == len(batch.token_ids) - 1
    assert batch.positions[length] == 0


def test_a_cache_is_read_again_only_if_it_is_of_the_same(learnable: Learnable, tmp_path: Path) -> None:
    """Other texts of the same lengths, another model and another vocabulary are all read anew."""
    component = learnable.component("exit")
    lent = lend_rows(learnable.model, learnable.vocabulary, torch.device("cpu"))
    read: list[str] = []
    some = learnable.conversations[:3]

    def build(reader: str, conversations: list[Conversation], vocabulary: Vocabulary) -> TeacherCache:
        def reading() -> AbstractContextManager[TorchStates]:
            read.append(reader)
            return nullcontext(TorchStates(learnable.model))

        taps = component.config.taps
        return build_cache(tmp_path, reading, reader, lent, taps, vocabulary, conversations, longest=50)

    first = build("model", some, learnable.vocabulary)
    again = build("model", some, learnable.vocabulary)
    assert read == ["model"] and np.array_equal(first.states, again.states)
    assert again.identity == first.identity
    other = [Conversation((), tuple(reversed(one.answer_ids))) for one in some]
    swapped = learnable.vocabulary.token_ids.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    for reader, texts, vocabulary in (
        ("model", other, learnable.vocabulary),
        ("another", some, learnable.vocabulary),
        ("model", some, replace(learnable.vocabulary, token_ids=swapped)),
    ):
        assert build(reader, texts, vocabulary).identity != first.identity
    assert read == ["model", "model", "another", "model"]
