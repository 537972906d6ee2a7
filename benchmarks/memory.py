"""Time and peak memory of `forerun export` and `forerun compile` for a model of a well-known shape.

`python -m benchmarks.memory [--shape NAME]`. Weights are random, in bfloat16, in shards of a gigabyte: they cost what
real ones of that shape do. Peak memory is the resident set of each command's process, with what it maps of its files.
The bundle has to give the same ids with every drafter as without, greedy and sampled.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

import forerun
from benchmarks.random_models import Shape, write_model
from forerun.runtime.model import Model

SHAPES = {
    shape.name: shape
    for shape in (
        Shape("Qwen2-1.5B", 28, 1536, 12, 2, 8960, 151936, True, "qwen2"),
        Shape("Qwen2-0.5B", 24, 896, 14, 2, 4864, 151936, True, "qwen2"),
        Shape("Qwen3-0.6B", 28, 1024, 16, 8, 3072, 151936, True, "qwen3", 128),
        Shape(
            "Mistral-7B", 32, 4096, 32, 8, 14336, 32000, False, "mistral", settings={"sliding_window": 4096}
        ),
        Shape("Phi-3-mini", 32, 3072, 32, 32, 8192, 32064, False, "phi3", settings={"sliding_window": 2047}),
        Shape("SmolLM3-3B", 36, 2048, 16, 4, 11008, 128256, True, "smollm3"),
        Shape(
            "Granite-3.3-2B",
            40,
            2048,
            32,
            8,
            8192,
            49159,
            True,
            "granite",
            settings={
                "embedding_multiplier": 12.0,
                "attention_multiplier": 0.015625,
                "residual_multiplier": 0.22,
                "logits_scaling": 8.0,
            },
        ),
    )
}
TOKENS = 8
PROMPT = "one two three, one two three, one two"


@dataclass(frozen=True)
class Cost:
    """What one command took."""

    name: str
    seconds: float
    peak_bytes: int


def bound_bytes(shape: Shape) -> float:
    """What may be used: one and a half times the larger of head and layer in float32, and a gigabyte."""
    head = shape.vocabulary_size * shape.hidden_size
    head_dim = shape.head_dim or shape.hidden_size // shape.heads
    attention = 2 * shape.hidden_size * head_dim * (shape.heads + shape.kv_heads)
    layer = attention + 3 * shape.hidden_size * shape.feed_forward_size
    return 1.5 * 4 * max(head, layer) + 1e9


def run(name: str, arguments: Sequence[str]) -> Cost:
    """Run a verb of forerun; raises `CalledProcessError` if it fails."""
    command = [sys.executable, "-m", "forerun", *arguments]
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, peak_bytes(process.pid))
        time.sleep(0.02)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(name, time.perf_counter() - started, peak)


def peak_bytes(pid: int) -> int:
    """The largest resident set that a process has had, 0 once it is gone.

    Not `ru_maxrss`: a process that was forked from a larger one begins with that one's peak.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else 0


def answer(model: Model, drafter: str, temperature: float) -> list[int]:
    """The ids of an answer to a prompt that repeats itself."""
    generation = model.generate(
        PROMPT,
        drafter=drafter,
        temperature=temperature,
        seed=1,
        max_tokens=3 * TOKENS,
        ignore_end=True,
        raw=True,
    )
    return generation.complete().ids


def check_ids(bundle: Path, layers: int) -> None:
    """Compare the ids of drafted answers with the plain ones; raises `ValueError` if any differ."""
    drafters = ("lookup:min_ngram=1", "auto", f"self:layers={layers - 4},tokens=3", "self:skip=a1+f0+a3")
    with forerun.load(bundle, context=512) as model:
        for drafter, temperature in product(drafters, (0.0, 0.8)):
            plain, drafted = answer(model, "none", temperature), answer(model, drafter, temperature)
            if drafted != plain:
                raise ValueError(f"{drafter} gives {drafted}, plain decoding {plain}")
            print(f"{drafter}, temperature {temperature}: the same {len(plain)} ids as plain decoding")


def main() -> None:
    """Write the model, export, compile and run it, and print what each took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="Qwen2-1.5B", help="default Qwen2-1.5B")
    parser.add_argument("--folder", type=Path, default=Path("build/memory"), help="where all is written")
    parser.add_argument("--quant", default="q4", help="quantization (default q4)")
    parser.add_argument(
        "--keep", action="store_true", help="leave the folder there, and take its model again"
    )
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    model, export, bundle = (arguments.folder / name for name in ("model", "export", "bundle"))
    if not (model / "config.json").exists():
        write_model(shape, model, dtype=torch.bfloat16, shard_bytes=1 << 30)
    costs = [
        run("export", ["export", str(model), "-o", str(export), "--quant", arguments.quant]),
        run("compile", ["compile", str(export), "-o", str(bundle)]),
        run("run", ["run", str(bundle), "-p", "Hello", "--max-tokens", str(TOKENS), "--context", "512"]),
    ]
    print(
        f"{shape.name}, random weights, --quant {arguments.quant}; at most {bound_bytes(shape) / 1e9:.2f} GB"
    )
    for cost in costs:
        print(f"{cost.name}: {cost.seconds:.1f} s, {cost.peak_bytes / 1e9:.2f} GB")
    check_ids(bundle, shape.layers)
    if not arguments.keep:
        shutil.rmtree(arguments.folder)


if __name__ == "__main__":
    main()
