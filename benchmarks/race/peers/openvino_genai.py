"""OpenVINO GenAI, which reads GGUF files itself."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, ClassVar

from benchmarks.race import pins
from benchmarks.race.interface import Cpu, Entrant, Options, Recipe, Runner


class OpenvinoGenai:
    """From the file's own Q4_1 blocks, and from Q4_0."""

    name: ClassVar[str] = "openvino-genai"

    def entrants(self, cpu: Cpu) -> tuple[Entrant, ...]:
        """One for each file."""
        return tuple(
            Entrant(f"OpenVINO GenAI {source}", self.name, "openvino_genai", f"gguf-{source}", source)
            for source in ("Q4_1", "Q4_0")
        )

    def recipe(self, environment: str, cpu: Cpu) -> Recipe:
        """Its wheel; numpy carries the ids."""
        return Recipe(environment, ((pins.OPENVINO, pins.OPENVINO_GENAI, "numpy"),))

    def import_packages(self) -> None:
        """The pipeline."""
        import openvino_genai  # noqa: F401

    def start(self, options: Options) -> Runner:
        """Read the file and compile it."""
        return OpenvinoGenaiRunner(options)


class OpenvinoGenaiRunner(Runner):
    """`LLMPipeline` on token ids, without its continuous batching, timed by its own metrics."""

    def __init__(self, options: Options) -> None:
        import openvino_genai as library

        self._library: Any = library
        # Its fastest on a small machine: tried with its other attention and with its threads pinned to cores.
        chosen = {"ATTENTION_BACKEND": "SDPA", "ENABLE_CPU_PINNING": False}
        self._pipeline = library.LLMPipeline(
            str(options.model), "CPU", INFERENCE_NUM_THREADS=options.threads, **chosen
        )

    def describe(self) -> dict[str, Any]:
        """Versions."""
        return {"version": version("openvino-genai"), "attention": "SDPA, threads not pinned"}

    def prefill(self, ids: Sequence[int]) -> float:
        """Its time to the first token."""
        self._generate(ids[:1], 1)
        return float(self._generate(ids, 1).get_ttft().mean)

    def decode(self, ids: Sequence[int], tokens: int) -> float:
        """Its time per output token after the first."""
        return tokens * float(self._generate(ids, tokens + 1).get_tpot().mean)

    def _generate(self, ids: Sequence[int], tokens: int) -> Any:
        """Metrics of an answer of exactly `tokens` tokens."""
        import numpy as np
        import openvino

        config = self._library.GenerationConfig()
        config.max_new_tokens = tokens
        config.ignore_eos = True
        config.do_sample = False
        inputs = openvino.Tensor(np.array([ids], np.int64))
        answer = self._pipeline.generate(inputs, config)
        assert len(answer.tokens[0]) == tokens, "the answer is as long as asked for"
        return answer.perf_metrics
