"""Answers that go on from a saved one in another process: `python saved_answers.py BUNDLE FILE` reads a list of
[prompt, options] as JSON, restores the file before each and prints [ids, cached tokens] of all."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import forerun
from forerun.runtime.model import Model

Asked = Sequence[tuple[Sequence[int], dict[str, Any]]]


def answer_restored(model: Model, file: Path, asked: Asked) -> list[tuple[list[int], int]]:
    """Ids and cached tokens of each answer, begun from the file's rows."""
    found = []
    for prompt, options in asked:
        model.restore(file)
        answer = model.generate(prompt, **options).complete()
        found.append((answer.ids, answer.stats.cached_tokens))
    return found


def answer_elsewhere(bundle: Path, file: Path, asked: Asked) -> list[tuple[list[int], int]]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, str(bundle), str(file)]
    done = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [(ids, cached) for ids, cached in json.loads(done.stdout)]


if __name__ == "__main__":
    with forerun.load(sys.argv[1], threads=1) as loaded:
        print(json.dumps(answer_restored(loaded, Path(sys.argv[2]), json.load(sys.stdin))))
