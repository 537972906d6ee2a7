"""ONNX Runtime on an export: the reference that everything compiled is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from forerun.errors import ExportError
from forerun.export.reader import read_manifest
from forerun.export.signature import MODEL_FILE, past_names, present_names, tap_name

_DTYPES = {"tensor(int64)": np.int64, "tensor(bool)": np.bool_, "tensor(float)": np.float32}


@dataclass(frozen=True)
class OracleOutput:
    """logits [M, V]; taps by layer [M, D]; present: (key, value) [K, T, d] of each layer, none for a network
    without attention; all float32.
    """

    logits: np.ndarray
    taps: Mapping[int, np.ndarray]
    present: tuple[tuple[np.ndarray, np.ndarray], ...]


class Oracle:
    """An exported model in ONNX Runtime on the CPU, in float32 arithmetic."""

    def __init__(self, directory: Path | str, threads: int = 2) -> None:
        """Load `directory`; raises `ExportError` if it is not a whole export or ONNX Runtime refuses it."""
        self.form = read_manifest(directory).form
        self.config = self.form.config
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
        rows: np.ndarray,
        positions: np.ndarray | None = None,
        tree_mask: np.ndarray | None = None,
        past: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
        taps: Sequence[int] = (),
        features: np.ndarray | None = None,
    ) -> OracleOutput:
        """Run M rows: token ids int64 [M], or hidden states float32 [M, D] for a network without embedding;
        positions int64 [M], tree_mask bool [M, P + M], past [K, P, d] per layer; features float32 [M, F] for a
        network whose tokens have some.

        Without positions and tree_mask the rows are a chain that continues the past. `taps` lists the layers
        whose hidden states are wanted.
        """
        given: dict[str, np.ndarray] = dict(
            zip(self.form.row_inputs, (rows,) if features is None else (rows, features), strict=True)
        )
        layers = range(self.config.layers) if self.form.attends else range(0)
        if self.form.attends:
            given |= self._cache_inputs(len(rows), positions, tree_mask, past)
        feeds: dict[str, np.ndarray] = {
            each.name: np.asarray(given[each.name], _DTYPES[each.type]) for each in self._session.get_inputs()
        }
        wanted = ["logits", *map(tap_name, taps), *(name for each in layers for name in present_names(each))]
        found = dict(zip(wanted, self._session.run(wanted, feeds), strict=True))
        return OracleOutput(
            found["logits"],
            {layer: found[tap_name(layer)] for layer in taps},
            tuple((found[key], found[value]) for key, value in map(present_names, layers)),
        )

    def _cache_inputs(
        self,
        rows: int,
        positions: np.ndarray | None,
        tree_mask: np.ndarray | None,
        past: Sequence[tuple[np.ndarray, np.ndarray]] | None,
    ) -> dict[str, np.ndarray]:
        """Positions, mask and past by their names in the graph."""
        if past is None:
            empty = np.zeros((self.config.kv_heads, 0, self.config.head_dim), np.float32)
            past = ((empty, empty),) * self.config.layers
        past_rows = past[0][0].shape[1]
        if positions is None:
            positions = np.arange(past_rows, past_rows + rows)
        if tree_mask is None:
            tree_mask = np.tril(np.ones((rows, past_rows + rows), bool), past_rows)
        inputs = {"positions": positions, "tree_mask": tree_mask}
        if self.config.windowed_layers:
            assert self.config.window is not None
            seen = np.concatenate([np.arange(past_rows), positions])
            inputs["window_mask"] = tree_mask & (seen > positions[:, None] - self.config.window)
        for layer, cache in enumerate(past):
            inputs.update(zip(past_names(layer), cache, strict=True))
        return inputs

    def logits(self, token_ids: np.ndarray) -> np.ndarray:
        """Logits float32 [n, V] of a text read from the start, int64 [n]."""
        return self.forward(token_ids).logits
