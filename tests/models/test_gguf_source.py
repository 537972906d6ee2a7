"""GGUF files: weights come out in our order, and every way in which a file can be bad."""

import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from tiny_models import tiny_values, write_folder, write_gguf
from transformers import AutoModelForCausalLM

from forerun.errors import ModelFileError, UnsupportedModelError
from forerun.models import ModelConfig, load_model, open_checkpoint
from forerun.models.gguf_file import parse_gguf


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "tiny.gguf", seed=5)
    return tmp_path / "tiny.gguf"


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "tie_word_embeddings": True}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 32}),
        ("phi3", {}),
        ("smollm3", {"num_hidden_layers": 4}),
        ("granite", {}),
    ],
)
def test_weights_are_read_in_our_order(tmp_path: Path, architecture: str, changes: dict[str, Any]) -> None:
    expected = write_gguf(tmp_path / "tiny.gguf", seed=9, architecture=architecture, **changes)
    model = load_model(tmp_path / "tiny.gguf")
    state = dict(model.named_parameters())
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(state[name].numpy(), array), name
    assert model.config.qk_norm == (architecture == "qwen3")
    assert model.config.output_bias == ("attention_bias" in changes)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16"])
def test_quantized_weights_are_dequantized_after_reordering(tmp_path: Path, kind: str) -> None:
    type_ = GGMLQuantizationType[kind]
    weights = write_gguf(tmp_path / "tiny.gguf", seed=2, kind=type_)
    found = load_model(tmp_path / "tiny.gguf").state_dict()
    for name in (
        "layers.1.attention.q_proj.weight",
        "layers.0.feed_forward.down_proj.weight",
        "embed.weight",
    ):
        expected = gguf.dequantize(gguf.quantize(weights[name], type_), type_)
        assert np.array_equal(found[name].numpy(), expected), name


def test_blocks_are_reordered_with_their_rows(tmp_path: Path) -> None:
    type_ = GGMLQuantizationType.Q4_1
    weights = write_gguf(tmp_path / "tiny.gguf", seed=2, kind=type_)
    tensor = open_checkpoint(tmp_path / "tiny.gguf").tensors["layers.0.attention.k_proj.weight"]
    assert tensor.read_blocks is not None
    assert np.array_equal(
        tensor.read_blocks(), gguf.quantize(weights["layers.0.attention.k_proj.weight"], type_)
    )


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0"])
@pytest.mark.parametrize("name", ["attention.k_proj", "attention.v_proj", "feed_forward.up_proj"])
def test_blocks_are_cut_out_of_joined_matrices(tmp_path: Path, kind: str, name: str) -> None:
    type_ = GGMLQuantizationType[kind]
    weights = write_gguf(tmp_path / "tiny.gguf", seed=2, kind=type_, architecture="phi3")
    tensor = open_checkpoint(tmp_path / "tiny.gguf").tensors[f"layers.1.{name}.weight"]
    assert tensor.read_blocks is not None
    expected = gguf.quantize(weights[f"layers.1.{name}.weight"], type_)
    assert np.array_equal(tensor.read_blocks(), expected)
    assert np.array_equal(tensor.read_float32(), gguf.dequantize(expected, type_))


def test_phi3_equals_transformers_on_its_file(tmp_path: Path) -> None:
    """transformers cuts the joined matrices of a file by itself."""
    padding = {"tokenizer.ggml.padding_token_id": 0}
    write_gguf(tmp_path / "tiny.gguf", seed=8, architecture="phi3", metadata=padding)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    ids = torch.arange(3, 60)
    with torch.no_grad():
        found, expected = load_model(tmp_path / "tiny.gguf")(ids).logits, reference(ids[None]).logits[0]
    assert (found - expected).abs().max() <= 1e-4


def test_a_joined_matrix_of_another_height_is_named(tmp_path: Path) -> None:
    metadata = {"phi3.attention.head_count_kv": 1}
    write_gguf(tmp_path / "tiny.gguf", seed=1, architecture="phi3", metadata=metadata)
    with pytest.raises(ModelFileError, match=r"blk\.0\.attn_qkv\.weight has shape \[128, 64\].* 96 rows"):
        open_checkpoint(tmp_path / "tiny.gguf")


def test_what_families_read_from_metadata(tmp_path: Path) -> None:
    def config(architecture: str, layers: int = 2, **metadata: Any) -> ModelConfig:
        given = {f"{architecture}.{key}".replace("__", "."): value for key, value in metadata.items()}
        path = tmp_path / "tiny.gguf"
        write_gguf(path, seed=1, architecture=architecture, metadata=given, num_hidden_layers=layers)
        return open_checkpoint(path).config

    phi = config("phi3", attention__sliding_window=24)
    assert (phi.window, phi.windowed_layers) == (24, (0, 1))
    assert config("phi3", attention__sliding_window=128).window is None, "as long as the context"
    assert config("smollm3", layers=9).unrotated_layers == (3, 7)
    assert config("granite") == config("llama"), "factors are 1 where none are given"


def test_granites_factors_are_those_of_its_folder(tmp_path: Path) -> None:
    """Which the eager network of the folder is compared with transformers by."""
    factors = {"embedding_multiplier": 3.0, "attention_multiplier": 0.4}
    factors |= {"residual_multiplier": 0.22, "logits_scaling": 0.7}
    keys = ("embedding_scale", "attention.scale", "residual_scale", "logit_scale")
    metadata = {f"granite.{key}": value for key, value in zip(keys, factors.values(), strict=True)}
    write_gguf(tmp_path / "tiny.gguf", seed=3, architecture="granite", metadata=metadata)
    folder = write_folder(tmp_path / "folder", seed=3, model_type="granite", **factors)
    ids = torch.arange(3, 40)
    with torch.no_grad():
        found, expected = (load_model(path)(ids).logits for path in (tmp_path / "tiny.gguf", folder))
    assert (found - expected).abs().max() <= 1e-4


def test_rope_divisors_come_from_the_file(tmp_path: Path) -> None:
    scaling = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    write_gguf(tmp_path / "scaled.gguf", seed=1, metadata=scaling)
    assert open_checkpoint(tmp_path / "scaled.gguf").config.rope_divisors == (4.0,) * 8
    write_gguf(tmp_path / "plain.gguf", seed=1)
    positions = slice(4, 128, 4)
    scaled, plain = load_model(tmp_path / "scaled.gguf"), load_model(tmp_path / "plain.gguf")
    tables = [model.layers[0].attention.rope.cos for model in (scaled, plain)]
    assert torch.allclose(tables[0][positions], tables[1][1:32], atol=1e-6)


def test_tokenizer_of_the_file(path: Path) -> None:
    tokenizer = open_checkpoint(path).read_tokenizer()
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids, tokenizer.add_bos) == (1, (2, 0), False)
    assert tokenizer.chat_template is not None


@pytest.mark.parametrize("add_bos", [True, False])
def test_add_bos_is_what_the_file_says(tmp_path: Path, add_bos: bool) -> None:
    metadata = {"tokenizer.ggml.add_bos_token": add_bos, "tokenizer.ggml.pre": "llama-bpe"}
    write_gguf(tmp_path / "tiny.gguf", seed=1, metadata=metadata)
    assert open_checkpoint(tmp_path / "tiny.gguf").read_tokenizer().add_bos == add_bos


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"absent\.gguf does not exist"):
        open_checkpoint(tmp_path / "absent.gguf")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        open_checkpoint(path)


@pytest.mark.parametrize("part", [0.0, 0.00002, 0.0001, 0.001, 0.01, 0.02, 0.05, 0.3, 0.9, 0.9999])
def test_truncated_file_is_refused(path: Path, part: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ModelFileError, match=r"tiny\.gguf"):
        open_checkpoint(path)


def test_every_truncation_of_the_metadata_is_refused(path: Path) -> None:
    data = path.read_bytes()
    end = data.index(b"tokenizer.ggml.tokens")
    for kept in range(5, end, 7):
        path.write_bytes(data[:kept])
        with pytest.raises(ModelFileError):
            parse_gguf(path)


def test_unsupported_architecture_is_named_with_the_list(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        UnsupportedModelError, match=r"'mamba'.*gemma3, granite, llama, phi3, qwen2, qwen3, smollm3"
    ):
        open_checkpoint(tmp_path / "other.gguf")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"llama.rope.scaling.type": "yarn"}, "'yarn'"),
        ({"llama.rope.dimension_count": 8}, "part of each head"),
        ({"llama.expert_count": 4}, "experts"),
        ({"llama.attn_logit_softcapping": 50.0}, r"llama\.attn_logit_softcapping 50\.0"),
        ({"llama.final_logit_softcapping": 30.0}, r"final_logit_softcapping 30\.0"),
    ],
)
def test_unsupported_settings_are_named(tmp_path: Path, metadata: dict[str, Any], message: str) -> None:
    write_gguf(tmp_path / "tiny.gguf", seed=1, metadata=metadata)
    with pytest.raises(UnsupportedModelError, match=message):
        open_checkpoint(tmp_path / "tiny.gguf")


def test_longrope_is_named(tmp_path: Path) -> None:
    factors = {"rope_factors_long.weight": np.ones(8, np.float32)}
    write_gguf(tmp_path / "tiny.gguf", seed=1, architecture="phi3", further=factors)
    with pytest.raises(UnsupportedModelError, match="'longrope'"):
        open_checkpoint(tmp_path / "tiny.gguf")


def test_granite_without_rotary_embedding_is_named(tmp_path: Path) -> None:
    metadata = {"granite.rope.scaling.finetuned": False}
    write_gguf(tmp_path / "tiny.gguf", seed=1, architecture="granite", metadata=metadata)
    with pytest.raises(UnsupportedModelError, match="without rotary embedding"):
        open_checkpoint(tmp_path / "tiny.gguf")


def test_missing_key_is_named(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", seed=1, metadata={"llama.feed_forward_length": None})
    with pytest.raises(ModelFileError, match=r"llama\.feed_forward_length"):
        open_checkpoint(tmp_path / "tiny.gguf")


def test_value_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", seed=1, metadata={"llama.block_count": "many"})
    with pytest.raises(ModelFileError, match="many"):
        open_checkpoint(tmp_path / "tiny.gguf")


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", seed=1, metadata={"llama.block_count": 3})
    with pytest.raises(ModelFileError, match=r"blk\.2\.attn_norm\.weight"):
        open_checkpoint(tmp_path / "tiny.gguf")


def test_wrong_shape_is_named(tmp_path: Path) -> None:
    size = tiny_values()["intermediate_size"] * 2
    write_gguf(tmp_path / "tiny.gguf", seed=1, metadata={"llama.feed_forward_length": size})
    with pytest.raises(ModelFileError, match=r"blk\.0\.ffn_gate\.weight has shape \[96, 64\]"):
        open_checkpoint(tmp_path / "tiny.gguf")


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ({"tokenizer.ggml.model": "t5"}, UnsupportedModelError, "'t5'.*gpt2"),
        ({"tokenizer.ggml.pre": "klingon"}, UnsupportedModelError, "'klingon'.*smollm"),
        ({"tokenizer.ggml.merges": ["h q q"]}, ModelFileError, "do not fit"),
        ({"tokenizer.ggml.token_type": [1, 2]}, ModelFileError, "288 tokens but 2"),
        (
            {
                "tokenizer.ggml.tokens": ["a", "a", "b", "ab"],
                "tokenizer.ggml.token_type": [1] * 4,
                "tokenizer.ggml.merges": ["a b"],
            },
            ModelFileError,
            "only 3 differ",
        ),
    ],
)
def test_bad_tokenizers_are_named(
    tmp_path: Path, metadata: dict[str, Any], error: type[Exception], message: str
) -> None:
    write_gguf(tmp_path / "tiny.gguf", seed=1, metadata=metadata)
    with pytest.raises(error, match=message):
        open_checkpoint(tmp_path / "tiny.gguf").read_tokenizer()


def write_parts(folder: Path) -> list[Path]:
    write_gguf(folder / "tiny.gguf", seed=4, part_tensors=8)
    return sorted(folder.glob("tiny-0*.gguf"))


def test_a_split_model_is_opened_by_any_part(tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    expected = write_gguf(tmp_path / "whole.gguf", seed=4)
    assert len(parts) >= 3
    for part in (parts[0], parts[-1]):
        state = dict(load_model(part).named_parameters())
        assert state.keys() == expected.keys()
        assert all(np.array_equal(state[name].numpy(), array) for name, array in expected.items())
    whole, split = (open_checkpoint(path).read_tokenizer() for path in (tmp_path / "whole.gguf", parts[0]))
    assert split == whole


def test_missing_and_mistaken_parts_are_named(tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    parts[1].rename(tmp_path / "elsewhere.gguf")
    with pytest.raises(ModelFileError, match=rf"missing beside it: {parts[1].name}"):
        open_checkpoint(parts[0])
    with pytest.raises(ModelFileError, match="names must end in -00001-of-"):
        open_checkpoint(tmp_path / "elsewhere.gguf")
    shutil.copy(parts[2], parts[1])
    with pytest.raises(ModelFileError, match=r"00002-of-\d+\.gguf says it is another part"):
        open_checkpoint(parts[0])


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    first, second = parts[0].read_bytes(), parts[1].read_bytes()
    parts[1].write_bytes(second.replace(b"blk.0.", b"blk.9."))
    with pytest.raises(ModelFileError, match=r"missing: blk\.0\."):
        open_checkpoint(parts[0])
    parts[1].write_bytes(second)
    parts[2].write_bytes(parts[2].read_bytes().replace(b"blk.1.", b"blk.0."))
    with pytest.raises(ModelFileError, match=r"00003-of-\d+\.gguf holds tensors of another part: blk\.0\."):
        open_checkpoint(parts[0])
    write_parts(tmp_path)
    key = b"split.tensors.count"
    value = first.index(key) + len(key) + 4  # behind its type
    parts[0].write_bytes(first[:value] + b"\x63\0\0\0" + first[value + 4 :])
    with pytest.raises(ModelFileError, match="they should be 99"):
        open_checkpoint(parts[0])
