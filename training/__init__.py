"""Making draft components: data that the model writes itself, and training on it."""

if not __name__.startswith("forerun."):
    raise ImportError("import forerun.training, not the bare folder: run from an installed forerun")
