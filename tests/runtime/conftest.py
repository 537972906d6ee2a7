"""Makes the scripted model and the native core's tiny decoder importable; a bundle of the latter."""

import sys
from pathlib import Path

import pytest

# pytest's importlib mode adds no folder to the path.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "native")]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle of the tiny decoder, with tokenizer and chat template; not to be changed."""
    from tiny_bundle import make_tiny_bundle

    return make_tiny_bundle(tmp_path_factory.mktemp("tiny"))
