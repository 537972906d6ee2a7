"""A model whose text can be learned, and makes the helpers of other folders importable."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / folder) for folder in ("models", "runtime", "training")]

if TYPE_CHECKING:
    from learnable import Learnable

    from forerun.training.cache import TeacherCache


@pytest.fixture(scope="module")
def learnable(tmp_path_factory: pytest.TempPathFactory) -> "Learnable":
    from learnable import make_learnable

    torch.set_num_threads(1)
    return make_learnable(tmp_path_factory.mktemp("learnable"))


@pytest.fixture(scope="module")
def caches(
    learnable: "Learnable", tmp_path_factory: pytest.TempPathFactory
) -> "Callable[[str], TeacherCache]":
    made: dict[str, TeacherCache] = {}
    root = tmp_path_factory.mktemp("caches")

    def make(name: str) -> "TeacherCache":
        if name not in made:
            made[name] = learnable.cache(learnable.component(name), root / name)
        return made[name]

    return make
