"""Writing a bundle: the manifest with its hash, and the copies of tokenizer and template."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xxhash

from forerun import __version__
from forerun.compiler.build import BuiltProgram

BUNDLE_VERSION = 3
HASH_PIECE = 1 << 20  # bytes of a piece, as in the runtime's hash.h
MANIFEST = "manifest.json"
_COPIED = ("tokenizer.json", "chat_template.jinja", "vocabulary.bin")
_LISTED = (*_COPIED, "text.bin")


def hash_file(path: Path) -> str:
    """Return the hash of a bundle's file in hex: XXH64, or, of more than one piece, XXH64 of its pieces' XXH64s.

    In pieces, so that opening a bundle can check them on several threads.
    """
    hashes: list[int] = []
    with path.open("rb") as file:
        while piece := file.read(HASH_PIECE):
            hashes.append(xxhash.xxh64_intdigest(piece))
    if len(hashes) > 1:
        return xxhash.xxh64_hexdigest(struct.pack(f"<{len(hashes)}Q", *hashes))
    return f"{hashes[0] if hashes else xxhash.xxh64_intdigest(b''):016x}"


def copy_files(export: Path, bundle: Path) -> None:
    """Copy what the runtime needs of the export as it is."""
    for name in _COPIED:
        if (export / name).is_file():
            shutil.copyfile(export / name, bundle / name)


def write_manifest(
    bundle: Path, settings: dict[str, Any], programs: Sequence[BuiltProgram], **extra: Any
) -> None:
    """Write manifest.json.

    Args:
        bundle: the folder, complete but for the manifest.
        settings: the export's settings.
        programs: what was built, best target first.
        extra: further members of the manifest.
    """
    libraries = [program.library for program in programs if program.library is not None]
    listed = ["weights.bin", *libraries, *(name for name in _LISTED if (bundle / name).is_file())]
    body = {
        **{key: settings[key] for key in ("name", "family", "quant", "config", "tokenizer", "source")},
        "targets": {program.target.name: _entry(bundle, program) for program in programs},
        "files": {name: describe_file(bundle / name) for name in listed},
        "drafters": [],
        "exits": [],
        "costs": {},
        "forerun": __version__,
        **({"draft": settings["draft"]} if "draft" in settings else {}),
        **extra,
    }
    write_manifest_body(bundle, body)


def _entry(bundle: Path, program: BuiltProgram) -> dict[str, Any]:
    """Describe a program. Its objects are for `forerun package` alone: they are not among the bundle's files."""
    return {
        **({} if program.library is None else {"library": program.library}),
        "symbol": program.symbol,
        "arch": program.target.arch,
        "features": list(program.target.features),
        "platform": program.target.platform,
        "objects": {name: describe_file(bundle / name) for name in program.objects},
    }


def describe_file(path: Path) -> dict[str, Any]:
    """Return a file's size and hash as a manifest lists them."""
    return {"bytes": path.stat().st_size, "xxh64": hash_file(path)}


def write_manifest_body(bundle: Path, body: dict[str, Any]) -> None:
    """Write manifest.json: a first line with format, version and hash, then the JSON object that it vouches for."""
    vouched = (json.dumps(body, indent=1, ensure_ascii=False) + "}\n").encode()
    first = f'{{"format": "forerun-bundle", "version": {BUNDLE_VERSION}, "xxh64": "{xxhash.xxh64_hexdigest(vouched)}", '
    (bundle / MANIFEST).write_bytes(first.encode() + b'"manifest":\n' + vouched)
