"""`python -m forerun` and the `forerun` command."""

import sys

from forerun.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
