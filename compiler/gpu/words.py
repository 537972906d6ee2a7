"""What kernels of a device exchange in one array, as devices give a kernel few: quantized rows, and the row table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.gpu.writer import GpuWriter
from forerun.compiler.schedules.plan import Argument, Field, Input, Output
from forerun.compiler.tir import Expr
from forerun.compiler.vector_math import GROUP, HALF

# The numbers of a row in the table, by their names in the call: int32 [rows, 5].
ROW_FIELDS = ("token_ids", "positions", "sequences", "slots", "gather_start")


def row_field(writer: GpuWriter, name: str, row: Expr) -> Expr:
    """Return a number of a row of the call."""
    return tir.bind(writer.named["row_table"][row * len(ROW_FIELDS) + ROW_FIELDS.index(name)])


@dataclass(frozen=True)
class QuantizedWords:
    """Quantized rows of so many columns, each of `row_words` words that hold one after the other: values and low
    bytes, four in a word; for every 16 columns scale, sum and wide_sum, for every 32 scaled_sum. See
    `vector_math.QuantizedRows` for what they are.
    """

    columns: int

    @property
    def row_words(self) -> int:
        """Words of a row."""
        return self._starts["end"]

    @property
    def _starts(self) -> dict[str, int]:
        sizes = {"values": 4, "low": 4, "scale": HALF, "sum": HALF, "wide_sum": HALF, "scaled_sum": GROUP}
        starts, start = {}, 0
        for name, columns in sizes.items():
            starts[name] = start
            start += self.columns // columns
        return starts | {"end": start}

    def place(self, part: str, row: Expr, index: Expr | int) -> Expr:
        """Return the word of number `index` of a row's part."""
        return row * self.row_words + self._starts[part] + index

    def load(self, words: tirx.Buffer, part: str, row: Expr, index: Expr | int) -> Expr:
        """Return a number of a part in its own type; of values and low a word of four."""
        word = tir.bind(words[self.place(part, row, index)])
        if part in ("values", "low"):
            return word
        if part in ("scale", "scaled_sum"):
            return op.reinterpret("float32", word)
        return tir.cast(word, "int32")

    def store(self, words: tirx.Buffer, part: str, row: Expr, index: Expr | int, value: Expr) -> None:
        """Write a number of a part, of values and low a word of four."""
        if part in ("scale", "scaled_sum"):
            value = op.reinterpret("uint32", value)
        elif part in ("sum", "wide_sum"):
            value = tir.cast(value, "uint32")
        tir.store_one(words, value, self.place(part, row, index))


def joined(arguments: Iterable[Argument]) -> tuple[Argument, ...]:
    """Return a CPU kernel's arguments with quantized parts and numbers of rows as the one array that holds them."""
    found: dict[Argument, None] = {}
    for argument in arguments:
        if isinstance(argument, Input) and argument.part != "values":
            found[Input(argument.index)] = None
        elif isinstance(argument, Output):
            found[Output()] = None
        elif isinstance(argument, Field) and argument.name in ROW_FIELDS:
            found[Field("row_table")] = None
        else:
            found[argument] = None
    return tuple(found)
