"""What the report says of the machine and the code."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.race.environments import ROOT
from benchmarks.race.interface import Cpu

# Instruction sets that decide how fast quantized weights are multiplied.
SHOWN_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def describe_machine(cpu: Cpu, arguments: list[str]) -> dict[str, Any]:
    """CPU, kernel, load, date, commit and command."""
    commit = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return {
        "cpu": cpu.model,
        "cpu_flags": [flag for flag in SHOWN_FLAGS if flag in cpu.flags],
        "has_amx": cpu.has_amx,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit + (" with uncommitted changes" if changed else ""),
        "command": shlex.join(
            [f"{Path(sys.executable).parent.parent.name}/bin/python", "-m", "benchmarks.race"]
        )
        + (f" {shlex.join(arguments)}" if arguments else ""),
    }


def git(*arguments: str) -> str:
    """Output of a git command on the checkout."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
