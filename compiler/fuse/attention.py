"""Projections, rotary embedding, attention over past and present → kernels that work on the KV cache in place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from forerun.compiler.fuse.match import LAYOUT_OPS, apply_layout, is_weight, made_by, require, through_layout
from forerun.compiler.graph import Graph, Node, Value
from forerun.compiler.operations import CachedAttention, RopeStore

# The sizes with which layout chains are tried out; any numbers that no other dimension has.
_TRIAL_SIZES = {"M": 5, "P": 7, "T": 12}


@dataclass(frozen=True)
class _Source:
    """What feeds one attention input: a linear, a rotation of it, and a norm of its heads, where present."""

    linear: Node
    rotary: Node | None
    norm: Node | None


def fuse_attention(graph: Graph) -> None:
    """Replace an Attention over past and present by `rope_store` and `cached_attention`.

    The row of the past → present concatenation and the mask over it is what the cache does: rows are written at
    their slots and each attends to its ancestors. So the pattern asks for exactly that: a mask that is the
    function's `tree_mask` or `window_mask`, keys rotated by the function's `positions` if at all, present outputs that
    nobody else reads.
    """
    for node in list(graph.nodes):
        if node.op != "forerun.attention":
            continue
        _check(graph, node)
        heads, head_dim = int(node.inputs[0].shape[1]), int(node.inputs[0].shape[3])
        kv_heads = int(node.inputs[1].shape[1])
        query, key, value = (_source(graph, node.inputs[i]) for i in range(3))
        require(
            value.rotary is None and value.norm is None, graph, "values may be neither rotated nor normalized"
        )
        require(
            (query.rotary is None) == (key.rotary is None),
            graph,
            "either both queries and keys are rotated or none",
        )
        rope = _rope_store(graph, node, query, key)
        require(
            (query.norm is None) == (key.norm is None),
            graph,
            "either both queries and keys are normalized or none",
        )
        merged = _stack(graph, [query.linear, key.linear, value.linear])
        rotated = Value("queries", ("M", heads * head_dim), "float32")
        output = _merged_heads(graph, node, heads * head_dim)
        attention = CachedAttention(heads, kv_heads, head_dim, quantized=False, window=rope.window)
        new = [
            *merged,
            Node("rope_store", [merged[0].output], [rotated], rope),
            Node("cached_attention", [rotated], [output], attention),
        ]
        _splice(graph, node, output, [query.linear, key.linear, value.linear], new)


def _check(graph: Graph, node: Node) -> None:
    attrs = node.detail["attrs"]
    require(int(attrs["is_causal"]) == 0, graph, "attention must be masked by tree_mask, not is_causal")
    require(float(attrs["softcap"]) == 0.0, graph, "attention with softcap is not supported")
    mask, _ = through_layout(graph, node.inputs[3])
    known = mask.name == "tree_mask" or (mask.name == "window_mask" and graph.window > 0)
    require(known and is_weight(graph, mask), graph, "the attention mask must be tree_mask or window_mask")
    for i, name in ((4, "past_key"), (5, "past_value")):
        past, _ = through_layout(graph, node.inputs[i])
        require(past.name == name and is_weight(graph, past), graph, f"attention input {i} must be {name}")
    for i in (1, 2):
        users = [user for user in graph.consumers(node.outputs[i]) if user.op not in LAYOUT_OPS]
        require(not users, graph, "present keys and values may only leave the function")


def _source(graph: Graph, value: Value) -> _Source:
    """Trace an attention input back to its projection, and check that only heads are split on the way."""
    heads, head_dim = int(value.shape[1]), int(value.shape[3])
    value, after = through_layout(graph, value)
    rotary = made_by(graph, value, "forerun.rotary")
    chain = after
    if rotary is not None:
        value, before = through_layout(graph, rotary.inputs[0])
        chain = before + after
    norm = made_by(graph, value, "relax.nn.rms_norm")
    if norm is not None:
        require(int(norm.inputs[0].shape[-1]) == head_dim, graph, "heads are normalized one by one")
        value, before = through_layout(graph, norm.inputs[0])
        chain = before + chain
    linear = made_by(graph, value, "linear")
    require(linear is not None, graph, f"attention input {value.name} is not a projection")
    assert linear is not None
    rows = _TRIAL_SIZES["M"]
    trial = np.arange(rows * heads * head_dim).reshape(rows, heads * head_dim)
    expected = trial.reshape(rows, heads, head_dim).transpose(1, 0, 2)[None]
    split = np.array_equal(apply_layout(chain, trial, _TRIAL_SIZES), expected)
    require(split, graph, f"attention input {value.name} is not split into heads [1, H, M, d]")
    return _Source(linear, rotary, norm)


def _rope_store(graph: Graph, node: Node, query: _Source, key: _Source) -> RopeStore:
    rotaries = [source.rotary for source in (query, key) if source.rotary is not None]
    for rotary in rotaries:
        attrs = rotary.detail["attrs"]
        require(
            int(attrs["interleaved"]) == 0 and int(attrs["dim"]) == 0,
            graph,
            "rotary halves over the whole head",
        )
        positions, _ = through_layout(graph, rotary.inputs[3])
        require(positions.name == "positions", graph, "rotary positions must be the function's positions")
        require(
            rotary.inputs[1:3] == rotaries[0].inputs[1:3], graph, "queries and keys share one rotary table"
        )
    tables = rotaries[0].inputs[1:3] if rotaries else []
    require(all(is_weight(graph, table) for table in tables), graph, "rotary tables must be weights")
    norms = [source.norm for source in (query, key) if source.norm is not None]
    return RopeStore(
        heads=int(node.inputs[0].shape[1]),
        kv_heads=int(node.inputs[1].shape[1]),
        head_dim=int(node.inputs[0].shape[3]),
        scale=float(node.detail["attrs"]["scale"]),
        cos=tables[0].name if tables else None,
        sin=tables[1].name if tables else None,
        q_norm=norms[0].inputs[1].name if norms else None,
        k_norm=norms[-1].inputs[1].name if norms else None,
        norm_epsilon=float(norms[0].detail["attrs"].epsilon) if norms else None,
        window=graph.window if graph.input("window_mask") is not None else 0,
    )


def _stack(graph: Graph, linears: list[Node]) -> list[Node]:
    """Put q, k and v side by side in one output, as few linears as their schemes allow."""
    require(
        all(n.inputs == linears[0].inputs for n in linears), graph, "q, k and v must project the same rows"
    )
    stride = sum(node.detail.columns for node in linears)
    output = Value("qkv", ("M", stride), "float32")
    stacked: list[Node] = []
    column = 0
    for node in linears:
        last = stacked[-1].detail if stacked else None
        if last is not None and last.scheme == node.detail.scheme:
            joined = replace(
                last, weights=last.weights + node.detail.weights, biases=last.biases + node.detail.biases
            )
            stacked[-1].detail = joined
        else:
            stacked.append(
                Node(
                    "linear", node.inputs, [output], replace(node.detail, first_column=column, stride=stride)
                )
            )
        column += node.detail.columns
    return stacked


def _merged_heads(graph: Graph, node: Node, columns: int) -> Value:
    """Return the value that holds the heads side by side again, [M, H·d], after attention."""
    value, chain = node.outputs[0], []
    while True:
        users = graph.consumers(value)
        if len(users) != 1 or users[0].op not in LAYOUT_OPS:
            break
        chain.append(users[0])
        value = users[0].output
    _, heads, _, head_dim = node.outputs[0].shape
    rows = _TRIAL_SIZES["M"]
    trial = np.arange(rows * columns).reshape(1, int(heads), rows, int(head_dim))
    expected = trial[0].transpose(1, 0, 2).reshape(rows, columns)
    merged = np.array_equal(apply_layout(chain, trial, _TRIAL_SIZES), expected)
    require(merged, graph, "attention's output is not merged to [M, H·d]")
    return value


def _splice(graph: Graph, attention: Node, output: Value, linears: list[Node], new: list[Node]) -> None:
    """Put the new nodes in, take out what they stand for, and drop the present outputs: they are in the cache."""
    maker = graph.producer(output)
    assert maker is not None
    graph.replace([*linears, maker], new)
    graph.outputs = [value for value in graph.outputs if value.name == output.name or _is_rows(value)]
    if attention in graph.nodes:
        graph.nodes.remove(attention)
    graph.remove_unused()


def _is_rows(value: Value) -> bool:
    return len(value.shape) == 2 and value.shape[0] == "M"
