"""Writing a bundle: the manifest with its hash, and the copies of tokenizer and template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import xxhash

from forerun import __version__
from forerun.targets import Target

BUNDLE_VERSION = 1
MANIFEST = "manifest.json"
_COPIED = ("tokenizer.json", "chat_template.jinja")


def hash_file(path: Path) -> str:
    """Return a file's XXH64 in hex, read in pieces."""
    state = xxhash.xxh64()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            state.update(piece)
    return state.hexdigest()


def copy_text_files(export: Path, bundle: Path) -> None:
    """Copy what the runtime needs of the export as it is."""
    for name in _COPIED:
        if (export / name).is_file():
            shutil.copyfile(export / name, bundle / name)


def write_manifest(
    bundle: Path, settings: dict[str, Any], target: Target, library: str, weights_hash: str, **extra: Any
) -> None:
    """Write manifest.json: a first line with format, version and hash, then the JSON object that it vouches for.

    Args:
        bundle: the folder, complete but for the manifest.
        settings: the export's settings.
        target: what the library was compiled for.
        library: path of the library within the bundle.
        weights_hash: XXH64 of weights.bin, known from writing it.
        extra: further members of the manifest.
    """
    hashes = {"weights.bin": weights_hash}
    listed = ["weights.bin", library, *(name for name in _COPIED if (bundle / name).is_file())]
    files = {
        name: {"bytes": (bundle / name).stat().st_size, "xxh64": hashes.get(name) or hash_file(bundle / name)}
        for name in listed
    }
    entry = {
        "library": library,
        "symbol": "forerun_program_model",
        "arch": target.arch,
        "features": list(target.features),
    }
    body = {
        **{key: settings[key] for key in ("name", "family", "quant", "config", "tokenizer", "source")},
        "targets": {target.name: entry},
        "files": files,
        "drafters": [],
        "exits": [],
        "costs": {},
        "forerun": __version__,
        **extra,
    }
    vouched = (json.dumps(body, indent=1, ensure_ascii=False) + "}\n").encode()
    first = f'{{"format": "forerun-bundle", "version": {BUNDLE_VERSION}, "xxh64": "{xxhash.xxh64_hexdigest(vouched)}", '
    (bundle / MANIFEST).write_bytes(first.encode() + b'"manifest":\n' + vouched)
