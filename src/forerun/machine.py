"""What this machine is, and where the user's things are kept on it."""

from __future__ import annotations

import importlib.util
import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# What tells one kind of processor from another, on x86 and on Arm.
_MODEL_KEYS = (
    *("vendor_id", "cpu family", "model", "stepping", "model name"),
    *("CPU implementer", "CPU variant", "CPU part", "CPU revision"),
)


def first_cpu(cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """What the kernel says of the first processor listed; nothing where it does not say."""
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_model(cpuinfo: Path = CPUINFO) -> str:
    """What kind of processor this is, in one line; the machine's name for it where the kernel says nothing."""
    fields = first_cpu(cpuinfo)
    return ", ".join(fields[key] for key in _MODEL_KEYS if fields.get(key)) or platform.machine()


def physical_cores(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return how many physical cores this process may use; logical ones count where the kernel does not say."""
    allowed = os.sched_getaffinity(0)
    paths = [topology / f"cpu{cpu}" / "topology" / "thread_siblings_list" for cpu in sorted(allowed)]
    return len({path.read_text() if path.is_file() else str(path) for path in paths})


def cache_folder(kind: str) -> Path:
    """Where things of a kind are kept between runs: in $XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forerun" / kind


def show_wgpu() -> None:
    """Tell the core where the package wgpu has wgpu-native, unless the environment names another one."""
    package = importlib.util.find_spec("wgpu")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        for found in sorted(Path(folder, "resources").glob("libwgpu_native*")):
            os.environ.setdefault("FORERUN_WGPU", str(found))
