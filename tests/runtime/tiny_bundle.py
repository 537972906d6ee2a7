"""A whole bundle without the compiler: tiny_program.c of the native tests and a real tokenizer."""

from pathlib import Path

from tiny_model import compile_program, make_bundle, make_manifest, make_weights, write_manifest
from tokenizers import Tokenizer, decoders, models

END = "<end>"
# 37 tokens: the end token is 0, then letters and digits.
TOKENS = (END, *"abcdefghijklmnopqrstuvwxyz", *"0123456789")
TEMPLATE = "{% for message in messages %}{{ message.role[0] }}{{ message.content }}{% endfor %}a"


def make_tiny_bundle(folder: Path, *flags: str) -> Path:
    """Compile the program, with flags of tiny_program.c, and write the bundle below `folder`."""
    library = compile_program(folder / "tiny.so", *flags)
    bundle = make_bundle(folder / "bundle", library, make_weights())
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(TOKENS)}, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(bundle / "tokenizer.json"))
    (bundle / "chat_template.jinja").write_text(TEMPLATE)
    write_manifest(bundle, make_manifest(bundle))
    return bundle
