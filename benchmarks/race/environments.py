"""The virtual environments of the peers: made once, made again when their recipe changes, resumable."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.race import pins
from benchmarks.race.interface import RaceError, Recipe

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "race"
PLOT = Recipe("plot", ((pins.MATPLOTLIB,),))

Progress = Callable[[str], None]


def python_of(environment: str) -> Path:
    """The interpreter of an environment; forerun's is the driver's own."""
    if environment == "forerun":
        return Path(sys.executable)
    return BUILD / environment / "venv" / "bin" / "python"


def make_environment(recipe: Recipe, progress: Progress) -> None:
    """Make an environment unless it is there and complete; raises `RaceError` with the end of pip's output."""
    if not recipe.steps and not recipe.wheels:
        return
    folder, python = BUILD / recipe.name, python_of(recipe.name)
    ready, wanted = folder / "ready.json", json.dumps(asdict(recipe), indent=1)
    if ready.exists() and ready.read_text() == wanted:
        return
    ready.unlink(missing_ok=True)
    progress(f"setting up {recipe.name}")
    if not python.exists():
        call([sys.executable, "-m", "venv", str(folder / "venv")], folder)
    for step in recipe.steps:
        progress(f"setting up {recipe.name}: {' '.join(step)}")
        call([str(python), "-m", "pip", "install", *step], folder)
    for package in recipe.wheels:
        progress(f"setting up {recipe.name}: building {package}, some minutes")
        build_wheel(python, package, recipe.variables, folder)
    ready.write_text(wanted)


def build_wheel(python: Path, package: str, variables: Mapping[str, str], folder: Path) -> None:
    """Build a package from its source and install it. pip's cache of built wheels must stay out of it: it knows
    packages by version, not by the variables they were built with.
    """
    wheels = folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    pip = [str(python), "-m", "pip"]
    name = package.split("==", maxsplit=1)[0]
    build = ["wheel", "--no-cache-dir", "--no-deps", "--no-binary", name, "-w", str(wheels), package]
    call([*pip, *build], folder, variables)
    (wheel,) = wheels.glob("*.whl")
    call([*pip, "install", "--force-reinstall", "--no-deps", str(wheel)], folder)
    call([*pip, "install", str(wheel)], folder)


def call(command: list[str], folder: Path, variables: Mapping[str, str] | None = None) -> None:
    """Run a command; its output goes to `folder`/set-up.log, the end of it into the error if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "set-up.log"
    with log.open("w") as file:
        done = subprocess.run(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **(variables or {})},
            check=False,
        )
    if done.returncode != 0:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RaceError(f"{' '.join(command)} failed with status {done.returncode}; see {log}:\n{end}")
