"""llama.cpp through llama-cpp-python's low-level calls, so that no Python runs between the start and end of a call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.race import pins
from benchmarks.race.cpu import expected_system_info, ggml_options, read_cpu
from benchmarks.race.interface import GEMMA, Cpu, Entrant, Options, RaceError, Recipe, Runner, SteppingRunner

PLAIN, AMX = "llama_cpp", "llama_cpp_amx"
# Rows of one call at most. llama.cpp splits them further by its own default (512).
_BATCH_ROWS = 2048


class LlamaCpp:
    """Built from its source package for this CPU: without the AMX weight layout, and with it where there is one."""

    name: ClassVar[str] = "llama.cpp"

    def entrants(self, cpu: Cpu) -> tuple[Entrant, ...]:
        """Both files, with each build."""
        builds: list[tuple[str, str, dict[str, Any]]] = [("llama.cpp", PLAIN, {})]
        if cpu.has_amx:
            # Its calls of many rows crash on some virtual machines: contexts are filled row by row.
            builds.append(("llama.cpp AMX", AMX, {"fill_rows": 1}))
        return tuple(
            Entrant(f"{name} {source}", self.name, environment, f"gguf-{source}", source, settings)
            for source in ("Q4_1", "Q4_0", GEMMA)
            for name, environment, settings in builds
        )

    def recipe(self, environment: str, cpu: Cpu) -> Recipe:
        """Its defaults (OpenMP, small matrix kernels, repacked weights) with this CPU's instruction sets named."""
        options = (
            "-DCMAKE_BUILD_TYPE=Release",
            "-DCMAKE_C_FLAGS=-mtune=native",
            "-DCMAKE_CXX_FLAGS=-mtune=native",
            "-DGGML_NATIVE=OFF",
            "-DGGML_OPENMP=ON",
            "-DGGML_LLAMAFILE=ON",
            "-DGGML_CPU_REPACK=ON",
            "-DLLAVA_BUILD=OFF",
            *ggml_options(cpu, amx=environment == AMX),
        )
        variables = {"CMAKE_ARGS": " ".join(options), "CMAKE_BUILD_PARALLEL_LEVEL": "2"}
        return Recipe(environment, wheels=(pins.LLAMA_CPP,), variables=variables)

    def import_packages(self) -> None:
        """Load the library, silence it and start its backends."""
        import ctypes

        import llama_cpp

        # Kept for as long as the process lives: the library calls it.
        self._log = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        told = llama_cpp.llama_print_system_info().decode()
        missing = [name for name in expected_system_info(read_cpu()) if f" {name} = 1" not in told]
        if missing:
            raise RaceError(
                f"llama.cpp was built without {', '.join(missing)}, which this CPU has: delete build/race"
            )

    def start(self, options: Options) -> Runner:
        """Load the file and make a context."""
        return LlamaCppRunner(options)


class LlamaCppRunner(SteppingRunner):
    """`llama_decode` on one batch that is filled before the clock starts."""

    def __init__(self, options: Options) -> None:
        import llama_cpp as library

        self._library: Any = library
        self._options = options
        self._fill_rows = options.settings.get("fill_rows", _BATCH_ROWS)
        path = str(options.model).encode()
        self._model = library.llama_model_load_from_file(path, library.llama_model_default_params())
        if self._model is None:
            raise RaceError(f"llama.cpp cannot load {options.model}")
        parameters = library.llama_context_default_params()
        parameters.n_ctx = options.context * options.sequences
        parameters.n_batch = _BATCH_ROWS
        parameters.n_threads = parameters.n_threads_batch = options.threads
        parameters.n_seq_max = options.sequences
        parameters.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_ENABLED
        parameters.no_perf = True
        self._context = library.llama_init_from_model(self._model, parameters)
        if self._context is None:
            raise RaceError(f"llama.cpp cannot make a context of {parameters.n_ctx} positions")
        self._memory = library.llama_get_memory(self._context)
        self._vocabulary_size = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self._model))
        self._batch = library.llama_batch_init(_BATCH_ROWS, 0, options.sequences)
        self._held: list[int] = []  # the context that is in the cache of sequence 0

    def describe(self) -> dict[str, Any]:
        """The build's instruction sets as the library tells them."""
        return {
            "version": version("llama-cpp-python"),
            "system_info": self._library.llama_print_system_info().decode().strip(" |"),
            "flash_attention": "on",
            "weights_bytes": self._options.model.stat().st_size,
        }

    def first_row(self, token_id: int) -> None:
        """A prompt of one token, into an empty cache."""
        self._clear()
        self._run([token_id], 0, last_only=True)
        self._choose(0)

    def prefill(self, ids: Sequence[int]) -> float:
        """One batch, then the most likely next token."""
        self.first_row(ids[0])
        self._clear()
        return self._run(ids, 0, last_only=True) + self._timed_choice()

    def answers(
        self, prompts: Sequence[Sequence[int]], tokens: int, drafted: int, ends: Sequence[int]
    ) -> float:
        """With the binding's own lookup of n-grams for drafts; a call of all drafted rows, an argmax for each."""
        from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

        lookup = LlamaPromptLookupDecoding(num_pred_tokens=drafted) if drafted else None
        self._answer(prompts[0], tokens, lookup, ends)
        elapsed_ms, count = 0.0, 0
        for ids in prompts:
            ms, more = self._answer(ids, tokens, lookup, ends)
            elapsed_ms, count = elapsed_ms + ms, count + more
        return elapsed_ms / max(count, 1)

    def _answer(self, ids: Sequence[int], tokens: int, lookup: Any, ends: Sequence[int]) -> tuple[float, int]:
        """Milliseconds and tokens after the first."""
        import numpy as np

        self._clear()
        for start in range(0, len(ids), self._fill_rows):
            self._run(ids[start : start + self._fill_rows], start, last_only=True)
        text = [*ids, self._choose(-1)]
        start_time = time.perf_counter()
        while len(text) < len(ids) + tokens and text[-1] not in ends:
            room = len(ids) + tokens - len(text) - 1
            draft: list[int] = []
            if lookup is not None and room > 0:
                draft = [int(token) for token in lookup(np.array(text, np.intc))][:room]
            position = len(text) - 1
            self._run([text[-1], *draft], position, last_only=False)
            for row in range(len(draft) + 1):
                text.append(self._choose(row))
                if text[-1] in ends or row == len(draft) or text[-1] != draft[row]:
                    break
            self.forget(len(text) - 1)
        return 1000 * (time.perf_counter() - start_time), len(text) - len(ids) - 1

    def together(self, ids: Sequence[int], tokens: int) -> float:
        """One row of every sequence in each call."""
        self._clear()
        self._step_together(list(ids), 0)
        self._clear()
        start = time.perf_counter()
        current = list(ids)
        for position in range(tokens):
            current = self._step_together(current, position)
        elapsed_ms = 1000 * (time.perf_counter() - start)
        self._clear()
        return elapsed_ms

    def logits(self, ids: Sequence[int], path: Path) -> None:
        """In one batch."""
        import numpy as np

        self._clear()
        self._run(ids, 0, last_only=False)
        np.save(path, np.stack([self._logits(row) for row in range(len(ids))]))

    # ---- on the library ----

    def _run(self, ids: Sequence[int], position: int, *, last_only: bool, sequences: bool = False) -> float:
        """Decode rows of sequence 0 from `position` on, or one row of each sequence at `position`; ms."""
        batch, last = self._batch, len(ids) - 1
        batch.n_tokens = len(ids)
        for row, token_id in enumerate(ids):
            batch.token[row] = token_id
            batch.pos[row] = position if sequences else position + row
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = row if sequences else 0
            batch.logits[row] = row == last or not last_only
        start = time.perf_counter()
        status = self._library.llama_decode(self._context, batch)
        self._library.llama_synchronize(self._context)
        elapsed_ms = 1000 * (time.perf_counter() - start)
        if status != 0:
            raise RaceError(f"llama_decode of {len(ids)} rows at position {position} returned {status}")
        return elapsed_ms

    def _logits(self, row: int) -> Any:
        """The logits of a row of the batch, float32 [V]; a view."""
        import numpy as np

        pointer = self._library.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(pointer, shape=(self._vocabulary_size,))

    def _choose(self, row: int) -> int:
        return int(self._logits(row).argmax())

    def _timed_choice(self) -> float:
        start = time.perf_counter()
        self._choose(-1)
        return 1000 * (time.perf_counter() - start)

    def step(self, token_id: int, position: int) -> int:
        """One row."""
        self._run([token_id], position, last_only=True)
        return self._choose(-1)

    def append(self, ids: Sequence[int], position: int) -> float:
        """One batch."""
        return self._run(ids, position, last_only=False)

    def _step_together(self, tokens: list[int], position: int) -> list[int]:
        self._run(tokens, position, last_only=False, sequences=True)
        return [self._choose(row) for row in range(len(tokens))]

    def fill(self, ids: Sequence[int]) -> None:
        """Have exactly `ids` in the cache of sequence 0; kept from one test to the next where they are the same."""
        if self._held == list(ids):
            return
        self._clear()
        for start in range(0, len(ids), self._fill_rows):
            self._run(ids[start : start + self._fill_rows], start, last_only=True)
        self._held = list(ids)

    def forget(self, length: int) -> None:
        """Drop what follows the first `length` positions."""
        self._library.llama_memory_seq_rm(self._memory, 0, length, -1)

    def _clear(self) -> None:
        self._library.llama_memory_clear(self._memory, False)
        self._held = []


def quantize(source: Path, target: Path) -> None:
    """Write `source` again with its layers as Q4_0; the embedding, which is the head, too, stays at 8 bits."""
    import llama_cpp as library

    parameters = library.llama_model_quantize_default_params()
    parameters.ftype = library.LLAMA_FTYPE_MOSTLY_Q4_0
    parameters.allow_requantize = True
    parameters.pure = True
    parameters.token_embedding_type = parameters.output_tensor_type = library.GGML_TYPE_Q8_0
    parameters.nthread = 2
    status = library.llama_model_quantize(str(source).encode(), str(target).encode(), parameters)
    if status != 0:
        raise RaceError(f"llama.cpp cannot quantize {source}: status {status}")
