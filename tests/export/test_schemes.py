"""Quantization arithmetic: exact takeover of GGUF blocks, bounds on quantization errors, what the functions
mean.
"""

import gguf
import numpy as np
import onnx
import onnxruntime
import pytest
from gguf.constants import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from forerun.errors import ExportError
from forerun.export.external_data import pack_nibbles, unpack_nibbles
from forerun.export.policies import FITTING
from forerun.export.schemes import SCHEMES
from forerun.export.signature import DOMAIN, IR_VERSION, opset_imports

QUANTIZED = [name for name, scheme in SCHEMES.items() if scheme.function_name]
ROUNDED = [(name, kind) for name in QUANTIZED for kind in SCHEMES[name].rounded_types]
EXACT = [(name, kind) for name in QUANTIZED for kind in SCHEMES[name].exact_types]
FOUR_BIT = {TensorProto.INT4: True, TensorProto.UINT4: False}

weights = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 4).map(lambda groups: groups * 32)),
    elements=st.floats(-1000, 1000, width=32),
)


def random_weight(rows: int = 48, columns: int = 128) -> np.ndarray:
    return np.random.default_rng().standard_normal((rows, columns)).astype(np.float32)


def random_blocks(kind: str) -> np.ndarray:
    """Rows of two blocks of random bytes, of those whose weights are ordinary numbers."""
    type_ = GGMLQuantizationType[kind]
    size = gguf.constants.GGML_QUANT_SIZES[type_][1]
    blocks = np.random.default_rng().integers(0, 256, (2000, size), np.uint8)
    with np.errstate(all="ignore"):
        largest = np.abs(gguf.dequantize(blocks, type_)).max(axis=1)
    ordinary = blocks[(largest > 2.0**-10) & (largest < 2.0**10)]
    assert len(ordinary) > 50
    return ordinary[: len(ordinary) // 2 * 2].reshape(-1, 2 * size)


@pytest.mark.parametrize(("name", "kind"), EXACT)
def test_blocks_are_taken_over_exactly(name: str, kind: str) -> None:
    scheme, type_ = SCHEMES[name](), GGMLQuantizationType[kind]
    blocks = random_blocks(kind) if kind == "IQ4_NL" else gguf.quantize(random_weight(), type_)
    taken = scheme.take_blocks(kind, blocks)
    assert np.array_equal(scheme.dequantize(taken), gguf.dequantize(blocks, type_))


@pytest.mark.parametrize(("name", "kind"), ROUNDED)
def test_blocks_are_taken_over_but_for_the_rounding_of_scales(name: str, kind: str) -> None:
    """Half a unit of float16 in a scale, and in a minimum, is 2^-11 of it, or 2^-25 below the smallest normal one."""
    scheme, blocks = SCHEMES[name](), random_blocks(kind)
    parts = scheme.take_blocks(kind, blocks)
    expected = gguf.dequantize(blocks, GGMLQuantizationType[kind]).astype(np.float64)
    minimum = parts["minimum"].astype(np.float64).repeat(32, axis=1) if "minimum" in parts else 0.0
    magnitude = np.abs(expected) + 2 * np.abs(minimum)  # scale · q is at most the weight and the minimum
    steps = np.abs(parts["q"].astype(np.int16)).astype(np.float64) + 1
    error = np.abs(scheme.dequantize(parts) - expected)
    assert (error <= 2.0**-11 * magnitude * 1.001 + 2.0**-25 * steps).all()
    assert error.any(), "no scale was rounded: the type belongs among the exact ones"


@pytest.mark.parametrize("kind", sorted(FITTING))
def test_small_schemes_fit_the_values_of_types_without_one(kind: str) -> None:
    """The float16 scale's rounding is all that is lost: 2^-11 of the largest weight of a group."""
    scheme = SCHEMES[FITTING[kind]]()
    weight = gguf.dequantize(random_blocks(kind), GGMLQuantizationType[kind]).astype(np.float32)
    error = np.abs(scheme.dequantize(scheme.quantize(weight)) - weight).reshape(-1, 32)
    largest = np.abs(weight).reshape(-1, 32).max(axis=1, keepdims=True)
    assert (error <= 2.0**-11 * 1.001 * largest + 2.0**-20).all()


@pytest.mark.parametrize(("name", "kind"), EXACT)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_block_bytes_are_taken_over_exactly(name: str, kind: str, data: st.DataObject) -> None:
    scheme, type_ = SCHEMES[name](), GGMLQuantizationType[kind]
    size = gguf.constants.GGML_QUANT_SIZES[type_][1]
    blocks = data.draw(hnp.arrays(np.uint8, (2, 3 * size)))
    # Float16 fields: clearing the top exponent bit keeps them finite.
    fields = (0, 2) if kind in ("Q4_1", "Q5_1") else (0,)
    for field in fields:
        blocks.reshape(2, 3, size)[..., field + 1] &= 0xBF
    expected = gguf.dequantize(blocks, type_)
    assert np.array_equal(scheme.dequantize(scheme.take_blocks(kind, blocks)), expected)


@pytest.mark.parametrize("name", QUANTIZED)
@settings(max_examples=50, deadline=None)
@given(weight=weights)
def test_errors_stay_within_a_step(name: str, weight: np.ndarray) -> None:
    scheme = SCHEMES[name]()
    parts = scheme.quantize(weight)
    error = np.abs(scheme.dequantize(parts) - weight).reshape(len(weight), -1, 32)
    groups = weight.reshape(error.shape)
    span = {"affine4": np.ptp(groups, axis=-1) / 15, "symmetric8": np.abs(groups).max(axis=-1) / 127}
    span |= {"affine5": np.ptp(groups, axis=-1) / 31, "symmetric6": np.abs(groups).max(axis=-1) / 16}
    step = span.get(name, np.abs(groups).max(axis=-1) / 8)
    # Rounding is half a step, symmetric4 clips its positive end by up to a whole one; the rest is float16.
    rounding = {"symmetric4": 1.0, "affine4": 2.0, "affine5": 2.0}.get(name, 0.5)
    allowance = 2.0**-10 * np.abs(groups).max(axis=-1) + 1e-4
    assert (error.max(axis=-1) <= rounding * step + allowance).all()


@settings(max_examples=50, deadline=None)
@given(weight=weights)
def test_affine_search_is_no_worse_than_min_max(weight: np.ndarray) -> None:
    scheme = SCHEMES["affine4"]()
    found = ((scheme.dequantize(scheme.quantize(weight)) - weight).reshape(-1, 32) ** 2).sum(axis=1)
    groups = weight.reshape(-1, 32)
    scale = (np.ptp(groups, axis=1) / np.float32(15)).astype(np.float16).astype(np.float32)[:, None]
    low = groups.min(axis=1).astype(np.float16).astype(np.float32)[:, None]
    steps = np.divide(groups - low, scale, out=np.zeros_like(groups), where=scale != 0)
    plain = ((np.rint(steps).clip(0, 15) * scale + low - groups) ** 2).sum(axis=1)
    assert (found <= plain * (1 + 1e-5) + 1e-9).all()


def test_affine_search_gains_on_ordinary_weights() -> None:
    weight = random_weight(256)
    scheme = SCHEMES["affine4"]()
    found = ((scheme.dequantize(scheme.quantize(weight)) - weight) ** 2).mean()
    plain = gguf.dequantize(gguf.quantize(weight, GGMLQuantizationType.Q4_1), GGMLQuantizationType.Q4_1)
    assert found < 0.9 * ((plain - weight) ** 2).mean()


def test_affine_search_finds_the_grid_that_weights_lie_on() -> None:
    random = np.random.default_rng()
    q = random.integers(0, 16, (64, 64)).astype(np.float32)
    q[:, ::32], q[:, 1::32] = 0, 15
    scale = random.uniform(0.01, 1, (64, 2)).astype(np.float16).astype(np.float32).repeat(32, axis=1)
    minimum = random.uniform(-5, 0, (64, 2)).astype(np.float16).astype(np.float32).repeat(32, axis=1)
    weight = q * scale + minimum
    scheme = SCHEMES["affine4"]()
    assert np.abs(scheme.dequantize(scheme.quantize(weight)) - weight).max() <= 1e-6


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
def test_constant_groups_are_held_exactly(name: str, value: float) -> None:
    weight = np.full((2, 64), value, np.float32)
    scheme = SCHEMES[name]()
    assert np.abs(scheme.dequantize(scheme.quantize(weight)) - weight).max() <= abs(value) * 2**-10


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_numbers_that_cannot_be_quantized_are_refused(name: str, value: float) -> None:
    weight = np.zeros((2, 64), np.float32)
    weight[1, 40] = value
    with pytest.raises(ExportError, match=r"finite|too large"):
        SCHEMES[name]().quantize(weight)


@pytest.mark.parametrize("name", QUANTIZED)
def test_the_function_means_what_numpy_computes(name: str) -> None:
    scheme = SCHEMES[name]()
    parts = scheme.quantize(random_weight())
    function = scheme.function()
    assert function is not None
    names = [part.suffix for part in scheme.parts]
    tensors = []
    for part in scheme.parts:
        array = parts[part.suffix]
        raw = pack_nibbles(array) if part.data_type in FOUR_BIT else array
        tensors.append(helper.make_tensor(part.suffix, part.data_type, array.shape, raw.tobytes(), raw=True))
    node = helper.make_node(function.name, names, ["weight"], domain=DOMAIN)
    output = helper.make_tensor_value_info("weight", TensorProto.FLOAT, ["N", "K"])
    graph = helper.make_graph([node], "scheme", [], [output], tensors)
    model = helper.make_model(
        graph, functions=[function], opset_imports=opset_imports(), ir_version=IR_VERSION
    )
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {})[0], scheme.dequantize(parts))


@given(values=hnp.arrays(np.int8, st.integers(1, 40).map(lambda n: 2 * n), elements=st.integers(-8, 7)))
def test_signed_nibbles_survive_packing(values: np.ndarray) -> None:
    assert np.array_equal(unpack_nibbles(pack_nibbles(values), values.shape, signed=True), values)


@given(values=hnp.arrays(np.uint8, st.integers(1, 40).map(lambda n: 2 * n), elements=st.integers(0, 15)))
def test_unsigned_nibbles_survive_packing(values: np.ndarray) -> None:
    assert np.array_equal(unpack_nibbles(pack_nibbles(values), values.shape, signed=False), values)


def test_packing_is_that_of_onnx() -> None:
    values = np.array([1, -2, 7, -8], np.int8)
    expected = helper.make_tensor("x", TensorProto.INT4, [4], values.tolist())
    assert np.array_equal(onnx.numpy_helper.to_array(expected).astype(np.int8), values)
    packed = helper.make_tensor("x", TensorProto.INT4, [4], pack_nibbles(values).tobytes(), raw=True)
    assert np.array_equal(onnx.numpy_helper.to_array(packed).astype(np.int8), values)
