"""Plain decoding in WebAssembly (Node) beside x86-64 kernels on as many threads, taking turns in one run.

    python -m benchmarks.web PACKAGE BUNDLE [--threads N]

PACKAGE is written by `forerun package --target wasm32`, BUNDLE by `forerun compile --target x86-64` from the same
export. Prints the median milliseconds of a call of one row for each, and how many times as fast wasm is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from pathlib import Path

import forerun
from forerun.runtime.model import Model

_PROMPT = [{"role": "user", "content": "Explain in a few sentences why the sky is blue."}]
_SCRIPT = """
import { readFileSync } from "node:fs";
const { folder, threads, messages, maxTokens, turns } = JSON.parse(readFileSync(0));
const { Forerun } = await import(`${folder}/forerun.mjs`);
const model = await Forerun.load(folder, { capacity: 512, threads });
for (let turn = 0; turn < turns; turn += 1) {
  const { statistics } = await model.chat(messages, { maxTokens, ignoreEnd: true }).result;
  console.log(statistics.verifyMs / statistics.verifyCalls);
}
model.close();
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    wasm, native = [], []
    with forerun.load(options.bundle, threads=options.threads, context=512) as model:
        for _ in range(options.turns):
            wasm.append(time_in_node(options.package.resolve(), options.threads, options.tokens))
            native.append(time_here(model, options.tokens))
            print(f"wasm32 {wasm[-1]:.2f} ms, native {native[-1]:.2f} ms")
    medians = statistics.median(wasm), statistics.median(native)
    print(f"medians: wasm32 {1000 / medians[0]:.1f} tokens/s, native {1000 / medians[1]:.1f} tokens/s")
    print(f"wasm32 is {medians[1] / medians[0]:.2f} times as fast")


def time_in_node(package: Path, threads: int, tokens: int) -> float:
    """Milliseconds of a call; the second answer of a fresh process, whose code is then optimized."""
    asked = {
        "folder": str(package),
        "threads": threads,
        "messages": _PROMPT,
        "maxTokens": tokens,
        "turns": 2,
    }
    done = subprocess.run(
        ["node", "--input-type=module", "-e", _SCRIPT],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def time_here(model: Model, tokens: int) -> float:
    """Milliseconds of a call."""
    stats = model.generate(_PROMPT, max_tokens=tokens, ignore_end=True).complete().stats
    return stats.verify_ms / stats.verify_calls


if __name__ == "__main__":
    main()
