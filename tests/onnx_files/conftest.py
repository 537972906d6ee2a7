"""Bundles of the target onnxruntime, made once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_command import forerun  # noqa: F401 (a fixture)
from onnx_sources import make_bundle


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is found out about this machine is not kept where the user's is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def onnx_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from one of MODELS to its bundle; not to be changed."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = make_bundle(name, tmp_path_factory.mktemp(name))
        return made[name]

    return make
