"""ONNX Runtime on an export: the reference that everything compiled is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from forerun.errors import ExportError
from forerun.export.reader import read_manifest
from forerun.export.signature import MODEL_FILE, past_names, present_names, tap_name


@dataclass(frozen=True)
class OracleOutput:
    """logits [M, V]; taps by layer [M, D]; present: (key, value) [K, T, d] of each layer, all float32."""

    logits: np.ndarray
    taps: Mapping[int, np.ndarray]
    present: tuple[tuple[np.ndarray, np.ndarray], ...]


class Oracle:
    """An exported model in ONNX Runtime on the CPU, in float32 arithmetic."""

    def __init__(self, directory: Path | str, threads: int = 2) -> None:
        """Load `directory`; raises `ExportError` if it is not a whole export or ONNX Runtime refuses it."""
        self.config = read_manifest(directory).config
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Without this, ONNX Runtime rounds activations to int8 when it fuses a dequantized matrix product.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
        # Packed copies of every matrix double the memory and save nothing in a check.
        options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                str(Path(directory) / MODEL_FILE), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's exception classes are not public
            raise ExportError(f"ONNX Runtime cannot load {directory}: {error}") from error

    def forward(
        self,
        token_ids: np.ndarray,
        positions: np.ndarray | None = None,
        tree_mask: np.ndarray | None = None,
        past: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
        taps: Sequence[int] = (),
    ) -> OracleOutput:
        """Run M rows: token_ids int64 [M], positions int64 [M], tree_mask bool [M, P + M], past [K, P, d] per
        layer.

        Without positions and tree_mask the rows are a chain that continues the past. `taps` lists the layers
        whose hidden states are wanted.
        """
        config = self.config
        if past is None:
            empty = np.zeros((config.kv_heads, 0, config.head_dim), np.float32)
            past = ((empty, empty),) * config.layers
        rows, past_rows = len(token_ids), past[0][0].shape[1]
        if positions is None:
            positions = np.arange(past_rows, past_rows + rows)
        if tree_mask is None:
            tree_mask = np.tril(np.ones((rows, past_rows + rows), bool), past_rows)
        feeds = {
            "token_ids": np.asarray(token_ids, np.int64),
            "positions": np.asarray(positions, np.int64),
            "tree_mask": np.asarray(tree_mask, bool),
        }
        for layer, cache in enumerate(past):
            feeds.update(zip(past_names(layer), cache, strict=True))
        present = [name for layer in range(config.layers) for name in present_names(layer)]
        wanted = ["logits", *(tap_name(layer) for layer in taps), *present]
        found = dict(zip(wanted, self._session.run(wanted, feeds), strict=True))
        return OracleOutput(
            found["logits"],
            {layer: found[tap_name(layer)] for layer in taps},
            tuple((found[key], found[value]) for key, value in map(present_names, range(config.layers))),
        )

    def logits(self, token_ids: np.ndarray) -> np.ndarray:
        """Logits float32 [n, V] of a text read from the start, int64 [n]."""
        return self.forward(token_ids).logits
