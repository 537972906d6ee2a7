"""From a model file to an export directory: ONNX graph, external weights, tokenizer, manifest."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from forerun.errors import ExportError
from forerun.export.external_data import ExternalDataWriter
from forerun.export.functions import trace_functions
from forerun.export.graph import build_model, part_name
from forerun.export.policies import Choice, Policy, find_policy
from forerun.export.schemes import SCHEMES
from forerun.export.signature import (
    CHAT_TEMPLATE_FILE,
    DATA_FILE,
    FORMAT,
    MANIFEST_FILE,
    MODEL_FILE,
    ROPE_TABLES,
    TOKENIZER_FILE,
    VERSION,
)
from forerun.models.checkpoint import Checkpoint, StoredTensor, TokenizerFiles
from forerun.models.families import family_named
from forerun.models.rope import rotary_tables
from forerun.models.sources import open_checkpoint
from forerun.staging import staged_folder

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class TensorReport:
    """What became of one tensor. `note` is empty unless the scheme is another than the one asked for."""

    name: str
    stored_as: str
    scheme: str
    exact: bool
    note: str


@dataclass(frozen=True)
class ExportReport:
    """What was written: directory, quantization, per tensor its scheme, names of the functions, bytes of
    data.
    """

    directory: Path
    name: str
    quant: str
    tensors: tuple[TensorReport, ...]
    functions: tuple[str, ...]
    data_bytes: int

    @property
    def differences(self) -> tuple[TensorReport, ...]:
        """The tensors that did not get what was asked for; each says why in its note."""
        return tuple(tensor for tensor in self.tensors if tensor.note)

    def scheme_counts(self) -> dict[str, int]:
        """How many tensors each scheme holds."""
        names = [tensor.scheme for tensor in self.tensors]
        return {name: names.count(name) for name in sorted(set(names))}

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.scheme_counts().items())
        lines = [
            f"{self.name}, quantization {self.quant}: {counts}; {self.data_bytes / 2**20:.1f} MiB of weights",
            f"functions: {', '.join(self.functions)}",
        ]
        lines += [
            f"{each.name} ({each.stored_as}): {each.scheme}, for {each.note}" for each in self.differences
        ]
        return "\n".join(lines)


def export_model(
    source: Path | str, output: Path | str, quant: str | None = None, progress: Progress | None = None
) -> ExportReport:
    """Write `source` (GGUF file, Hugging Face folder or `package:NAME`) as an export directory.

    `quant` is keep, f32, q8 or q4; None means keep for GGUF and q8 for Hugging Face folders. `progress` is
    called with what is being done and the part done, 0 … 1. The directory appears whole or not at all; an
    older export of that name is replaced. Raises `ModelFileError`, `UnsupportedModelError`, `OptionError`,
    `ExportError`, `OutputError`.
    """
    report = progress or (lambda _text, _part: None)
    report("reading the model", 0.0)
    checkpoint = open_checkpoint(source)
    policy = find_policy(quant, checkpoint.kind)
    tokenizer = checkpoint.read_tokenizer()
    with staged_folder(Path(output), MANIFEST_FILE, "forerun export") as folder:
        return _write(checkpoint, tokenizer, policy, folder, Path(output).absolute(), report)


def choose_schemes(checkpoint: Checkpoint, policy: Policy) -> dict[str, Choice]:
    """The scheme of every tensor: matrices by the policy, norms and biases float32."""
    return {
        name: policy.choose(name, tensor) if len(tensor.shape) == 2 else Choice("float32")
        for name, tensor in checkpoint.tensors.items()
    }


def _write(
    checkpoint: Checkpoint,
    tokenizer: TokenizerFiles,
    policy: Policy,
    folder: Path,
    directory: Path,
    report: Progress,
) -> ExportReport:
    choices = choose_schemes(checkpoint, policy)
    report("tracing the modules", 0.02)
    # Only structure is traced: the decoder's weights stay uninitialised memory that is never touched.
    decoder = family_named(checkpoint.family).build(checkpoint.config)
    traced = trace_functions(checkpoint.config, decoder)
    del decoder
    initializers, data_bytes = _write_weights(checkpoint, choices, folder / DATA_FILE, report)
    schemes = {name: choice.scheme for name, choice in choices.items()} | dict.fromkeys(
        ROPE_TABLES, "float32"
    )
    model = build_model(checkpoint.config, checkpoint.name, traced, schemes, initializers)
    report("writing the graph", 0.98)
    onnx.save(model, folder / MODEL_FILE)
    _write_text(folder / TOKENIZER_FILE, tokenizer.tokenizer_json)
    if tokenizer.chat_template is not None:
        _write_text(folder / CHAT_TEMPLATE_FILE, tokenizer.chat_template)
    manifest = _manifest(checkpoint, tokenizer, policy, choices)
    _write_text(folder / MANIFEST_FILE, json.dumps(manifest, indent=1) + "\n")
    report("done", 1.0)
    return ExportReport(
        directory=directory,
        name=checkpoint.name,
        quant=policy.name,
        tensors=tuple(
            TensorReport(name, checkpoint.tensors[name].type_name, choice.scheme, choice.exact, choice.note)
            for name, choice in choices.items()
        ),
        functions=tuple(function.name for function in model.functions),
        data_bytes=data_bytes,
    )


def _write_weights(
    checkpoint: Checkpoint, choices: Mapping[str, Choice], path: Path, report: Progress
) -> tuple[list[TensorProto], int]:
    """All tensors, one at a time, so that memory holds one; rotary tables last."""
    initializers = []
    with path.open("wb") as file:
        writer = ExternalDataWriter(file, path.name)
        for index, (name, choice) in enumerate(choices.items()):
            report(f"{choice.scheme}: {name}", 0.1 + 0.87 * index / len(choices))
            scheme = SCHEMES[choice.scheme]()
            parts = _parts(checkpoint.tensors[name], choice, name)
            for part in scheme.parts:
                initializers.append(
                    writer.add(part_name(name, part.suffix), part.data_type, parts[part.suffix])
                )
        for name, table in zip(ROPE_TABLES, rotary_tables(checkpoint.config), strict=True):
            initializers.append(writer.add(name, TensorProto.FLOAT, table.numpy()))
        return initializers, writer.written_bytes


def _parts(tensor: StoredTensor, choice: Choice, name: str) -> dict[str, np.ndarray]:
    scheme = SCHEMES[choice.scheme]()
    try:
        if choice.exact and tensor.read_blocks is not None:
            parts = scheme.take_blocks(tensor.type_name, tensor.read_blocks())
        else:
            parts = scheme.quantize(tensor.read_float32())
    except ExportError as error:
        raise ExportError(f"tensor {name}: {error}") from error
    if not all(np.isfinite(array).all() for array in parts.values()):
        raise ExportError(f"tensor {name}: it holds values that are not finite; the model file is damaged")
    return parts


def _manifest(
    checkpoint: Checkpoint, tokenizer: TokenizerFiles, policy: Policy, choices: Mapping[str, Choice]
) -> dict[str, Any]:
    config = asdict(checkpoint.config)
    # Only the loader needs the divisors; here they are part of the rotary tables already.
    del config["rope_divisors"]
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": checkpoint.name,
        "family": checkpoint.family,
        "source": str(checkpoint.source),
        "quant": policy.name,
        "config": config,
        "tokenizer": {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_ids": list(tokenizer.eos_token_ids),
            "add_bos": tokenizer.add_bos,
        },
        "schemes": {name: choice.scheme for name, choice in choices.items()},
    }


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
