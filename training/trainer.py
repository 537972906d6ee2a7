"""Training a component: steps, held-out acceptance, checkpoints that a later run goes on from, early stop.

Which rows a step trains on and how far the learning rate has come depend on its number alone, so that an interrupted
run ends with the weights of one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from forerun.errors import DataError, TrainingError
from forerun.models.drafts import Component
from forerun.staging import replaced_file
from forerun.training import distributed
from forerun.training.batches import load_pack, pack, steps
from forerun.training.cache import TeacherCache
from forerun.training.score import Acceptance, evaluate, loss_of

CHECKPOINT_FILE = "checkpoint.pt"
LOG_FILE = "log.jsonl"

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        epochs: passes over the data, parts of one included.
        minutes: train for about so long if that is less; how many steps that is is told from the first ones. None:
            no limit.
        rate: learning rate of matrices. It rises for `warmup` steps, stays, and falls to nothing over the last
            `falling` of all.
        other_rate: that of all other weights, likewise.
        rows: rows in memory at a time; `packs` of them make a step.
        held_out: part of the conversations that is never trained on, and how many of those are measured at most.
        every: steps between measurements, each followed by a checkpoint.
        patience: measurements without a better held-out loss before stopping.
        bf16: multiply matrices in bfloat16.
        seed: of the order of the data and the start weights.
    """

    epochs: float = 4.0
    minutes: float | None = None
    rate: float = 4e-3
    other_rate: float = 1e-3
    warmup: int = 20
    falling: float = 0.5
    rows: int = 1536
    packs: int = 2
    held_out: float = 0.03
    measured: int = 48
    every: int = 100
    patience: int = 8
    bf16: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """One line of the log: after `step` steps, losses, and how the held-out drafts did."""

    step: int
    loss: float
    held_out_loss: float
    agreement: list[float]
    accepted_length: float
    rate: float
    seconds: float


class Trainer:
    """Trains a component in folder `output`, where its log and checkpoint are."""

    def __init__(self, component: Component, cache: TeacherCache, plan: Plan, output: Path) -> None:
        """Raises `DataError` if the data is too little to hold any out."""
        self._component, self._cache, self._plan, self._output = component, cache, plan, output
        self._device = next(component.parameters()).device
        held_out = max(int(plan.held_out * cache.conversations), 1)
        self._trained = cache.conversations - held_out
        if self._trained < 1:
            raise DataError(
                f"the data holds {cache.conversations} conversations; at least 2 are needed, and far more are useful:"
                " write them with `forerun synth`"
            )
        measured = range(self._trained, min(cache.conversations, self._trained + plan.measured))
        self._measured_packs = [
            load_pack(cache, one, self._device) for one in pack(cache, measured, plan.rows)
        ]
        self._optimizers = _optimizers(component, plan)
        packs = len(pack(cache, range(self._trained), plan.rows))
        self.total_steps = max(round(plan.epochs * packs / plan.packs), 1)
        self._step = 0
        self._seconds = 0.0
        self._best = math.inf
        self._worse = 0
        self.log: list[Measured] = []

    def resume(self) -> bool:
        """Go on from the folder's checkpoint if there is one; raises `TrainingError` if it is of another run."""
        path = self._output / CHECKPOINT_FILE
        if not path.exists():
            return False
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
        except Exception as error:  # a damaged file raises whatever its bytes lead torch to
            raise TrainingError(f"{path} cannot be read: {error}; delete it to start again") from error
        described = self._described()
        for key, value in described.items():
            if state["run"].get(key) != value:
                raise TrainingError(
                    f"{path} was made with {key} {state['run'].get(key)!r}, this run has {value!r}; use the same"
                    " settings, or another output folder"
                )
        self._component.load_state_dict(state["weights"])
        for optimizer, of_one in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(of_one)
        self._step, self._seconds = state["step"], state["seconds"]
        self.total_steps = state["total_steps"]
        self._best, self._worse = state["best"], state["worse"]
        self.log = [Measured(**line) for line in state["log"]]
        return True

    def run(self, progress: Progress | None = None) -> None:
        """Train to the end, from where `resume` left off.

        Raises `TrainingError` where the loss is no number; the last checkpoint is as it was.
        """
        plan, started = self._plan, time.monotonic() - self._seconds
        recent: list[float] = []
        batches = steps(self._cache, self._trained, plan.seed, plan.rows, plan.packs, self._step)
        while self._step < self.total_steps and self._worse < plan.patience:
            recent.append(self._take_step(next(batches)))
            self._step += 1
            self._seconds = time.monotonic() - started
            if self._step == plan.warmup and plan.minutes is not None:
                self._keep_to(plan.minutes)
            if progress is not None:
                length = f", accepted length {self.log[-1].accepted_length:.2f}" if self.log else ""
                told = f"step {self._step} of {self.total_steps}, loss {recent[-1]:.3f}{length}"
                progress(told, self._step / self.total_steps)
            if self._step % plan.every == 0 or self._step == self.total_steps:
                self._measure(sum(recent) / len(recent))
                recent = []

    def _keep_to(self, minutes: float) -> None:
        """Take as many steps as there is time for, at the pace of those taken."""
        pace = torch.tensor(self._seconds / self._step, dtype=torch.float64)
        steps = max(round(minutes * 60 / distributed.of_first(pace, self._device)), self._step + 1)
        self.total_steps = min(self.total_steps, steps)

    def _take_step(self, packs: Sequence[Sequence[int]]) -> float:
        """Train on the packs; their mean loss."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * self._part_of_rate()
        own = distributed.share(packs)
        losses = []
        for one in own:
            batch, targets = load_pack(self._cache, one, self._device)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._plan.bf16):
                loss = loss_of(self._component, batch, targets) / len(packs)
            loss.backward()
            losses.append(float(loss.detach()))
        total = distributed.add_up(self._component, sum(losses))
        norm = float(torch.nn.utils.clip_grad_norm_(self._component.parameters(), 1.0))
        if not math.isfinite(total) or not math.isfinite(norm):
            raise TrainingError(
                f"the loss at step {self._step + 1} is {total} and its gradient {norm}: try a smaller learning rate"
                f" than {self._plan.rate}; the checkpoint of an earlier step is kept"
            )
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return total

    def _part_of_rate(self) -> float:
        """Of the highest learning rates, at this step."""
        plan, left = self._plan, 1 - self._step / self.total_steps
        return min((self._step + 1) / plan.warmup, left / plan.falling, 1.0)

    def _measure(self, loss: float) -> None:
        self._component.eval()
        held_out, acceptance = self.evaluate()
        self._component.train()
        self.log.append(
            Measured(
                self._step,
                loss,
                held_out,
                acceptance.agreement,
                acceptance.accepted_length,
                self._plan.rate * self._part_of_rate(),
                self._seconds,
            )
        )
        self._worse = 0 if held_out < self._best else self._worse + 1
        self._best = min(self._best, held_out)
        if distributed.is_first():
            self._save()

    def evaluate(self) -> tuple[float, Acceptance]:
        """Held-out loss and acceptance now."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._plan.bf16):
            return evaluate(self._component, self._measured_packs)

    def _described(self) -> dict[str, Any]:
        """What two runs must share for one to go on with the other."""
        return {
            "component": json.dumps(self._component.config.described(), sort_keys=True),
            "plan": json.dumps(asdict(self._plan), sort_keys=True),
            "data": self._cache.identity,
        }

    def _save(self) -> None:
        """Replace the checkpoint and the log in one step each."""
        state = {
            "run": self._described(),
            "weights": self._component.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "step": self._step,
            "total_steps": self.total_steps,
            "seconds": self._seconds,
            "best": self._best,
            "worse": self._worse,
            "log": [asdict(line) for line in self.log],
        }
        try:
            with replaced_file(self._output / CHECKPOINT_FILE) as partial:
                torch.save(state, partial)
            lines = "".join(json.dumps(asdict(line)) + "\n" for line in self.log)
            (self._output / LOG_FILE).write_text(lines, encoding="utf-8")
        except (OSError, RuntimeError) as error:
            # torch's own writer says RuntimeError for a full disk.
            raise TrainingError(
                f"cannot write a checkpoint to {self._output}: {error}; the one before is intact"
            ) from error


def _optimizers(component: Component, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for matrices, which needs half the data of AdamW here; AdamW for the rest."""
    for name, parameter in component.named_parameters():
        parameter.requires_grad_(not name.startswith(component.constant))
    trained = [parameter for parameter in component.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim == 2]
    others = [parameter for parameter in trained if parameter.ndim != 2]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(
            [{"params": matrices, "highest": plan.rate}],
            lr=plan.rate,
            weight_decay=0.1,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [{"params": others, "highest": plan.other_rate}],
            lr=plan.other_rate,
            betas=(0.9, 0.95),
            weight_decay=0.01,
        ),
    ]
    return optimizers
