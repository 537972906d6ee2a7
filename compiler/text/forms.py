"""What a `tokenizer.json` does to a text, as steps that the core knows; what it does not know is refused here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forerun.compiler.text.patterns import Program, compile_pattern
from forerun.errors import CompileError

# ByteLevel's own pattern (GPT-2's), as the library has it.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
NUMERIC = r"[\p{Nd}\p{Nl}\p{No}]"

# What becomes of a match when a text is cut.
ISOLATED, REMOVED, WITH_PREVIOUS, WITH_NEXT = range(4)
_BEHAVIORS = {
    "Isolated": ISOLATED,
    "Removed": REMOVED,
    "MergedWithPrevious": WITH_PREVIOUS,
    "MergedWithNext": WITH_NEXT,
}


@dataclass(frozen=True)
class Cut:
    """Cut every piece at the matches of a pattern."""

    program: Program
    behavior: int


@dataclass(frozen=True)
class Put:
    """Put a text before every piece (`first_only`: before the whole text's first alone) that does not begin so."""

    text: str
    first_only: bool = False
    unless_there: bool = True


@dataclass(frozen=True)
class Substitute:
    """One text for another."""

    old: str
    new: str


@dataclass(frozen=True)
class Compose:
    """Unicode's normalization form C."""


Step = Cut | Put | Substitute | Compose


@dataclass(frozen=True)
class Decoding:
    """How tokens are written: what is substituted in each, then how they are joined."""

    byte_level: bool = False  # all together are bytes, read as UTF-8
    byte_fallback: bool = False  # a run of tokens such as <0x41> is read as UTF-8
    substitutes: tuple[Substitute, ...] = ()
    mark: str | None = None  # a space in every token, nothing in the first
    separates: bool = False  # a space stands between tokens
    strips: int = 0  # spaces taken from the beginning of the text


@dataclass(frozen=True)
class Form:
    """A tokenizer: steps before and after the added tokens that are sought in the normalized text, and how the model
    reads characters and writes tokens.
    """

    normalize: tuple[Step, ...]
    cut: tuple[Step, ...]
    byte_level: bool  # pieces are read byte by byte
    byte_fallback: bool  # a character without a token is read as its bytes' tokens
    fuse_unknown: bool
    unknown_token: str | None
    whole_pieces: bool  # a piece that is a token is not merged
    decoding: Decoding


def read_form(document: Mapping[str, Any]) -> Form:
    """Raises `CompileError` for a tokenizer that the core does not know."""
    model = document["model"]
    if model.get("type", "BPE") != "BPE":
        raise _unknown("model", model["type"])
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise _unknown("BPE", f"{name} {model[name]!r}")
    normalize = tuple(_normalizer(document.get("normalizer")))
    cut, byte_level = _pre_tokenizer(document.get("pre_tokenizer"))
    decoding = _decoder(document.get("decoder"))
    if decoding.byte_level != byte_level:
        raise _unknown("decoder", "ByteLevel without its pre-tokenizer, or lacks it beside that")
    if model.get("ignore_merges") and not byte_level:
        raise _unknown("BPE", "ignore_merges without ByteLevel")
    return Form(
        normalize,
        tuple(cut),
        byte_level,
        bool(model.get("byte_fallback")),
        bool(model.get("fuse_unk")),
        model.get("unk_token"),
        bool(model.get("ignore_merges")),
        decoding,
    )


def _normalizer(part: Mapping[str, Any] | None) -> list[Step]:
    if part is None:
        return []
    kind = part["type"]
    if kind == "Sequence":
        return [step for one in part["normalizers"] for step in _normalizer(one)]
    if kind == "Prepend":
        return [Put(part["prepend"], unless_there=False)]
    if kind == "Replace":
        return [_substitute("normalizer", part)]
    if kind == "NFC":
        return [Compose()]
    raise _unknown("normalizer", kind)


def _pre_tokenizer(part: Mapping[str, Any] | None) -> tuple[list[Step], bool]:
    """The steps, and whether what they leave is read byte by byte."""
    if part is None:
        return [], False
    if part["type"] != "Sequence":
        return _one_pre_tokenizer(part)
    steps, byte_level = [], False
    for one in part["pretokenizers"]:
        if byte_level:
            raise _unknown("pre-tokenizer", f"{one['type']} after ByteLevel")
        more, byte_level = _pre_tokenizer(one)
        steps += more
    return steps, byte_level


def _one_pre_tokenizer(part: Mapping[str, Any]) -> tuple[list[Step], bool]:
    kind = part["type"]
    if kind == "Split":
        return [_split(part)], False
    if kind == "Digits":
        return [
            Cut(compile_pattern(NUMERIC if part["individual_digits"] else NUMERIC + "+"), ISOLATED)
        ], False
    if kind == "ByteLevel":
        steps: list[Step] = [Put(" ")] if part.get("add_prefix_space", True) else []
        if part.get("use_regex", True):
            steps.append(Cut(compile_pattern(GPT2_PATTERN), ISOLATED))
        return steps, True
    if kind == "Metaspace":
        return _metaspace(part), False
    raise _unknown("pre-tokenizer", kind)


def _split(part: Mapping[str, Any]) -> Step:
    if part.get("invert"):
        raise _unknown("pre-tokenizer", "Split that is inverted")
    if part["behavior"] not in _BEHAVIORS:
        raise _unknown("pre-tokenizer", f"Split with behavior {part['behavior']}")
    pattern = part["pattern"]
    source = pattern["Regex"] if "Regex" in pattern else _escaped(pattern["String"])
    return Cut(compile_pattern(source), _BEHAVIORS[part["behavior"]])


def _metaspace(part: Mapping[str, Any]) -> list[Step]:
    mark = part["replacement"]
    scheme = part.get("prepend_scheme", "always")
    steps: list[Step] = [Substitute(" ", mark)]
    if scheme != "never":
        steps.append(Put(mark, first_only=scheme == "first"))
    if part.get("split", True):
        steps.append(Cut(compile_pattern(_escaped(mark)), WITH_NEXT))
    return steps


# Steps of a decoder come in this order; another order would write other texts.
_DECODER_ORDER = ("Replace", "Metaspace", "ByteFallback", "ByteLevel", "Fuse", "Strip")


def _decoder(part: Mapping[str, Any] | None) -> Decoding:
    if part is None:
        return Decoding(separates=True)
    parts: Sequence[Mapping[str, Any]] = part["decoders"] if part["type"] == "Sequence" else [part]
    kinds = [str(one["type"]) for one in parts]
    strange = [kind for kind in kinds if kind not in _DECODER_ORDER]
    places = [_DECODER_ORDER.index(kind) for kind in kinds if kind in _DECODER_ORDER]
    repeated = len(set(kinds) - {"Replace"}) != len([kind for kind in kinds if kind != "Replace"])
    if strange or repeated or places != sorted(places) or ("Strip" in kinds and "Fuse" not in kinds):
        raise _unknown("decoder", strange[0] if strange else f"the steps {', '.join(kinds)}")
    if "ByteLevel" in kinds and set(kinds) - {"ByteLevel", "Fuse"}:
        raise _unknown("decoder", f"the steps {', '.join(kinds)}")
    substitutes, mark, strips = [], None, 0
    for one in parts:
        if one["type"] == "Replace":
            substitutes.append(_substitute("decoder", one))
        elif one["type"] == "Metaspace" and one.get("prepend_scheme", "always") == "never":
            substitutes.append(Substitute(one["replacement"], " "))
        elif one["type"] == "Metaspace":
            mark = one["replacement"]
        elif one["type"] == "Strip":
            if one["content"] != " " or one["stop"]:
                raise _unknown("decoder", "Strip of other than spaces at the beginning")
            strips = int(one["start"])
    return Decoding("ByteLevel" in kinds, "ByteFallback" in kinds, tuple(substitutes), mark, False, strips)


def _substitute(where: str, part: Mapping[str, Any]) -> Substitute:
    old = part["pattern"].get("String")
    if not old:
        raise _unknown(where, "Replace of something other than a text")
    return Substitute(old, part["content"])


def _escaped(text: str) -> str:
    return "".join("\\" + character if character in r"\^$.|?*+()[]{}" else character for character in text)


def _unknown(part: str, what: str) -> CompileError:
    return CompileError(
        f"this tokenizer's {part} has {what}, which the native core cannot run; it knows byte-level and"
        " SentencePiece-style BPE. The bundle works from Python, which uses the tokenizers library"
    )
