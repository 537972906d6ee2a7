"""Draft components as torch modules: trained, exported and run like the model itself. To add one: one file, one word
below.
"""

from forerun.models.drafts.component import Batch, Component, ModelRows, Prediction
from forerun.models.drafts.exit import ExitAdapter
from forerun.models.drafts.feature import FeatureDraft
from forerun.models.drafts.heads import ParallelHeads
from forerun.models.drafts.network import DraftConfig, DraftNetwork, read_draft_config

COMPONENTS: dict[str, type[Component]] = {
    kind.name: kind for kind in (FeatureDraft, ParallelHeads, ExitAdapter)
}

__all__ = [
    "COMPONENTS",
    "Batch",
    "Component",
    "DraftConfig",
    "DraftNetwork",
    "ModelRows",
    "Prediction",
    "read_draft_config",
]
