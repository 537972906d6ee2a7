"""A large text in many languages, from what lies on this machine."""

import random
import sys
from pathlib import Path


def many_texts() -> list[str]:
    """What lies in installed packages, in many languages, and all ranges of Unicode."""
    texts = []
    folders = [Path(folder) for folder in sys.path if folder.endswith("site-packages")]
    for ending in ("*.txt", "*.json", "*.py", "*.html", "*.po"):
        found = [path for folder in folders for path in sorted(folder.rglob(ending))[:1000:10]]
        texts += [path.read_bytes()[:6000].decode("utf-8", "replace") for path in found]
    generator = random.Random(0)
    for start in (*range(0, 0xD800, 0x400), *range(0xE000, 0x20000, 0x400)):
        block = [chr(start + offset) for offset in range(0x400)]
        generator.shuffle(block)
        texts += ["".join(block), " ".join(block[:200])]
    return texts
