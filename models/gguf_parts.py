"""Models split over several GGUF files, as llama.cpp's gguf-split writes them: NAME-00001-of-00003.gguf and so on.

The first part holds the metadata of the model, each part the tables of its own tensors.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from forerun.errors import ModelFileError
from forerun.models.gguf_file import GgufFile, parse_gguf

_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def open_parts(path: Path) -> GgufFile:
    """Parse a GGUF file, and if it is part of a split model, all the parts beside it.

    Raises `ModelFileError` if a part is missing, damaged, of another split, or holds a tensor twice.
    """
    first = parse_gguf(path)
    count = _whole(first, "split.count", 1)
    if count <= 1:
        return first
    found = _PART.fullmatch(path.name)
    if found is None or int(found["count"]) != count:
        raise ModelFileError(
            f"{path} is one of {count} parts, whose names must end in -00001-of-{count:05}.gguf and so on; "
            "give the parts the names that they had"
        )
    paths = [
        path.with_name(f"{found['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)
    ]
    missing = [part.name for part in paths if not part.exists()]
    if missing:
        raise ModelFileError(f"{path} is one of {count} parts; missing beside it: {', '.join(missing)}")
    return _joined([parse_gguf(part) for part in paths])


def _joined(parts: list[GgufFile]) -> GgufFile:
    """One file of all parts."""
    tensors: dict[str, Any] = {}
    for number, part in enumerate(parts):
        if _whole(part, "split.no", -1) != number or _whole(part, "split.count", 1) != len(parts):
            raise ModelFileError(f"{part.path} says it is another part than its name; copy the parts again")
        twice = tensors.keys() & part.tensors.keys()
        if twice:
            raise ModelFileError(f"{part.path} holds tensors of another part: {', '.join(sorted(twice)[:5])}")
        tensors |= part.tensors
    expected = _whole(parts[0], "split.tensors.count", len(tensors))
    if len(tensors) != expected:
        raise ModelFileError(
            f"{parts[0].path} and its other parts hold {len(tensors)} tensors; they should be {expected}: "
            "copy the parts again"
        )
    return replace(parts[0], tensors=tensors)


def _whole(file: GgufFile, key: str, default: int) -> int:
    value = file.values.get(key, default)
    if not isinstance(value, int):
        raise ModelFileError(f"{file.path} has a metadata value of the wrong kind: {key} is {value!r}")
    return value
