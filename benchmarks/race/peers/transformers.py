"""transformers with PyTorch on the dequantized weights: what a user without a special runtime has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.race import pins
from benchmarks.race.interface import Cpu, Entrant, Options, Recipe, Runner, SteppingRunner

# What a configuration says of the file it was read from.
_FILE_KEYS = ("quantization_config", "_name_or_path")


class Transformers:
    """In float32 and bfloat16; it has no CPU kernels for 4-bit weights of its own."""

    name: ClassVar[str] = "transformers"

    def entrants(self, cpu: Cpu) -> tuple[Entrant, ...]:
        """Both number types."""
        return tuple(
            Entrant(f"transformers {kind}", self.name, "transformers", "float", kind, {"dtype": kind})
            for kind in ("float32", "bfloat16")
        )

    def recipe(self, environment: str, cpu: Cpu) -> Recipe:
        """torch first."""
        return Recipe(environment, ((pins.TORCH,), (pins.TRANSFORMERS, pins.ACCELERATE, pins.GGUF)))

    def import_packages(self) -> None:
        """What loading would import."""
        import torch  # noqa: F401
        import transformers  # noqa: F401

    def start(self, options: Options) -> Runner:
        """Load the folder."""
        return TransformersRunner(options)


class TransformersRunner(SteppingRunner):
    """The model's forward with a growing cache, which is what `generate` calls, without its overhead."""

    def __init__(self, options: Options) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(options.threads)
        torch.set_grad_enabled(False)
        self._torch: Any = torch
        dtype = getattr(torch, options.settings["dtype"])
        self._model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
        self._model.eval()
        self._held: list[int] = []
        self._cache: Any = None

    def describe(self) -> dict[str, Any]:
        """Versions."""
        import transformers

        return {"version": transformers.__version__, "torch": self._torch.__version__}

    def first_row(self, token_id: int) -> None:
        """A prompt of one token."""
        self._clear()
        self._run([token_id])

    def prefill(self, ids: Sequence[int]) -> float:
        """Logits of the last row only."""
        self.first_row(ids[0])
        self._clear()
        start = time.perf_counter()
        self._run(ids)
        return 1000 * (time.perf_counter() - start)

    def step(self, token_id: int, position: int) -> int:
        """A forward and an argmax; the cache knows the position."""
        return self._run([token_id])

    def append(self, ids: Sequence[int], position: int) -> float:
        """One forward."""
        start = time.perf_counter()
        self._run(ids, kept_logits=0)
        return 1000 * (time.perf_counter() - start)

    def _run(self, ids: Sequence[int], kept_logits: int = 1) -> int:
        """Append rows to the cache; the most likely token after the last. 0 keeps the logits of all rows."""
        output = self._model(
            input_ids=self._torch.tensor([list(ids)]),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=kept_logits,
        )
        self._cache = output.past_key_values
        return int(output.logits[0, -1].argmax())

    def fill(self, ids: Sequence[int]) -> None:
        """Kept from one test to the next where it is the same."""
        if self._held != list(ids):
            self._clear()
            self._run(ids)
            self._held = list(ids)

    def forget(self, length: int) -> None:
        """Crop the cache."""
        self._cache.crop(length - self._cache.get_seq_length())

    def _clear(self) -> None:
        self._cache, self._held = None, []


def write_float_folder(source: Path, target: Path) -> None:
    """Write a GGUF file as a folder of dequantized float32 weights, config and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    place = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    read = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    # It takes what it has dequantized for a quantized model and refuses to write it; a plain one may be written.
    config = LlamaConfig(
        **{key: value for key, value in read.config.to_dict().items() if key not in _FILE_KEYS}
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(**place).save_pretrained(target)
