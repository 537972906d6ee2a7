"""How much of the machine others used while something was measured."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Places in the first line of /proc/stat: user, nice, system, irq, softirq and steal; not idle and iowait.
_BUSY = (1, 2, 3, 6, 7, 8)


@dataclass(frozen=True)
class Moment:
    """Seconds: of the clock, of all CPUs at work, and of them ours."""

    clock_s: float
    busy_s: float
    own_s: float


def look(own: Iterable[int]) -> Moment:
    """Now. `own` are processes that are ours beside this one, with all their threads."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    busy_s = sum(int(fields[place]) for place in _BUSY) / _TICKS_PER_S
    return Moment(time.monotonic(), busy_s, sum(map(process_s, own)) + process_s(os.getpid()))


def process_s(process: int) -> float:
    """CPU seconds of a process, in and out of the kernel; 0 for one that is gone."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return 0.0
    fields = text.rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def cores_of_others(start: Moment, end: Moment) -> float:
    """Cores that other processes, and other guests of the same host, kept busy on average."""
    others_s = (end.busy_s - start.busy_s) - (end.own_s - start.own_s)
    return max(others_s, 0.0) / max(end.clock_s - start.clock_s, 1e-9)
