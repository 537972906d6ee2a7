"""Folders as transformers writes them (`save_pretrained`): weights in shards, halves, tied heads, tokenizers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from text_forms import FORMS, SAMPLE
from tiny_models import write_tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from forerun.models import load_model, open_checkpoint
from forerun.models.tokenizer_files import load_tokenizer_json

TYPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 24},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "gemma3_text": {
        **{"head_dim": 32, "sliding_window": 24, "query_pre_attn_scalar": 16},
        "layer_types": ["sliding_attention", "full_attention"],
    },
}
SIZES: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 300,
    "max_position_embeddings": 128,
}


def save_model(
    folder: Path, model_type: str, dtype: torch.dtype, shard_size: str = "1GB", **changes: Any
) -> Any:
    """A random model of the type, with transformers."""
    config = AutoConfig.for_model(model_type, **{**SIZES, "sliding_window": None, **changes})
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5)
    model.generation_config = GenerationConfig(eos_token_id=[5, 2], bos_token_id=1)
    model.save_pretrained(folder, max_shard_size=shard_size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("model_type", TYPES)
def test_saved_models_give_the_same_logits(
    model_type: str, tied: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    save_model(tmp_path, model_type, dtype, "40KB", **TYPES[model_type], tie_word_embeddings=tied)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    ids = torch.randint(0, 300, (50,))
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        expected = reference(ids[None]).logits[0]
        found = load_model(tmp_path)(ids).logits
    assert open_checkpoint(tmp_path).config.tied_embeddings == tied
    assert (found - expected).abs().max() <= 1e-4 and expected.std() > 0.3


def test_a_single_file_goes_before_an_index(tmp_path: Path) -> None:
    save_model(tmp_path, "llama", torch.float32)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert open_checkpoint(tmp_path).config.layers == 2


def test_all_end_tokens_of_the_generation_config_end_an_answer(tmp_path: Path) -> None:
    save_model(tmp_path, "qwen2", torch.bfloat16, eos_token_id=4)
    write_tokenizer_only(tmp_path)
    # That of the tokenizer comes first: it is what chat templates call eos_token.
    assert open_checkpoint(tmp_path).read_tokenizer().eos_token_ids == (2, 4, 5, 0)


def write_tokenizer_only(folder: Path) -> None:
    """The tiny tokenizer, without a generation_config.json of its own."""
    kept = (folder / "generation_config.json").read_bytes()
    write_tokenizer(folder)
    (folder / "generation_config.json").write_bytes(kept)


@pytest.mark.parametrize("form", ["qwen", "llama3", "llama2", "gemma", "metaspace-first"])
def test_saved_tokenizers_give_the_same_ids(form: str, tmp_path: Path) -> None:
    save_model(tmp_path, "llama", torch.float32)
    special = {"bos_token": "<tool>", "eos_token": "<|im"}
    PreTrainedTokenizerFast(tokenizer_object=FORMS[form](), **special).save_pretrained(tmp_path)
    files = open_checkpoint(tmp_path).read_tokenizer()
    tokenizer = load_tokenizer_json(files.tokenizer_json, tmp_path)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    for text in SAMPLE:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == reference(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == reference.decode(ids, skip_special_tokens=True)
    assert files.bos_token_id == reference.bos_token_id
    assert files.eos_token_ids[0] == reference.eos_token_id
    assert files.add_bos == (reference("a").input_ids[0] == reference.bos_token_id)


def test_older_folders_name_special_tokens_in_a_file_of_their_own(tmp_path: Path) -> None:
    save_model(tmp_path, "llama", torch.float32)
    write_tokenizer_only(tmp_path)
    names = {"bos_token": {"content": "<|im_end|>"}, "eos_token": "<|im_start|>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(names))
    tokenizer = open_checkpoint(tmp_path).read_tokenizer()
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids[0]) == (1, 2), "tokenizer_config.json goes first"
    (tmp_path / "tokenizer_config.json").write_text("{}")
    tokenizer = open_checkpoint(tmp_path).read_tokenizer()
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids[0]) == (2, 1)


def test_chat_templates_are_found_where_transformers_puts_them(tmp_path: Path) -> None:
    save_model(tmp_path, "llama", torch.float32)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=FORMS["qwen"]())
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    tokenizer.save_pretrained(tmp_path)
    assert open_checkpoint(tmp_path).read_tokenizer().chat_template == "{{ messages }}"
