"""Hugging Face folders: what is read, and every way in which one can be bad."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CHAT_TEMPLATE, random_weights, tiny_values, write_folder

from forerun.errors import ModelFileError, UnsupportedModelError
from forerun.models import load_model, open_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model", seed=3)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("shards", [1, 3])
def test_weights_are_read_as_written(tmp_path: Path, shards: int) -> None:
    write_folder(tmp_path, seed=11, shards=shards)
    state = load_model(tmp_path).state_dict()
    for name, expected in random_weights(tiny_values(), 11).items():
        assert np.array_equal(state[name].numpy(), expected), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(tmp_path: Path, dtype: torch.dtype) -> None:
    write_folder(tmp_path, seed=4, dtype=dtype)
    weights = random_weights(tiny_values(), 4)
    found = load_model(tmp_path).state_dict()["embed.weight"]
    assert torch.equal(found, torch.from_numpy(weights["embed.weight"]).to(dtype).to(torch.float32))


def test_tokenizer_files(folder: Path) -> None:
    tokenizer = open_checkpoint(folder).read_tokenizer()
    assert tokenizer.eos_token_ids == (2, 0), "config.json's 2 and generation_config.json's 0"
    assert tokenizer.bos_token_id == 1
    assert not tokenizer.add_bos
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert tokenizer.tokenizer_json == (folder / "tokenizer.json").read_text()


def test_add_bos_follows_the_post_processor(folder: Path) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    single = [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}}
    values["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": single,
        "special_tokens": special,
    }
    path.write_text(json.dumps(values))
    assert open_checkpoint(folder).read_tokenizer().add_bos


def test_a_chat_template_file_goes_first(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert open_checkpoint(folder).read_tokenizer().chat_template == "{{ messages }}"


def test_a_list_of_chat_templates_gives_the_default(folder: Path) -> None:
    templates = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    assert open_checkpoint(folder).read_tokenizer().chat_template == "yes"


def test_unsupported_architecture_is_named_with_the_list(folder: Path) -> None:
    change_config(folder, model_type="mamba")
    with pytest.raises(UnsupportedModelError, match=r"'mamba'.*llama, mistral, phi3, qwen2, qwen3, smollm3"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn'.*default, linear, llama3"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "low_freq_factor"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"partial_rotary_factor": 0.5}, "part of each head"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.75}}, "part of each head"),
        ({"num_local_experts": 8}, "num_local_experts 8"),
        ({"final_logit_softcapping": 30.0}, r"final_logit_softcapping 30\.0"),
        ({"model_type": "phi3", "rope_scaling": {"type": "longrope"}}, "'longrope'"),
        ({"model_type": "granite", "residual_multiplier": 0.0}, "residual is 0"),
        ({"quantization_config": {"quant_method": "gptq"}}, "'gptq'"),
    ],
)
def test_unsupported_settings_are_named(folder: Path, changes: dict[str, Any], message: str) -> None:
    change_config(folder, **changes)
    with pytest.raises(UnsupportedModelError, match=message):
        open_checkpoint(folder)


def test_a_window_that_is_switched_off_is_accepted(folder: Path) -> None:
    change_config(folder, sliding_window=16, use_sliding_window=False)
    assert open_checkpoint(folder).config.layers == 2


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files_are_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFileError, match=name):
        open_checkpoint(folder)


def test_missing_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"tokenizer\.json"):
        open_checkpoint(folder).read_tokenizer()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_broken_tokenizer_files_are_named(folder: Path, name: str) -> None:
    (folder / name).write_text('{"model": ')
    with pytest.raises(ModelFileError, match=name):
        open_checkpoint(folder).read_tokenizer()


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff"])
def test_broken_config_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelFileError, match=r"config\.json"):
        open_checkpoint(folder)


def test_missing_entry_of_config_is_named(folder: Path) -> None:
    values = tiny_values()
    del values["intermediate_size"]
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ModelFileError, match="intermediate_size"):
        open_checkpoint(folder)


def test_too_few_layers_without_rotary_embedding_are_named(folder: Path) -> None:
    change_config(folder, model_type="smollm3", no_rope_layers=[1])
    with pytest.raises(ModelFileError, match="no_rope_layers has 1 numbers for 2 layers"):
        open_checkpoint(folder)


def test_entry_of_the_wrong_kind_is_refused(folder: Path) -> None:
    change_config(folder, hidden_size="wide")
    with pytest.raises(ModelFileError, match=r"config\.json has an entry of the wrong kind"):
        open_checkpoint(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_truncated_weights_are_refused(folder: Path, kept: float) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data) if isinstance(kept, float) else kept)])
    with pytest.raises(ModelFileError, match=r"model\.safetensors is truncated"):
        open_checkpoint(folder)


def test_header_that_lies_about_its_length_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(ModelFileError, match=r"model\.safetensors"):
        open_checkpoint(folder)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, seed=1, shards=2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelFileError, match="model-00002-of-00002"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("index", [{}, {"weight_map": [1]}])
def test_broken_index_is_refused(tmp_path: Path, index: dict[str, Any]) -> None:
    write_folder(tmp_path, seed=1, shards=2)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match="weight_map"):
        open_checkpoint(tmp_path)


def test_missing_tensor_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path)
    with pytest.raises(ModelFileError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        open_checkpoint(folder)


def test_wrong_shape_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1].contiguous()
    save_file(tensors, path)
    with pytest.raises(ModelFileError, match=r"lm_head\.weight has shape \[287, 64\]"):
        open_checkpoint(folder)


def test_unsupported_tensor_type_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["lm_head.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, path)
    with pytest.raises(UnsupportedModelError, match="F8_E4M3"):
        load_model(folder)
