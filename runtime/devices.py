"""Devices beside the CPU."""

import ctypes

from forerun.runtime.library import check, load_library


def find_device(interface: str) -> str:
    """Return the name of the device that bundles for an interface (opencl) would run on.

    Raises:
        TargetError: there is none.
    """
    name = ctypes.create_string_buffer(256)
    check(load_library().forerun_find_device(interface.encode(), name, len(name)))
    return name.value.decode(errors="replace")
