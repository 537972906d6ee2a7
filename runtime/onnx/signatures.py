"""How ONNX files of decoders name what they take and give: one class for each way, and the first that fits is taken.

Legend: M rows, P rows of the past, V vocabulary, K key/value heads, d head size, D hidden size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from forerun.errors import UnsupportedModelError


@dataclass(frozen=True)
class Rows:
    """The rows of one call: M token ids. `committed` rows come before all staged ones, of which the first `ran` did so
    in earlier calls; `positions` and `parents` (earlier staged rows or -1, the last committed one) are of all staged.
    """

    token_ids: Sequence[int]
    positions: Sequence[int]
    parents: Sequence[int]
    committed: int
    ran: int

    @property
    def past_rows(self) -> int:
        """P."""
        return self.committed + self.ran


class Signature(Protocol):
    """What a file is fed with. `past` and `present` name the cache, in the same order: [.., rows, d] each.

    `trees` says whether rows may branch, `taps` names hidden states [M, D] by layer.
    """

    name: ClassVar[str]
    trees: ClassVar[bool]
    past: tuple[str, ...]
    present: tuple[str, ...]
    taps: Mapping[int, str]

    def __init__(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any], window: int | None = None
    ) -> None:
        """`inputs` and `outputs` are what ONNX Runtime says of the file's by name: type and shape. `window` is how many
        positions some layers see, where the manifest says that.

        Raises `UnsupportedModelError` if the file lacks something, or takes something unknown.
        """

    def feeds(self, rows: Rows) -> dict[str, np.ndarray]:
        """Everything but the past, by its names in the file."""


class OptimumSignature:
    """A decoder as optimum's task text-generation-with-past exports it, batch size 1. Rows are chains: there is no
    mask that could say who sees whom.
    """

    name: ClassVar[str] = "optimum"
    trees: ClassVar[bool] = False
    rows_input: ClassVar[str] = "input_ids"

    def __init__(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any], window: int | None = None
    ) -> None:
        layers = range(sum(name.startswith("present.") and name.endswith(".key") for name in outputs))
        kinds = ("key", "value")
        self.past = tuple(f"past_key_values.{layer}.{kind}" for layer in layers for kind in kinds)
        self.present = tuple(f"present.{layer}.{kind}" for layer in layers for kind in kinds)
        self.taps: Mapping[int, str] = {}
        if not self.past or self.past[0] not in inputs:
            raise UnsupportedModelError(
                "the ONNX file takes no past_key_values.0.key: without a cache every token would cost the whole text;"
                " export it with optimum-cli export onnx --task text-generation-with-past"
            )
        self._takes = frozenset(inputs) - frozenset(self.past)
        known = {"input_ids", "attention_mask", "position_ids", "use_cache_branch"}
        check_names(inputs, outputs, (*self.past, *known & self._takes), ("logits", *self.present))
        check_free(inputs["input_ids"], 1)

    def feeds(self, rows: Rows) -> dict[str, np.ndarray]:
        """input_ids and position_ids int64 [1, M], attention_mask int64 [1, P + M], use_cache_branch bool [1]."""
        count = rows.past_rows + len(rows.token_ids)
        given = {
            "input_ids": np.array([rows.token_ids], np.int64),
            "attention_mask": np.ones((1, count), np.int64),
            "position_ids": np.array([rows.positions[rows.ran :]], np.int64),
            "use_cache_branch": np.array([rows.past_rows > 0]),
        }
        return {name: array for name, array in given.items() if name in self._takes}


class ForerunSignature:
    """A decoder as `forerun export` writes it (`export/signature.py`)."""

    name: ClassVar[str] = "forerun"
    trees: ClassVar[bool] = True
    rows_input: ClassVar[str] = "token_ids"

    def __init__(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any], window: int | None = None
    ) -> None:
        layers = range(sum(name.startswith("present_key.") for name in outputs))
        kinds = ("key", "value")
        self.past = tuple(f"past_{kind}.{layer}" for layer in layers for kind in kinds)
        self.present = tuple(f"present_{kind}.{layer}" for layer in layers for kind in kinds)
        self.taps: Mapping[int, str] = {layer: f"tap.{layer}" for layer in layers}
        self._window = window if "window_mask" in inputs else None
        masks = ("tree_mask",) if self._window is None else ("tree_mask", "window_mask")
        needed = ("token_ids", "positions", *masks, *self.past)
        check_names(inputs, outputs, needed, ("logits", *self.present, *self.taps.values()))

    def feeds(self, rows: Rows) -> dict[str, np.ndarray]:
        """token_ids and positions int64 [M], tree_mask and, with a window, window_mask bool [M, P + M]."""
        count = len(rows.token_ids)
        mask = np.zeros((count, rows.past_rows + count), bool)
        mask[:, : rows.committed] = True
        for row in range(count):
            above = rows.ran + row
            while above >= 0:
                mask[row, rows.committed + above] = True
                above = rows.parents[above]
        positions = np.array(rows.positions[rows.ran :], np.int64)
        given = {"token_ids": np.array(rows.token_ids, np.int64), "positions": positions, "tree_mask": mask}
        if self._window is None:
            return given
        seen = np.concatenate([np.arange(rows.committed), rows.positions])
        return {**given, "window_mask": mask & (seen > positions[:, None] - self._window)}


ALL_SIGNATURES = (ForerunSignature, OptimumSignature)


def find_signature(
    inputs: Mapping[str, Any], outputs: Mapping[str, Any], window: int | None = None
) -> Signature:
    """The signature that a file has; raises `UnsupportedModelError` if it has none that is known."""
    for signature in ALL_SIGNATURES:
        if signature.rows_input in inputs:
            return signature(inputs, outputs, window)
    known = " or ".join(signature.rows_input for signature in ALL_SIGNATURES)
    raise UnsupportedModelError(
        f"the ONNX file is no decoder that is known: it takes {', '.join(inputs) or 'nothing'}, and no {known}"
    )


def check_names(
    inputs: Mapping[str, Any], outputs: Mapping[str, Any], needed: Sequence[str], given: Sequence[str]
) -> None:
    """Raise `UnsupportedModelError` unless a file takes exactly what is needed and gives what is wanted."""
    lacking = [name for name in needed if name not in inputs] + [
        name for name in given if name not in outputs
    ]
    if lacking:
        raise UnsupportedModelError(
            f"the ONNX file has no input or output {', '.join(lacking)}; export it again"
        )
    unknown = [name for name in inputs if name not in needed]
    if unknown:
        raise UnsupportedModelError(
            f"the ONNX file takes {', '.join(unknown)}, which a decoder of text does not; export a model of text alone"
        )


def check_free(tensor: Any, axis: int) -> None:
    """Raise `UnsupportedModelError` if a dimension of an input is a fixed number."""
    if isinstance(tensor.shape[axis], int):
        raise UnsupportedModelError(
            f"the ONNX file's {tensor.name} has the fixed shape {tensor.shape}; export it with dynamic axes"
        )
