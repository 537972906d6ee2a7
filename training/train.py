"""`forerun train` from top to bottom: model, data, cache, component, steps, folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forerun.errors import DataError, OptionError, TrainingError
from forerun.models.checkpoint import Checkpoint
from forerun.models.drafts import COMPONENTS, Component
from forerun.models.llama import Decoder
from forerun.models.sources import load_decoder, open_checkpoint
from forerun.training import distributed
from forerun.training.cache import TeacherCache, Vocabulary, build_cache, choose_vocabulary
from forerun.training.curves import plot_curves
from forerun.training.data import DataFolder, digest, open_data
from forerun.training.folder import TrainedDraft, lend_rows, load_draft, model_facts, save_draft
from forerun.training.lock import locked
from forerun.training.states import BundleStates, StatesOf, TorchStates
from forerun.training.trainer import Measured, Plan, Trainer

CURVES_FILE = "curves.png"
STATES_LOOKED_AT = 4096  # tokens whose states a component may look at before it starts

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Request:
    """What to train.

    Attributes:
        model: GGUF file, Hugging Face folder or `package:NAME`.
        data: folder written by `forerun synth`.
        component: its name.
        options: of the component.
        output: folder to write; one with a checkpoint of the same run is gone on with.
        bundle: the compiled model to read hidden states with, None: torch.
        vocabulary_size: draft ids, the one for all others included.
        longest: tokens at which conversations are cut.
        start_from: folder of a trained draft of the same form whose weights to start from, None: the model's.
        plan: how to train.
    """

    model: str
    data: Path
    component: str
    output: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    bundle: Path | None = None
    vocabulary_size: int = 8192
    longest: int = 512
    start_from: Path | None = None
    threads: int | None = None
    plan: Plan = field(default_factory=Plan)


@dataclass(frozen=True)
class Report:
    """What came of it: the last measurement, the folder, and whether there is a picture in it."""

    last: Measured
    output: Path
    steps: int
    has_curves: bool


def train(request: Request, progress: Progress | None = None) -> Report:
    """Train a component; raises `TrainingError`, `DataError`, `OptionError`, or what opening the model raises."""
    if request.component not in COMPONENTS:
        raise OptionError(f"unknown component {request.component!r}; known: {', '.join(COMPONENTS)}")
    if not 2 <= request.vocabulary_size <= 2**16:
        raise OptionError(f"the draft vocabulary has {request.vocabulary_size} ids; allowed: 2 to {2**16}")
    device = distributed.start()
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    torch.manual_seed(request.plan.seed)
    with locked(request.output) if distributed.is_first() else nullcontext(), warnings.catch_warnings():
        # Norms of bfloat16 rows with float32 weights: what is wanted.
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        return _train(request, device, progress)


def _train(request: Request, device: torch.device, progress: Progress | None) -> Report:
    data = open_data(request.data)
    checkpoint = open_checkpoint(request.model)
    check_same_tokenizer(data, checkpoint)
    model = load_decoder(checkpoint)
    facts = model_facts(checkpoint, model)
    component, vocabulary, cache = _prepare(
        request, data, checkpoint, model, facts["weights"], device, progress
    )
    del model
    trainer = Trainer(component, cache, request.plan, request.output)
    trainer.resume()
    trainer.run(progress)
    distributed.stop()
    last = trainer.log[-1]
    training = {
        "data": dict(data.state.recipe) | {"tokens": data.state.tokens, "conversations": cache.conversations},
        "plan": asdict(request.plan),
        "steps": last.step,
        "seconds": round(last.seconds),
        "held_out_agreement": last.agreement,
        "accepted_length": last.accepted_length,
    }
    save_draft(request.output, component, vocabulary, facts, training)
    has_curves = plot_curves(request.output / CURVES_FILE, request.component, trainer.log)
    return Report(last, request.output, last.step, has_curves)


def _prepare(
    request: Request,
    data: DataFolder,
    checkpoint: Checkpoint,
    model: Decoder,
    weights_digest: str,
    device: torch.device,
    progress: Progress | None,
) -> tuple[Component, Vocabulary, TeacherCache]:
    """The component with its start weights, its vocabulary, and what the model says of the data."""
    conversations = list(data.conversations())
    always = checkpoint.read_tokenizer().eos_token_ids
    vocabulary = choose_vocabulary(
        conversations, model.config.vocabulary_size, request.vocabulary_size, always
    )
    kind = COMPONENTS[request.component]
    config = kind.configure(model.config, vocabulary.size, request.options)
    lent = lend_rows(model, vocabulary, device)
    component = kind(config, lent).to(device)
    weights = {name: weight.detach().float().to(device) for name, weight in model.state_dict().items()}
    cache = build_cache(
        request.output / "cache",
        lambda: _states_of(request, model, device),
        f"{weights_digest} {'torch' if request.bundle is None else bundle_digest(request.bundle)}",
        lent,
        config.taps,
        vocabulary,
        conversations,
        longest=min(request.longest, model.config.context_length),
        progress=progress,
    )
    some = torch.from_numpy(cache.states[: min(len(cache.states), STATES_LOOKED_AT)].astype("float32"))
    component.start_from(weights, lent, some.to(device))
    if request.start_from is not None:
        _take_over(component, vocabulary, load_draft(request.start_from), request.start_from)
    return component, vocabulary, cache


def _take_over(component: Component, vocabulary: Vocabulary, draft: TrainedDraft, folder: Path) -> None:
    """Start from the weights of a trained draft; raises `TrainingError` if it is of another form."""
    if draft.config != component.config:
        raise TrainingError(f"the draft in {folder} has another form: {draft.config}, not {component.config}")
    if not np.array_equal(draft.vocabulary.token_ids, vocabulary.token_ids):
        raise TrainingError(f"the draft in {folder} has another vocabulary; train it on the same data")
    component.load_state_dict(dict(draft.weights))


@contextmanager
def _states_of(request: Request, model: Decoder, device: torch.device) -> Iterator[StatesOf]:
    """The model reading: the compiled one as long as it is needed, or torch's."""
    if request.bundle is None:
        yield TorchStates(model.to(device, torch.bfloat16))
        return
    with closing(BundleStates(request.bundle, request.threads)) as states:
        yield states


def bundle_digest(bundle: Path) -> str:
    """What tells a bundle from others: its manifest vouches for all of it. Raises `DataError`."""
    try:
        return digest((bundle / "manifest.json").read_bytes())
    except OSError as error:
        raise DataError(
            f"{bundle} is no bundle: {error.strerror}; give one made by forerun compile"
        ) from error


def check_same_tokenizer(data: DataFolder, checkpoint: Checkpoint) -> None:
    """Raise `DataError` if the data's ids are those of another tokenizer."""
    text = checkpoint.read_tokenizer().tokenizer_json
    own = digest(text.encode())
    theirs = data.state.model.get("tokenizer")
    if own != theirs:
        raise DataError(
            f"{data.path} was written by {data.state.model.get('name')!r} with another tokenizer than"
            f" {checkpoint.name!r} has: its token ids mean something else; write data with this model"
        )
