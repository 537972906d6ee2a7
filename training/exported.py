"""A trained draft as an export: its own weights, and the rows of the model that it was lent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from forerun.export.exporter import ExportReport, export_draft
from forerun.models.drafts import DraftNetwork
from forerun.models.sources import load_decoder, open_checkpoint
from forerun.training.folder import load_draft, restore

DEFAULT_QUANT = "q4-vocab"


def export_draft_folder(
    model: str,
    folder: Path,
    output: Path,
    quant: str | None = None,
    *,
    progress: Callable[[str, float], None] | None = None,
) -> ExportReport:
    """Export the draft in `folder` for a model (GGUF file, Hugging Face folder or `package:NAME`).

    A draft need not be exact: 8-bit layers and a 4-bit vocabulary by default. Raises `TrainingError` if there is no
    draft or it is another model's, and what `export_draft` raises.
    """
    draft = load_draft(folder)
    checkpoint = open_checkpoint(model)
    component = restore(draft, load_decoder(checkpoint))
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
