"""From an ONNX file to a bundle, the commands on it, and what is refused, each in one clear sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_command import Forerun, check_error
from onnx_sources import FROM_OPTIMUM, HERE, MODELS, change_config, write_decoder

import forerun
from forerun.compiler.onnx_bundle import bundle_onnx
from forerun.errors import BundleError, CompileError, ForerunError, ModelFileError, UnsupportedModelError
from forerun.runtime.bundle import read_bundle
from forerun.runtime.onnx import engine
from forerun.runtime.onnx.program import OnnxProgram
from forerun.runtime.onnx.sequence import OnnxSequence
from forerun.runtime.session import LoadedProgram

MakeBundle = Callable[[str], Path]


@pytest.mark.parametrize("name", FROM_OPTIMUM)
def test_a_bundle_holds_the_file_as_it_is(onnx_bundle: MakeBundle, name: str) -> None:
    bundle = read_bundle(onnx_bundle(name))
    assert (bundle.path / "model.onnx").read_bytes() == (HERE / name / "model.onnx").read_bytes()
    assert [target.name for target in bundle.targets] == ["onnxruntime"]
    assert set(bundle.files) == {"model.onnx", "tokenizer.json", "chat_template.jinja"}
    assert (bundle.bos_token_id, bundle.eos_token_ids, bundle.add_bos) == (1, (2,), False)
    heads = {"llama": (2, 1), "gemma3": (2, 1), "gpt2": (2, 2)}[name]
    assert (bundle.config["heads"], bundle.config["kv_heads"]) == heads
    assert (bundle.config["layers"], bundle.config["hidden_size"]) == (2, 16)
    assert (bundle.config["context_length"], bundle.config["vocabulary_size"]) == (128, 65)


@pytest.mark.parametrize(
    "place", ["model.onnx", "onnx/model.onnx", "decoder_model_merged.onnx", "onnx/model_q4.onnx"]
)
def test_the_file_is_found_where_others_put_it(tmp_path: Path, place: str) -> None:
    source = write_decoder(tmp_path / "source")
    (source / place).parent.mkdir(exist_ok=True)
    (source / "model.onnx").rename(source / place)
    named = source / place if place.endswith("q4.onnx") else source
    with forerun.load(bundle_onnx(named, tmp_path / "bundle").bundle) as model:
        assert model.generate([5, 6], max_tokens=3, ignore_end=True).complete().stats.generated_tokens == 3


@pytest.mark.parametrize("element", [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16])
@pytest.mark.parametrize("external", ["", "model.onnx_data"])
def test_half_floats_and_weights_beside_the_file(tmp_path: Path, element: int, external: str) -> None:
    source = write_decoder(tmp_path / "source", element=element, external=external)
    bundle = bundle_onnx(source, tmp_path / "bundle").bundle
    assert (external in read_bundle(bundle).files) == bool(external)
    shutil.rmtree(source)
    table = np.random.default_rng(0).standard_normal((65, 8))
    opened = OnnxProgram(read_bundle(bundle)).open_engine(1)
    sequence = OnnxSequence(opened.empty())
    sequence.stage((5,), (-1,))
    assert sequence.run(opened, 1, 1, ()).logits.dtype == np.float32
    with forerun.load(bundle) as model:
        answer = model.generate([5, 6], max_tokens=2, ignore_end=True).complete()
    first = int((table @ table[6]).argmax())
    assert answer.ids == [first, int((table @ table[first]).argmax())]


def test_files_of_two_branches_are_told_which(tmp_path: Path) -> None:
    """What optimum wrote until 2023 takes use_cache_branch; ONNX Runtime refuses a call that lacks it."""
    source = write_decoder(tmp_path / "source", inputs={"use_cache_branch": onnx.TensorProto.BOOL})
    with forerun.load(bundle_onnx(source, tmp_path / "bundle").bundle) as model:
        assert model.generate([5, 6], max_tokens=3, ignore_end=True).complete().stats.generated_tokens == 3


REFUSED = {
    "no past": (
        {"without": ("past_key_values.0.key", "past_key_values.0.value")},
        "text-generation-with-past",
    ),
    "no value": ({"without": ("past_key_values.0.value",)}, "past_key_values.0.value"),
    "no logits": ({"without": ("logits",)}, "has no input or output logits"),
    "no ids": (
        {"inputs": {"pixel_values": onnx.TensorProto.FLOAT}},
        "takes pixel_values, which a decoder of text does not",
    ),
    "fixed": ({"rows": 1}, "fixed shape"),
    "leaky": ({"leak": 1.0}, "does not take several rows"),
    "integers": ({"element": onnx.TensorProto.DOUBLE}, "cache is of tensor(double)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_cannot_be_run_are_refused(tmp_path: Path, case: str) -> None:
    changes, message = REFUSED[case]
    source = write_decoder(tmp_path / "source", **changes)
    with pytest.raises((UnsupportedModelError, CompileError)) as caught:
        bundle_onnx(source, tmp_path / "bundle")
    assert message in str(caught.value)
    assert not (tmp_path / "bundle").exists()


BROKEN: dict[str, tuple[Callable[[Path], object], type[ForerunError], str]] = {
    "no folder": (shutil.rmtree, CompileError, "does not exist"),
    "no file": (lambda folder: (folder / "model.onnx").unlink(), CompileError, "it has no .onnx file"),
    "another name": (
        lambda folder: (folder / "model.onnx").rename(folder / "model_q4.onnx"),
        CompileError,
        "it has model_q4.onnx: give one of them",
    ),
    "cut off": (
        lambda folder: (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-50]),
        ForerunError,
        "model.onnx",
    ),
    "no data": (lambda folder: (folder / "data").unlink(), CompileError, "data is missing"),
    "no config": (lambda folder: (folder / "config.json").unlink(), ModelFileError, "config.json is missing"),
    "no context": (
        lambda folder: change_config(folder, max_position_embeddings=None),
        ModelFileError,
        "no entry max_position_embeddings or n_positions",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), ModelFileError, "tokenizer.json"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_folders_that_are_not_whole_are_refused(tmp_path: Path, case: str) -> None:
    damage, error, message = BROKEN[case]
    source = write_decoder(tmp_path / "source", external="data")
    damage(source)
    with pytest.raises(error) as caught:
        bundle_onnx(source, tmp_path / "bundle")
    assert message in str(caught.value)


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    source = write_decoder(tmp_path / "source", external="data")
    model = onnx.load(source / "model.onnx", load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../data"
    (source / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CompileError, match="outside its folder"):
        bundle_onnx(source, tmp_path / "bundle")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_damaged_bundle_is_refused(
    onnx_bundle: MakeBundle, tmp_path: Path, name: str, is_cut: bool
) -> None:
    bundle = shutil.copytree(onnx_bundle("llama"), tmp_path / "bundle")
    data = bytearray((bundle / name).read_bytes())
    data[-9] ^= 1
    (bundle / name).write_bytes(data[:-1] if is_cut else data)
    with pytest.raises(BundleError, match=name if name != "manifest.json" else "changed|damaged|garbles"):
        forerun.load(bundle)


def test_files_of_more_than_one_piece_are_hashed_as_the_compiler_does(tmp_path: Path) -> None:
    from forerun.compiler.bundle import hash_file
    from forerun.runtime.onnx.program import check_file

    path = tmp_path / "file"
    for size in (0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 7):
        path.write_bytes(np.random.default_rng(size).bytes(size))
        check_file(path, size, hash_file(path))
        with pytest.raises(BundleError, match="was changed"):
            check_file(path, size, "0123456789abcdef")


def test_the_core_says_what_such_a_bundle_is_for(onnx_bundle: MakeBundle) -> None:
    """Apps, packages, profiles and training open bundles by the core."""
    with pytest.raises(ForerunError, match="target onnxruntime is for ONNX Runtime in Python"):
        LoadedProgram(onnx_bundle("llama"))


def test_without_the_package_it_says_what_to_install(
    onnx_bundle: MakeBundle, forerun: Forerun, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = str(onnx_bundle("llama"))
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    check_error(forerun("run", bundle, "-p", "Hi"), "pip install forerun[onnxruntime]")
    done = forerun("info", bundle)
    assert done.code == 0
    assert "pip install forerun[onnxruntime]" in " ".join(done.out.split())


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_device_that_does_not_start_is_no_silent_fallback(
    onnx_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime itself would go on on the CPU. No GPU is needed to see that it is not let to."""
    import onnxruntime

    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    with pytest.raises(ForerunError, match="CUDAExecutionProvider, which does not start here"):
        engine.Engine(onnx_bundle("llama") / "model.onnx", 1)


REFUSED_OPTIONS = {
    "self": (("--drafter", "self:layers=1"), "'self' runs some of the model's layers"),
    "exits": (("--exit", "confidence:layers=0"), "'confidence' runs some of the model's layers"),
    "trees": (("--drafter", "lookup:branches=2"), "takes chains alone"),
    "tree shape": (("--drafter", "lookup:branches=2", "--shape", "tree:branches=2+1"), "takes chains alone"),
    "network": (("--drafter", "feature"), "runs no draft networks"),
    "target": (("--target", "x86-64"), "it has onnxruntime"),
}


@pytest.mark.parametrize("case", REFUSED_OPTIONS)
def test_what_such_a_file_cannot_do_is_said(onnx_bundle: MakeBundle, forerun: Forerun, case: str) -> None:
    options, message = REFUSED_OPTIONS[case]
    check_error(forerun("run", str(onnx_bundle("llama")), "-p", "Hi", *options), message)


REFUSED_COMPILES = {
    "two targets": (("--target", "x86-64"), "another target"),
    "draft": (("--draft", "feature=x"), "--draft"),
    "cache": (("--kv", "f16"), "--kv"),
    "explain": (("--explain",), "--explain"),
}


@pytest.mark.parametrize("case", REFUSED_COMPILES)
def test_options_of_kernels_are_refused(forerun: Forerun, tmp_path: Path, case: str) -> None:
    options, message = REFUSED_COMPILES[case]
    arguments = (
        "compile",
        str(HERE / "llama"),
        "-o",
        str(tmp_path / "b"),
        "--target",
        "onnxruntime",
        *options,
    )
    check_error(forerun(*arguments), f"leave {message} out")


def test_other_verbs_say_that_there_is_nothing_to_do(
    onnx_bundle: MakeBundle, forerun: Forerun, tmp_path: Path
) -> None:
    bundle = str(onnx_bundle("llama"))
    source, output = str(HERE / "llama"), str(tmp_path / "b")
    check_error(forerun("compile", source, "-o", output), "with --target onnxruntime")
    check_error(forerun("tune", str(HERE / "llama"), "--target", "onnxruntime"), "nothing to tune")
    package = ("package", bundle, "--target", "linux-x86-64", "-o", str(tmp_path / "p"))
    check_error(forerun(*package), "onnxruntime")
    check_error(forerun("bench", bundle, "--profile"), "onnxruntime")
    check_error(forerun("check", bundle, "--text", str(HERE / "make_models.py")), "ONNX file from elsewhere")


@pytest.mark.parametrize("name", MODELS)
def test_the_commands_run(onnx_bundle: MakeBundle, forerun: Forerun, tmp_path: Path, name: str) -> None:
    bundle, prompts = str(onnx_bundle(name)), tmp_path / "prompts.jsonl"
    prompts.write_text('{"turns": ["abcabcabcabc"]}')
    options = ("-p", "abcabcabc", "--max-tokens", "20", "--json")
    plain = json.loads(forerun("run", bundle, *options, "--drafter", "none").out)
    drafted = json.loads(forerun("run", bundle, *options, "--drafter", "lookup:min_ngram=1").out)
    assert drafted["ids"] == plain["ids"]
    speeds = ("--pp", "16", "--tg", "8", "--rows", "0", "--repetitions", "1", "--prompts", str(prompts))
    measured = json.loads(forerun("bench", bundle, *speeds, "--drafter", "lookup:min_ngram=1", "--json").out)
    assert {row["same_ids"] for row in measured} == {None, True}
    facts = json.loads(forerun("info", bundle, "--json").out)["targets"][0]
    assert facts["runs_here"] is True
    assert "CPUExecutionProvider" in facts["note"]
    assert "rows had the same bits" in facts["note"]
    assert "onnxruntime" in forerun("list", "targets").out


def test_a_bundle_of_ones_own_export_is_compared_with_its_model(
    onnx_bundle: MakeBundle, forerun: Forerun
) -> None:
    """The source is there, so `forerun check` says how far its 4-bit weights are off."""
    done = forerun(
        "check", str(onnx_bundle("forerun")), "--text", str(HERE / "make_models.py"), "--tokens", "96"
    )
    assert (done.code, "mean KL" in done.out) == (0, True), done.err


def test_rows_that_depend_on_each_other_are_owned_up_to(forerun: Forerun, tmp_path: Path) -> None:
    """A file in which a row gets a millionth of those beside it: no reason to refuse it, but to say so everywhere."""
    bundle = str(tmp_path / "bundle")
    source = write_decoder(tmp_path / "source", leak=1e-6)
    done = forerun("compile", str(source), "-o", bundle, "--target", "onnxruntime")
    assert "depend on the rows beside it" in done.out
    facts = json.loads(forerun("info", bundle, "--json").out)["targets"][0]
    assert "depend on the rows beside it" in facts["note"]
    run = ("run", bundle, "-p", "abcabcabc", "--raw", "--max-tokens", "20", "--stats")
    assert "a draft may have changed a token" in forerun(*run, "--drafter", "lookup:min_ngram=1").err
    assert "changed a token" not in forerun(*run, "--drafter", "none").err


def test_statistics_say_what_trees_are_worth(onnx_bundle: MakeBundle, forerun: Forerun) -> None:
    """An export of forerun's own takes trees; a file of optimum's never has any."""
    run = ("-p", "abcabcabc", "--raw", "--max-tokens", "20", "--stats", "--drafter", "lookup:min_ngram=1")
    assert "with branches may have changed" in forerun("run", str(onnx_bundle("forerun")), *run).err
    assert "changed a token" not in forerun("run", str(onnx_bundle("llama")), *run).err


def test_the_compile_command_bundles(forerun: Forerun, tmp_path: Path) -> None:
    done = forerun("compile", str(HERE / "gpt2"), "-o", str(tmp_path / "bundle"), "--target", "onnxruntime")
    assert (done.code, done.err) == (0, "")
    assert "signature optimum" in done.out
    assert read_bundle(tmp_path / "bundle").family == "gpt2"
