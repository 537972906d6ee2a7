"""Fixtures: the tiny decoder compiled once, with float and with half keys and values, and bundles of it."""

import shutil
from pathlib import Path

import pytest
from reference import Reference
from tiny_model import compile_program, make_bundle, make_weights

from forerun.runtime.session import LoadedProgram


@pytest.fixture(scope="session")
def tiny_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny_program.c as a library, keys and values as floats."""
    return compile_program(tmp_path_factory.mktemp("tiny") / "tiny.so")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_library: Path) -> Path:
    """A bundle of the tiny decoder; not to be changed."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny", tiny_library, make_weights())


@pytest.fixture
def own_bundle(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def half_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same decoder with halves in its cache."""
    folder = tmp_path_factory.mktemp("half")
    library = compile_program(folder / "half.so", "-DTINY_HALF")
    return make_bundle(folder / "bundle", library, make_weights())


@pytest.fixture(scope="session")
def program(tiny_bundle: Path) -> LoadedProgram:
    """The opened bundle with a float cache."""
    return LoadedProgram(tiny_bundle)


@pytest.fixture(scope="session", params=["float", "half"])
def any_program(request: pytest.FixtureRequest, tiny_bundle: Path, half_bundle: Path) -> LoadedProgram:
    """The opened bundle, with either cache."""
    return LoadedProgram(tiny_bundle if request.param == "float" else half_bundle)


@pytest.fixture(scope="session")
def reference(any_program: LoadedProgram) -> Reference:
    """The truth about rows of `any_program`."""
    return Reference(any_program)
