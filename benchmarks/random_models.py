"""Bundles of well-known shapes with random weights, for timing: their speed is that of the real models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby, product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from forerun.compiler import compile_export
from forerun.export import export_model
from forerun.models.families import family_of_huggingface

CONTEXT_LENGTH = 8448  # 8,192 positions and room for the rows after them


@dataclass(frozen=True)
class Shape:
    """Sizes of a model of the Llama family."""

    name: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    feed_forward_size: int
    vocabulary_size: int
    tied: bool
    model_type: str = "llama"
    head_dim: int | None = None  # None: hidden_size / heads
    settings: Mapping[str, Any] = field(default_factory=dict)  # what else the family's config.json says

    def config(self) -> dict[str, Any]:
        """As config.json says it."""
        return {
            "model_type": self.model_type,
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden_size,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.feed_forward_size,
            "vocab_size": self.vocabulary_size,
            "max_position_embeddings": CONTEXT_LENGTH,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": self.tied,
            "bos_token_id": 0,
            "eos_token_id": 0,
            **self.settings,
        }


SHAPES = (
    Shape("SmolLM-135M", 30, 576, 9, 3, 1536, 49152, True),
    Shape("SmolLM-360M", 32, 960, 15, 5, 2560, 49152, True),
    Shape("TinyLlama-1.1B", 22, 2048, 32, 4, 5632, 32000, False),
)


def bundle_folder(shape: Shape, folder: Path, quant: str = "q4", target: str | None = None) -> Path:
    """Return where the shape's bundle lies below `folder`; `target` None: this machine's best."""
    return folder / "-".join([shape.name, quant, *([target] if target else [])])


def make_bundle(shape: Shape, folder: Path, quant: str = "q4", target: str | None = None) -> Path:
    """Compile the shape's bundle below `folder`; its export is kept there, and made where there is none yet.

    Weights are written and quantized one tensor at a time.
    """
    bundle = bundle_folder(shape, folder, quant, target)
    source, export = folder / f"{shape.name}-model", folder / f"{shape.name}-{quant}-export"
    if not (export / "export.json").exists():
        write_model(shape, source)
        export_model(source, export, quant)
        shutil.rmtree(source)
    compile_export(export, bundle, target)
    return bundle


def write_model(
    shape: Shape, folder: Path, seed: int = 0, dtype: torch.dtype = torch.float16, shard_bytes: int = 0
) -> None:
    """Write a Hugging Face folder; a file holds tensors of `shard_bytes` in all, 0: one tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    values = shape.config()
    generator = torch.Generator().manual_seed(seed)
    family = family_of_huggingface(shape.model_type, folder)
    weight_map: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}

    def save() -> None:
        file_name = f"model-{len(set(weight_map.values())):04}.safetensors"
        save_file(shard, folder / file_name)
        weight_map.update(dict.fromkeys(shard, file_name))
        shard.clear()

    def random_tensor(size: tuple[int, ...]) -> torch.Tensor:
        weights = torch.randn(size, generator=generator)
        # Norms about one; matrices that keep the size of what they multiply.
        return (1 + weights / 8 if len(size) == 1 else weights / size[-1] ** 0.5).to(dtype)

    shapes = family.tensor_shapes(family.config_from_huggingface(values))
    # Those that the family's files join follow one another.
    for stored, names in groupby(shapes, family.huggingface_name):
        shard[stored] = torch.cat([random_tensor(shapes[name]) for name in names])
        if sum(tensor.nbytes for tensor in shard.values()) >= shard_bytes:
            save()
    if shard:
        save()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(values))
    write_tokenizer(shape.vocabulary_size, folder / "tokenizer.json")


def write_tokenizer(size: int, path: Path) -> None:
    """Write byte-level BPE whose tokens are bytes, then pairs of them, then threes: so many merges as a real one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens, merges = alphabet[:size], []
    for left, right in product([*alphabet, *map("".join, product(alphabet, repeat=2))], alphabet):
        if len(tokens) >= size:
            break
        merges.append((left, right))
        tokens.append(left + right)
    tokenizer = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))
