"""The gguf library's reader, with arrays of metadata read at once.

The library reads them element by element, each through several views of the mapped file: a vocabulary of 262,144
tokens takes it half a minute.
"""

from typing import Literal

import numpy as np
from gguf import GGUFReader
from gguf.constants import GGUFEndian, GGUFValueType

FieldParts = tuple[int, list[np.ndarray], list[int], list[GGUFValueType]]


class Reader(GGUFReader):
    """Fields have the same contents; an array of numbers is one part instead of one for each."""

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> FieldParts:
        if raw_type != GGUFValueType.ARRAY:
            parts: FieldParts = super()._get_field_parts(orig_offs, raw_type)
            return parts
        kind = GGUFValueType(int(self._get(orig_offs, np.uint32)[0]))
        count = int(self._get(orig_offs + 4, np.uint64)[0])
        start = orig_offs + 12
        types = [GGUFValueType.ARRAY, kind] if count else [GGUFValueType.ARRAY]
        head = [self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)]
        number = self.gguf_scalar_to_np.get(kind)
        if number is not None:
            array = self._get(start, number, count)
            if len(array) != count:
                raise ValueError(f"an array of {count} numbers ends early")
            return 12 + array.nbytes, [*head, array], [2], types
        if kind != GGUFValueType.STRING:
            raise ValueError(f"an array holds {kind.name}, which is not read")
        texts = self._texts(start, count)
        size = 12 + sum(8 + text.nbytes for text in texts)
        return size, [*head, *texts], [*range(2, 2 + count)], types

    def _texts(self, start: int, count: int) -> list[np.ndarray]:
        """So many texts, each behind its length in 8 bytes."""
        data = np.asarray(self.data)
        order: Literal["little", "big"] = "little" if self.endianess == GGUFEndian.LITTLE else "big"
        texts, at = [], start
        for _ in range(count):
            end = at + 8 + int.from_bytes(data[at : at + 8].tobytes(), order)
            if end > len(data):
                raise ValueError(f"an array of {count} texts ends early")
            texts.append(data[at + 8 : end])
            at = end
        return texts
