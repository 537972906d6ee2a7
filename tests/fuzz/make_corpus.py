"""Writes the corpus of seeds again, from tiny real files: `python tests/fuzz/make_corpus.py BUNDLE TEXT`, a bundle of
tests/native/tiny_program.c and a small text.bin (small_text.h). Inputs that a finding left are not touched."""

import json
import sys
from pathlib import Path

from forerun.runtime.bundle import read_manifest
from forerun.runtime.session import LoadedProgram, Session, full_steps

CORPUS = Path(__file__).with_name("corpus")
CHECKSUM = 8
TEXTS = (
    "ab e\u0301 <end> \t b\u20ac",
    "",
    "aaa  abab\n\n\u00e9 a'b",
    "<u><a>\U0001f600\ufffd",
    "\u2581 a\u2581b",
)


def main(bundle: Path, text: Path) -> None:
    """Write the seeds of every target."""
    body = json.dumps(dict(read_manifest(bundle)), indent=1)
    for name in ("json", "bundle"):
        (CORPUS / name / "manifest").write_text(body + ("}\n" if name == "bundle" else ""))
    (CORPUS / "json" / "texts").write_text(json.dumps([*TEXTS, 1, -2.5e3, True, None, {"a": [{}]}]))
    (CORPUS / "text_file" / "small").write_bytes(text.read_bytes())
    for number, sample in enumerate(TEXTS):
        (CORPUS / "tokenizer" / f"text{number}").write_bytes(sample.encode())
    (CORPUS / "tokenizer" / "broken").write_bytes(b"a\xff\xe2\x96b\xc3")
    write_saved(LoadedProgram(bundle))


def write_saved(program: LoadedProgram) -> None:
    """An empty sequence, one of full rows, one of rows that left early, one of hidden states."""
    session = Session(program, sequences=4, threads=1)
    session.create_sequence()
    for sequence, depths in enumerate(((6, 6, 6), (6, 5, 3, 2, 0)), start=1):
        session.create_sequence()
        for token_id, depth in enumerate(depths):
            session.stage(sequence, [token_id])
            if depth:
                session.forward([(sequence, 0)], steps=full_steps(3)[:depth], logits=())
            session.commit(sequence, [0])
    hidden = session.create_sequence()
    session.stage_hidden(hidden, [[0.5] * 12, [1.0] * 12], start=2)
    session.forward([(hidden, 0)], logits=())
    session.commit(hidden, [0, 1])
    for sequence in range(4):
        path = CORPUS / "saved" / f"rows{sequence}"
        session.save(sequence, path)
        path.write_bytes(path.read_bytes()[:-CHECKSUM])
        path.chmod(0o644)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
