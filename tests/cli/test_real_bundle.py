"""The command as it is installed, in a process of its own, on a bundle of the tiny decoder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forerun.runtime.program import LoadedProgram


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_bundle import make_tiny_bundle

    return make_tiny_bundle(tmp_path_factory.mktemp("tiny"))


def forerun(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "forerun", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def test_run_answers_the_same_with_and_without_a_drafter(bundle: Path) -> None:
    options = ("-p", "abc", "--max-tokens", "30", "--json", "--threads", "2")
    plain = forerun("run", bundle, *options)
    drafted = forerun(
        "run", bundle, *options, "--drafter", "self:layers=2,tokens=3", "--shape", "tree:branches=2+1"
    )
    assert (plain.returncode, plain.stderr) == (0, "")
    first, second = json.loads(plain.stdout), json.loads(drafted.stdout)
    assert first["ids"] == second["ids"]
    assert first["text"] == second["text"]
    assert second["stats"]["drafted"] > 0


def test_chat_reads_lines(bundle: Path) -> None:
    done = forerun("chat", bundle, "--max-tokens", "8", stdin="abc\ndef\n/reset\nabc\n/exit\n")
    assert done.returncode == 0
    assert "starts over" in done.stderr


def test_bench_runs(bundle: Path) -> None:
    done = forerun(
        "bench", bundle, "--pp", "16", "--tg", "8", "--rows", "1,12", "--repetitions", "1", "--json",
        "--drafter", "lookup", "--context", "200",
    )  # fmt: skip
    # The built-in prompts are longer than the tiny decoder's context.
    assert done.returncode == 2
    assert "context" in done.stderr
    rows = forerun(
        "bench", bundle, "--pp", "16", "--tg", "8", "--rows", "1,12", "--repetitions", "1", "--json"
    )
    assert [row["test"] for row in json.loads(rows.stdout)] == ["pp16", "tg8", "rows1", "rows12"]


def test_info_shows_what_runs_here(bundle: Path) -> None:
    found = json.loads(forerun("info", bundle, "--json").stdout)
    with LoadedProgram(bundle) as program:
        cache = program.cache_bytes()
    (target,) = found["targets"]
    assert target == {
        **{"name": "tiny", "runs_here": True, "obstacle": None, "cache_bytes": cache},
        "note": f"keys and values of a full context take {cache / 2**20:.1f} MiB",
    }
    assert found["files"]["weights.bin"] == (bundle / "weights.bin").stat().st_size
    table = forerun("info", bundle).stdout
    assert "runs here" in table
    assert "weights.bin" in table


def test_info_says_why_a_target_does_not_run(bundle: Path, tmp_path: Path) -> None:
    from tiny_model import make_manifest, write_manifest

    other = copy_of(bundle, tmp_path)
    manifest = make_manifest(other)
    manifest["targets"]["tiny"]["arch"] = "pdp11"
    write_manifest(other, manifest)
    (target,) = json.loads(forerun("info", other, "--json").stdout)["targets"]
    assert not target["runs_here"]
    assert "pdp11" in target["obstacle"]
    done = forerun("run", other, "-p", "abc")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pdp11" in done.stderr


@pytest.mark.parametrize("verb", ["run", "info", "bench", "chat"])
def test_a_damaged_bundle_is_one_line(bundle: Path, tmp_path: Path, verb: str) -> None:
    damaged = copy_of(bundle, tmp_path)
    weights = bytearray((damaged / "weights.bin").read_bytes())
    weights[100] ^= 1
    (damaged / "weights.bin").write_bytes(weights)
    done = forerun(verb, damaged, *(["-p", "abc"] if verb == "run" else []))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "weights.bin" in done.stderr


def test_a_missing_tokenizer_is_one_line(bundle: Path, tmp_path: Path) -> None:
    damaged = copy_of(bundle, tmp_path)
    (damaged / "tokenizer.json").unlink()
    done = forerun("run", damaged, "-p", "abc")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "tokenizer.json" in done.stderr


def test_interrupting_the_process_leaves_with_130(bundle: Path) -> None:
    """A real SIGINT to a real process, waiting for its prompt."""
    command = [sys.executable, "-m", "forerun", "run", str(bundle)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert err == b"error: interrupted\n"


def test_a_closed_pipe_is_no_error(bundle: Path) -> None:
    command = f"{sys.executable} -m forerun list | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def copy_of(bundle: Path, folder: Path) -> Path:
    import shutil

    return Path(shutil.copytree(bundle, folder / "copy"))
