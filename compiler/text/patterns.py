"""Regular expressions of pre-tokenizers as small programs that the core can run.

The core knows no Unicode: which code points a class holds is asked of the `tokenizers` library, whose regular
expressions (Oniguruma) decide how texts are cut, and stored as ranges. Matching is by backtracking, leftmost and
first alternative first, as there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
from tokenizers import Regex, normalizers

from forerun.errors import CompileError

MANY = 2**32 - 1  # no upper limit
MOST_OPERATIONS = 1 << 16
DEEPEST_LOOK = 8  # looks ahead within looks ahead, as in pattern.cpp
_BEFORE_SURROGATES, _AFTER_SURROGATES, _END = 0xD800, 0xE000, 0x110000
Ranges = tuple[tuple[int, int], ...]

# Operations of a program; (operation, a, b, c) each.
RUN = 0  # between b and c code points of class a, as many as possible
SPLIT = 1  # go on at a; if that fails, at b
JUMP = 2  # go on at a
UNLESS = 3  # fail if what follows here, to its MATCH, matches; else go on at a
PROVIDED = 4  # fail unless what follows here, to its MATCH, matches; then go on at a
MATCH = 5


@dataclass(frozen=True)
class Class:
    """One code point, by the source of the regular expression that matches it."""

    source: str


@dataclass(frozen=True)
class Series:
    """Parts one after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    """The first of the alternatives that lets the rest match."""

    alternatives: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """Greedy."""

    part: Node
    least: int
    most: int


@dataclass(frozen=True)
class Ahead:
    """Looks, takes nothing."""

    part: Node
    wanted: bool


Node = Class | Series | Choice | Repeat | Ahead


@dataclass
class Program:
    """Operations, and the classes they name, as ranges of code points in ascending order."""

    operations: list[tuple[int, int, int, int]] = field(default_factory=list)
    classes: list[Ranges] = field(default_factory=list)


def compile_pattern(source: str) -> Program:
    """The program of a regular expression; raises `CompileError` for what is not known here."""
    program = Program()
    node = _Parser(source).parse()
    if _depth(node) > DEEPEST_LOOK or _size(node) > MOST_OPERATIONS:
        raise CompileError(
            f"the pre-tokenizer's pattern {source!r} becomes {_size(node)} operations with looks ahead {_depth(node)}"
            f" deep; the native core allows {MOST_OPERATIONS} and {DEEPEST_LOOK}"
        )
    if _repeats_nothing(node):
        raise CompileError(
            f"the pre-tokenizer's pattern {source!r} repeats without limit what may be empty; the native core would"
            " not come to an end"
        )
    _emit(program, node, {})
    program.operations.append((MATCH, 0, 0, 0))
    return program


class _Parser:
    """Oniguruma's syntax, as far as pre-tokenizers use it."""

    def __init__(self, source: str) -> None:
        self._source, self._at = source, 0

    def parse(self) -> Node:
        """All of it."""
        node = self._choice(False)
        if self._at < len(self._source):
            raise self._error("an unmatched )")
        return node

    def _choice(self, folds: bool) -> Node:
        alternatives = [self._sequence(folds)]
        while self._take("|"):
            alternatives.append(self._sequence(folds))
        return alternatives[0] if len(alternatives) == 1 else Choice(tuple(alternatives))

    def _sequence(self, folds: bool) -> Node:
        parts = []
        while self._at < len(self._source) and self._source[self._at] not in "|)":
            parts.append(self._repeated(self._atom(folds)))
        return parts[0] if len(parts) == 1 else Series(tuple(parts))

    def _atom(self, folds: bool) -> Node:
        if self._take("(?!"):
            return Ahead(self._closed(folds), False)
        if self._take("(?="):
            return Ahead(self._closed(folds), True)
        if self._take("(?i:"):
            return self._closed(True)
        if self._take("(?:"):
            return self._closed(folds)
        if self._source.startswith("(?", self._at):
            raise self._error("a group that is not known here")
        if self._take("("):
            return self._closed(folds)
        return Class(f"(?i:{self._class()})" if folds else self._class())

    def _closed(self, folds: bool) -> Node:
        node = self._choice(folds)
        if not self._take(")"):
            raise self._error("a missing )")
        return node

    def _class(self) -> str:
        """The source of what matches one code point."""
        start, character = self._at, self._source[self._at]
        if character == "[":
            self._at = self._end_of_bracket()
        elif character == "\\":
            named = self._source[start + 1 : start + 3] in ("p{", "P{")
            self._at = self._source.index("}", start) + 1 if named else start + 2
            if self._source[start + 1 : start + 2] in tuple("bBAzZGkg123456789"):
                raise self._error("an anchor or a reference")
        elif character in "^$":
            raise self._error("an anchor")
        elif character in "*+?{":
            raise self._error("a repetition of nothing")
        else:
            self._at += 1
        return self._source[start : self._at]

    def _end_of_bracket(self) -> int:
        depth, at = 0, self._at
        while at < len(self._source):
            if self._source[at] == "\\":
                at += 1
            elif self._source[at] == "[":
                depth += 1
            elif self._source[at] == "]":
                depth -= 1
                if depth == 0:
                    return at + 1
            at += 1
        raise self._error("a missing ]")

    def _repeated(self, node: Node) -> Node:
        limits = {"*": (0, MANY), "+": (1, MANY), "?": (0, 1)}
        character = self._source[self._at : self._at + 1]
        if character in limits and character:
            self._at += 1
            least, most = limits[character]
        elif character == "{":
            end = self._source.index("}", self._at)
            low, comma, high = self._source[self._at + 1 : end].partition(",")
            if not (low or "0").isdigit() or not (high or "0").isdigit():
                raise self._error("a repetition that is no number")
            least = int(low or 0)
            most = least if not comma else int(high) if high else MANY
            self._at = end + 1
        else:
            return node
        if self._source[self._at : self._at + 1] in ("?", "+") and character:
            raise self._error("a lazy or possessive repetition")
        return Repeat(node, least, most)

    def _take(self, text: str) -> bool:
        if not self._source.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _error(self, what: str) -> CompileError:
        return CompileError(
            f"the pre-tokenizer's pattern {self._source!r} has {what} at character {self._at}; the native core cuts"
            " texts by classes, groups, alternatives, greedy repetitions and looks ahead only"
        )


def _parts(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Series):
        return node.parts
    if isinstance(node, Choice):
        return node.alternatives
    return () if isinstance(node, Class) else (node.part,)


def _may_be_empty(node: Node) -> bool:
    if isinstance(node, Series):
        return all(map(_may_be_empty, node.parts))
    if isinstance(node, Choice):
        return any(map(_may_be_empty, node.alternatives))
    if isinstance(node, Repeat):
        return node.least == 0 or _may_be_empty(node.part)
    return isinstance(node, Ahead)


def _repeats_nothing(node: Node) -> bool:
    endless = isinstance(node, Repeat) and node.most == MANY and _may_be_empty(node.part)
    return endless or any(map(_repeats_nothing, _parts(node)))


def _depth(node: Node) -> int:
    """How deep looks ahead are nested."""
    return isinstance(node, Ahead) + max(map(_depth, _parts(node)), default=0)


def _size(node: Node) -> int:
    """No fewer operations than the node becomes."""
    size = 2 + sum(1 + _size(part) for part in _parts(node))
    if isinstance(node, Repeat) and not isinstance(node.part, Class):
        return size * (node.least + 1 if node.most == MANY else node.most)
    return size


def _emit(program: Program, node: Node, known: dict[str, int]) -> None:
    """Append the operations of a node."""
    operations = program.operations
    if isinstance(node, Class):
        operations.append((RUN, _class_number(program, node, known), 1, 1))
    elif isinstance(node, Series):
        for part in node.parts:
            _emit(program, part, known)
    elif isinstance(node, Repeat) and isinstance(node.part, Class):
        operations.append((RUN, _class_number(program, node.part, known), node.least, node.most))
    elif isinstance(node, Repeat):
        _emit_repeat(program, node, known)
    elif isinstance(node, Ahead):
        place = _reserve(program)
        _emit(program, node.part, known)
        operations.append((MATCH, 0, 0, 0))
        operations[place] = (PROVIDED if node.wanted else UNLESS, len(operations), 0, 0)
    else:
        jumps = []
        for alternative in node.alternatives[:-1]:
            place = _reserve(program)
            _emit(program, alternative, known)
            jumps.append(_reserve(program))
            operations[place] = (SPLIT, place + 1, len(operations), 0)
        _emit(program, node.alternatives[-1], known)
        for place in jumps:
            operations[place] = (JUMP, len(operations), 0, 0)


def _emit_repeat(program: Program, node: Repeat, known: dict[str, int]) -> None:
    """A repeated group: as often as it must, then as often as it may."""
    for _ in range(node.least):
        _emit(program, node.part, known)
    if node.most == MANY:
        place = _reserve(program)
        _emit(program, node.part, known)
        program.operations.append((JUMP, place, 0, 0))
        program.operations[place] = (SPLIT, place + 1, len(program.operations), 0)
        return
    places = []
    for _ in range(node.most - node.least):
        places.append(_reserve(program))
        _emit(program, node.part, known)
    for place in places:
        program.operations[place] = (SPLIT, place + 1, len(program.operations), 0)


def _reserve(program: Program) -> int:
    program.operations.append((MATCH, 0, 0, 0))
    return len(program.operations) - 1


def _class_number(program: Program, node: Class, known: dict[str, int]) -> int:
    if node.source not in known:
        known[node.source] = len(program.classes)
        program.classes.append(code_points_of(node.source))
    return known[node.source]


@lru_cache(maxsize=64)
def code_points_of(source: str) -> Ranges:
    """The code points that a class matches, as first and last ones of ranges; surrogates are none."""
    if len(source) == 1 and source != ".":
        return ((ord(source), ord(source)),)
    # What the library leaves when it takes every match away is what does not match.
    try:
        expression = Regex(f"(?:{source})+")
    except Exception as error:  # the library raises bare Exception
        raise CompileError(f"the pre-tokenizer's pattern has the class {source!r}: {error}") from error
    left = normalizers.Replace(expression, "").normalize_str(all_characters())
    matches = np.ones(_END + 2, bool)
    matches[np.frombuffer(left.encode("utf-32-le"), "<u4") + 1] = False
    matches[[0, -1]] = False
    matches[_BEFORE_SURROGATES + 1 : _AFTER_SURROGATES + 1] = False
    edges = np.flatnonzero(matches[1:] != matches[:-1]).reshape(-1, 2)
    return tuple((int(first), int(last) - 1) for first, last in edges)


@cache
def all_characters() -> str:
    """Every code point that a text can hold, in ascending order."""
    return "".join(map(chr, (*range(_BEFORE_SURROGATES), *range(_AFTER_SURROGATES, _END))))
