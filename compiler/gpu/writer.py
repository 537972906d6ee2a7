"""The vocabulary of kernels for devices: workgroups of threads that share memory, and 32-bit words.

WebGPU has no smaller element than 32 bits, so arrays of bytes and half floats are words here, on every device. As on
the CPU all float arithmetic is spelled out. Sources are compiled without contraction, and a row's arithmetic is the
same in any tile of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import op
from tvm.tirx.script.builder import ir as builder

from forerun.compiler import tir
from forerun.compiler.tir import LANES, Expr, Kernel, Parameter
from forerun.targets.gpu import GpuArithmetic

# What arrays of smaller elements are on a device.
_WORDS = MappingProxyType({"int8": "uint32", "uint8": "uint32", "float16": "uint32"})


@dataclass(frozen=True)
class Grid:
    """Workgroups of a launch: `columns` along x, or as many as the scalar of that name says, `each` times; along y one
    for each `rows` rows of the call, begun ones included; 0: one in all."""

    columns: int | str
    rows: int
    each: int = 1

    def size(self, rows: int, scalars: Mapping[str, int]) -> tuple[int, int]:
        """Return the workgroups along x and y for a call of `rows` rows with those scalars."""
        columns = scalars[self.columns] if isinstance(self.columns, str) else self.columns
        return columns * self.each, -(-rows // self.rows) if self.rows else 1


@dataclass(frozen=True)
class GpuKernel(Kernel):
    """A kernel with `threads` in a workgroup, and the grid of those. Its last parameter is int32 rows.

    `images` are those of its parameters that it reads as images of words.
    """

    threads: int
    grid: Grid
    images: tuple[str, ...] = ()


class GpuWriter:
    """The kernel being written: its buffers, its place in the grid, and the arithmetic of its device."""

    def __init__(self, arithmetic: GpuArithmetic, threads: int) -> None:
        self.arithmetic = arithmetic
        self.threads = threads
        self.named: dict[str, tirx.Buffer] = {}
        self.scalars: dict[str, tirx.Var] = {}
        # Rows of the call; this workgroup's place in the grid, and the thread's in the workgroup.
        self.rows: Expr
        self.x: Expr
        self.y: Expr
        self.thread: Expr

    def multiply_add(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """Return a·b + c, rounded once."""
        return op.call_pure_extern("float32", "fma", a, b, c)

    def maximum(self, a: Expr, b: Expr) -> Expr:
        """Return the larger of two; undefined where one is NaN."""
        return op.max(a, b)

    def minimum(self, a: Expr, b: Expr) -> Expr:
        """Return the smaller of two; undefined where one is NaN."""
        return op.min(a, b)

    def round_even(self, value: Expr) -> Expr:
        """Round to the nearest integer, ties to even, as float."""
        return op.call_pure_extern("float32", self.arithmetic.round_even, value)

    def square_root(self, value: Expr) -> Expr:
        """Return the square root as the device has it."""
        return op.call_pure_extern("float32", "sqrt", value)

    def add_products(self, a: Expr, b: Expr, total: Expr) -> Expr:
        """Return int32 `total` plus the products of four signed bytes in each of two uint32 words."""
        name = self.arithmetic.dot
        if name and self.arithmetic.dot_adds:
            words = (tir.cast(word, "int32") for word in (a, b))
            return tir.bind(op.call_pure_extern("int32", name, *words, total))
        if name:
            return tir.bind(total + op.call_pure_extern("int32", name, a, b))
        for byte in range(4):
            total = total + signed_byte(a, byte) * signed_byte(b, byte)
        return tir.bind(total)

    def load_half(self, name: str, index: Expr) -> Expr:
        """Return element `index` of an array of half floats, two in a word."""
        buffer = self.named[name]
        if self.arithmetic.half_at:
            return op.call_pure_extern("float32", self.arithmetic.half_at, buffer.data, index)
        odd = op.bitwise_and(index, tirx.const(1, "int32"))
        return self._half(buffer[op.shift_right(index, tirx.const(1, "int32"))], odd * 16)

    def load_halves(self, buffer: tirx.Buffer, place: Expr) -> tuple[Expr, Expr]:
        """Return both half floats of a word of an array."""
        if name := self.arithmetic.half_at:
            low, high = (op.call_pure_extern("float32", name, buffer.data, place * 2 + i) for i in range(2))
        else:
            word = tir.bind(buffer[place])
            low, high = (self._half(word, at) for at in (0, 16))
        return tir.bind(low), tir.bind(high)

    def _half(self, word: Expr, at: Expr | int) -> Expr:
        """Return the half float whose bits begin at `at` in a word."""
        bits, name = tir.bind(bits_of(word, at, 16)), self.arithmetic.half
        return op.call_pure_extern("float32", name, bits) if name else half_to_float(bits)

    def shared(self, count: int, dtype: str = "float32") -> tirx.Buffer:
        """Return an array that the threads of a workgroup share."""
        return builder.alloc_buffer((count,), dtype, scope="shared")

    def own(self, count: int, dtype: str = "float32") -> tirx.Buffer:
        """Return a small array of each thread's own."""
        return builder.alloc_buffer((count,), dtype, scope="local")

    def meet(self) -> None:
        """Wait until all threads of the workgroup are here and see what the others have shared."""
        builder.evaluate(op.tvm_storage_sync("shared"))

    @contextmanager
    def items(self, count: int | Expr) -> Iterator[Expr]:
        """Deal items 0 … count-1 out to the threads of the workgroup, one each in turn."""
        rounds = tirx.floordiv(count + (self.threads - 1), self.threads)
        with ExitStack() as stack:
            index = stack.enter_context(tir.loop(0, rounds)) if rounds != 1 else 0
            item = tir.bind(index * self.threads + self.thread)
            if not (isinstance(count, int) and count % self.threads == 0):
                stack.enter_context(tir.when(item < count))
            yield item

    def sum_of(self, value: Expr, sums: tirx.Buffer | None = None) -> Expr:
        """Return the sum over the workgroup's threads, which are 16 or a power of two times as many.

        Added are pairs half a workgroup apart, then pairs of those a quarter apart … The threads meet twice: 16 of them
        add up what is 16 apart, then each thread adds up those 16 for itself, which takes less time than meeting as
        often as there are pairs of pairs. `sums` is shared memory with a number for each thread, which has to be done
        with before the threads go on to write to it; by default the sum's own.
        """
        sums = self.shared(self.threads) if sums is None else sums
        tir.store_one(sums, value, self.thread)
        self.meet()
        if self.threads > LANES:
            with tir.when(self.thread < LANES):
                apart = [sums[self.thread + first] for first in range(0, self.threads, LANES)]
                tir.store_one(sums, sum_of_pairs(apart), self.thread)
            self.meet()
        if self.arithmetic.total and sums.dtype == "float32":
            return tir.bind(op.call_extern("float32", self.arithmetic.total, sums.data))
        return sum_of_pairs([sums[i] for i in range(LANES)])


@contextmanager
def writing(
    name: str,
    arithmetic: GpuArithmetic,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    scalars: Mapping[str, str],
    *,
    threads: int,
    grid: Grid,
) -> Iterator[tuple[GpuWriter, list[GpuKernel]]]:
    """Open a kernel: pointers read, pointers written (name → dtype), scalars, rows. The list gets it at the end."""
    parameters = [Parameter(key, _WORDS.get(dtype, dtype), pointer=True) for key, dtype in inputs.items()]
    parameters += [
        Parameter(key, _WORDS.get(dtype, dtype), pointer=True, written=True) for key, dtype in outputs.items()
    ]
    parameters += [Parameter(key, "int32", pointer=False) for key in scalars]
    writer, frames = GpuWriter(arithmetic, threads), IRBuilder()
    done: list[GpuKernel] = []
    with frames, builder.prim_func(s_tir=True):
        builder.func_name(name)
        builder.func_attr({"global_symbol": name, "tirx.noalias": True})
        _declare(writer, parameters)
        columns = writer.scalars[grid.columns] if isinstance(grid.columns, str) else grid.columns
        tiles = tirx.floordiv(writer.rows + (grid.rows - 1), grid.rows) if grid.rows else 1
        with (
            builder.launch_thread("blockIdx.x", columns * grid.each) as writer.x,
            builder.launch_thread("blockIdx.y", tiles) as writer.y,
            builder.launch_thread("threadIdx.x", threads) as writer.thread,
        ):
            yield writer, done
    images = tuple(key for key, dtype in inputs.items() if dtype == "uint8") if arithmetic.texel else ()
    done.append(GpuKernel(name, frames.get(), tuple(parameters), threads, grid, images))


def _declare(writer: GpuWriter, parameters: list[Parameter]) -> None:
    """Declare all parameters (TVM wants every one before the first buffer)."""
    variables = {
        p.name: builder.arg(p.name, builder.handle(p.dtype) if p.pointer else builder.int32())
        for p in parameters
    }
    writer.rows = builder.arg("rows", builder.int32())
    for p in parameters:
        if p.pointer:
            # The extent is never used; one that 32 bits hold keeps indices at 32 bits, all that WebGPU has.
            buffer = builder.decl_buffer((1 << 30,), p.dtype, data=variables[p.name])
            writer.named[p.name] = IRBuilder.name(p.name, buffer)
        else:
            writer.scalars[p.name] = variables[p.name]


def sum_of_pairs(values: list[Expr]) -> Expr:
    """Return the sum of a power of two of numbers: of pairs half the list apart, then of pairs of those …"""
    values = [tir.bind(value) for value in values]
    while len(values) > 1:
        half = len(values) // 2
        values = [tir.bind(a + b) for a, b in zip(values[:half], values[half:], strict=True)]
    return values[0]


def unsigned(value: int) -> Expr:
    """Return a uint32 constant."""
    return tirx.const(value, "uint32")


def bits_of(word: Expr, shift: int | Expr, count: int) -> Expr:
    """Return some bits of a uint32 word."""
    shift = unsigned(shift) if isinstance(shift, int) else tir.cast(shift, "uint32")
    return op.bitwise_and(op.shift_right(word, shift), unsigned((1 << count) - 1))


def signed_byte(word: Expr, byte: int) -> Expr:
    """Return a byte of a uint32 word as int32, its sign extended."""
    left = op.shift_left(tir.cast(word, "int32"), tirx.const(24 - 8 * byte, "int32"))
    return op.shift_right(left, tirx.const(24, "int32"))


def word_of(values: list[Expr]) -> Expr:
    """Return int32 values of a byte each as one uint32 word, the first lowest."""
    parts = [
        op.shift_left(op.bitwise_and(tir.cast(value, "uint32"), unsigned(255)), unsigned(8 * byte))
        for byte, value in enumerate(values)
    ]
    word = parts[0]
    for part in parts[1:]:
        word = op.bitwise_or(word, part)
    return word


def half_to_float(bits: Expr) -> Expr:
    """Return the float32 number of a half float's bits (uint32). Exact, and no step has a subnormal float32."""
    magnitude = tir.bind(op.bitwise_and(bits, unsigned(0x7FFF)))
    # The exponent's bias made up for; infinity and NaN have all bits of it set.
    normal = op.shift_left(magnitude, unsigned(13)) + unsigned(0x38000000)
    special = op.bitwise_or(op.shift_left(magnitude, unsigned(13)), unsigned(0x7F800000))
    large = op.reinterpret("float32", tir.bind(tirx.Select(magnitude > unsigned(0x7BFF), special, normal)))
    small = tir.cast(magnitude, "float32") * tirx.const(2.0**-24, "float32")
    value = tir.bind(tirx.Select(magnitude < unsigned(0x0400), small, large))
    sign = op.shift_left(op.bitwise_and(bits, unsigned(0x8000)), unsigned(16))
    return op.reinterpret("float32", tir.bind(op.bitwise_or(op.reinterpret("uint32", value), sign)))


def float_to_half(value: Expr) -> Expr:
    """Return the bits (uint32) of the half float nearest to a float32 number, ties to even."""
    bits = tir.bind(op.reinterpret("uint32", value))
    magnitude = tir.bind(op.bitwise_and(bits, unsigned(0x7FFFFFFF)))
    odd = op.bitwise_and(op.shift_right(magnitude, unsigned(13)), unsigned(1))
    rounded = op.shift_right(magnitude + unsigned(0xFFF) + odd, unsigned(13)) - unsigned(112 << 10)
    normal = op.min(rounded, unsigned(0x7C00))
    # Adding a half leaves the multiple of 2^-24 nearest to the value in the low bits.
    shifted = tir.bind(op.reinterpret("float32", magnitude) + tirx.const(0.5, "float32"))
    small = op.reinterpret("uint32", shifted) - unsigned(0x3F000000)
    finite = tirx.Select(magnitude < unsigned(0x38800000), small, normal)
    half = tirx.Select(magnitude > unsigned(0x7F800000), unsigned(0x7E00), finite)
    return op.bitwise_or(half, bits_of(bits, 31, 1) * unsigned(0x8000))
