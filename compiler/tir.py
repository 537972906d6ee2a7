"""The small vocabulary in which kernels are written: fixed-order vector arithmetic over flat buffers.

A kernel is a plain C function over raw pointers. Python loops in a kernel's builder unroll, `writer.loop`
makes a loop. All float arithmetic is spelled out (`multiply_add`, `ordered_sum`): the compiler may neither
fuse nor reorder it, which is what makes the result of a row independent of the tile it was computed in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import op
from tvm.tirx.script.builder import ir as builder

from forerun.targets.target import Arithmetic

# Positions per key block and lanes of every vector: one AVX-512 register of float32. Other targets split
# such a vector into as many registers as they need; the order of the arithmetic stays the same.
LANES = 16

CACHE_LINE = 64  # bytes
_MAGNITUDE = 0x7FFFFFFF  # all bits of a float32 but the sign

# TVM's expressions overload the operators; it ships no types that say so.
Expr: TypeAlias = Any


class Arithmetician(Protocol):
    """How a target computes with float32 numbers or vectors: what elementary functions are made of."""

    def multiply_add(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """Return a·b + c, always rounded in the same way."""
        ...

    def maximum(self, a: Expr, b: Expr) -> Expr:
        """Return the larger of two; undefined where one is NaN."""
        ...

    def minimum(self, a: Expr, b: Expr) -> Expr:
        """Return the smaller of two; undefined where one is NaN."""
        ...

    def round_even(self, value: Expr) -> Expr:
        """Round to the nearest integer, ties to even, as float."""
        ...


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: a pointer to `dtype`, or a scalar of it. `written` if the kernel stores to it."""

    name: str
    dtype: str
    pointer: bool
    written: bool = False


@dataclass(frozen=True)
class Kernel:
    """A kernel and the C signature it is called with: `parameters`, then int32 rows, tid, nthreads."""

    name: str
    function: tirx.PrimFunc
    parameters: tuple[Parameter, ...]


class KernelWriter:
    """The kernel being written: its buffers, its scalars, and the arithmetic its target has."""

    def __init__(self, name: str, arithmetic: Arithmetic, parameters: Sequence[Parameter]) -> None:
        self.name = name
        self.arithmetic = arithmetic
        self.parameters = tuple(parameters)
        self.buffers: tuple[tirx.Buffer, ...] = ()
        self.scalars: tuple[tirx.Var, ...] = ()
        self._builder = IRBuilder()

    def declare(self) -> None:
        """Declare all parameters (TVM wants every one before the first buffer)."""
        variables = [
            builder.arg(p.name, builder.handle(p.dtype) if p.pointer else getattr(builder, p.dtype)())
            for p in self.parameters
        ]
        self.rows, self.tid, self.threads = (
            builder.arg(name, builder.int32()) for name in ("rows", "tid", "nthreads")
        )
        declared = list(zip(self.parameters, variables, strict=True))
        # The extent is never used: indices are explicit. Past 2^31 nothing narrows them to int32.
        self.buffers = tuple(
            builder.decl_buffer((1 << 40,), p.dtype, data=variable) for p, variable in declared if p.pointer
        )
        self.scalars = tuple(variable for p, variable in declared if not p.pointer)

    @property
    def named(self) -> dict[str, tirx.Buffer]:
        """The buffers by parameter name."""
        names = [p.name for p in self.parameters if p.pointer]
        return dict(zip(names, self.buffers, strict=True))

    def multiply_add(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """Return a·b + c: rounded once where the target has the instruction, else twice."""
        if self.arithmetic.fma:
            return op.call_llvm_pure_intrin(dtype_of(a), "llvm.fma", a, b, c)
        return a * b + c

    def to_floats(self, vector: Expr) -> Expr:
        """Return a vector of float16 (or float32, as it is) as float32."""
        if self.arithmetic.converts_half or not dtype_of(vector).startswith("float16"):
            return cast(vector, f"float32x{vector.ty.dtype.lanes}")
        return _half_to_floats(vector)

    def maximum(self, a: Expr, b: Expr) -> Expr:
        """Return the larger of two float32 vectors, lane by lane; undefined where one is NaN."""
        return self._extreme("max", a, b)

    def minimum(self, a: Expr, b: Expr) -> Expr:
        """Return the smaller of two float32 vectors, lane by lane; undefined where one is NaN."""
        return self._extreme("min", a, b)

    def round_even(self, value: Expr) -> Expr:
        """Round to the nearest integer, ties to even, as float."""
        return op.call_llvm_pure_intrin(dtype_of(value), "llvm.rint", value)

    def _extreme(self, which: str, a: Expr, b: Expr) -> Expr:
        name = f"llvm.{which}num" if self.arithmetic.ignores_nan else f"llvm.{which}imum"
        return op.call_llvm_pure_intrin(dtype_of(a), name, a, b)

    def share(self, total: Expr | int) -> tuple[Expr, Expr]:
        """Return this thread's half-open range of `total` items: contiguous, sizes differing by at most one."""
        begin = bind(tirx.floordiv(total * self.tid, self.threads))
        end = bind(tirx.floordiv(total * (self.tid + 1), self.threads))
        return begin, end

    def kernel(self) -> Kernel:
        """Return what was written; call it after the `writing` block."""
        return Kernel(self.name, self._builder.get(), self.parameters)


@contextmanager
def writing(
    name: str,
    arithmetic: Arithmetic,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    scalars: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[KernelWriter]:
    """Open a kernel: parameters are pointers read, pointers written (name → dtype), scalars, rows, tid, nthreads."""
    parameters = [Parameter(key, dtype, pointer=True) for key, dtype in inputs.items()]
    parameters += [Parameter(key, dtype, pointer=True, written=True) for key, dtype in outputs.items()]
    parameters += [Parameter(key, dtype, pointer=False) for key, dtype in scalars.items()]
    writer = KernelWriter(name, arithmetic, parameters)
    with writer._builder, builder.prim_func(s_tir=True):
        builder.func_name(name)
        # calling_conv 1 tells TVM that the function is already in its final form: a plain C function.
        builder.func_attr({"global_symbol": name, "calling_conv": 1, "tirx.noalias": True})
        writer.declare()
        yield writer


def dtype_of(value: Expr) -> str:
    """Return the dtype of an expression as text, e.g. `float32x16`."""
    return str(value.ty.dtype)


def ramp(start: Expr | int, lanes: int = LANES) -> Expr:
    """Return the index of `lanes` consecutive elements."""
    return tirx.Ramp(start, 1, lanes)


def load(buffer: tirx.Buffer, start: Expr | int, lanes: int = LANES) -> Expr:
    """Load `lanes` consecutive elements."""
    return buffer[ramp(start, lanes)]


def store(buffer: tirx.Buffer, value: Expr, start: Expr | int, lanes: int = LANES) -> None:
    """Store a vector of `lanes` elements."""
    builder.buffer_store(buffer, value, [ramp(start, lanes)])


def store_one(buffer: tirx.Buffer, value: Expr, index: Expr | int) -> None:
    """Store one element."""
    builder.buffer_store(buffer, value, [index])


def splat(value: Expr, lanes: int = LANES) -> Expr:
    """Return a vector with `value` in every lane."""
    return tirx.Broadcast(value, lanes)


def join(low: Expr, high: Expr) -> Expr:
    """Return one vector of the lanes of two, those of `low` first."""
    return tirx.Shuffle([low, high], list(range(2 * low.ty.dtype.lanes)))


def part(vector: Expr, start: int, lanes: int) -> Expr:
    """Return `lanes` consecutive lanes of a vector."""
    return tirx.Shuffle([vector], list(range(start, start + lanes)))


def floats(value: float, lanes: int = LANES) -> Expr:
    """Return a vector of a float32 constant."""
    return splat(tirx.const(value, "float32"), lanes)


def like(value: Expr, constant: float) -> Expr:
    """Return a constant of the type of an expression, a number or a vector."""
    dtype = value.ty.dtype
    one = tirx.const(constant, str(dtype).split("x")[0])
    return splat(one, dtype.lanes) if dtype.lanes > 1 else one


def cast(value: Expr, dtype: str) -> Expr:
    """Convert to another element type; `dtype` includes the lanes."""
    return tirx.Cast(dtype, value)


def ordered_sum(vector: Expr) -> Expr:
    """Add up a float32 vector from the first lane to the last."""
    zero = tirx.const(0.0, "float32")
    return op.call_llvm_pure_intrin("float32", "llvm.vector.reduce.fadd", zero, vector)


def lanes_max(vector: Expr) -> Expr:
    """Return the largest lane of a float32x16 vector (exact, so the order does not matter).

    As integers of the same order: LLVM's reduction of floats goes lane by lane and asks of each whether it is a
    number, that of integers halves the vector four times.
    """
    largest = bind(op.call_llvm_pure_intrin("int32", "llvm.vector.reduce.smax", _ordered_bits(vector)))
    negative = op.bitwise_and(
        op.shift_right(largest, tirx.const(31, "int32")), tirx.const(_MAGNITUDE, "int32")
    )
    return op.reinterpret("float32", op.bitwise_xor(largest, negative))


def _ordered_bits(vector: Expr) -> Expr:
    """Return integers that compare like the float32 lanes: the magnitude of negative ones complemented."""
    bits = bind(op.reinterpret("int32x16", vector))
    sign = op.shift_right(bits, splat(tirx.const(31, "int32")))
    return op.bitwise_xor(bits, op.bitwise_and(sign, splat(tirx.const(_MAGNITUDE, "int32"))))


def lanes_add(vector: Expr) -> Expr:
    """Add up an int32 vector (exact)."""
    return op.call_llvm_pure_intrin("int32", "llvm.vector.reduce.add", vector)


def _half_to_floats(vector: Expr) -> Expr:
    """Return a float16 vector as float32: the bits moved to their places, then the difference of the exponents' biases
    made up for. Multiplying by a power of two is exact, also for numbers below the smallest normal float16."""
    lanes = vector.ty.dtype.lanes

    def constant(value: int) -> Expr:
        return splat(tirx.const(value, "int32"), lanes)

    bits = bind(cast(op.reinterpret(f"uint16x{lanes}", vector), f"int32x{lanes}"))
    magnitude = bind(op.bitwise_and(bits, constant(0x7FFF)))
    moved = op.reinterpret(f"float32x{lanes}", op.shift_left(magnitude, constant(13)))
    finite = op.reinterpret(f"int32x{lanes}", bind(moved * floats(2.0**112, lanes)))
    # Infinity and NaN have all bits of the exponent set.
    special = tirx.Select(magnitude > constant(0x7BFF), constant(0x7F800000), constant(0))
    sign = op.shift_left(op.bitwise_and(bits, constant(0x8000)), constant(16))
    return op.reinterpret(f"float32x{lanes}", op.bitwise_or(op.bitwise_or(finite, special), sign))


def absolute(vector: Expr) -> Expr:
    """Return |vector|."""
    return op.call_llvm_pure_intrin(dtype_of(vector), "llvm.fabs", vector)


def square_root(value: Expr) -> Expr:
    """Return the correctly rounded square root."""
    return op.call_llvm_pure_intrin(dtype_of(value), "llvm.sqrt", value)


@contextmanager
def loop(start: Expr | int, stop: Expr | int) -> Iterator[Expr]:
    """A serial loop over [start, stop)."""
    with builder.serial(start, stop) as index:
        yield index


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """Run the block where the condition holds."""
    with builder.If(condition), builder.Then():
        yield


def bind(value: Expr) -> tirx.Var:
    """Compute a value once and name it."""
    return builder.Bind(value)


def instruct(name: str, *operands: Expr) -> None:
    """Run an LLVM intrinsic for its effect."""
    builder.evaluate(op.call_llvm_intrin("void", name, *operands))


def address(buffer: tirx.Buffer, index: Expr | int) -> Expr:
    """Return where an element lies in memory."""
    return op.address_of(buffer[index])


def prefetch(buffer: tirx.Buffer, index: Expr) -> None:
    """Ask for the cache line at `index` for reading; an address past the end is harmless."""
    zero, keep, data = (tirx.const(value, "int32") for value in (0, 3, 1))
    instruct("llvm.prefetch", address(buffer, index), zero, keep, data)


def registers(count: int, dtype: str = "float32") -> tirx.Buffer:
    """Return a small array that LLVM keeps in registers when its indices are constants."""
    return builder.alloc_buffer((count,), dtype)


class Lines:
    """A small array in memory that starts on a cache line, for instructions that take addresses.

    TVM aligns its arrays to 16 bytes at most: this one lies in an array that is longer by a line.
    """

    def __init__(self, count: int, dtype: str) -> None:
        self._ahead = CACHE_LINE * 8 // tirx.const(0, dtype).ty.dtype.bits
        self._room = registers(count + self._ahead, dtype)
        # TVM cuts an array down to what it sees used.
        for index in (0, count + self._ahead - 1):
            store_one(self._room, tirx.const(0, dtype), index)
        self.elements = builder.decl_buffer((count,), dtype, data=bind(self.address()))

    def address(self) -> Expr:
        """Return where it starts. Every instruction that is given it shows TVM that the array is still in use."""
        past = address(self._room, self._ahead)
        return op.call_llvm_pure_intrin(past.ty, "llvm.ptrmask", past, tirx.const(-CACHE_LINE, "int64"))
