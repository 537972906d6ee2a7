"""Finding the numbers with which the matmuls of a machine, or of its device, run fastest, and keeping them."""

from forerun.compiler.tune.device_search import DeviceSearch
from forerun.compiler.tune.race import Found
from forerun.compiler.tune.search import Search, find_matmuls, tuning_settings
from forerun.compiler.tune.store import Tuning, default_folder, load_tuning, measured_on, save_tuning

__all__ = [
    "DeviceSearch",
    "Found",
    "Search",
    "Tuning",
    "default_folder",
    "find_matmuls",
    "load_tuning",
    "measured_on",
    "save_tuning",
    "tuning_settings",
]
