"""A trained draft as an export: its own weights, and the rows of the model that it was lent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from forerun.errors import TrainingError
from forerun.export.exporter import ExportReport, export_draft
from forerun.models.drafts import DraftNetwork
from forerun.models.sources import load_decoder, open_checkpoint
from forerun.training.folder import fingerprint, load_draft, restore
from forerun.training.pairing import PROMPTS, measure_worth

DEFAULT_QUANT = "q4-all"


def export_draft_folder(
    model: str,
    folder: Path,
    output: Path,
    quant: str | None = None,
    *,
    progress: Callable[[str, float], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> ExportReport:
    """Export the draft in `folder` for a model (GGUF file, Hugging Face folder or `package:NAME`).

    A draft need not be exact: 8-bit layers and a 4-bit vocabulary by default. With other weights than it was trained
    for, which may be another quantization of the same, it is tried on a few prompts, and what it is worth there is
    told to `warn`. Raises `TrainingError` if there is no draft, it is another model's, or it is worth nothing to this
    one, and what `export_draft` raises.
    """
    draft = load_draft(folder)
    checkpoint = open_checkpoint(model)
    decoder = load_decoder(checkpoint)
    component = restore(draft, decoder)
    own = fingerprint(decoder)
    if own != draft.model["weights"]:
        known = f"the draft was trained for weights {draft.model['weights']} ({draft.model['name']})"
        worth = measure_worth(checkpoint, decoder, component, draft.vocabulary, progress)
        found = (
            f"with these ({own}, {checkpoint.name}), {worth.acceptance.agreement[0]:.0%} of its first drafts on"
            f" {len(PROMPTS)} prompts are right: {worth.acceptance.accepted_length:.2f} tokens a call"
        )
        if worth.gain <= 0:
            raise TrainingError(
                f"{known}; {found}, which costs more than it brings. Train one for this model: forerun train"
                f" {model} --start-from {folder}, with data of this model"
            )
        if warn is not None:
            warn(f"{known}; {found}")
    return export_draft(
        DraftNetwork(draft.config),
        component.exported(),
        output,
        quant or DEFAULT_QUANT,
        vocabulary=draft.vocabulary.token_ids,
        model=draft.model,
        name=draft.config.component,
        progress=progress,
    )
