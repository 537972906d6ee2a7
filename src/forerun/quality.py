"""What compiling costs in quality: a bundle's logits on a text, compared with those of the float model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from forerun.errors import OptionError
from forerun.export.check import Quality, eager_logits, measure_quality
from forerun.models import load_model
from forerun.runtime.bundle import read_bundle
from forerun.runtime.opening import open_program


class BundleLogits:
    """A bundle as a function from the token ids of a text, int64 [n], to logits float32 [n, V]."""

    def __init__(self, bundle: Path, threads: int | None = None, rows: int = 64) -> None:
        """Load the bundle; `rows` go through in one call."""
        self._program, self._open_session = open_program(read_bundle(bundle), None)
        self._threads, self._rows = threads, rows

    def __call__(self, token_ids: np.ndarray) -> np.ndarray:
        """Read the text from the start, in a session of its own."""
        session = self._open_session(1, len(token_ids) + self._rows, self._threads)
        try:
            sequence = session.create_sequence()
            pieces = []
            for start in range(0, len(token_ids), self._rows):
                piece = [int(token) for token in token_ids[start : start + self._rows]]
                staged = list(session.stage(sequence, piece))
                pieces.append(session.forward([(sequence, row) for row in staged]).logits.copy())
                session.commit(sequence, staged)
            return np.concatenate(pieces)
        finally:
            session.close()


def check_bundle(directory: Path, text: str, tokens: int) -> Quality:
    """Compare a bundle with the float model it was made from, read anew, on a text's first `tokens` tokens.

    Raises:
        BundleError: the folder is no bundle.
        OptionError: the text has fewer than two tokens, or the bundle holds an ONNX file from elsewhere.
        ModelFileError: the source that the manifest names is gone.
    """
    bundle = read_bundle(directory)
    ids = Tokenizer.from_file(str(bundle.tokenizer_path)).encode(text, add_special_tokens=False).ids[:tokens]
    if len(ids) < 2:
        raise OptionError(f"the text has {len(ids)} tokens; a check needs at least 2")
    if bundle.source.endswith(".onnx"):
        raise OptionError(
            f"{directory} holds an ONNX file from elsewhere, and no model of its own to compare it with is known"
        )
    reference = eager_logits(load_model(bundle.source))
    return measure_quality(BundleLogits(directory), reference, np.array(ids, np.int64))
