"""The one place where names and dimensions of an exported model are written down.

Legend: M rows, P past rows, T = P + M, V vocabulary, D hidden, K kv heads, d head_dim, L layers.
"""

from dataclasses import dataclass

import onnx
from onnx import TensorProto, ValueInfoProto, helper

from forerun.models.config import ModelConfig

FORMAT = "forerun-export"
VERSION = 1
DOMAIN = "forerun"
DOMAIN_VERSION = 1
OPSET = 23
IR_VERSION = 11
GROUP = 32
MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
MANIFEST_FILE = "export.json"
TOKENIZER_FILE = "tokenizer.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
ROPE_TABLES = ("rope.cos", "rope.sin")

_WEIGHT_ORDER = (
    "norm.weight",
    "weight",
    "q_proj.weight",
    "k_proj.weight",
    "v_proj.weight",
    "o_proj.weight",
    "q_proj.bias",
    "k_proj.bias",
    "v_proj.bias",
    "o_proj.bias",
    "q_norm.weight",
    "k_norm.weight",
    *ROPE_TABLES,
    "gate_proj.weight",
    "up_proj.weight",
    "down_proj.weight",
)


@dataclass(frozen=True)
class Sublayer:
    """A kind of module: its function's name, its activation inputs and its outputs."""

    function: str
    activations: tuple[str, ...]
    outputs: tuple[str, ...]


EMBED = Sublayer("Embed", ("token_ids",), ("hidden",))
ATTENTION = Sublayer(
    "Attention",
    ("hidden", "positions", "tree_mask", "past_key", "past_value"),
    ("hidden_out", "present_key", "present_value"),
)
FEED_FORWARD = Sublayer("FeedForward", ("hidden",), ("hidden_out",))
HEAD = Sublayer("Head", ("hidden",), ("logits",))


def order_weights(names: set[str]) -> tuple[str, ...]:
    """A module's weights in the order in which its function takes them."""
    unknown = names - set(_WEIGHT_ORDER)
    assert not unknown, f"weights without a place in the signature: {unknown}"
    return tuple(name for name in _WEIGHT_ORDER if name in names)


def initializer_name(prefix: str, weight: str) -> str:
    """The graph-wide name of a module's weight; rotary tables are shared by all layers."""
    return weight if weight in ROPE_TABLES else f"{prefix}.{weight}"


def layer_prefix(layer: int, sublayer: Sublayer) -> str:
    """The prefix of a layer's weights, as `Decoder` names its modules."""
    return f"layers.{layer}.{'attention' if sublayer is ATTENTION else 'feed_forward'}"


def tap_name(layer: int) -> str:
    """The hidden state after a layer."""
    return f"tap.{layer}"


def past_names(layer: int) -> tuple[str, str]:
    """Key and value cache that a layer reads."""
    return f"past_key.{layer}", f"past_value.{layer}"


def present_names(layer: int) -> tuple[str, str]:
    """Key and value cache that a layer leaves, past rows first."""
    return f"present_key.{layer}", f"present_value.{layer}"


def graph_inputs(config: ModelConfig) -> list[ValueInfoProto]:
    """token_ids [M], positions [M], tree_mask [M, T], then key and value [K, P, d] of each layer."""
    cache = [config.kv_heads, "P", config.head_dim]
    inputs = [
        helper.make_tensor_value_info("token_ids", TensorProto.INT64, ["M"]),
        helper.make_tensor_value_info("positions", TensorProto.INT64, ["M"]),
        helper.make_tensor_value_info("tree_mask", TensorProto.BOOL, ["M", "T"]),
    ]
    names = [name for layer in range(config.layers) for name in past_names(layer)]
    return inputs + [helper.make_tensor_value_info(name, TensorProto.FLOAT, cache) for name in names]


def graph_outputs(config: ModelConfig) -> list[ValueInfoProto]:
    """logits [M, V], tap of each layer [M, D], then key and value [K, T, d] of each layer."""
    cache = [config.kv_heads, "T", config.head_dim]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["M", config.vocabulary_size])]
    for layer in range(config.layers):
        shape = ["M", config.hidden_size]
        outputs.append(helper.make_tensor_value_info(tap_name(layer), TensorProto.FLOAT, shape))
    names = [name for layer in range(config.layers) for name in present_names(layer)]
    return outputs + [helper.make_tensor_value_info(name, TensorProto.FLOAT, cache) for name in names]


def opset_imports() -> list[onnx.OperatorSetIdProto]:
    """Standard operators and our own functions."""
    return [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
