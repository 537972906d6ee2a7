"""Tokenizers of every form that the core knows, trained on a little text, and bundles that hold them."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tiny_model import make_manifest, write_manifest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from forerun.compiler.text import Language, text_file
from forerun.runtime.native_text import NativeText
from forerun.runtime.session import LoadedProgram

ROOT = Path(__file__).parents[2]
END = "'s|'t|'re|'ve|'m|'ll|'d"
QWEN = rf"(?i:{END})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|\s?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"\p{N}|\s?[^", r"\p{N}{1,3}| ?[^")
WORLD = "日本語 한국어 العربية हिन्दी ไทย Ελληνικά русский 😀 éàüß e\u0301 ﬁ ½ \u00a0" * 20
SAMPLE = [
    *((ROOT / name).read_text(encoding="utf-8")[:20_000] for name in ("README.md", "CONTRIBUTING.md")),
    WORLD,
]
SPECIAL = ("<|im_start|>", "<|im_end|>")
ADDED = (
    AddedToken("<tool>", normalized=True),
    AddedToken("a ﬁ é", normalized=True),
    AddedToken("<l>", lstrip=True, normalized=False),
    AddedToken("<r>", rstrip=True, normalized=False),
    AddedToken("<b>", lstrip=True, rstrip=True, normalized=True),
    AddedToken("<|im", normalized=False),
    AddedToken("   ", normalized=False),
    AddedToken("é", normalized=False),
)


def byte_level(pattern: str, *, nfc: bool = False, ignore: bool = False) -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen have it."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1200, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SAMPLE, trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens(list(ADDED))
    return tokenizer


def gpt2() -> Tokenizer:
    """Digits one by one, ByteLevel's own pattern, a space before the text."""
    tokenizer = byte_level(QWEN)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel()])
    return tokenizer


def piece_level(
    *, fallback: bool = True, fuse: bool = True, strips: int = 1, decoder: Any = None, **parts: Any
) -> Tokenizer:
    """As Llama 2, Mistral and Gemma have it; `parts` are the normalizer and the pre-tokenizer."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256) if fallback)]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=names, show_progress=False)
    # Without what WORLD holds, so that there are characters that have no token.
    trained.train_from_iterator([*SAMPLE[:2], "é " * 9], trainer)
    document = json.loads(trained.to_str())
    document["model"].update(fuse_unk=fuse, byte_fallback=fallback, unk_token="<unk>")
    document["added_tokens"] = [token for token in document["added_tokens"] if token["id"] < 3]
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    steps += [decoders.Strip(" ", strips, 0)] if strips else []
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.normalizer = parts.get("normalizer")
    tokenizer.pre_tokenizer = parts.get("pre_tokenizer")
    tokenizer.decoder = decoder or decoders.Sequence(steps)
    tokenizer.add_tokens(list(ADDED))
    return tokenizer


def metaspace(scheme: str, *, split: bool = True, own_decoder: bool = False, **options: Any) -> Tokenizer:
    decoder = decoders.Metaspace(prepend_scheme=scheme) if own_decoder else None
    parts = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    return piece_level(pre_tokenizer=parts, decoder=decoder, **options)


def _llama2() -> Any:
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def _gemma() -> Tokenizer:
    return piece_level(
        normalizer=normalizers.Replace(" ", "▁"),
        pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous"),
        strips=0,
    )


def _undecoded() -> Tokenizer:
    tokenizer = piece_level(normalizer=_llama2(), fallback=False)
    document = json.loads(tokenizer.to_str())
    document["decoder"] = None
    return Tokenizer.from_str(json.dumps(document))


FORMS: Mapping[str, Callable[[], Tokenizer]] = {
    "qwen": lambda: byte_level(QWEN, nfc=True),
    "llama3": lambda: byte_level(LLAMA3, ignore=True),
    "gpt2": gpt2,
    "llama2": lambda: piece_level(normalizer=_llama2()),
    "no-fallback": lambda: piece_level(normalizer=_llama2(), fallback=False),
    "no-fuse": lambda: piece_level(normalizer=_llama2(), fallback=False, fuse=False),
    "strip-2": lambda: piece_level(normalizer=_llama2(), strips=2),
    "gemma": _gemma,
    "metaspace-first": lambda: metaspace("first"),
    "metaspace-always": lambda: metaspace("always"),
    "metaspace-never": lambda: metaspace("never", split=False),
    "metaspace-decoder": lambda: metaspace("always", own_decoder=True),
    "metaspace-decoder-never": lambda: metaspace("never", own_decoder=True),
    "undecoded": _undecoded,
}


def put_text(bundle: Path, data: bytes) -> Path:
    """Put a text.bin into a bundle of the tiny decoder and vouch for it anew."""
    (bundle / "text.bin").write_bytes(data)
    write_manifest(bundle, make_manifest(bundle))
    return bundle


def open_text(tiny: Path, folder: Path, tokenizer_json: str, language: Language | None = None) -> NativeText:
    """The text of a copy, in `folder`, of a bundle of the tiny decoder, with a tokenizer."""
    bundle = Path(shutil.copytree(tiny, folder, dirs_exist_ok=True))
    program = LoadedProgram(put_text(bundle, text_file(tokenizer_json, language)))
    text = NativeText(program)
    program.close()
    return text
