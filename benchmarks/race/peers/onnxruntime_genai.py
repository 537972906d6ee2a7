"""ONNX Runtime GenAI on the model that its own builder makes of the float weights: int4, blocks of 32."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.race import pins
from benchmarks.race.interface import CachedRunner, Cpu, Entrant, Options, RaceError, Recipe, Runner


class OnnxRuntimeGenai:
    """Symmetric int4 with int8 arithmetic (accuracy level 4), its fastest on CPUs."""

    name: ClassVar[str] = "onnxruntime-genai"

    def entrants(self, cpu: Cpu) -> tuple[Entrant, ...]:
        """One."""
        return (Entrant("ONNX Runtime GenAI int4", self.name, "onnxruntime_genai", "genai-int4", "int4"),)

    def recipe(self, environment: str, cpu: Cpu) -> Recipe:
        """The builder wants torch and transformers, too."""
        others = (pins.ONNX, pins.ONNX_IR, pins.TRANSFORMERS, pins.ACCELERATE)
        return Recipe(environment, ((pins.TORCH,), (pins.ONNXRUNTIME_GENAI, pins.ONNXRUNTIME, *others)))

    def import_packages(self) -> None:
        """The runtime alone."""
        import onnxruntime_genai  # noqa: F401

    def start(self, options: Options) -> Runner:
        """Load the folder."""
        return OnnxRuntimeGenaiRunner(options)


class OnnxRuntimeGenaiRunner(CachedRunner):
    """A generator that is rewound; greedy choice is its own."""

    def __init__(self, options: Options) -> None:
        import onnxruntime_genai as library

        self._library: Any = library
        self._context = options.context
        config = library.Config(str(options.model))
        threads = {"model": {"decoder": {"session_options": {"intra_op_num_threads": options.threads}}}}
        config.overlay(json.dumps(threads))
        self._model = library.Model(config)
        self._generator: Any = None
        self._clear()

    def describe(self) -> dict[str, Any]:
        """Version and the builder's choices."""
        return {
            "version": version("onnxruntime-genai"),
            "weights": "symmetric int4 in blocks of 32, int8 arithmetic",
        }

    def prefill(self, ids: Sequence[int]) -> float:
        """Append and choose."""
        self._clear()
        self._append([ids[0]])
        self._clear()
        return self._append(ids)

    def decode(self, ids: Sequence[int], tokens: int) -> float:
        """`generate_next_token` for each token. The first comes from the context's logits, so it is not timed."""
        self._clear()
        self._append(ids)
        self._generator.generate_next_token()
        start = time.perf_counter()
        for _ in range(tokens):
            self._generator.generate_next_token()
        return 1000 * (time.perf_counter() - start)

    def fill(self, ids: Sequence[int]) -> None:
        """A new sequence."""
        self._clear()
        self._append(ids)

    def append(self, ids: Sequence[int], position: int) -> float:
        """The model computes the logits of all rows, the library hands out the last."""
        return self._append(ids)

    def forget(self, length: int) -> None:
        """Rewind the sequence."""
        self._generator.rewind_to(length)

    def _append(self, ids: Sequence[int]) -> float:
        """Run rows; ms."""
        import numpy as np

        tokens = np.array(ids, np.int32)
        start = time.perf_counter()
        self._generator.append_tokens(tokens)
        return 1000 * (time.perf_counter() - start)

    def _clear(self) -> None:
        parameters = self._library.GeneratorParams(self._model)
        parameters.set_search_options(do_sample=False, max_length=self._context, min_length=self._context)
        self._generator = self._library.Generator(self._model, parameters)


def build_model(source: Path, target: Path) -> None:
    """Run the library's builder on a folder of float weights."""
    options = ["int4_block_size=32", "int4_accuracy_level=4", "int4_is_symmetric=true"]
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(target)]
    command += [
        "-p",
        "int4",
        "-e",
        "cpu",
        "-c",
        str(target.with_suffix(".cache")),
        "--extra_options",
        *options,
    ]
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        raise RaceError(f"the model builder failed with status {done.returncode}")
