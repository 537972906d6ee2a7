"""Bundles of well-known shapes with random weights, for timing: their speed is that of the real models."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from forerun.compiler import compile_export
from forerun.export import export_model
from forerun.models.families import family_of_huggingface

CONTEXT_LENGTH = 8448  # 8,192 positions and room for the rows after them


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama model."""

    name: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    feed_forward_size: int
    vocabulary_size: int
    tied: bool

    def config(self) -> dict[str, Any]:
        """As config.json says it."""
        return {
            "model_type": "llama",
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden_size,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.feed_forward_size,
            "vocab_size": self.vocabulary_size,
            "max_position_embeddings": CONTEXT_LENGTH,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": self.tied,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }


SHAPES = (
    Shape("SmolLM-135M", 30, 576, 9, 3, 1536, 49152, True),
    Shape("SmolLM-360M", 32, 960, 15, 5, 2560, 49152, True),
    Shape("TinyLlama-1.1B", 22, 2048, 32, 4, 5632, 32000, False),
)


def bundle_folder(shape: Shape, folder: Path, quant: str = "q4") -> Path:
    """Return where the shape's bundle lies below `folder`."""
    return folder / f"{shape.name}-{quant}"


def make_bundle(shape: Shape, folder: Path, quant: str = "q4") -> Path:
    """Compile the shape's bundle below `folder`; its export is kept there, and made where there is none yet.

    Weights are written and quantized one tensor at a time.
    """
    bundle = bundle_folder(shape, folder, quant)
    source, export = folder / f"{shape.name}-model", folder / f"{shape.name}-{quant}-export"
    if not (export / "export.json").exists():
        write_model(shape, source)
        export_model(source, export, quant)
        shutil.rmtree(source)
    compile_export(export, bundle)
    return bundle


def write_model(shape: Shape, folder: Path, seed: int = 0) -> None:
    """Write a Hugging Face folder, float16, one file a tensor so that memory holds one."""
    folder.mkdir(parents=True, exist_ok=True)
    values, random = shape.config(), np.random.default_rng(seed)
    family = family_of_huggingface("llama", folder)
    weight_map = {}
    shapes = family.tensor_shapes(family.config_from_huggingface(values))
    for number, (name, size) in enumerate(shapes.items()):
        weights: np.ndarray = random.standard_normal(size, np.float32)
        # Norms about one; matrices that keep the size of what they multiply.
        weights = 1 + weights / 8 if len(size) == 1 else weights / np.sqrt(np.float32(size[-1]))
        file_name, stored_name = f"tensor-{number:04}.safetensors", family.huggingface_name(name)
        save_file({stored_name: weights.astype(np.float16)}, folder / file_name)
        weight_map[stored_name] = file_name
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(values))
    write_tokenizer(shape.vocabulary_size, folder / "tokenizer.json")


def write_tokenizer(size: int, path: Path) -> None:
    """Write a tokenizer of words `0`, `1`, …: nothing is ever read from or shown as text."""
    vocabulary = {str(token_id): token_id for token_id in range(size)}
    Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="0")).save(str(path))
