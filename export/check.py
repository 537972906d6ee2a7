"""Comparing an export with the eager model: logit errors, and quality on a text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from forerun.errors import ExportError, OptionError
from forerun.export.oracle import Oracle, OracleOutput
from forerun.export.reader import (
    ExportManifest,
    load_exported_draft,
    load_exported_model,
    read_manifest,
)
from forerun.export.signature import TOKENIZER_FILE, Form
from forerun.models.drafts import DraftNetwork
from forerun.models.llama import Decoder, DecoderOutput, KeyValue, run_layers
from forerun.models.sources import load_model

LogitsFunction = Callable[[np.ndarray], np.ndarray]

WINDOW_TOKENS = 512
_CHUNK_ROWS = 64
_PROMPT_ROWS = 24
# A tree of eight rows: each row's parent, -1 for a child of the last past row.
_TREE_PARENTS = (-1, 0, 0, 1, 1, 2, -1, 6)


@dataclass(frozen=True)
class LogitErrors:
    """Largest absolute differences of logits, ONNX Runtime against the eager model on the same weights."""

    prefill: float
    decode: float
    tree: float

    @property
    def largest(self) -> float:
        """The largest of the three."""
        return max(self.prefill, self.decode, self.tree)


@dataclass(frozen=True)
class Quality:
    """Agreement with the float model: mean KL(float ‖ tested) in nats, share of equal most likely tokens."""

    mean_kl: float
    top1: float
    tokens: int


@dataclass(frozen=True)
class CheckReport:
    """`quality` is None when no text was given."""

    name: str
    quant: str
    errors: LogitErrors
    quality: Quality | None

    def __str__(self) -> str:
        errors = self.errors
        lines = [
            f"{self.name}, quantization {self.quant}",
            f"largest logit error, ONNX Runtime against eager: {errors.largest:.3g} "
            f"(prefill {errors.prefill:.3g}, decode {errors.decode:.3g}, tree {errors.tree:.3g})",
        ]
        if self.quality is not None:
            quality = self.quality
            lines.append(
                f"against the float model on {quality.tokens} tokens: mean KL {quality.mean_kl:.6f} nats, "
                f"top-1 agreement {quality.top1:.2%}"
            )
        return "\n".join(lines)


def check_export(
    directory: Path | str, text: str | None = None, model: Decoder | None = None, tokens: int = 2048
) -> CheckReport:
    """Run an export in ONNX Runtime and compare it.

    The errors compare with the eager model on the export's own (dequantized) weights. The quality, given a
    `text`, compares its first `tokens` tokens with the float model: `model`, or the export's source loaded
    anew. Raises `ExportError`, `OptionError` for a text too short, and `ModelFileError` if the source is
    gone.
    """
    manifest = read_manifest(directory)
    oracle = Oracle(directory)
    load = load_exported_model if manifest.draft is None else load_exported_draft
    errors = compare_logits(load(directory), oracle)
    if text is not None and manifest.draft is not None:
        raise OptionError(
            f"{directory} holds a draft component, whose quality no text shows; leave the text out"
        )
    if text is None:
        return CheckReport(manifest.name, manifest.quant, errors, None)
    token_ids = encode_text(manifest, text, tokens)
    reference = load_model(manifest.source) if model is None else model
    window = min(WINDOW_TOKENS, manifest.config.context_length)
    quality = measure_quality(oracle.logits, eager_logits(reference), token_ids, window)
    return CheckReport(manifest.name, manifest.quant, errors, quality)


def compare_logits(network: Decoder | DraftNetwork, oracle: Oracle, seed: int = 0) -> LogitErrors:
    """Largest logit errors over a prefill, two decode steps with cache and a branching tree, on random rows.

    The eager network runs in float64 on its float32 weights, so that an error is the export's alone; in float32
    its own rounding would be half of what is measured.
    """
    context = oracle.config.context_length
    prompt = min(_PROMPT_ROWS, context - len(_TREE_PARENTS) - 3)
    if prompt < 1:
        raise OptionError(f"the model's context of {context} is too short for a check")
    rows = random_rows(oracle.form, prompt + 2 + len(_TREE_PARENTS), np.random.default_rng(seed))
    network.double()
    try:
        with torch.no_grad():
            return _compare_in_float64(network, oracle, rows, prompt)
    finally:
        network.float()


def random_rows(form: Form, count: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Rows for a network of that form, by the names of its inputs: `token_ids` int64 [n], `features` float32
    [n, F], `hidden` float32 [n, D].
    """
    made: dict[str, np.ndarray] = {
        "token_ids": random.integers(0, form.config.vocabulary_size, count),
        "features": random.standard_normal((count, form.feature_size)).astype(np.float32),
        "hidden": random.standard_normal((count, form.config.hidden_size)).astype(np.float32),
    }
    return {name: made[name] for name in form.row_inputs}


def run_eager(
    network: Decoder | DraftNetwork,
    rows: Mapping[str, np.ndarray],
    positions: np.ndarray | None = None,
    tree_mask: np.ndarray | None = None,
    past: Sequence[KeyValue] | None = None,
) -> DecoderOutput:
    """Rows, as `random_rows` has them, through the eager network; further arguments as for `Decoder`."""
    config = network.config.network if isinstance(network, DraftNetwork) else network.config
    dtype = network.head.weight.dtype
    inputs = [
        torch.from_numpy(array).to(dtype if array.dtype == np.float32 else torch.int64)
        for array in rows.values()
    ]
    hidden = inputs[0] if network.embed is None else network.embed(*inputs)
    at, mask = (None if array is None else torch.from_numpy(array) for array in (positions, tree_mask))
    return run_layers(network, config, hidden, at, mask, past)


def run_oracle(
    oracle: Oracle,
    rows: Mapping[str, np.ndarray],
    positions: np.ndarray | None = None,
    tree_mask: np.ndarray | None = None,
    past: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
) -> OracleOutput:
    """The same in ONNX Runtime."""
    first = rows.get("token_ids", rows.get("hidden"))
    assert first is not None
    return oracle.forward(first, positions, tree_mask, past or None, features=rows.get("features"))


def _compare_in_float64(
    network: Decoder | DraftNetwork, oracle: Oracle, rows: Mapping[str, np.ndarray], prompt: int
) -> LogitErrors:
    def taken(start: int, stop: int | None) -> dict[str, np.ndarray]:
        return {name: array[start:stop] for name, array in rows.items()}

    eager, ours = run_eager(network, taken(0, prompt)), run_oracle(oracle, taken(0, prompt))
    prefill = _difference(eager.logits, ours.logits)
    decode = 0.0
    for step in (prompt, prompt + 1):
        eager = run_eager(network, taken(step, step + 1), past=eager.present)
        ours = run_oracle(oracle, taken(step, step + 1), past=ours.present)
        decode = max(decode, _difference(eager.logits, ours.logits))
    positions, mask = tree_inputs(_TREE_PARENTS, prompt + 2)
    tree = taken(prompt + 2, None)
    eager = run_eager(network, tree, positions, mask, eager.present)
    ours = run_oracle(oracle, tree, positions, mask, ours.present)
    return LogitErrors(prefill, decode, _difference(eager.logits, ours.logits))


def tree_inputs(parents: tuple[int, ...], past_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions int64 [M] and mask bool [M, P + M] of a tree given by each row's parent (-1: the last past
    row).
    """
    rows = len(parents)
    positions = np.zeros(rows, np.int64)
    mask = np.zeros((rows, past_rows + rows), bool)
    mask[:, :past_rows] = True
    for row, parent in enumerate(parents):
        assert parent < row, "a row's parent comes before it"
        if parent >= 0:
            mask[row] = mask[parent]
        positions[row] = past_rows if parent < 0 else positions[parent] + 1
        mask[row, past_rows + row] = True
    return positions, mask


def encode_text(manifest: ExportManifest, text: str, tokens: int) -> np.ndarray:
    """The first `tokens` token ids of a text, int64; raises `OptionError` if there are fewer than two."""
    try:
        tokenizer = Tokenizer.from_file(str(manifest.directory / TOKENIZER_FILE))
    except Exception as error:  # the library raises bare Exception
        raise ExportError(f"{manifest.directory / TOKENIZER_FILE} cannot be read: {error}") from error
    ids = tokenizer.encode(text, add_special_tokens=False).ids[:tokens]
    if len(ids) < 2:
        raise OptionError(f"the text has {len(ids)} tokens; a check needs at least 2")
    return np.array(ids, np.int64)


def eager_logits(model: Decoder) -> LogitsFunction:
    """A decoder as a function from token ids int64 [n] to logits float32 [n, V]."""

    def logits(token_ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found: np.ndarray = model(torch.from_numpy(np.asarray(token_ids, np.int64))).logits.numpy()
            return found

    return logits


def measure_quality(
    tested: LogitsFunction, reference: LogitsFunction, token_ids: np.ndarray, window: int = WINDOW_TOKENS
) -> Quality:
    """Compare two models on a text, int64 [n], cut into independent windows; the arithmetic is float64.

    Both functions take int64 [m] and return logits [m, V] of a text read from the start.
    """
    divergence, agreed = 0.0, 0
    for start in range(0, len(token_ids), window):
        ids = token_ids[start : start + window]
        expected, found = reference(ids), tested(ids)
        for row in range(0, len(ids), _CHUNK_ROWS):
            rows = slice(row, row + _CHUNK_ROWS)
            divergence += float(_divergence(expected[rows], found[rows]).sum())
        agreed += int((expected.argmax(axis=1) == found.argmax(axis=1)).sum())
    return Quality(divergence / len(token_ids), agreed / len(token_ids), len(token_ids))


def _divergence(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """KL(expected ‖ found) of each row, from logits [m, V]."""
    log_expected, log_found = _log_softmax(expected), _log_softmax(found)
    divergence: np.ndarray = (np.exp(log_expected) * (log_expected - log_found)).sum(axis=1)
    return divergence


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted: np.ndarray = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _difference(eager: torch.Tensor, ours: np.ndarray) -> float:
    return float(np.abs(eager.numpy() - ours).max())
