"""Tiny random models written as real files: Hugging Face folders and GGUF files."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from forerun.models.families import family_of_huggingface

# Variant, quantization → export directory.
TinyExport = Callable[[str, str], Path]

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY_SIZE = 288
CHAT_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"

# Every way in which members of the family differ, as config.json says it.
VARIANTS: dict[str, dict[str, Any]] = {
    "llama-tied": {"tie_word_embeddings": True},
    "llama-untied": {},
    "llama-multi-head": {"num_key_value_heads": 4},
    "llama-biased": {"attention_bias": True},
    "llama-linear-rope": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "llama-llama3-rope": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
    "mistral-window": {"model_type": "mistral", "sliding_window": 24},
    "qwen2-window": {
        **{"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 24},
        "max_window_layers": 1,
    },
    "gemma3": {
        **{"model_type": "gemma3_text", "head_dim": 32, "tie_word_embeddings": True, "num_hidden_layers": 3},
        **{"sliding_window": 24, "query_pre_attn_scalar": 16, "hidden_activation": "gelu_pytorch_tanh"},
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        },
    },
    "phi3": {"model_type": "phi3", "sliding_window": 24, "pad_token_id": 0},
    "smollm3": {"model_type": "smollm3", "no_rope_layers": [1, 0], "pad_token_id": 0},
    "smollm3-window": {
        **{"model_type": "smollm3", "no_rope_layers": [1, 0, 0], "pad_token_id": 0, "num_hidden_layers": 3},
        **{"use_sliding_window": True, "sliding_window": 24},
        "layer_types": ["full_attention", "full_attention", "sliding_attention"],
    },
    "granite": {
        **{"model_type": "granite", "embedding_multiplier": 3.0, "attention_multiplier": 0.4},
        **{
            "residual_multiplier": 0.22,
            "logits_scaling": 0.7,
            "tie_word_embeddings": True,
            "rms_norm_eps": 0.01,
        },
    },
}

# GGUF architectures for which llama.cpp's converter reorders q and k for rotary embedding of neighbours.
INTERLEAVED = ("llama", "smollm3", "granite")

# Those whose exported graphs differ; the others differ in numbers only.
STRUCTURES = (
    *("llama-tied", "llama-multi-head", "llama-biased", "qwen2", "qwen3", "mistral-window", "gemma3"),
    "smollm3-window",
)


def tiny_values(**changes: Any) -> dict[str, Any]:
    """A config.json of a two-layer model, with changes."""
    return {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": VOCABULARY_SIZE,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **changes,
    }


def random_weights(values: dict[str, Any], seed: int, in_file: bool = False) -> dict[str, np.ndarray]:
    """float32 weights under our names, `in_file` as a Hugging Face checkpoint has them; large enough that every part
    of the network shows in the logits.
    """
    family = family_of_huggingface(values["model_type"], Path("tiny"))
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in family.tensor_shapes(family.config_from_huggingface(values)).items():
        noise = random.standard_normal(shape).astype(np.float32)
        is_norm = name.endswith("norm.weight")
        offset = 1 - family.norm_offset if in_file else 1
        weights[name] = offset + noise / 4 if is_norm else noise / np.sqrt(np.float32(shape[-1]))
    return weights


def write_folder(
    folder: Path, seed: int, shards: int = 1, dtype: torch.dtype = torch.float32, **changes: Any
) -> Path:
    """A Hugging Face folder with random weights; several shards come with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    values = tiny_values(**changes)
    family = family_of_huggingface(values["model_type"], folder)
    named = random_weights(values, seed, in_file=True)
    parts: dict[str, list[np.ndarray]] = {}
    for name, array in named.items():
        parts.setdefault(family.huggingface_name(name), []).append(array)
    tensors = {name: torch.from_numpy(np.concatenate(arrays)).to(dtype) for name, arrays in parts.items()}
    (folder / "config.json").write_text(json.dumps(values))
    write_tokenizer(folder)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    weight_map = {
        name: f"model-{index % shards + 1:05}-of-{shards:05}.safetensors"
        for index, name in enumerate(tensors)
    }
    for file_name in set(weight_map.values()):
        part = {name: tensor for name, tensor in tensors.items() if weight_map[name] == file_name}
        save_file(part, folder / file_name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def byte_tokens() -> list[str]:
    """Specials, the 256 bytes, one merge, and unused fillers up to the vocabulary's size."""
    tokens = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "he"]
    return [*tokens, *(f"<unused{index}>" for index in range(VOCABULARY_SIZE - len(tokens)))]


def write_tokenizer(folder: Path) -> None:
    """tokenizer.json, tokenizer_config.json with a chat template, generation_config.json."""
    vocabulary = {token: index for index, token in enumerate(byte_tokens())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("h", "e")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))


def write_gguf(
    path: Path,
    seed: int,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    architecture: str = "llama",
    metadata: dict[str, Any] | None = None,
    part_tensors: int = 0,
    further: Mapping[str, np.ndarray] = MappingProxyType({}),
    **changes: Any,
) -> dict[str, np.ndarray]:
    """A GGUF file whose matrices are quantized to `kind`; returns the float weights under our names.

    Rows of q and k are interleaved where llama.cpp's converter does so, weights joined where it joins them. `metadata`
    adds or replaces keys, `further` tensors under the file's names; `part_tensors` splits the model over files
    with so many tensors each.
    """
    values = tiny_values(**{"model_type": architecture, **changes})
    family = family_of_huggingface(values["model_type"], path)
    weights = random_weights(values, seed)
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=part_tensors)
    for key, value in {**_metadata(values, architecture), **(metadata or {})}.items():
        _add(writer, key, value)
    joined: dict[str, list[np.ndarray]] = {}
    for name, array in weights.items():
        stored = array
        if architecture in INTERLEAVED and name.split(".")[-2] in ("q_proj", "k_proj"):
            counts = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
            heads = values[counts[name.split(".")[-2]]]
            pairs = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
            stored = pairs.swapaxes(1, 2).reshape(array.shape)
        joined.setdefault(family.gguf_name(name), []).append(stored)
    for name, arrays in joined.items():
        stored = np.concatenate(arrays)
        if kind != GGMLQuantizationType.F32 and stored.ndim == 2:
            writer.add_tensor(name, gguf.quantize(stored, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(stored))
    for name, array in further.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def _metadata(values: dict[str, Any], architecture: str) -> dict[str, Any]:
    """Keys of a GGUF file for a config.json."""
    head_dim = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
    network = {
        "block_count": values["num_hidden_layers"],
        "context_length": values["max_position_embeddings"],
        "embedding_length": values["hidden_size"],
        "feed_forward_length": values["intermediate_size"],
        "attention.head_count": values["num_attention_heads"],
        "attention.head_count_kv": values["num_key_value_heads"],
        "attention.key_length": head_dim,
        "attention.layer_norm_rms_epsilon": values["rms_norm_eps"],
        "rope.freq_base": values["rope_theta"],
        "rope.dimension_count": head_dim,
    }
    tokens = byte_tokens()
    tokenizer = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [
            3 if index < len(SPECIAL_TOKENS) else 1 for index in range(len(tokens))
        ],
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
    return {
        "general.name": "tiny",
        **{f"{architecture}.{key}": value for key, value in network.items()},
        **tokenizer,
    }


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """Write one metadata value under the type that llama.cpp uses for it."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif value is not None:
        writer.add_string(key, value)
