"""The race's driver without a race: a build for the CPU, options, and workers that refuse or crash."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.race import client, contest
from benchmarks.race.__main__ import build_parser, choose, choose_sources, main
from benchmarks.race.client import Client, CrashError, RefusedError, Role
from benchmarks.race.contest import Contest
from benchmarks.race.cpu import expected_system_info, ggml_options, read_cpu
from benchmarks.race.disturbance import Moment, cores_of_others, look
from benchmarks.race.interface import Cpu, Entrant, RaceError
from benchmarks.race.peers import PEERS
from benchmarks.race.results import Results
from benchmarks.race.trials import TIMED

FLAGS = "sse4_2 avx avx2 fma f16c bmi2 avx512f avx512cd avx512vl avx512dq avx512bw avx512_vnni"


def test_a_build_names_what_the_cpu_has(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(
        f"processor : 0\nmodel name\t: Some CPU\nflags\t\t: {FLAGS} amx_tile amx_int8\n\nprocessor : 1\n"
    )
    cpu = read_cpu(file)
    assert (cpu.model, cpu.has_amx) == ("Some CPU", True)
    options = ggml_options(cpu, amx=True)
    assert {"-DGGML_AVX512_VNNI=ON", "-DGGML_AMX_INT8=ON", "-DGGML_AVX_VNNI=OFF"} <= set(options)
    assert "-DGGML_AMX_INT8=OFF" in ggml_options(cpu, amx=False)
    assert "AVX512_VNNI" in expected_system_info(cpu) and "AVX_VNNI" not in expected_system_info(cpu)


def test_the_amx_build_enters_only_where_there_is_amx() -> None:
    llama = PEERS["llama.cpp"]()
    plain = llama.entrants(Cpu("x", frozenset(FLAGS.split())))
    both = llama.entrants(Cpu("x", frozenset((*FLAGS.split(), "amx_int8"))))
    assert [one.environment for one in plain] == ["llama_cpp"] * 3
    assert sorted(one.environment for one in both) == ["llama_cpp"] * 3 + ["llama_cpp_amx"] * 3


def test_entrants_have_names_of_their_own() -> None:
    cpu = Cpu("x", frozenset(("amx_int8",)))
    names = [entrant.name for peer in PEERS.values() for entrant in peer().entrants(cpu)]
    assert len(names) == len(set(names))


def test_options_name_what_there_is() -> None:
    assert choose("b, a", ("a", "b", "c"), "--tests") == ("a", "b")
    assert choose(None, ("a", "b"), "--tests") == ("a", "b")
    with pytest.raises(RaceError, match="--tests has no 'd'; it has a, b"):
        choose("d", ("a", "b"), "--tests")
    assert build_parser().parse_args([]).repetitions == 5


def test_another_model_runs_by_itself() -> None:
    cpu = read_cpu()
    entrants = [*PEERS["forerun"]().entrants(cpu), *PEERS["llama.cpp"]().entrants(cpu)]
    assert choose_sources(None, entrants) == ("Q4_1", "Q4_0")
    assert choose_sources("Gemma3", entrants) == ("Gemma3",)
    with pytest.raises(RaceError, match="Gemma3 beside others"):
        choose_sources("Q4_1,Gemma3", entrants)


def test_tasks_need_prompts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.race.__main__.make_environment", lambda *given: None)
    assert main(["--tests", "tasks"]) == 2
    assert "--prompts FILE" in capsys.readouterr().err


ROLE = Role(
    Entrant("forerun Q4_1", "forerun", "forerun", "bundle-Q4_1", "Q4_1"),
    Path("no-bundle"),
    threads=1,
    context=64,
    sequences=1,
)


def use_worker(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients start a shell script, logging into `folder`, where a peer's interpreter would be."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(client, "BUILD", folder)
    monkeypatch.setattr(client, "python_of", lambda environment: path)


def test_a_worker_that_cannot_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real worker, on a bundle that is not there."""
    monkeypatch.setattr(client, "BUILD", tmp_path)
    with pytest.raises(RefusedError, match=r"BundleError: .*no-bundle"):
        Client(ROLE)


def test_a_crash_is_named_by_its_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_worker("read line; kill -ILL $$", tmp_path, monkeypatch)
    with pytest.raises(CrashError, match=r"crashed \(SIGILL\)"):
        Client(ROLE)


def test_an_end_without_a_signal_shows_the_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_worker("read line; echo no such package >&2; exit 3", tmp_path, monkeypatch)
    with pytest.raises(CrashError, match="status 3: no such package"):
        Client(ROLE)


def test_a_worker_stands_still_between_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = """echo '{"ms": 1.0, "pid": '$$'}'"""
    use_worker(f"while read line; do {answer}; done", tmp_path, monkeypatch)
    worker = Client(ROLE)
    try:
        for _ in range(2):
            status = Path(f"/proc/{worker.request('decode', tokens=1)['pid']}/status")
            assert wait_for_stop(status)
    finally:
        worker.close()
    assert not status.exists()


def wait_for_stop(status: Path) -> bool:
    """Whether the process is stopped, or will be within two seconds: a signal takes a moment."""
    for _ in range(200):
        if "State:\tT" in status.read_text():
            return True
        time.sleep(0.01)
    return False


def test_refusals_hold_for_the_run_and_crashes_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First a worker that refuses every test, then one that crashes in it: notes, no values, and no exception."""
    trial = TIMED[0]
    for reply, starts in (("""echo '{"not_supported": "cannot"}'""", 1), ("kill -SEGV $$", 2)):
        start = """read line; echo started >> starts; echo '{"description": {}}'"""
        use_worker(f"{start}; read line; {reply}; read line", tmp_path, monkeypatch)
        (tmp_path / "starts").unlink(missing_ok=True)
        results = Results({})
        race = Contest([ROLE.entrant], {"bundle-Q4_1": Path("x")}, [1] * 8192, results, print)
        for repetition in range(2):
            race.run_repetition(repetition, [trial], with_start=False)
        race.close()
        assert [sample.value for sample in results.samples] == [None, None]
        assert {sample.note for sample in results.samples} in ({"cannot"}, {"crashed (SIGSEGV)"})
        assert (tmp_path / "starts").read_text().count("started") == starts


def test_what_others_use_is_what_is_not_ours() -> None:
    start, end = Moment(10.0, 100.0, 50.0), Moment(12.0, 104.0, 53.0)
    assert cores_of_others(start, end) == 0.5
    assert cores_of_others(start, Moment(12.0, 102.0, 53.0)) == 0.0


def test_our_own_work_is_not_others() -> None:
    """Half a second of work in this process counts as ours in both sums."""
    start = look(())
    until = time.process_time() + 0.5
    while time.process_time() < until:
        pass
    end = look(())
    assert end.own_s - start.own_s >= 0.4
    assert end.busy_s - start.busy_s >= 0.4


def test_a_disturbed_sample_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tries with 0.5, 0.3 and 0.4 cores of others: the second is kept; then one that is fine at once."""
    shares = iter([0.5, 0.3, 0.4, 0.05])
    monkeypatch.setattr(contest, "cores_of_others", lambda start, end: next(shares))
    values = iter([1.0, 2.0, 3.0, 4.0])
    race = Contest([], {}, [], Results({}), print)
    assert race.measure_undisturbed(lambda: next(values)) == (2.0, 0.3)
    assert race.measure_undisturbed(lambda: next(values)) == (4.0, 0.05)
