"""From an ONNX file to a bundle of the target onnxruntime, which holds the file as it is. Nothing is compiled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import onnx

from forerun import __version__
from forerun.compiler.bundle import MANIFEST, copy_files, describe_file, write_manifest_body
from forerun.compiler.export_reader import open_export
from forerun.errors import CompileError, ModelFileError
from forerun.machine import physical_cores
from forerun.models.safetensors_source import read_json, read_tokenizer
from forerun.runtime.onnx.engine import Engine
from forerun.runtime.onnx.rule import RowRule, try_rows
from forerun.staging import staged_folder
from forerun.targets import ONNXRUNTIME

# Where a model from elsewhere keeps its file, best first; the last is what optimum wrote until 2023.
_PLACES = ("model.onnx", "onnx/model.onnx", "decoder_model_merged.onnx")
# Sizes that the file does not say, by the names that config.json has for them.
_SIZES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head"),
    "context_length": ("max_position_embeddings", "n_positions", "n_ctx"),
    "vocabulary_size": ("vocab_size",),
}

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class OnnxReport:
    """What was put in a bundle: bytes of the ONNX file and its data, whether its rows may branch, and how they depend
    on each other here."""

    bundle: Path
    signature: str
    provider: str
    bytes: int
    trees: bool
    rule: RowRule


@dataclass(frozen=True)
class Source:
    """An ONNX file, what a manifest says of its model, and its texts by name (tokenizer, chat template).

    The sizes in `settings` are all but those that the file itself says.
    """

    model: Path
    settings: dict[str, Any]
    texts: Mapping[str, str]


def bundle_onnx(source: Path, output: Path, *, progress: Progress | None = None) -> OnnxReport:
    """Write a bundle of the target onnxruntime.

    Args:
        source: what `forerun export` or optimum wrote, or an .onnx file in such a folder.
        output: the bundle folder; written aside and renamed, an existing bundle is replaced.
        progress: called with a stage's name and the part of the whole done, 0…1.

    Raises:
        CompileError, ModelFileError, UnsupportedModelError, BundleError, OptionError, OutputError.
    """
    tell = progress or (lambda stage, done: None)
    tell("reading", 0.0)
    found = find_source(Path(source))
    files = [found.model.name, *external_files(found.model)]
    tell("trying rows", 0.1)
    engine = Engine(found.model, physical_cores(), found.settings["config"].get("window"))
    config = {**found.settings["config"], **sizes_of(engine)}
    rule = try_rows(engine, config["vocabulary_size"], config["context_length"])
    check_rule(found.model, rule)
    with staged_folder(output, MANIFEST, "forerun compile") as folder:
        tell("copying", 0.5)
        copy_files(found.model.parent, folder)
        for name, text in found.texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found.model.parent / name, folder / name)
        tell("writing the bundle", 0.9)
        texts = [name for name in ("tokenizer.json", "chat_template.jinja") if (folder / name).is_file()]
        body = {
            **found.settings,
            "config": config,
            "targets": {ONNXRUNTIME.name: {**_FOR_THE_CORE, "model": found.model.name}},
            "files": {name: describe_file(folder / name) for name in (*files, *texts)},
            "forerun": __version__,
        }
        write_manifest_body(folder, body)
        size = sum((folder / name).stat().st_size for name in files)
    tell("done", 1.0)
    signature = engine.signature
    return OnnxReport(Path(output), signature.name, engine.provider, size, signature.trees, rule)


# The core opens compiled programs alone; by these it says what the bundle is for.
_FOR_THE_CORE = {"arch": "ONNX Runtime in Python", "symbol": "none", "features": []}


def find_source(path: Path) -> Source:
    """Find an ONNX file and what is known of its model.

    Raises:
        CompileError, ModelFileError: there is none, or its folder is not whole.
    """
    if (path / "export.json").is_file():
        export = open_export(path)
        if "draft" in export.settings:
            raise CompileError(f"{path} holds a draft component, which {ONNXRUNTIME.name} does not run")
        names = ("name", "family", "quant", "config", "tokenizer", "source")
        return Source(path / "model.onnx", {name: export.settings[name] for name in names}, {})
    if not path.exists():
        raise CompileError(f"{path} does not exist; give a folder that forerun export or optimum wrote")
    model = find_model(path) if path.is_dir() else path
    folder = model.parent if (model.parent / "config.json").is_file() else model.parent.parent
    values = read_json(folder / "config.json")
    values = {**values, **values.get("text_config", {})}
    tokenizer = read_tokenizer(folder, values)
    texts = {"tokenizer.json": tokenizer.tokenizer_json}
    if tokenizer.chat_template is not None:
        texts["chat_template.jinja"] = tokenizer.chat_template
    settings = {
        "name": str(values.get("_name_or_path") or folder.resolve().name).rstrip("/").split("/")[-1],
        "family": str(values.get("model_type", "unknown")),
        "quant": "as in its file",
        "config": {name: read_size(folder, values, name) for name in _SIZES},
        "tokenizer": {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_ids": list(tokenizer.eos_token_ids),
            "add_bos": tokenizer.add_bos,
        },
        "source": str(model.resolve()),
    }
    return Source(model, settings, texts)


def find_model(folder: Path) -> Path:
    """Return the ONNX file of a folder; CompileError lists those that are there if none has a name that is known."""
    for place in _PLACES:
        if (folder / place).is_file():
            return folder / place
    others = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.onnx"))
    has = f"it has {', '.join(others)}: give one of them" if others else "it has no .onnx file"
    raise CompileError(f"{folder} has no export.json and none of {', '.join(_PLACES)}; {has}")


def read_size(folder: Path, values: Mapping[str, Any], name: str) -> int:
    """Return a size of config.json; ModelFileError if it has none of the names that are known for it."""
    for key in _SIZES[name]:
        if isinstance(values.get(key), int):
            return int(values[key])
    raise ModelFileError(f"{folder / 'config.json'} has no entry {' or '.join(_SIZES[name])}")


def sizes_of(engine: Engine) -> dict[str, int]:
    """Return the sizes that the file itself says."""
    sizes = {"layers": engine.layers, "kv_heads": engine.kv_heads, "head_dim": engine.head_dim}
    return sizes if engine.vocabulary_size is None else {**sizes, "vocabulary_size": engine.vocabulary_size}


def check_rule(model: Path, rule: RowRule) -> None:
    """Raise CompileError for a file whose rows are wrong in company."""
    if not rule.is_sound:
        raise CompileError(
            f"{model} gives rows that share a call other logits than alone, by up to {rule.difference:.3g} where logits"
            f" spread over {rule.spread:.3g}: it does not take several rows after a past; export it again"
        )


def external_files(model: Path) -> list[str]:
    """Return the files that hold an ONNX file's weights beside it, relative to its folder.

    Raises:
        CompileError: it is no ONNX file, or names files that are missing or outside its folder.
    """
    try:
        graph = onnx.load(model, load_external_data=False).graph
    except Exception as error:  # protobuf's errors are of several kinds
        raise CompileError(f"{model} is no ONNX file, or cut off: {error}") from error
    names = {
        entry.value
        for tensor in tensors_of(graph)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise CompileError(f"{model} keeps weights outside its folder, in {name}; export it again")
        if not (model.parent / name).is_file():
            raise CompileError(
                f"{model.parent / name} is missing; the ONNX file beside it keeps its weights there"
            )
    return sorted(names)


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield all tensors that a graph and those within it hold."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from tensors_of(inner)
