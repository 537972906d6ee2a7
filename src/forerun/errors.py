"""Every error that forerun raises for a reason its user can do something about.

The message of each says what went wrong, what was given, what is allowed and how to put it right. The command
line prints it as one line and never a traceback; a broken invariant inside forerun is an `AssertionError`
instead.
"""

from collections.abc import Mapping, Sequence
from typing import Any


class ForerunError(Exception):
    """Base of all errors of this package; `str(error)` is the full message.

    `status` is the native core's number for the reason (`runtime.library.Status`), 0 if it came from Python.
    """

    status: int = 0


class ModelFileError(ForerunError):
    """A model file is missing, truncated or not what its format says."""


class UnsupportedModelError(ForerunError):
    """The file is sound but holds a model that forerun does not know; the message lists those it knows."""


class ExportError(ForerunError):
    """A model could not be written as ONNX, or an export directory is not a valid one."""


class CompileError(ForerunError):
    """An exported model could not be compiled."""


class DataError(ForerunError):
    """A folder of training data is missing, damaged or of another model."""


class TrainingError(ForerunError):
    """Training cannot go on; the last checkpoint is intact."""


class TargetError(ForerunError):
    """The target is unknown, or this machine cannot run code compiled for it."""


class BundleError(ForerunError):
    """A bundle is malformed, truncated, corrupted or of another version."""


class SavedSequenceError(ForerunError):
    """A saved sequence is damaged, or was saved with another bundle or target."""


class ContextFullError(ForerunError):
    """The sequence has no room for the rows asked for."""


class OptionError(ForerunError):
    """An unknown name, an unknown option or a value outside its range; the message lists what is allowed."""


class SequencesBusyError(OptionError):
    """Every sequence of the model has an answer under way."""


class BatchError(ForerunError):
    """Some answers of a batch failed while the others ran to their ends.

    `generations` holds all of them in the order of the prompts, the failed ones as far as they came; `causes`
    the error of each failed one, by its place.
    """

    def __init__(self, message: str, generations: Sequence[Any], causes: Mapping[int, Exception]) -> None:
        super().__init__(message)
        self.generations = list(generations)
        self.causes = dict(causes)


class OutputError(ForerunError):
    """The output cannot be written: folder not writable, disk full."""


class RuntimeFailure(ForerunError):
    """The native core refused a call or failed in a way that no other class describes."""
