"""Unicode's canonical decompositions and compositions, as the `tokenizers` library knows them.

Asked of the library, since the `unicodedata` of a Python may be of another version of Unicode.
"""

from __future__ import annotations

import unicodedata
from functools import cache

from tokenizers import normalizers

from forerun.compiler.text.patterns import all_characters
from forerun.compiler.text.tables import words

_FIRST_SYLLABLE, _LAST_SYLLABLE = 0xAC00, 0xD7A3  # Hangul is left to arithmetic
_NO_MARKS_FROM = "\U00020000"  # the planes from here on hold ideographs, tags and nothing that combines
_LOWEST, _HIGHEST = "\u0334", "\u0345"  # marks of the combining classes 1 and 240


@cache
def composition_tables() -> tuple[bytes, bytes, bytes, bytes]:
    """Canonical decompositions (code point, start, length), their pool, combining classes (code point, class), and
    compositions (first, second, composed); each sorted by code points.
    """
    decompositions: list[tuple[int, int, int]] = []
    pool: list[int] = []
    compositions: list[tuple[int, int, int]] = []
    for whole, parts in _decompositions().items():
        if len(whole) != 1 or _FIRST_SYLLABLE <= ord(whole) <= _LAST_SYLLABLE:
            continue
        decompositions.append((ord(whole), len(pool), len(parts)))
        pool += [ord(part) for part in parts]
        # All but the last part compose to the first of the two that this one is made of.
        first = normalizers.NFC().normalize_str(parts[:-1])
        if len(first) == 1 and normalizers.NFC().normalize_str(first + parts[-1]) == whole:
            compositions.append((ord(first), ord(parts[-1]), ord(whole)))
    return (
        words(number for row in decompositions for number in row),
        words(pool),
        words(number for row in sorted(_marks().items()) for number in row),
        words(number for row in sorted(compositions) for number in row),
    )


def _decompositions() -> dict[str, str]:
    """Every character that is not its own decomposition, in ascending order."""
    characters = all_characters()
    apart = _decomposed("\n".join(characters)).split("\n")
    # The line feed itself stands between two others, which makes two empty lines.
    feed = characters.index("\n")
    apart[feed : feed + 2] = ["\n"]
    return {whole: parts for whole, parts in zip(characters, apart, strict=True) if parts != whole}


def _marks() -> dict[int, int]:
    """The combining class of every character that has one; classes are found by who changes places with whom."""
    behind, before = _swapped("{}" + _LOWEST), _swapped(_HIGHEST + "{}")
    known = {unicodedata.combining(character): character for character in reversed(behind + before)}
    classes = {}
    for character in dict.fromkeys([*before, *behind, _LOWEST, _HIGHEST]):
        rank = unicodedata.combining(character)
        classes[ord(character)] = rank or _rank_among(character, known)
    return classes


def _swapped(form: str) -> list[str]:
    """Characters that are no decomposition's and change places with the other one in `form`."""
    characters = [character for character in all_characters() if "\n" != character < _NO_MARKS_FROM]
    lines = [form.format(character) for character in characters]
    found = _decomposed("\n".join(lines)).split("\n")
    pairs = zip(characters, lines, found, strict=True)
    return [character for character, line, after in pairs if after == line[::-1] != line]


def _rank_among(character: str, known: dict[int, str]) -> int:
    """The class of a mark that Python does not know: above all those that go before it, or one of theirs."""
    below = [
        rank for rank, other in known.items() if rank and _decomposed(character + other) == other + character
    ]
    above = [
        rank for rank, other in known.items() if rank and _decomposed(other + character) == character + other
    ]
    same = set(known) - {0} - set(below) - set(above)
    return min(same) if same else max(below, default=0) + 1


def _decomposed(text: str) -> str:
    return str(normalizers.NFD().normalize_str(text))
