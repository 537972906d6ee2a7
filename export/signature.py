"""The one place where names and dimensions of an exported model are written down.

Legend: M rows, P past rows, T = P + M, V vocabulary, D hidden, K kv heads, d head_dim, L layers,
F feature size.
"""

from dataclasses import dataclass, replace

import onnx
from onnx import TensorProto, ValueInfoProto, helper

from forerun.models.config import ModelConfig
from forerun.models.drafts import DraftConfig

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
VOCABULARY_FILE = "vocabulary.bin"
DRAFT_FAMILY = "draft"
ROPE_TABLES = ("rope.cos", "rope.sin")
MASKS = ("tree_mask", "window_mask")
WINDOW_ROPE_TABLES = ("window_rope.cos", "window_rope.sin")

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
    "feature_proj.weight",
    "post_norm.weight",
)


@dataclass(frozen=True)
class Sublayer:
    """A kind of module: its function's name, its activation inputs and its outputs."""

    function: str
    activations: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def mask(self) -> str | None:
        """The mask that it takes where rows see each other."""
        return next((name for name in self.activations if name in MASKS), None)


EMBED = Sublayer("Embed", ("token_ids",), ("hidden",))
FEATURE_EMBED = Sublayer("Embed", ("token_ids", "features"), ("hidden",))
ATTENTION = Sublayer(
    "Attention",
    ("hidden", "positions", "tree_mask", "past_key", "past_value"),
    ("hidden_out", "present_key", "present_value"),
)
WINDOW_ATTENTION = Sublayer(
    "AttentionInWindow",
    ("hidden", "positions", "window_mask", "past_key", "past_value"),
    ATTENTION.outputs,
)
UNROTATED_ATTENTION = replace(ATTENTION, function="AttentionUnrotated")
UNROTATED_WINDOW_ATTENTION = replace(WINDOW_ATTENTION, function="AttentionUnrotatedInWindow")
# Kinds of attention by whether the layer has a window and whether it rotates.
_ATTENTIONS = {
    (False, True): ATTENTION,
    (True, True): WINDOW_ATTENTION,
    (False, False): UNROTATED_ATTENTION,
    (True, False): UNROTATED_WINDOW_ATTENTION,
}
FEED_FORWARD = Sublayer("FeedForward", ("hidden",), ("hidden_out",))
HEAD = Sublayer("Head", ("hidden",), ("logits",))


@dataclass(frozen=True)
class Form:
    """What of a decoder a network has: a model has all of it, a draft component perhaps only parts.

    `embed` is None for a network whose rows are hidden states, `layer` lists the sublayers of each layer in order.
    """

    config: ModelConfig
    embed: Sublayer | None = EMBED
    layer: tuple[Sublayer, ...] = (ATTENTION, FEED_FORWARD)
    feature_size: int = 0

    @property
    def row_inputs(self) -> tuple[str, ...]:
        """The graph inputs that say what the rows are."""
        return ("hidden",) if self.embed is None else self.embed.activations

    def sublayers(self, layer: int) -> tuple[Sublayer, ...]:
        """The sublayers of one layer: its attention may have a window, and may not rotate."""
        config = self.config
        attention = _ATTENTIONS[layer in config.windowed_layers, layer not in config.unrotated_layers]
        return tuple(attention if kind is ATTENTION else kind for kind in self.layer)

    @property
    def rope_tables(self) -> dict[str, bool]:
        """The initializers that hold rotary tables, cosine before sine, and whether they are those of windows."""
        kinds = {kind for layer in range(self.config.layers) for kind in self.sublayers(layer)}
        apart = self.config.window_rope_theta is not None
        common = ATTENTION in kinds or (WINDOW_ATTENTION in kinds and not apart)
        tables = dict.fromkeys(ROPE_TABLES, False) if common else {}
        return tables | (
            dict.fromkeys(WINDOW_ROPE_TABLES, True) if WINDOW_ATTENTION in kinds and apart else {}
        )

    def initializer_name(self, sublayer: Sublayer, prefix: str, weight: str) -> str:
        """The graph-wide name of a module's weight; rotary tables are shared by all layers that rotate alike."""
        if weight not in ROPE_TABLES:
            return f"{prefix}.{weight}"
        apart = sublayer is WINDOW_ATTENTION and WINDOW_ROPE_TABLES[0] in self.rope_tables
        return WINDOW_ROPE_TABLES[ROPE_TABLES.index(weight)] if apart else weight

    @property
    def attends(self) -> bool:
        """Whether rows see other rows, so that there are positions, a mask and a cache."""
        return ATTENTION in self.layer


def draft_form(draft: DraftConfig) -> Form:
    """What a draft component has."""
    kinds = {"attention": ATTENTION, "feed_forward": FEED_FORWARD}
    return Form(
        draft.network,
        FEATURE_EMBED if draft.feature_size else None,
        tuple(kind for name, kind in kinds.items() if name in draft.sublayers),
        draft.feature_size,
    )


def order_weights(names: set[str]) -> tuple[str, ...]:
    """A module's weights in the order in which its function takes them."""
    unknown = names - set(_WEIGHT_ORDER)
    assert not unknown, f"weights without a place in the signature: {unknown}"
    return tuple(name for name in _WEIGHT_ORDER if name in names)


def layer_prefix(layer: int, sublayer: Sublayer) -> str:
    """The prefix of a layer's weights, as `Decoder` names its modules."""
    return f"layers.{layer}.{'feed_forward' if sublayer is FEED_FORWARD else 'attention'}"


def tap_name(layer: int) -> str:
    """The hidden state after a layer."""
    return f"tap.{layer}"


def past_names(layer: int) -> tuple[str, str]:
    """Key and value cache that a layer reads."""
    return f"past_key.{layer}", f"past_value.{layer}"


def present_names(layer: int) -> tuple[str, str]:
    """Key and value cache that a layer leaves, past rows first."""
    return f"present_key.{layer}", f"present_value.{layer}"


def graph_inputs(form: Form) -> list[ValueInfoProto]:
    """The rows: token_ids [M], features [M, F], or hidden [M, D]. Then, where rows see each other, positions [M],
    tree_mask [M, T] (True = may see), where layers have a window window_mask [M, T] (of that, the positions inside
    the row's window), and key and value [K, P, d] of each layer.
    """
    config = form.config
    rows = {
        "token_ids": (TensorProto.INT64, ["M"]),
        "features": (TensorProto.FLOAT, ["M", form.feature_size]),
        "hidden": (TensorProto.FLOAT, ["M", config.hidden_size]),
    }
    inputs = [helper.make_tensor_value_info(name, *rows[name]) for name in form.row_inputs]
    if not form.attends:
        return inputs
    inputs.append(helper.make_tensor_value_info("positions", TensorProto.INT64, ["M"]))
    masks = MASKS if config.windowed_layers else MASKS[:1]
    inputs += [helper.make_tensor_value_info(name, TensorProto.BOOL, ["M", "T"]) for name in masks]
    cache = [config.kv_heads, "P", config.head_dim]
    names = [name for layer in range(config.layers) for name in past_names(layer)]
    return inputs + [helper.make_tensor_value_info(name, TensorProto.FLOAT, cache) for name in names]


def graph_outputs(form: Form) -> list[ValueInfoProto]:
    """logits [M, V], tap of each layer [M, D], then, with attention, key and value [K, T, d] of each layer."""
    config = form.config
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["M", config.vocabulary_size])]
    for layer in range(config.layers):
        shape = ["M", config.hidden_size]
        outputs.append(helper.make_tensor_value_info(tap_name(layer), TensorProto.FLOAT, shape))
    if not form.attends:
        return outputs
    cache = [config.kv_heads, "T", config.head_dim]
    names = [name for layer in range(config.layers) for name in present_names(layer)]
    return outputs + [helper.make_tensor_value_info(name, TensorProto.FLOAT, cache) for name in names]


def opset_imports() -> list[onnx.OperatorSetIdProto]:
    """Standard operators and our own functions."""
    return [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
