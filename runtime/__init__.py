"""What runs on the device: bundle → tokens. Imports numpy, tokenizers, jinja2 and the standard library only.

Read `generate.py` first: it is the way of one token from top to bottom. Legend of shapes everywhere:
M rows, V vocabulary, D hidden size, H heads, K key/value heads, d head size, L layers, C cache capacity.
"""

if not __name__.startswith("forerun."):
    raise ImportError("import forerun.runtime, not the bare folder: run from an installed forerun")
