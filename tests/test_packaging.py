"""The top-level folders are installed as forerun.<folder>, from anywhere, and only as that."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# benchmarks/ is run from the sources and not installed.
FOLDERS = sorted({path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks"})


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_every_folder_is_in_the_wheel() -> None:
    """A folder that the table leaves out would silently be missing from an installed forerun."""
    table = dict(
        re.findall(r'^"forerun/(\w+)" = "(\w+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    )
    assert table == {folder: folder for folder in FOLDERS}


def test_it_is_found_from_anywhere_with_its_library(tmp_path: Path) -> None:
    code = "import forerun.runtime.library as l; print(l.load_library().forerun_version().decode())"
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert done.stdout.strip() == version[1]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_bare_folder_is_refused(folder: str) -> None:
    done = run(f"import {folder}", ROOT)
    assert done.returncode == 1
    assert f"import forerun.{folder}, not the bare folder" in done.stderr


def test_public_names_are_lazy(tmp_path: Path) -> None:
    code = (
        "import sys, forerun; assert 'numpy' not in sys.modules; "
        "assert {'load', 'Model'} <= set(dir(forerun)); forerun.load; assert 'numpy' in sys.modules; "
        "assert not hasattr(forerun, 'nothing')"
    )
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
