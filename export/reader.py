"""Reading an export directory back: manifest, graph, weights."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto

from forerun.errors import ExportError
from forerun.export.external_data import read_external
from forerun.export.graph import part_name
from forerun.export.schemes import SCHEMES
from forerun.export.signature import (
    DATA_FILE,
    FEED_FORWARD,
    FORMAT,
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    VERSION,
    VOCABULARY_FILE,
    Form,
    draft_form,
)
from forerun.models.config import ModelConfig
from forerun.models.drafts import DraftConfig, DraftNetwork, read_draft_config
from forerun.models.families import family_named
from forerun.models.llama import Decoder


@dataclass(frozen=True)
class ExportManifest:
    """The contents of export.json; `schemes` by tensor name, `draft` None for a model."""

    directory: Path
    name: str
    family: str
    source: str
    quant: str
    config: ModelConfig
    tokenizer: dict[str, Any]
    schemes: dict[str, str]
    draft: DraftConfig | None = None

    @property
    def form(self) -> Form:
        """What the exported network has."""
        return Form(self.config) if self.draft is None else draft_form(self.draft)


def read_manifest(directory: Path | str) -> ExportManifest:
    """Read and check export.json; raises `ExportError` for anything but a whole export of this version."""
    directory = Path(directory)
    path = directory / MANIFEST_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(
            f"{directory} is not an export directory: {path.name} cannot be read: {error}"
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ExportError(f"{path} is not a {FORMAT} manifest")
    if found.get("version") != VERSION:
        raise ExportError(
            f"{path} is of version {found.get('version')}; this forerun reads {VERSION}; export again"
        )
    for name in (MODEL_FILE, DATA_FILE, VOCABULARY_FILE if "draft" in found else TOKENIZER_FILE):
        if not (directory / name).exists():
            raise ExportError(f"{directory / name} is missing; export again")
    try:
        known = {field.name for field in fields(ModelConfig)}
        settings = {key: value for key, value in found["config"].items() if key in known}
        config = ModelConfig.from_json(settings)
        texts = {key: str(found[key]) for key in ("name", "family", "source", "quant")}
        return ExportManifest(
            directory,
            **texts,
            config=config,
            tokenizer=dict(found["tokenizer"]),
            schemes=dict(found["schemes"]),
            draft=read_draft_config(found["draft"]) if "draft" in found else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"{path} is malformed: {error!r}") from error


def read_graph(directory: Path | str) -> ModelProto:
    """The ONNX model without its weights' data; raises `ExportError` if it cannot be parsed."""
    path = Path(directory) / MODEL_FILE
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError is private to its implementations
        raise ExportError(f"{path} cannot be read as ONNX: {error}") from error


def read_weights(directory: Path | str) -> dict[str, dict[str, np.ndarray]]:
    """Every exported weight as its parts: tensor name → part suffix → array. Raises `ExportError`."""
    manifest = read_manifest(directory)
    initializers = {tensor.name: tensor for tensor in read_graph(directory).graph.initializer}
    weights: dict[str, dict[str, np.ndarray]] = {}
    for name, scheme in manifest.schemes.items():
        suffixes = [part.suffix for part in SCHEMES.find(scheme).parts]
        missing = [
            part_name(name, suffix) for suffix in suffixes if part_name(name, suffix) not in initializers
        ]
        if missing:
            raise ExportError(f"{directory}: {MODEL_FILE} has no tensor {missing[0]}")
        weights[name] = {
            suffix: read_external(manifest.directory, initializers[part_name(name, suffix)])
            for suffix in suffixes
        }
    return weights


def load_exported_model(directory: Path | str) -> Decoder:
    """The eager decoder with the weights that the export holds, dequantized to float32.

    The rotary tables are those of the export too. Raises `ExportError`, also for a draft's export.
    """
    manifest = read_manifest(directory)
    if manifest.draft is not None:
        raise ExportError(f"{directory} holds the draft component {manifest.name}, not a model")
    decoder = family_named(manifest.family).build(manifest.config)
    _load_weights(manifest, decoder)
    return decoder


def load_exported_draft(directory: Path | str) -> DraftNetwork:
    """The same for a draft component; raises `ExportError`, also for a model's export."""
    manifest = read_manifest(directory)
    if manifest.draft is None:
        raise ExportError(f"{directory} holds the model {manifest.name}, not a draft component")
    network = DraftNetwork(manifest.draft)
    _load_weights(manifest, network)
    return network


def _load_weights(manifest: ExportManifest, network: Any) -> None:
    """Fill a network with the export's weights and rotary tables."""
    weights = read_weights(manifest.directory)
    for name, parameter in network.named_parameters():
        if name not in weights:
            raise ExportError(f"{manifest.directory}: {MANIFEST_FILE} lists no tensor {name}")
        parameter.data = torch.from_numpy(SCHEMES[manifest.schemes[name]]().dequantize(weights[name]))
    if manifest.form.attends:
        filled: list[Any] = []
        tables = {tensor.name: tensor for tensor in read_graph(manifest.directory).graph.initializer}
        for index, layer in enumerate(network.layers):
            if layer.attention.rope in filled:
                continue
            filled.append(layer.attention.rope)
            (kind,) = (kind for kind in manifest.form.sublayers(index) if kind is not FEED_FORWARD)
            for name, buffer in layer.attention.named_buffers():
                table = tables[manifest.form.initializer_name(kind, "", name)]
                buffer.copy_(torch.from_numpy(read_external(manifest.directory, table)))
    network.eval()
