"""Decoder networks as plain torch modules, and loading them from GGUF files and Hugging Face folders."""

if not __name__.startswith("forerun."):
    raise ImportError("import forerun.models, not the bare folder: run from an installed forerun")

from forerun.models.checkpoint import Checkpoint, StoredTensor, TokenizerFiles
from forerun.models.config import ModelConfig
from forerun.models.llama import Decoder, DecoderOutput, chain_mask
from forerun.models.sources import load_decoder, load_model, open_checkpoint, resolve_source

__all__ = [
    "Checkpoint",
    "Decoder",
    "DecoderOutput",
    "ModelConfig",
    "StoredTensor",
    "TokenizerFiles",
    "chain_mask",
    "load_decoder",
    "load_model",
    "open_checkpoint",
    "resolve_source",
]
