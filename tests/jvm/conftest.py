"""The Kotlin API over the installed core, and a bundle that it talks to."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from kotlin_build import Probe, build_jni, find_kotlin_jar, run_probe


@pytest.fixture(scope="session")
def spoken_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny decoder that speaks in parts of characters; not to be changed."""
    from spoken_bundle import make_spoken_bundle

    return make_spoken_bundle(tmp_path_factory.mktemp("spoken"))


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    """The tests' Kotlin program, programs loaded from bundles."""
    return partial(run_probe, find_kotlin_jar(), build_jni(tmp_path_factory.mktemp("jni")))
