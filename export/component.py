"""Writing one component, whatever its weights come from: ONNX graph, external weights, manifest, further files."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from torch import nn

from forerun.errors import ExportError
from forerun.export.external_data import ExternalDataWriter
from forerun.export.functions import trace_functions
from forerun.export.graph import build_model, part_name
from forerun.export.policies import Choice, Policy
from forerun.export.schemes import SCHEMES, Scheme
from forerun.export.signature import (
    DATA_FILE,
    FORMAT,
    MANIFEST_FILE,
    MODEL_FILE,
    VERSION,
    Form,
)
from forerun.models.checkpoint import StoredTensor
from forerun.models.rope import rotary_tables
from forerun.staging import staged_folder

Progress = Callable[[str, float], None]

_SLAB_WEIGHTS = 1 << 17  # half a megabyte of float32


@dataclass(frozen=True)
class Component:
    """A network to export.

    `network` has the modules that `form` says, with any weights: its structure is traced, and `tensors` hold the
    weights by the names of its parameters. `facts` are members of the manifest, `files` further files of the export.
    """

    name: str
    form: Form
    network: nn.Module
    tensors: Mapping[str, StoredTensor]
    facts: Mapping[str, Any]
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class TensorReport:
    """What became of one tensor. `note` is empty unless its blocks are not kept, or not as asked for."""

    name: str
    stored_as: str
    scheme: str
    takes_blocks: bool
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

    def grouped_differences(self) -> list[str]:
        """One line for all tensors that share a stored type, a scheme and a note: the first two names, how many more,
        and the reason."""
        groups: dict[tuple[str, str, str], list[str]] = {}
        for each in self.differences:
            groups.setdefault((each.stored_as, each.scheme, each.note), []).append(each.name)
        lines = []
        for (stored_as, scheme, note), names in groups.items():
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            lines.append(f"{', '.join(names[:2])}{more}: {stored_as} → {scheme} ({note})")
        return lines

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.scheme_counts().items())
        lines = [
            f"{self.name}, quantization {self.quant}: {counts}; {self.data_bytes / 2**20:.1f} MiB of weights",
            f"functions: {', '.join(self.functions)}",
            *self.grouped_differences(),
        ]
        return "\n".join(lines)


def write_component(component: Component, policy: Policy, output: Path, report: Progress) -> ExportReport:
    """Write a component's export directory, whole or not at all; an older export of that name is replaced.

    Raises `ExportError`, `OutputError`.
    """
    with staged_folder(output, MANIFEST_FILE, "forerun export") as folder:
        return _write(component, policy, folder, output.absolute(), report)


def choose_schemes(tensors: Mapping[str, StoredTensor], policy: Policy) -> dict[str, Choice]:
    """The scheme of every tensor: matrices by the policy, norms and biases float32."""
    return {
        name: policy.choose(name, tensor) if len(tensor.shape) == 2 else Choice("float32")
        for name, tensor in tensors.items()
    }


def _write(
    component: Component, policy: Policy, folder: Path, directory: Path, report: Progress
) -> ExportReport:
    choices = choose_schemes(component.tensors, policy)
    report("tracing the modules", 0.02)
    traced = trace_functions(component.form, component.network)
    initializers, data_bytes = _write_weights(component, choices, folder / DATA_FILE, report)
    schemes = {name: choice.scheme for name, choice in choices.items()}
    model = build_model(
        component.form,
        component.name,
        traced,
        schemes | dict.fromkeys(component.form.rope_tables, "float32"),
        initializers,
    )
    report("writing the graph", 0.98)
    onnx.save(model, folder / MODEL_FILE)
    for name, data in component.files.items():
        (folder / name).write_bytes(data)
    manifest = _manifest(component, policy, schemes)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    report("done", 1.0)
    return ExportReport(
        directory=directory,
        name=component.name,
        quant=policy.name,
        tensors=tuple(
            TensorReport(
                name, component.tensors[name].type_name, choice.scheme, choice.takes_blocks, choice.note
            )
            for name, choice in choices.items()
        ),
        functions=tuple(function.name for function in model.functions),
        data_bytes=data_bytes,
    )


def _write_weights(
    component: Component, choices: Mapping[str, Choice], path: Path, report: Progress
) -> tuple[list[TensorProto], int]:
    """All tensors, one at a time, so that memory holds one; rotary tables last."""
    initializers = []
    with path.open("wb") as file:
        writer = ExternalDataWriter(file, path.name)
        for index, (name, choice) in enumerate(choices.items()):
            report(f"{choice.scheme}: {name}", 0.1 + 0.87 * index / len(choices))
            scheme = SCHEMES[choice.scheme]()
            parts = weight_parts(component.tensors[name], choice, name)
            for part in scheme.parts:
                initializers.append(
                    writer.add(part_name(name, part.suffix), part.data_type, parts[part.suffix])
                )
        tables = component.form.rope_tables
        for place, (name, windowed) in enumerate(tables.items()):
            table = rotary_tables(component.form.config, windowed)[place % 2]
            initializers.append(writer.add(name, TensorProto.FLOAT, table.numpy()))
        return initializers, writer.written_bytes


def weight_parts(tensor: StoredTensor, choice: Choice, name: str) -> dict[str, np.ndarray]:
    """Array per part suffix of the scheme chosen; raises `ExportError` for values that it cannot hold."""
    scheme = SCHEMES[choice.scheme]()
    try:
        if choice.takes_blocks and tensor.read_blocks is not None:
            parts = scheme.take_blocks(tensor.type_name, tensor.read_blocks())
        else:
            parts = _quantized(scheme, tensor.read_float32())
    except ExportError as error:
        raise ExportError(f"tensor {name}: {error}") from error
    if not all(np.isfinite(array).all() for array in parts.values() if array.dtype.kind == "f"):
        raise ExportError(f"tensor {name}: it holds values that are not finite; the model file is damaged")
    return parts


def _quantized(scheme: Scheme, weight: np.ndarray) -> dict[str, np.ndarray]:
    """What the scheme makes of a weight, a few rows at a time: it tries many scales, each with arrays of the weight's
    size, which here stay in a processor's cache.
    """
    if scheme.function_name is None:  # stored whole
        return scheme.quantize(weight)
    rows = max(1, _SLAB_WEIGHTS // weight.shape[1])
    slabs = [weight[start : start + rows] for start in range(0, len(weight), rows)]
    with ThreadPoolExecutor() as pool:
        pieces = list(pool.map(scheme.quantize, slabs))
    return {suffix: np.concatenate([piece[suffix] for piece in pieces]) for suffix in pieces[0]}


def _manifest(component: Component, policy: Policy, schemes: Mapping[str, str]) -> dict[str, Any]:
    config = asdict(component.form.config)
    # Only the loader needs these; here they are part of the rotary tables and of the last norm already.
    del config["rope_divisors"], config["logit_scale"]
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": component.name,
        "quant": policy.name,
        "config": config,
        **component.facts,
        "schemes": dict(schemes),
    }
