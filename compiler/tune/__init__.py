"""Finding the numbers with which a machine's matmuls run fastest, and keeping them."""

from forerun.compiler.tune.search import Found, Search, find_matmuls, tuning_settings
from forerun.compiler.tune.store import Tuning, default_folder, load_tuning, save_tuning

__all__ = [
    "Found",
    "Search",
    "Tuning",
    "default_folder",
    "find_matmuls",
    "load_tuning",
    "save_tuning",
    "tuning_settings",
]
