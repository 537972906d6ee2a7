"""Tensors outside the ONNX file, written one after the other and read back by name."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto

from forerun.errors import ExportError

# The ONNX specification asks for offsets that can be memory-mapped.
_ALIGNMENT = 4096
_FOUR_BIT = (TensorProto.INT4, TensorProto.UINT4)


class ExternalDataWriter:
    """Appends tensors to an open file and returns the TensorProto that refers to them."""

    def __init__(self, file: BinaryIO, location: str) -> None:
        self._file = file
        self._location = location
        self._end = 0

    @property
    def written_bytes(self) -> int:
        """Size of the data file so far."""
        return self._end

    def add(self, name: str, data_type: int, array: np.ndarray) -> TensorProto:
        """Write `array` (4-bit values one per byte) as `data_type`; raises `OSError` if the disk does."""
        raw = pack_nibbles(array) if data_type in _FOUR_BIT else np.ascontiguousarray(array)
        start = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        self._file.write(b"\0" * (start - self._end))
        self._file.write(raw.data)
        self._end = start + raw.nbytes
        tensor = TensorProto(
            name=name, data_type=data_type, dims=array.shape, data_location=TensorProto.EXTERNAL
        )
        for key, value in (("location", self._location), ("offset", start), ("length", raw.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor


def read_external(folder: Path, tensor: TensorProto) -> np.ndarray:
    """The values of an external tensor, 4-bit values one per byte (int8 or uint8), in the tensor's shape.

    Raises `ExportError` if the data file is missing or too short.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    try:
        path, offset, length = folder / entries["location"], int(entries["offset"]), int(entries["length"])
        raw = np.fromfile(path, np.uint8, count=length, offset=offset)
    except (KeyError, ValueError, OSError) as error:
        raise ExportError(f"{folder}: data of tensor {tensor.name} cannot be read: {error}") from error
    if raw.nbytes != length:
        raise ExportError(f"{path} is truncated: tensor {tensor.name} needs {length} bytes at {offset}")
    shape = tuple(tensor.dims)
    if tensor.data_type in _FOUR_BIT:
        return unpack_nibbles(raw, shape, signed=tensor.data_type == TensorProto.INT4)
    values: np.ndarray = raw.view(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    return values.reshape(shape)


def pack_nibbles(values: np.ndarray) -> np.ndarray:
    """Integers in -8 … 15, any shape with an even count → uint8, first of each pair in the low nibble
    (ONNX).
    """
    flat = values.reshape(-1).view(np.uint8) & 15
    assert flat.size % 2 == 0, "4-bit tensors have a multiple of 32 values"
    packed: np.ndarray = flat[0::2] | (flat[1::2] << 4)
    return packed


def unpack_nibbles(packed: np.ndarray, shape: tuple[int, ...], signed: bool) -> np.ndarray:
    """The reverse of `pack_nibbles`: int8 in -8 … 7 if signed, else uint8 in 0 … 15."""
    values = np.stack([packed & 15, packed >> 4], axis=-1).reshape(shape)
    return ((values ^ 8).view(np.int8) - np.int8(8)) if signed else values
