"""An ONNX file in ONNX Runtime: one call, and the rows of a cache that are kept of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forerun.errors import BundleError, OptionError, RuntimeFailure, TargetError, UnsupportedModelError
from forerun.runtime.onnx.signatures import Rows, find_signature

# Keys and values of all layers, an OrtValue [.., rows, d] each. No call changes one: sequences may share them.
Past = tuple[Any, ...]

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}


@dataclass(frozen=True)
class CallResult:
    """What one call gave: logits [M, V] float32, the cache with its rows at the end, taps [M, D] float32 by layer."""

    logits: np.ndarray
    present: Past
    taps: dict[int, np.ndarray]


def import_onnxruntime() -> Any:
    """The package onnxruntime; raises `OptionError` saying how to install it."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise OptionError(
            "the target onnxruntime needs the package onnxruntime, which is not installed; run: pip install"
            " forerun[onnxruntime], or pip install onnxruntime-gpu for CUDA"
        ) from error
    return onnxruntime


def provider_name() -> str:
    """What ONNX Runtime will run on here: CUDA where the installed package has it, else the CPU.

    Raises `OptionError` if there is no such package.
    """
    available = import_onnxruntime().get_available_providers()
    return next(name for name in _PROVIDERS if name in available)


_PROVIDERS = {"CUDAExecutionProvider": "cuda", "CPUExecutionProvider": "cpu"}  # → device, best first


class Engine:
    """One file, opened for a number of threads, with an empty past to begin with."""

    def __init__(self, path: Path, threads: int, window: int | None = None) -> None:
        """`window` is how many positions some layers see, for files that are told so by a mask.

        Raises `BundleError` if ONNX Runtime refuses the file, `UnsupportedModelError` for a file that is no decoder
        with a cache, `TargetError` if its device cannot be used.
        """
        self._ort = import_onnxruntime()
        self.version = str(self._ort.__version__)
        self.provider = provider_name()
        self._device = _PROVIDERS[self.provider]
        self._session = self._open(path, threads)
        inputs = {each.name: each for each in self._session.get_inputs()}
        outputs = {each.name: each for each in self._session.get_outputs()}
        self.signature = find_signature(inputs, outputs, window)
        # V where the file says it; it may leave it open.
        size = outputs["logits"].shape[-1]
        self.vocabulary_size: int | None = size if isinstance(size, int) else None
        past = [inputs[name] for name in self.signature.past]
        unknown = {each.type for each in past} - _DTYPES.keys()
        if unknown:
            raise UnsupportedModelError(
                f"the ONNX file's cache is of {', '.join(sorted(unknown))}; known: {', '.join(_DTYPES)}"
            )
        self.dtype = _DTYPES[past[0].type]
        self._shapes = [tuple(each.shape) for each in past]
        if not all(isinstance(size, int) for shape in self._shapes for size in (shape[-3], shape[-1])):
            raise UnsupportedModelError(
                f"the ONNX file leaves the shape of its cache open ({past[0].name}: {past[0].shape}); heads and head"
                " size must be numbers: export it again"
            )
        self._is_batched = len(self._shapes[0]) == 4

    def _open(self, path: Path, threads: int) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Without this, ONNX Runtime rounds activations to int8 when it fuses a dequantized matrix product.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
        providers = [name for name in _PROVIDERS if name in self._ort.get_available_providers()]
        try:
            session = self._ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # the runtime's exception classes are not public
            raise BundleError(f"ONNX Runtime {self.version} cannot run {path}: {error}") from error
        if self.provider not in session.get_providers():
            raise TargetError(
                f"this ONNX Runtime has {self.provider}, which does not start here; install what it needs, or the"
                " package onnxruntime in place of onnxruntime-gpu to run on the CPU"
            )
        return session

    @property
    def layers(self) -> int:
        """L."""
        return len(self._shapes) // 2

    @property
    def kv_heads(self) -> int:
        """K of the first layer."""
        return int(self._shapes[0][-3])

    @property
    def head_dim(self) -> int:
        """d of the first layer."""
        return int(self._shapes[0][-1])

    def empty(self) -> Past:
        """A cache without rows."""
        return tuple(self._stored(np.zeros(self._shape(shape), self.dtype)) for shape in self._shapes)

    def keep(self, past: Past, slots: Sequence[int]) -> Past:
        """The rows of a cache in `slots`, in that order; a copy, on the CPU whatever the device."""
        if len(slots) and slots[-1] == len(slots) - 1:  # slots ascend, so these are the first ones
            return tuple(self._stored(value.numpy()[..., : len(slots), :]) for value in past)
        return tuple(self._stored(value.numpy().take(slots, axis=-2)) for value in past)

    def run(self, rows: Rows, past: Past, taps: Sequence[int] = ()) -> CallResult:
        """One call: M rows after a past of `rows.past_rows`. Raises `RuntimeFailure` if ONNX Runtime fails."""
        signature = self.signature
        binding = self._session.io_binding()
        feeds = signature.feeds(rows)  # a binding points into them
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        for name, value in zip(signature.past, past, strict=True):
            binding.bind_ortvalue_input(name, value)
        small = ["logits", *(signature.taps[layer] for layer in taps)]
        for name in small:
            binding.bind_output(name)
        for name in signature.present:
            binding.bind_output(name, self._device)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # as above
            raise RuntimeFailure(f"ONNX Runtime failed: {error}") from error
        outputs = binding.get_outputs()
        found = [self._without_batch(value.numpy()) for value in outputs[: len(small)]]
        return CallResult(found[0], tuple(outputs[len(small) :]), dict(zip(taps, found[1:], strict=True)))

    def _shape(self, shape: Sequence[Any]) -> tuple[int, ...]:
        """A shape of the file's with no rows."""
        heads, _, size = shape[-3:]
        return (1, heads, 0, size) if self._is_batched else (heads, 0, size)

    def _stored(self, array: np.ndarray) -> Any:
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)

    def _without_batch(self, array: np.ndarray) -> np.ndarray:
        rows: np.ndarray = array[0] if self._is_batched else array
        return rows.astype(np.float32, copy=False)
