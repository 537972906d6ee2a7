"""Which system calls the way of a token makes, as strace sees them."""

import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_model import ROOT

from forerun.runtime.library import find_library

MARK = "getppid"
TIMEOUT_S = 240


@dataclass(frozen=True)
class Trace:
    """What was called between the marks, by name, and the ids of all tokens."""

    calls: Counter[str]
    ids: tuple[int, ...]


def trace_tokens(bundle: Path, folder: Path, threads: int, tokens: int, temperature: float = 0.0) -> Trace:
    """Generate `tokens` tokens under strace. Skips the test where strace is missing or may not trace."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    log = folder / "strace.log"
    command = [strace, "-f", "-o", str(log), *token_command(bundle, folder, threads, tokens, temperature)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("this system does not let strace trace")
    assert done.returncode == 0, done.stderr
    return Trace(calls_between_marks(log.read_text()), tuple(map(int, done.stdout.split())))


def token_command(
    bundle: Path, folder: Path, threads: int, tokens: int, temperature: float = 0.0
) -> list[str]:
    """The command that generates tokens through the C interface, its program built first."""
    program, library = folder / "token_way", find_library()
    if not program.exists():
        include = ROOT / "runtime" / "native" / "include"
        flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{include}"]
        source = Path(__file__).with_name("token_way.c")
        link = [str(library), f"-Wl,-rpath,{library.parent}"]
        subprocess.run(["cc", *flags, str(source), *link, "-o", str(program)], check=True)
    return [str(program), str(bundle), str(threads), str(tokens), str(temperature)]


def calls_between_marks(log: str) -> Counter[str]:
    """System calls of all threads between the second and the third mark.

    A line is `PID name(…) = …`, the halves of an interrupted one `… <unfinished ...>` and `<... name resumed>`:
    it counts where it starts. Lines of signals start with `---` or `+++`.
    """
    calls: Counter[str] = Counter()
    marks = 0
    for line in log.splitlines():
        found = re.match(r"\d+ +(\w+)\(", line)
        if found is None:
            continue
        if found[1] == MARK:
            marks += 1
        elif marks == 2:
            calls[found[1]] += 1
    assert marks == 3, log[-2000:]
    return calls


def one_processor() -> set[int]:
    """A single processor of those this process may use."""
    return {min(os.sched_getaffinity(0))}
