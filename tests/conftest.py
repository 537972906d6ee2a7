"""Makes the helpers of every test folder importable: pytest's importlib mode adds no folder to the path."""

import signal
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(path) for path in sorted(Path(__file__).parent.iterdir()) if path.is_dir()]

# A shell that starts the suite in the background has it ignore Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng() -> np.random.Generator:
    """Fresh random numbers in every run; the seed is printed when a test fails."""
    seed = int(np.random.SeedSequence().entropy) % 2**32
    print(f"seed {seed}")
    return np.random.default_rng(seed)
