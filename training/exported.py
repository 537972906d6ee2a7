"""A trained draft as an export: its own weights, and the rows of the model that it was lent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from forerun.export.exporter import ExportReport, export_draft
from forerun.models.drafts import DraftNetwork
from forerun.models.sources import load_decoder, open_checkpoint
from forerun.training.folder import fingerprint, load_draft, restore

DEFAULT_QUANT = "q4-vocab"


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

    A draft need not be exact: 8-bit layers and a 4-bit vocabulary by default. Raises `TrainingError` if there is no
    draft or it is another model's, and what `export_draft` raises. A model of the same shape with other weights,
    which may be another quantization of the same, is told to `warn`.
    """
    draft = load_draft(folder)
    checkpoint = open_checkpoint(model)
    decoder = load_decoder(checkpoint)
    component = restore(draft, decoder)
    own = fingerprint(decoder)
    if warn is not None and own != draft.model["weights"]:
        warn(
            f"the draft was trained for weights {draft.model['weights']} ({draft.model['name']}), these are {own}"
            f" ({checkpoint.name}): fine if they are another quantization of the same, else its drafts will not pay;"
            " forerun bench --drafter shows"
        )
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
