"""What a bundle's manifest says: names, tokenizer files, targets. The native core does the verifying."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from forerun.errors import BundleError

MANIFEST_NAME = "manifest.json"
FORMAT = "forerun-bundle"
VERSION = 3


@dataclass(frozen=True)
class TargetInfo:
    """One target that a bundle was compiled for; `features` are processor features its code needs.

    `library` is empty where the target's program is for an app to link. `model` is the ONNX file of the target
    onnxruntime, which has no program.
    """

    name: str
    library: str
    arch: str
    features: tuple[str, ...]
    model: str = ""


@dataclass(frozen=True)
class DraftInfo:
    """A draft component in a bundle, as the manifest describes it; its own folder, `path`, is not looked at.

    `component` names its kind, `taps` the layers of the model whose hidden states feed it, `sublayers` what its
    layers have; `heads` share them evenly. `feature_size` numbers come with each token; 0: its rows are hidden
    states. `model` holds what was known of the model when it was exported.
    """

    name: str
    path: Path
    component: str
    taps: tuple[int, ...]
    sublayers: tuple[str, ...]
    layers: int
    heads: int
    feature_size: int
    vocabulary_size: int
    model: Mapping[str, Any]

    @property
    def other_id(self) -> int:
        """The draft id of every token that has none of its own."""
        return self.vocabulary_size - 1

    def read_vocabulary(self) -> np.ndarray:
        """The model's token id of each draft id but the last, int32 [vocabulary_size - 1].

        Raises `BundleError` if the file is missing or of another size. Its hash is checked when the draft's program
        is opened.
        """
        path = self.path / "vocabulary.bin"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"cannot read {path}: {error.strerror}; copy or compile the bundle again"
            ) from error
        if len(data) != 4 * self.other_id:
            raise BundleError(
                f"{path} has {len(data)} bytes, the manifest says {4 * self.other_id}; compile the bundle again"
            )
        return np.frombuffer(data, "<i4").astype(np.int32)


@dataclass(frozen=True)
class Bundle:
    """A bundle's manifest. `config` holds the sizes as export.json names them, `files` bytes by file name, `drafts`
    the draft components by name.
    """

    path: Path
    name: str
    family: str
    quant: str
    config: Mapping[str, Any]
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    add_bos: bool
    targets: tuple[TargetInfo, ...]
    files: Mapping[str, int]
    drafters: tuple[Any, ...]
    exits: tuple[Any, ...]
    costs: Mapping[str, Any]
    source: str
    forerun: str
    drafts: Mapping[str, DraftInfo]

    @property
    def onnx_model(self) -> str:
        """The ONNX file that ONNX Runtime is to run; empty for a compiled bundle."""
        return self.targets[0].model if self.targets else ""

    @property
    def tokenizer_path(self) -> Path:
        """The file for the `tokenizers` library."""
        return self.path / "tokenizer.json"

    @property
    def chat_template_path(self) -> Path | None:
        """The jinja2 template of a chat, None if the model has none."""
        path = self.path / "chat_template.jinja"
        return path if path.is_file() else None


def read_bundle(path: Path) -> Bundle:
    """Read the manifest of the bundle in folder `path`.

    Raises `BundleError` if there is none, if it is of another version, or if it lacks what the format has.
    Hashes are checked when the bundle is opened (`session.LoadedProgram`).
    """
    path = Path(path)
    manifest = read_manifest(path)
    try:
        return _make_bundle(path, manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path / MANIFEST_NAME} lacks or garbles {error}; compile it again") from error


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of the bundle in folder `path` as it is; raises `BundleError` as `read_bundle` does."""
    try:
        document = json.loads((path / MANIFEST_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{path} has no {MANIFEST_NAME}; make a bundle with `forerun compile`") from error
    except OSError as error:
        raise BundleError(f"cannot read {path / MANIFEST_NAME}: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{path / MANIFEST_NAME} is damaged ({error}); compile the bundle again") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BundleError(f"{path / MANIFEST_NAME} is not a bundle's; make one with `forerun compile`")
    if document.get("version") != VERSION:
        raise BundleError(
            f"{path} has format version {document.get('version')}, this forerun reads version {VERSION};"
            " compile the model again with this version"
        )
    manifest = document.get("manifest")
    if not isinstance(manifest, dict):
        raise BundleError(f"{path / MANIFEST_NAME} is damaged (no manifest object); compile the bundle again")
    return manifest


def _make_bundle(path: Path, manifest: dict[str, Any]) -> Bundle:
    tokenizer = manifest["tokenizer"]
    bos_token_id = tokenizer.get("bos_token_id")
    return Bundle(
        path=path,
        name=str(manifest["name"]),
        family=str(manifest["family"]),
        quant=str(manifest["quant"]),
        config=dict(manifest["config"]),
        bos_token_id=None if bos_token_id is None else int(bos_token_id),
        eos_token_ids=tuple(int(token_id) for token_id in tokenizer["eos_token_ids"]),
        add_bos=bool(tokenizer["add_bos"]),
        targets=tuple(
            TargetInfo(
                name,
                str(entry.get("library", "")),
                str(entry["arch"]),
                tuple(map(str, entry["features"])),
                str(entry.get("model", "")),
            )
            for name, entry in manifest["targets"].items()
        ),
        files={name: int(entry["bytes"]) for name, entry in manifest["files"].items()},
        drafters=tuple(manifest.get("drafters", ())),
        exits=tuple(manifest.get("exits", ())),
        costs=dict(manifest.get("costs", {})),
        source=str(manifest.get("source", "")),
        forerun=str(manifest.get("forerun", "")),
        drafts={name: _make_draft(path, name, entry) for name, entry in manifest.get("drafts", {}).items()},
    )


def _make_draft(path: Path, name: str, entry: Mapping[str, Any]) -> DraftInfo:
    network, folder = entry["network"], PurePosixPath(entry["path"])
    if folder.is_absolute() or ".." in folder.parts:
        raise ValueError(f"the path of draft {name}, which lies outside the bundle: {folder}")
    return DraftInfo(
        name=name,
        path=path / folder,
        component=str(entry["component"]),
        taps=tuple(int(tap) for tap in entry["taps"]),
        sublayers=tuple(map(str, entry["sublayers"])),
        layers=int(network["layers"]),
        heads=int(entry["heads"]),
        feature_size=int(entry["feature_size"]),
        vocabulary_size=int(network["vocabulary_size"]),
        model=dict(entry["model"]),
    )
