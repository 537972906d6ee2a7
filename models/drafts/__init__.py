"""Draft components as torch modules: trained, exported and run like the model itself."""

from forerun.models.drafts.network import DraftConfig, DraftNetwork, read_draft_config

__all__ = ["DraftConfig", "DraftNetwork", "read_draft_config"]
