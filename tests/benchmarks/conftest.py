"""Makes `benchmarks` importable: it lies in the repository's root, which is on nobody's path."""

import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)
