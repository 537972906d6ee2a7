"""Every verb: help, output, errors in one line, Ctrl-C."""

import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from cli_command import Forerun, check_error

from forerun.cli import VERBS

NAMES = [module.NAME for module in VERBS]


def test_the_verbs_are_those_of_the_documentation() -> None:
    assert NAMES == [
        "export",
        "tune",
        "compile",
        "package",
        "synth",
        "train",
        "run",
        "chat",
        "bench",
        "check",
        "info",
        "list",
    ]


@pytest.mark.parametrize("verb", NAMES)
def test_help_explains_and_gives_examples(forerun: Forerun, verb: str) -> None:
    done = forerun(verb, "--help")
    assert done.code == 0
    assert f"usage: forerun {verb}" in done.out
    assert f"  forerun {verb}" in done.out.partition("examples:")[2]


def test_help_lists_the_verbs(forerun: Forerun) -> None:
    done = forerun("--help")
    assert done.code == 0
    assert all(name in done.out for name in NAMES)


def test_the_version_is_the_packages(forerun: Forerun) -> None:
    from forerun import __version__

    assert forerun("--version").out == f"forerun {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "VERB"),
        (["fly"], "invalid choice"),
        (["run"], "BUNDLE"),
        (["run", "x", "--no-such-option"], "--no-such-option"),
        (["run", "x", "-p", "Hi", "--max-tokens", "many"], "--max-tokens"),
        (["run", "x", "-p", "Hi", "--max-tokens", "-1"], "max_tokens"),
        (["run", "x", "-p", "Hi", "--temperature", "nan"], "temperature"),
        (["run", "x", "-p", "Hi", "--top-p", "0"], "top_p"),
        (["run", "x", "-p", "Hi", "--drafter", "medusa"], "known: auto, none, lookup, self"),
        (["run", "x", "-p", "Hi", "--drafter", "lookup:speed=9"], "options: max_ngram"),
        (["run", "x", "-p", "Hi", "--exit", "confidence:threshold=x"], "threshold"),
        (["run", "x", "-p", "Hi", "--shape", "chain"], "no shape"),
        (["run", "x", "-p", "Hi", "--stop", ""], "stop string"),
        (["run", "x", "-p", "Hi", "-f", "y"], "not allowed with"),
        (["run", "x", "-p", "Hi", "--raw", "--system", "Be brief."], "--system"),
        (["run", "x", "-f", "no/such/file"], "No such file"),
        (["compile", "x", "-o", "y", "--draft", "feature"], "NAME=DIR"),
        (["compile", "x", "-o", "y", "--draft", "=z"], "NAME=DIR"),
        (["compile", "x", "-o", "y", "--draft", "a=z", "--draft", "a=w"], "names 'a' twice"),
        (["bench", "x", "--rows", "1,a"], "--rows"),
        (["bench", "x", "--rows", "1,0"], "--rows"),
        (["bench", "x", "--repetitions", "0"], "--repetitions"),
        (["bench", "x", "--pp", "-5"], "--pp"),
        (["bench", "x", "--drafter", "medusa"], "known: auto, none, lookup, self"),
        (["bench", "x", "--prompts", "no/such/file"], "No such file"),
        (["list", "planets"], "invalid choice"),
    ],
)
def test_user_mistakes_are_one_line(forerun: Forerun, arguments: list[str], word: str) -> None:
    """All are found before the bundle is opened: there is none called x."""
    check_error(forerun(*arguments), word)


@pytest.mark.parametrize("verb", ["run", "chat", "bench", "info"])
def test_a_missing_bundle_is_one_line(forerun: Forerun, verb: str, tmp_path: Path) -> None:
    prompt = ["-p", "Hi"] if verb == "run" else []
    check_error(forerun(verb, str(tmp_path / "missing"), *prompt), "missing")


def test_run_prints_the_text_and_nothing_else(forerun: Forerun, bundle: str) -> None:
    done = forerun("run", bundle, "-p", "Hi", "--max-tokens", "20")
    text = json.loads(forerun("run", bundle, "-p", "Hi", "--max-tokens", "20", "--json").out)["text"]
    assert (done.code, done.out, done.err) == (0, text + "\n", "")


def test_run_json_is_one_object(forerun: Forerun, bundle: str) -> None:
    arguments = ["run", bundle, "-p", "Hi", "--max-tokens", "20", "--raw"]
    plain = json.loads(forerun(*arguments, "--json").out)
    drafted = json.loads(forerun(*arguments, "--json", "--drafter", "self:layers=3,tokens=4").out)
    assert set(plain) == {"ids", "text", "finish_reason", "stats"}
    assert len(plain["ids"]) == plain["stats"]["generated_tokens"] == 20
    assert (drafted["ids"], drafted["text"]) == (plain["ids"], plain["text"])
    assert drafted["stats"]["drafted"] > 0


def test_run_passes_every_option_on(forerun: Forerun, bundle: str) -> None:
    """Each option changes the ids, or the statistics."""
    arguments = ["run", bundle, "-p", "Hi", "--max-tokens", "30", "--json"]
    plain = json.loads(forerun(*arguments).out)
    for options in (
        ["--temperature", "1"],
        ["--temperature", "1", "--seed", "5"],
        ["--temperature", "3", "--top-k", "2"],
        ["--temperature", "3", "--top-p", "0.02"],
        ["--system", "Be brief."],
        ["--raw"],
        ["--exit", "confidence:layers=0,threshold=0"],
        ["--max-tokens", "7"],
    ):
        assert json.loads(forerun(*arguments, *options).out)["ids"] != plain["ids"], options
    tree = json.loads(forerun(*arguments, "--drafter", "self", "--shape", "tree:branches=4").out)
    (drafted,) = tree["stats"]["drafted_per_position"]
    assert drafted in (4 * tree["stats"]["verify_calls"], 4 * (tree["stats"]["verify_calls"] - 1))


def test_run_reads_the_prompt_from_a_file_or_stdin(
    forerun: Forerun, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = forerun("run", bundle, "-p", "Grüße", "--max-tokens", "9", "--json").out
    path = tmp_path / "prompt.txt"
    path.write_bytes("Grüße".encode())
    from_file = forerun("run", bundle, "-f", str(path), "--max-tokens", "9", "--json").out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Grüße".encode())))
    from_stdin = forerun("run", bundle, "--max-tokens", "9", "--json").out
    ids = [json.loads(out)["ids"] for out in (given, from_file, from_stdin)]
    assert ids[0] == ids[1] == ids[2]


def test_prompts_that_are_not_utf8_are_refused(
    forerun: Forerun, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"caf\xe9 ")
    check_error(forerun("run", bundle, "-f", str(path)), "not UTF-8", "byte 3")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    check_error(forerun("run", bundle), "not UTF-8")


def test_an_empty_prompt_is_refused_and_no_tokens_are_an_empty_answer(forerun: Forerun, bundle: str) -> None:
    check_error(forerun("run", bundle, "-p", "", "--raw"), "prompt is empty")
    check_error(forerun("run", bundle, "-p", " \n"), "prompt is empty")
    done = forerun("run", bundle, "-p", "Hi", "--max-tokens", "0", "--json")
    found = json.loads(done.out)
    assert (done.code, found["ids"], found["text"], found["finish_reason"]) == (0, [], "", "length")


def test_a_full_context_keeps_the_text_and_says_so(forerun: Forerun, bundle: str) -> None:
    done = forerun("run", bundle, "-p", "Hello", "--raw", "--context", "20", "--max-tokens", "100")
    assert done.code == 0
    assert len(done.out) > 5
    assert "context is full" in done.err
    check_error(forerun("run", bundle, "-p", "Hello" * 9, "--raw", "--context", "20"), "45 tokens")


def test_statistics_go_to_stderr(forerun: Forerun, bundle: str) -> None:
    options = ["--drafter", "self", "--exit", "confidence:threshold=0.001", "--max-tokens", "20"]
    done = forerun("run", bundle, "-p", "Hi", "--stats", *options)
    for word in ("prefill", "accepted length", "by position", "layer 1"):
        assert word in done.err
        assert word not in done.out


def interrupt_after(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process SIGINT when the given number of tokens was drawn."""
    from scripted import ScriptedSession

    original, drawn = ScriptedSession.sample, [0]

    def sample(self: ScriptedSession, *arguments: object, **options: object) -> int:
        drawn[0] += 1
        if drawn[0] == pieces:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ScriptedSession, "sample", sample)


def test_ctrl_c_keeps_the_partial_answer(
    forerun: Forerun, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["run", bundle, "-p", "Hi", "--max-tokens", "200", "--raw", "--json"]
    whole = json.loads(forerun(*arguments).out)
    interrupt_after(10, monkeypatch)
    done = forerun(*arguments)
    found = json.loads(done.out)
    assert (done.code, found["finish_reason"]) == (130, "cancelled")
    assert found["ids"] == whole["ids"][:10]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_loading_is_quiet(forerun: Forerun, monkeypatch: pytest.MonkeyPatch) -> None:
    from forerun.runtime import model

    def load(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "load", load)
    done = forerun("run", "x", "-p", "Hi")
    assert (done.code, done.out, done.err) == (130, "", "error: interrupted\n")


def type_lines(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))


def test_chat_remembers_resets_and_leaves(
    forerun: Forerun, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines(monkeypatch, "Hi", "", "More", "/reset", "Hi", "/exit", "never read")
    done = forerun("chat", bundle, "--max-tokens", "12", "--stats")
    single = forerun("run", bundle, "-p", "Hi", "--max-tokens", "12").out
    assert done.code == 0
    assert done.out.startswith(single)
    assert done.out.endswith(single)
    assert done.out.count(single) == 2
    assert done.err.count("prompt ") == 3
    assert "starts over" in done.err


def test_ctrl_c_in_chat_stops_the_answer_only(
    forerun: Forerun, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines(monkeypatch, "Hi", "/reset", "Hi")
    interrupt_after(5, monkeypatch)
    done = forerun("chat", bundle, "--max-tokens", "40")
    assert done.code == 0
    assert "(cancelled)" in done.err
    assert len(done.out) > 45


def test_chat_survives_a_message_that_does_not_fit(
    forerun: Forerun, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines(monkeypatch, "word " * 100, "Hi")
    done = forerun("chat", bundle, "--max-tokens", "5", "--context", "100")
    assert done.code == 0
    assert "the context holds 100" in done.err
    assert done.out.strip()


def test_list_shows_every_registry(forerun: Forerun) -> None:
    from forerun.runtime.drafters import DRAFTERS
    from forerun.runtime.exits import EXITS
    from forerun.targets import TARGETS

    done = forerun("list")
    assert done.code == 0
    for name in (*DRAFTERS, *EXITS, *TARGETS, "chain", "tree", "exact", "layers=INT", "llama"):
        assert name in done.out
    only = forerun("list", "exits")
    assert "confidence" in only.out
    assert "lookup" not in only.out


@pytest.mark.parametrize("verb", ["export", "tune", "compile", "package", "check"])
def test_verbs_without_their_packages_say_what_to_install(
    forerun: Forerun, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """As on a device: torch, onnx and tvm are not there."""
    loaded = ("forerun.export", "forerun.compiler", "forerun.models")
    for name in [name for name in sys.modules if name.startswith(loaded)]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("torch", "onnx", "tvm"):
        monkeypatch.setitem(sys.modules, name, None)
    output = [] if verb in ("check", "tune") else ["-o", "out"]
    output += ["--target", "linux-arm64"] if verb == "package" else []
    check_error(forerun(verb, "model", *output), "pip install forerun[compile]")


@pytest.mark.parametrize(("error", "code"), [(1e-5, 0), (0.5, 1), (float("nan"), 1)])
def test_a_failed_check_leaves_with_one(
    forerun: Forerun, monkeypatch: pytest.MonkeyPatch, error: float, code: int
) -> None:
    from forerun.cli import check
    from forerun.export.check import CheckReport, LogitErrors, Quality

    result = CheckReport("model", "keep", LogitErrors(0.0, error, 0.0), Quality(0.0012, 0.987, 100))
    monkeypatch.setattr(check, "_import_check", lambda: lambda *_, **__: result)
    done = forerun("check", "folder")
    assert done.code == code
    assert ("passed" in done.out, "failed" in done.out) == (code == 0, code == 1)
    assert "98.70 %" in done.out
    check_error(forerun("check", "folder", "--tokens", "1"), "--tokens")


def test_progress_is_for_terminals_and_for_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from forerun.cli.progress import progress_bar

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = {}
    for name, stream, fractions in (
        ("file", io.StringIO(), (0.0, 1.0)),
        ("short", Terminal(), (1.0,)),
        ("long", Terminal(), (0.0, 0.5, 1.0)),
    ):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_bar("working") as report:
            for fraction in fractions:
                report("stage", fraction)
        shown[name] = "working" in stream.getvalue()
    assert shown == {"file": False, "short": False, "long": True}
