"""A bundle of the tiny decoder whose tokens are bytes and parts of characters, so that its answers are full of
characters that begin in one token and end in the next."""

from itertools import islice, product
from pathlib import Path

from tiny_model import compile_program, make_bundle, make_manifest, make_weights, write_manifest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from forerun.compiler.text import write_text

END = "<end>"
TEMPLATE = (
    "{% for message in messages %}<end>{{ message.role }}\n{{ message.content }}<end>{% endfor %}"
    "<end>assistant\n"
)
# So many tokens end with the first half of a character, and so many begin with the second.
HALVES = 400
# END and a few of the tokens with first halves: answers end soon enough for tests to see it.
END_IDS = (0, *range(257, 257 + HALVES, 30))
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def byte_alphabet() -> list[str]:
    """The character that byte-level tokenizers write for each byte."""
    kept = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in kept else next(others)) for byte in range(256)]


def tokens() -> list[str]:
    """END, all bytes, letters (every other with a NUL) and half an emoji, the other half and letters."""
    alphabet = byte_alphabet()
    pairs = ["".join(pair).encode() for pair in islice(product(_LETTERS, _LETTERS), HALVES)]
    begins = [pair + bytes(place % 2) + b"\xf0\x9f" for place, pair in enumerate(pairs)]
    ends = [b"\x98\x80" + pair for pair in pairs]
    return [END, *alphabet, *("".join(alphabet[byte] for byte in part) for part in (*begins, *ends))]


def make_spoken_bundle(folder: Path) -> Path:
    """Compile the program and write the bundle below `folder`."""
    named = tokens()
    library = compile_program(folder / "spoken.so", f"-DTINY_VOCABULARY={len(named)}")
    bundle = make_bundle(folder / "bundle", library, make_weights(vocabulary=len(named)))
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(named)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(bundle / "tokenizer.json"))
    (bundle / "chat_template.jinja").write_text(TEMPLATE)
    settings = {"bos_token_id": None, "eos_token_ids": list(END_IDS), "add_bos": False}
    report = write_text(bundle, {"tokenizer": settings})
    assert not report.lines(), report
    manifest = make_manifest(bundle, tokenizer=settings)
    manifest["config"]["vocabulary_size"] = len(named)
    write_manifest(bundle, manifest)
    return bundle
