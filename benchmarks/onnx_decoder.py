"""A decoder of the Llama family in ONNX Runtime: the time of its step, for comparison.

The graph is as ONNX Runtime's own tools write one for CUDA: float16, its operators for attention with a cache, rotary
embedding and norms, keys and values in memory that attention appends to in place.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, save

from benchmarks.random_models import Shape
from forerun.errors import TargetError

FAMILIES = ("llama", "mistral")  # whose graph this is; Mistral's window is not reached here
WARM_UPS = 5
_MICROSOFT = "com.microsoft"
_EPSILON = "rms_norm_eps"
# A tensor by its name in transformers and its shape, [out, in] for matrices.
Weights = Callable[[str, tuple[int, ...]], np.ndarray]


def random_weights(seed: int = 0) -> Weights:
    """Return tensors that keep the size of what they multiply: a block of numbers, over and over."""
    block = np.random.default_rng(seed).standard_normal((1 << 20) - 3, np.float32)

    def make(_name: str, size: tuple[int, ...]) -> np.ndarray:
        values = np.resize(block, size)
        return 1 + values / 8 if len(size) == 1 else values * np.float32(size[-1] ** -0.5)

    return make


class _Writer:
    """Nodes and weights of a file that is being written; weights go to `data`, one after the other."""

    def __init__(self, shape: Shape, data: Path, weights: Weights) -> None:
        self.shape = shape
        self.head_dim = shape.head_dim or shape.hidden_size // shape.heads
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._data = data
        self._weights = weights

    def node(
        self, kind: str, inputs: Sequence[str], outputs: int | Sequence[str] = 1, **more: Any
    ) -> list[str]:
        name = f"{kind}.{len(self.nodes)}"
        names = [f"{name}.{i}" for i in range(outputs)] if isinstance(outputs, int) else list(outputs)
        self.nodes.append(helper.make_node(kind, inputs, names, name, **more))
        return names

    def store(self, name: str, values: np.ndarray) -> str:
        with self._data.open("ab") as file:
            at = file.seek(0, 2)
            file.write(np.ascontiguousarray(values, np.float16).tobytes())
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT16, dims=values.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self._data.name), ("offset", at), ("length", 2 * values.size)):
            tensor.external_data.add(key=key, value=str(value))
        self.initializers.append(tensor)
        return name

    def vector(self, name: str) -> str:
        return self.store(name, self._weights(name, (self.shape.hidden_size,)))

    def product(self, values: str, columns: int, *parts: tuple[str, int]) -> str:
        """Multiply by matrices of so many rows, joined to one."""
        joined = [self._weights(name, (rows, columns)).astype(np.float16) for name, rows in parts]
        weight = self.store(parts[0][0], np.concatenate(joined).T)
        return self.node("MatMul", (values, weight))[0]

    def skip_norm(self, values: str, more: str, name: str) -> tuple[str, str]:
        """Return the normed sum, and the sum."""
        normed, _, _, total = self.node(
            "SkipSimplifiedLayerNormalization",
            (values, more, self.vector(name)),
            4,
            domain=_MICROSOFT,
            epsilon=self.shape.config()[_EPSILON],
        )
        return normed, total

    def attention(self, normed: str, layer: int) -> str:
        shape, place, size = self.shape, f"model.layers.{layer}.self_attn", self.head_dim
        kv_size = shape.kv_heads * size
        parts = [("q_proj", shape.heads * size), ("k_proj", kv_size), ("v_proj", kv_size)]
        joined = self.product(
            normed, shape.hidden_size, *((f"{place}.{name}.weight", rows) for name, rows in parts)
        )
        past = [name.format(layer) for name in ("past_key.{}", "past_value.{}")]
        present = [name.format(layer) for name in ("present_key.{}", "present_value.{}")]
        out = f"attention.{layer}"
        self.node(
            "GroupQueryAttention",
            (joined, "", "", *past, "last_position", "length", "cosines", "sines"),
            (out, *present),
            domain=_MICROSOFT,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=1,
        )
        return self.product(out, shape.heads * size, (f"{place}.o_proj.weight", shape.hidden_size))

    def feed_forward(self, normed: str, layer: int) -> str:
        place, size, inner = f"model.layers.{layer}.mlp", self.shape.hidden_size, self.shape.feed_forward_size
        gate = self.product(normed, size, (f"{place}.gate_proj.weight", inner))
        up = self.product(normed, size, (f"{place}.up_proj.weight", inner))
        (opened,) = self.node("Sigmoid", (gate,))
        (gate,) = self.node("Mul", (gate, opened))
        (values,) = self.node("Mul", (gate, up))
        return self.product(values, inner, (f"{place}.down_proj.weight", size))


def write_decoder(shape: Shape, folder: Path, capacity: int, weights: Weights) -> Path:
    """Write decoder.onnx, and its weights beside it, for a cache of `capacity` positions; return its path."""
    writer = _Writer(shape, folder / "decoder.data", weights)
    size, vocabulary = shape.hidden_size, shape.vocabulary_size
    angles = np.outer(
        np.arange(capacity),
        shape.config()["rope_theta"] ** -(np.arange(0, writer.head_dim, 2) / writer.head_dim),
    )
    writer.store("cosines", np.cos(angles))
    writer.store("sines", np.sin(angles))
    embedding = "model.embed_tokens.weight"
    table = weights(embedding, (vocabulary, size))
    (values,) = writer.node("Gather", (writer.store(embedding, table), "ids"))
    norms = [f"model.layers.{layer}.input_layernorm.weight" for layer in range(shape.layers)]
    inputs = (values, writer.vector(norms[0]))
    (normed,) = writer.node("SimplifiedLayerNormalization", inputs, epsilon=shape.config()[_EPSILON])
    for layer, following in enumerate([*norms[1:], "model.norm.weight"]):
        attended = writer.attention(normed, layer)
        normed, values = writer.skip_norm(
            values, attended, f"model.layers.{layer}.post_attention_layernorm.weight"
        )
        normed, values = writer.skip_norm(values, writer.feed_forward(normed, layer), following)
    head = table if shape.tied else weights("lm_head.weight", (vocabulary, size))
    writer.node("MatMul", (normed, writer.store("head", head.T)), ("logits",))
    path = folder / "decoder.onnx"
    save(_model(writer, capacity), path)
    return path


def _model(writer: _Writer, capacity: int) -> ModelProto:
    def declare(name: str, kind: int, *size: int | str) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, size)

    shape, half = writer.shape, TensorProto.FLOAT16
    cache = (1, shape.kv_heads, capacity, writer.head_dim)
    names = [f"{kind}.{layer}" for layer in range(shape.layers) for kind in ("key", "value")]
    inputs = [
        declare("ids", TensorProto.INT64, 1, "rows"),
        declare("last_position", TensorProto.INT32, 1),
        declare("length", TensorProto.INT32, 1),
        *(declare(f"past_{name}", half, *cache) for name in names),
    ]
    outputs = [
        declare("logits", half, 1, "rows", shape.vocabulary_size),
        *(declare(f"present_{name}", half, *cache) for name in names),
    ]
    graph = helper.make_graph(writer.nodes, "decoder", inputs, outputs, writer.initializers)
    sets = [helper.make_opsetid("", 18), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=9)


class Decoder:
    """A written decoder in ONNX Runtime, with a cache on the provider's device."""

    def __init__(self, path: Path, provider: str) -> None:
        """Raises `TargetError` if the provider does not start."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        if provider not in self._session.get_providers():
            raise TargetError(f"{provider} of this ONNX Runtime does not start here")
        self._device = "cuda" if provider == "CUDAExecutionProvider" else "cpu"
        self._binding = self._session.io_binding()
        for given in self._session.get_inputs():
            if given.name.startswith("past_"):
                zeros = np.zeros(given.shape, np.float16)
                value = onnxruntime.OrtValue.ortvalue_from_numpy(zeros, self._device, 0)
                self._binding.bind_ortvalue_input(given.name, value)
                self._binding.bind_ortvalue_output(given.name.replace("past_", "present_"), value)
        self.length = 0

    def run(self, ids: Sequence[int]) -> None:
        """Read tokens after those that were read before; their logits stay on the device."""
        self.length += len(ids)
        given = {
            "ids": np.array([ids], np.int64),
            "last_position": np.array([self.length - 1], np.int32),
            "length": np.array([self.length], np.int32),
        }
        for name, array in given.items():  # a binding points into them
            self._binding.bind_cpu_input(name, array)
        self._binding.bind_output("logits", self._device)
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def logits(self) -> np.ndarray:
        """Return logits [rows, V] of the last call."""
        rows: np.ndarray = self._binding.get_outputs()[-1].numpy()[0]  # bound after the cache
        return rows.astype(np.float32)


def onnxruntime_ms(
    shape: Shape, repetitions: int, context: int, provider: str = "CUDAExecutionProvider"
) -> float:
    """Return the time of a step of one token after `context`, in float16 (torch's is in bfloat16: as many bytes).

    0 where this ONNX Runtime has no such provider, and for shapes of other families than the graph's. Launches are not
    recorded as a CUDA graph.
    """
    import onnxruntime

    if provider not in onnxruntime.get_available_providers() or shape.model_type not in FAMILIES:
        return 0.0
    times = []
    with tempfile.TemporaryDirectory() as folder:
        path = write_decoder(shape, Path(folder), context + repetitions + WARM_UPS, random_weights())
        decoder = Decoder(path, provider)
        decoder.run([1] * context)
        for _ in range(repetitions + WARM_UPS):
            begin = time.perf_counter()
            decoder.run([1])
            times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times[WARM_UPS:])
