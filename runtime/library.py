"""The native core through ctypes: finding the library, declaring its functions, a status becoming an error.

Mirrors `native/include/forerun/forerun.h`; what a function does is written there.
"""

import ctypes
import enum
import functools
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from forerun.errors import BundleError, ContextFullError, ForerunError, RuntimeFailure, TargetError
from forerun.machine import show_wgpu

LIBRARY_NAME = "libforerun.so"
ALL = -1
MOST_CHOICES = 64
MOST_DRAWN = 64
MAX_INT32 = 2**31 - 1


class Status(enum.IntEnum):
    """`forerun_status`: what a call came to."""

    OK = 0
    INVALID_ARGUMENT = 1
    OUT_OF_MEMORY = 2
    BUSY = 3
    CONTEXT_FULL = 4
    NO_SEQUENCE = 5
    INEXACT_ROW = 6
    NOT_COMPUTED = 7
    NOT_A_NUMBER = 8
    FILE = 20
    MANIFEST = 21
    VERSION = 22
    SIZE = 23
    HASH = 24
    PATH = 25
    UNKNOWN_TARGET = 26
    ARCHITECTURE = 27
    CPU_FEATURE = 28
    LIBRARY = 29
    PROGRAM_ABI_MISMATCH = 30
    PROGRAM = 31
    TEXT = 32
    SAVED = 33
    DEVICE = 34


_ERRORS: dict[int, type[ForerunError]] = {
    Status.CONTEXT_FULL: ContextFullError,
    Status.UNKNOWN_TARGET: TargetError,
    Status.ARCHITECTURE: TargetError,
    Status.CPU_FEATURE: TargetError,
    Status.DEVICE: TargetError,
    **{
        status: BundleError
        for status in Status
        if status >= Status.FILE
        and status not in (Status.UNKNOWN_TARGET, Status.ARCHITECTURE, Status.CPU_FEATURE, Status.DEVICE)
    },
}


class NativeModel(ctypes.Structure):
    """`forerun_model`."""

    _fields_ = (
        ("layers", c_int32),
        ("hidden_size", c_int32),
        ("vocabulary_size", c_int32),
        ("context_length", c_int32),
        ("max_rows", c_int32),
        ("max_gather", c_int32),
        ("kv_element_bytes", c_int32),
        ("feature_size", c_int32),
    )


class NativeOptions(ctypes.Structure):
    """`forerun_session_options`."""

    _fields_ = (("sequences", c_int32), ("capacity", c_int32), ("threads", c_int32), ("team_of", c_void_p))


class NativeState(ctypes.Structure):
    """`forerun_sequence_state`."""

    _fields_ = (("length", c_int32), ("staged", c_int32), ("pending", c_int32))


class NativeRequest(ctypes.Structure):
    """`forerun_request`; rows are pairs of int32."""

    _fields_ = (
        ("rows", c_void_p),
        ("row_count", c_int32),
        ("steps", c_void_p),
        ("step_count", c_int32),
        ("logits_rows", c_void_p),
        ("logits_count", c_int32),
        ("taps", c_void_p),
        ("tap_count", c_int32),
        ("draws", c_int32),
        ("sampling", c_void_p),
    )


class NativeResult(ctypes.Structure):
    """`forerun_result`."""

    _fields_ = (
        ("logits", c_void_p),
        ("taps", c_void_p),
        ("elapsed_ms", c_double),
        ("carried_rows", c_int32),
        ("passes", c_int32),
    )


class NativeSampling(ctypes.Structure):
    """`forerun_sampling`."""

    _fields_ = (("temperature", c_double), ("top_k", c_int32), ("top_p", c_double), ("seed", c_uint64))


class NativeDraftLogits(ctypes.Structure):
    """`forerun_draft_logits`."""

    _fields_ = (("values", c_void_p), ("count", c_int32), ("named", c_int32), ("token_ids", c_void_p))


class NativeChoice(ctypes.Structure):
    """`forerun_choice`."""

    _fields_ = (("index", c_int32), ("probability", c_float))


class NativeGeneration(ctypes.Structure):
    """`forerun_generation`."""

    _fields_ = (
        ("drafter", c_char_p),
        ("shape", c_char_p),
        ("exit", c_char_p),
        ("sampling", NativeSampling),
        ("max_tokens", c_int32),
        ("end_token_ids", c_void_p),
        ("end_token_count", c_int32),
    )


class NativeOrigin(ctypes.Structure):
    """`forerun_origin_counts`."""

    _fields_ = (("calls", c_int64), ("drafted", c_int64), ("accepted", c_int64))


class NativeStatistics(ctypes.Structure):
    """`forerun_statistics`."""

    _fields_ = (
        *((name, c_int64) for name in ("prompt_tokens", "cached_tokens", "generated_tokens")),
        *((name, c_int64) for name in ("verify_calls", "drafted", "accepted")),
        *((name, c_double) for name in ("prefill_ms", "draft_ms", "verify_ms", "commit_ms")),
        ("drafted_at", c_int64 * MOST_DRAWN),
        ("accepted_at", c_int64 * MOST_DRAWN),
        ("origins", NativeOrigin * 5),
    )


class NativeCosts(ctypes.Structure):
    """`forerun_costs`."""

    _fields_ = (("count", c_int32), ("whole", c_int32), ("rows", c_int32 * 16), ("ms", c_double * 16))


class NativeKernel(ctypes.Structure):
    """`forerun_kernel_facts`."""

    _fields_ = (
        ("module", c_char_p),
        ("name", c_char_p),
        ("call_bytes", c_uint64),
        ("row_bytes", c_uint64),
        ("position_bytes", c_uint64),
        ("window", c_int32),
    )


class NativeTextFacts(ctypes.Structure):
    """`forerun_text_facts`."""

    _fields_ = (
        ("vocabulary_size", c_int32),
        ("bos_id", c_int32),
        ("add_bos", c_int32),
        ("has_chat", c_int32),
        ("end_count", c_int32),
        ("end_ids", POINTER(c_int32)),
    )


class NativePiece(ctypes.Structure):
    """`forerun_piece`."""

    _fields_ = (("utf8", c_void_p), ("bytes", c_size_t), ("stopped", c_int32))


class NativeMessage(ctypes.Structure):
    """`forerun_message`."""

    _fields_ = (("role", c_char_p), ("content", c_char_p), ("bytes", c_size_t))


# Function → types of its arguments; all of these return a status.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "forerun_bundle_open": (c_char_p, c_char_p, POINTER(c_void_p)),
    "forerun_find_device": (c_char_p, c_char_p, c_size_t),
    "forerun_bundle_model": (c_void_p, POINTER(NativeModel)),
    "forerun_bundle_cache_bytes": (c_void_p, c_int32, POINTER(c_uint64)),
    "forerun_bundle_layer": (c_void_p, c_int32, POINTER(c_int32), POINTER(c_int32)),
    "forerun_session_create": (c_void_p, POINTER(NativeOptions), POINTER(c_void_p)),
    "forerun_session_describe": (c_void_p, POINTER(NativeOptions)),
    "forerun_sequence_create": (c_void_p, POINTER(c_int32)),
    "forerun_sequence_release": (c_void_p, c_int32),
    "forerun_sequence_fork": (c_void_p, c_int32, POINTER(c_int32)),
    "forerun_sequence_save": (c_void_p, c_int32, c_char_p),
    "forerun_sequence_restore": (c_void_p, c_char_p, POINTER(c_int32)),
    "forerun_sequence_tokens": (c_void_p, c_int32, c_void_p, c_int32, POINTER(c_int32)),
    "forerun_sequence_describe": (c_void_p, c_int32, POINTER(NativeState)),
    "forerun_stage": (c_void_p, c_int32, c_int32, c_void_p, c_void_p),
    "forerun_stage_features": (c_void_p, c_int32, c_int32, c_void_p, c_void_p, c_void_p),
    "forerun_stage_hidden": (c_void_p, c_int32, c_int32, c_void_p, c_void_p, c_int32),
    "forerun_commit": (c_void_p, c_int32, c_int32, c_void_p),
    "forerun_rewind": (c_void_p, c_int32, c_int32),
    "forerun_row_done": (c_void_p, c_int32, c_int32, POINTER(c_int32)),
    "forerun_forward": (c_void_p, POINTER(NativeRequest), POINTER(NativeResult)),
    "forerun_read_kv": (c_void_p, c_int32, c_int32, c_int32, c_int32, POINTER(c_float), POINTER(c_float)),
    "forerun_bundle_kernel_count": (c_void_p, POINTER(c_int32)),
    "forerun_bundle_kernel": (c_void_p, c_int32, POINTER(NativeKernel)),
    **dict.fromkeys(("forerun_profile_open", "forerun_profile_close"), (c_void_p,)),
    "forerun_profile_read": (c_void_p, c_void_p, c_void_p, c_void_p),
    "forerun_measure_device_copy": (c_void_p, c_uint64, c_int32, c_void_p),
    "forerun_trial_create": (c_void_p, c_void_p, c_int32, POINTER(c_void_p)),
    "forerun_trial_run": (c_void_p, c_int32, c_int32, c_int32, POINTER(c_uint64)),
    "forerun_measure_read": (c_void_p, c_int32, c_uint64, c_int32, c_void_p),
    "forerun_sample": (c_void_p, c_void_p, POINTER(NativeSampling), c_int64, POINTER(c_int32)),
    "forerun_draw": (c_void_p, c_int32, POINTER(NativeSampling), c_int64, POINTER(c_int32)),
    "forerun_generator_create": (c_void_p, POINTER(c_void_p)),
    "forerun_generate_start": (c_void_p, c_int32, c_void_p, c_int32, POINTER(NativeGeneration)),
    "forerun_generate_next": (c_void_p, c_int32, c_void_p, POINTER(c_int32), POINTER(c_int)),
    "forerun_generate_keep": (c_void_p, c_int32, c_int32),
    "forerun_generate": (c_void_p, c_int32, c_void_p, c_void_p, POINTER(c_int)),
    "forerun_generate_statistics": (c_void_p, c_int32, POINTER(NativeStatistics)),
    "forerun_generate_exits": (c_void_p, c_int32, c_void_p),
    "forerun_tune": (c_void_p, c_int32, POINTER(NativeCosts)),
    "forerun_set_costs": (c_void_p, POINTER(NativeCosts)),
    "forerun_get_costs": (c_void_p, POINTER(NativeCosts)),
    "forerun_rank": (
        *(c_void_p, POINTER(NativeDraftLogits), POINTER(NativeSampling), c_int64, c_int32),
        *(POINTER(NativeChoice), POINTER(c_int32)),
    ),
    "forerun_text_open": (c_void_p, POINTER(c_void_p)),
    "forerun_text_describe": (c_void_p, POINTER(NativeTextFacts)),
    "forerun_encode": (c_void_p, c_char_p, c_size_t, c_void_p, c_size_t, POINTER(c_size_t)),
    "forerun_decode": (c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, POINTER(c_size_t)),
    "forerun_decoder_create": (c_void_p, POINTER(c_char_p), c_int32, POINTER(c_void_p)),
    "forerun_decoder_feed": (c_void_p, c_int32, POINTER(NativePiece)),
    "forerun_decoder_flush": (c_void_p, POINTER(NativePiece)),
    "forerun_chat_prompt": (
        *(c_void_p, POINTER(NativeMessage), c_int32),
        *(c_void_p, c_size_t, POINTER(c_size_t)),
    ),
}


@functools.lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL:
    """The native core, loaded on first use; `RuntimeFailure` if it was never built or cannot be loaded."""
    path = find_library()
    show_wgpu()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise RuntimeFailure(
            f"cannot load the native library {path}: {error}; install forerun again"
        ) from error
    for name, arguments in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = c_int
    for name in ("bundle", "session", "generator", "text", "decoder", "trial"):
        release = getattr(library, f"forerun_{name}_release")
        release.argtypes, release.restype = [c_void_p], None
    library.forerun_cancel.argtypes, library.forerun_cancel.restype = [c_void_p, c_int32], None
    library.forerun_bundle_target.argtypes = library.forerun_bundle_device.argtypes = [c_void_p]
    for name in ("forerun_last_error", "forerun_version", "forerun_bundle_target", "forerun_bundle_device"):
        getattr(library, name).restype = c_char_p
    library.forerun_hash64.argtypes = [c_char_p, c_size_t, c_uint64]
    library.forerun_hash64.restype = c_uint64
    return library


def find_library() -> Path:
    """Where the native library lies: in one of the folders that make up this package.

    An editable installation spreads the package over two folders, the sources and the built files.
    """
    import forerun.runtime

    for folder in forerun.runtime.__path__:
        path = Path(folder) / LIBRARY_NAME
        if path.is_file():
            return path
    raise RuntimeFailure(f"the native library {LIBRARY_NAME} is missing; install forerun again")


def check(
    status: int,
    error: type[ForerunError] = RuntimeFailure,
    file_error: type[ForerunError] = BundleError,
) -> None:
    """Raise the error for a status other than OK, with the core's own text.

    `error` is the class for a status that has no class of its own, `file_error` that for a file which cannot be read
    or written, or is not what it should be. The number is in the error's `status`.
    """
    if status == Status.OK:
        return
    text = load_library().forerun_last_error().decode("utf-8", "replace")
    found = _ERRORS.get(status, error)
    raised = (file_error if found is BundleError else found)(text)
    raised.status = status
    raise raised


class Handle:
    """A pointer that the core gave out; given back when the last Python object that needs it goes."""

    def __init__(self, pointer: int, release: Any) -> None:
        self.pointer = pointer
        self._release = release

    def __del__(self) -> None:
        self._release(self.pointer)
