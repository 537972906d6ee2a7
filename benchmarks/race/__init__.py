"""forerun beside its peers in one run: `python -m benchmarks.race --help`."""
