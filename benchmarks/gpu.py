"""What a device reaches: `python -m benchmarks.gpu --target cuda-sm_90`, one table in one run.

For models of well-known shapes with random weights of 4 bits: the bytes of weights that decoding reads a second, as a
part of what the device copies (a copied byte is read and written); calls of several rows against calls of one; the
processor's time a token. For CUDA, also the time of a step of the same shape in bfloat16, compiled by torch, and in
float16 by ONNX Runtime, where those have CUDA (the package onnxruntime-gpu). Calls take turns; what is reported are
medians. A device that the processor plays (PoCL, lavapipe) is measured like any other, and its figures say nothing of
GPUs: the device's name is in the table.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

import forerun
from benchmarks import memory
from benchmarks.onnx_decoder import onnxruntime_ms
from benchmarks.random_models import SHAPES, Shape, make_bundle
from forerun.errors import ForerunError, RuntimeFailure
from forerun.runtime.library import check, load_library
from forerun.runtime.session import LoadedProgram, Session
from forerun.targets import ALL_DEVICES

ALL_SHAPES = {shape.name: shape for shape in SHAPES} | memory.SHAPES
CONTEXT = 128  # positions before the measured rows
COPIED_BYTES = 64 << 20
ROWS = (1, 2, 4, 8, 16, 32, 64)
CUDA_BLOCKING_SYNC = 4  # CU_CTX_SCHED_BLOCKING_SYNC


@dataclass(frozen=True)
class Measured:
    """One shape on one device. Times in milliseconds: of calls by their rows, of others' steps; 0: not measured."""

    shape: str
    device: str
    weights_bytes: int
    copy_gb_per_s: float
    call_ms: dict[int, float]
    processor_ms: float
    torch_ms: float
    onnxruntime_ms: float

    def lines(self) -> list[str]:
        """Return rows of a Markdown table: what, measured."""
        one = self.call_ms[1]
        read = self.weights_bytes / one / 1e6
        rows = [
            (f"{self.shape} on {self.device}: decode", f"{1000 / one:.1f} tokens/s"),
            ("weight bytes a second", f"{read:.1f} GB/s, {read / self.copy_gb_per_s:.0%} of a device copy"),
            *((f"T({n})/T(1)", f"{ms / one:.2f}") for n, ms in self.call_ms.items() if n > 1),
            ("processor time a token", f"{1000 * self.processor_ms:.0f} µs"),
        ]
        if self.torch_ms:
            rows.append(("against torch, bfloat16, compiled", f"{self.torch_ms / one:.2f}×"))
        if self.onnxruntime_ms:
            rows.append(("against ONNX Runtime, float16", f"{self.onnxruntime_ms / one:.2f}×"))
        return [f"| {what} | {value} |" for what, value in rows]


def measure(shape: Shape, bundle: Path, target: str, repetitions: int) -> Measured:
    """Measure one bundle."""
    with (
        LoadedProgram(bundle, target) as program,
        Session(program, capacity=CONTEXT + 2 * max(ROWS)) as session,
    ):
        sequence = session.create_sequence()
        rows = list(session.stage(sequence, [1] * CONTEXT))
        session.forward([(sequence, row) for row in rows], logits=())
        session.commit(sequence, rows)
        taken: dict[int, list[float]] = {count: [] for count in ROWS}
        copies: list[float] = []
        for _ in range(repetitions + 1):
            copies.append(copy_gb_per_s(session))
            for count in ROWS:
                taken[count].append(call_ms(session, sequence, count))
        # The first of each warmed up.
        medians = {count: statistics.median(times[1:]) for count, times in taken.items()}
        device = program.device
        copied = statistics.median(copies[1:])
    is_cuda = target.startswith("cuda")
    return Measured(
        shape.name,
        device,
        (bundle / "weights.bin").stat().st_size,
        copied,
        medians,
        processor_ms(bundle, target),
        others_ms("torch", lambda: torch_ms(shape, repetitions))
        if is_cuda and torch.cuda.is_available()
        else 0.0,
        others_ms("ONNX Runtime", lambda: onnxruntime_ms(shape, repetitions, CONTEXT)) if is_cuda else 0.0,
    )


def others_ms(name: str, step_ms: Callable[[], float]) -> float:
    """Return what was measured of others, or 0: their failure is told, and takes nothing of ours along."""
    try:
        return step_ms()
    except Exception as error:  # of whatever class theirs are
        print(f"{name}: {error}", file=sys.stderr)
        return 0.0


def copy_gb_per_s(session: Session) -> float:
    """Return bytes read and written a second by a copy on the device."""
    found = (ctypes.c_uint64 * 3)()
    check(load_library().forerun_measure_device_copy(session.pointer, COPIED_BYTES, len(found), found))
    return 2.0 * COPIED_BYTES / min(int(ns) for ns in found)


def call_ms(session: Session, sequence: int, count: int) -> float:
    """Return the time of a call of `count` rows in a chain, all of which may be drawn from."""
    rows = list(session.stage(sequence, [1] * count))
    result = session.forward([(sequence, row) for row in rows], draws=True)
    session.commit(sequence, [])
    return float(result.elapsed_ms)


def processor_ms(bundle: Path, target: str, tokens: int = 64) -> float:
    """Return the processor's time a token of plain decoding, without the prompt's."""
    waits = sleeping_cuda() if target.startswith("cuda") else nullcontext()
    with waits, forerun.load(bundle, target=target, context=2 * tokens) as model:
        answer = model.generate([1, 2, 3], max_tokens=tokens, ignore_end=True)
        next(answer)
        begin = time.process_time()
        for _ in answer:
            pass
        return 1000 * (time.process_time() - begin) / (tokens - 1)


@contextmanager
def sleeping_cuda() -> Iterator[None]:
    """Have CUDA's driver sleep while it waits, where it would spin: that is no work, and would be counted as such."""
    driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    succeed(driver.cuInit(0))
    succeed(driver.cuDeviceGetCount(ctypes.byref(count)))

    def set_flags(flags: int) -> None:
        for number in range(count.value):
            succeed(driver.cuDevicePrimaryCtxSetFlags_v2(number, flags))

    set_flags(CUDA_BLOCKING_SYNC)
    try:
        yield
    finally:
        set_flags(0)


def succeed(code: int) -> None:
    """Raise `RuntimeFailure` for a code of CUDA's driver other than 0."""
    if code:
        raise RuntimeFailure(f"CUDA's driver fails with code {code}")


def torch_ms(shape: Shape, repetitions: int, device: str = "cuda") -> float:
    """Return the time of torch's compiled step of one token after `CONTEXT`, in bfloat16, with a static cache."""
    from transformers import AutoConfig, AutoModelForCausalLM, StaticCache

    config = AutoConfig.for_model(**shape.config())
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
        cache = StaticCache(config=config, max_cache_len=CONTEXT + 64)
    step = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True)
    token = torch.ones((1, 1), dtype=torch.long, device=device)
    times = []
    with torch.inference_mode():
        model(torch.ones((1, CONTEXT), dtype=torch.long, device=device), past_key_values=cache)
        for i in range(repetitions + 5):  # the first ones compile and record
            place = torch.tensor([CONTEXT + i], device=device)
            synchronize(device)
            begin = time.perf_counter()
            step(token, past_key_values=cache, cache_position=place)
            synchronize(device)
            times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times[5:])


def synchronize(device: str) -> None:
    """Wait for torch's device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--target", required=True, choices=[target.name for target in ALL_DEVICES])
    parser.add_argument(
        "--shape",
        action="append",
        choices=ALL_SHAPES,
        help="may be repeated (default: TinyLlama-1.1B, Mistral-7B)",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("build/gpu"), help="for bundles (default build/gpu)"
    )
    parser.add_argument("--repetitions", type=int, default=15, help="default 15")
    arguments = parser.parse_args(given)
    print("| what | measured |\n|---|---|")
    for name in arguments.shape or ("TinyLlama-1.1B", "Mistral-7B"):
        shape = ALL_SHAPES[name]
        try:
            bundle = make_bundle(shape, arguments.folder, target=arguments.target)
            found = measure(shape, bundle, arguments.target, arguments.repetitions)
        except ForerunError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print("\n".join(found.lines()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
