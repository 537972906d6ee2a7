"""Makes the helpers of other folders importable."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / folder) for folder in ("models", "runtime", "training")]
