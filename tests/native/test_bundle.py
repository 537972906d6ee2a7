"""Every way in which a bundle can be bad has its own status, and a message that says what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import (
    TARGET,
    compile_program,
    make_manifest,
    make_weights,
    write_manifest,
    write_manifest_text,
)

from forerun.compiler.bundle import hash_file
from forerun.errors import BundleError, ForerunError, TargetError
from forerun.runtime.bundle import read_bundle
from forerun.runtime.library import Status
from forerun.runtime.session import LoadedProgram, Session


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and vouch for it anew."""
    manifest = make_manifest(folder)
    change(manifest)
    write_manifest(folder, manifest)


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def cut_weights(folder: Path) -> None:
    edit(folder / "weights.bin", lambda data: data[:-1])


def grow_weights(folder: Path) -> None:
    edit(folder / "weights.bin", lambda data: data + b"\0")


def change_weights(folder: Path) -> None:
    edit(folder / "weights.bin", lambda data: flip(data, len(data) // 2))


def change_library(folder: Path) -> None:
    edit(folder / "lib" / f"{TARGET}.so", lambda data: flip(data, 100))


def remove_weights(folder: Path) -> None:
    (folder / "weights.bin").unlink()


def remove_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def change_manifest(folder: Path) -> None:
    edit(folder / "manifest.json", lambda data: data.replace(b'"tiny"', b'"tinx"'))


def cut_manifest(folder: Path) -> None:
    edit(folder / "manifest.json", lambda data: data[:-20])


def empty_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"")


def foreign_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"name": "something else"}\n')


def header_only(folder: Path) -> None:
    edit(folder / "manifest.json", lambda data: data.split(b"\n")[0])


def broken_json(folder: Path) -> None:
    write_manifest_text(folder, '{"config": [1, 2,, 3]}}\n')


def trailing_text(folder: Path) -> None:
    write_manifest_text(folder, json.dumps(make_manifest(folder)) + "} x\n")


def repeated_key(folder: Path) -> None:
    write_manifest_text(folder, '{"files": {}, "files": {}}}\n')


def deep_json(folder: Path) -> None:
    write_manifest_text(folder, "[" * 100000 + "]" * 100000 + "}\n")


def no_files(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.pop("files"))


def no_weights_listed(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["files"].pop("weights.bin"))


def no_library_listed(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["files"].pop(f"lib/{TARGET}.so"))


def no_target(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["targets"].clear())


def negative_size(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["files"]["weights.bin"].update(bytes=-1))


def short_hash(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["files"]["weights.bin"].update(xxh64="abc"))


def other_version(folder: Path) -> None:
    write_manifest(folder, make_manifest(folder), version=1)


def escape_by_dots(folder: Path) -> None:
    outside = folder.parent / "outside.bin"
    outside.write_bytes(b"secret")
    entry = {"bytes": 6, "xxh64": hash_file(outside)}
    rewrite(folder, lambda manifest: manifest["files"].update({"../outside.bin": entry}))


def escape_absolute(folder: Path) -> None:
    rewrite(
        folder, lambda manifest: manifest["files"].update({"/etc/passwd": {"bytes": 1, "xxh64": "0" * 16}})
    )


def escape_by_link(folder: Path) -> None:
    weights = folder / "weights.bin"
    shutil.move(weights, folder.parent / "elsewhere.bin")
    weights.symlink_to(folder.parent / "elsewhere.bin")


def escape_by_linked_folder(folder: Path) -> None:
    shutil.move(folder / "lib", folder.parent / "lib")
    (folder / "lib").symlink_to(folder.parent / "lib")


def folder_for_file(folder: Path) -> None:
    remove_weights(folder)
    (folder / "weights.bin").mkdir()


def wrong_architecture(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["targets"][TARGET].update(arch="vax"))


def missing_feature(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["targets"][TARGET].update(features=["warp_drive"]))


def junk_library(folder: Path) -> None:
    (folder / "lib" / f"{TARGET}.so").write_bytes(b"this is not a library" * 100)
    rewrite(folder, lambda manifest: None)


def missing_symbol(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["targets"][TARGET].update(symbol="no_such_symbol"))


def recompile(*options: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        compile_program(folder / "lib" / f"{TARGET}.so", *options)
        rewrite(folder, lambda manifest: None)

    return change


def mixed_bundles(folder: Path) -> None:
    edit(folder / "weights.bin", lambda data: data[:-4])
    rewrite(folder, lambda manifest: None)


# What is done to the bundle, the status it must give, and a word of the message.
CASES: tuple[tuple[Callable[[Path], None], Status, str], ...] = (
    (cut_weights, Status.SIZE, "weights.bin"),
    (grow_weights, Status.SIZE, "weights.bin"),
    (change_weights, Status.HASH, "weights.bin"),
    (change_library, Status.HASH, f"lib/{TARGET}.so"),
    (remove_weights, Status.FILE, "weights.bin"),
    (remove_manifest, Status.FILE, "manifest.json"),
    (change_manifest, Status.HASH, "manifest.json"),
    (cut_manifest, Status.HASH, "manifest.json"),
    (empty_manifest, Status.MANIFEST, "not a forerun bundle"),
    (foreign_manifest, Status.MANIFEST, "not a forerun bundle"),
    (header_only, Status.MANIFEST, "first line"),
    (broken_json, Status.MANIFEST, "no value"),
    (trailing_text, Status.MANIFEST, "end"),
    (repeated_key, Status.MANIFEST, "repeats a key"),
    (deep_json, Status.MANIFEST, "deeply"),
    (no_files, Status.MANIFEST, "files"),
    (no_weights_listed, Status.MANIFEST, "weights.bin"),
    (no_library_listed, Status.MANIFEST, f"lib/{TARGET}.so"),
    (no_target, Status.MANIFEST, "target"),
    (negative_size, Status.MANIFEST, "bytes"),
    (short_hash, Status.MANIFEST, "hex"),
    (other_version, Status.VERSION, "version 1"),
    (escape_by_dots, Status.PATH, "outside.bin"),
    (escape_absolute, Status.PATH, "/etc/passwd"),
    (escape_by_link, Status.PATH, "weights.bin"),
    (escape_by_linked_folder, Status.PATH, f"lib/{TARGET}.so"),
    (folder_for_file, Status.PATH, "weights.bin"),
    (wrong_architecture, Status.ARCHITECTURE, "vax"),
    (missing_feature, Status.CPU_FEATURE, "warp_drive"),
    (junk_library, Status.LIBRARY, f"lib/{TARGET}.so"),
    (missing_symbol, Status.LIBRARY, "no_such_symbol"),
    (recompile("-DTINY_NULL=1"), Status.LIBRARY, "nothing"),
    (recompile("-DTINY_ABI=99"), Status.PROGRAM_ABI_MISMATCH, "99"),
    (recompile("-DTINY_LAYERS=2"), Status.PROGRAM, "layers"),
    (recompile("-DTINY_FEATURES=5", "-DTINY_NO_EMBED"), Status.PROGRAM, "features without embed"),
    (recompile("-DTINY_ROWS=0"), Status.PROGRAM, "max_rows"),
    (mixed_bundles, Status.PROGRAM, "weights"),
)
WORDS_OF_ADVICE = ("compile", "copy", "plain files")


@pytest.mark.parametrize(("damage", "status", "word"), CASES)
def test_bad_bundle(own_bundle: Path, damage: Callable[[Path], None], status: Status, word: str) -> None:
    damage(own_bundle)
    kind = TargetError if status in (Status.ARCHITECTURE, Status.CPU_FEATURE) else BundleError
    with pytest.raises(kind) as caught:
        LoadedProgram(own_bundle)
    assert caught.value.status == status
    assert word in str(caught.value)
    assert any(advice in str(caught.value) for advice in WORDS_OF_ADVICE)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere") as caught:
        LoadedProgram(tmp_path / "nowhere")
    assert caught.value.status == Status.FILE


def test_unknown_target(tiny_bundle: Path) -> None:
    with pytest.raises(TargetError, match=r"pdp-11; it has tiny") as caught:
        LoadedProgram(tiny_bundle, "pdp-11")
    assert caught.value.status == Status.UNKNOWN_TARGET


def test_the_first_target_that_runs_is_taken(own_bundle: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        sound = manifest["targets"][TARGET]
        manifest["targets"] = {"fancy": {**sound, "features": ["warp_drive"]}, TARGET: sound}

    rewrite(own_bundle, change)
    assert LoadedProgram(own_bundle).target == TARGET
    with pytest.raises(TargetError, match="warp_drive"):
        LoadedProgram(own_bundle, "fancy")


def test_every_flipped_byte_of_the_manifest_is_refused(own_bundle: Path) -> None:
    """The header too: no single changed byte may go unnoticed."""
    path = own_bundle / "manifest.json"
    sound = path.read_bytes()
    for at in range(0, len(sound), 7):
        path.write_bytes(flip(sound, at))
        with pytest.raises(ForerunError):
            LoadedProgram(own_bundle)


def test_every_truncation_is_refused(own_bundle: Path) -> None:
    path = own_bundle / "manifest.json"
    sound = path.read_bytes()
    for length in range(0, len(sound), 13):
        path.write_bytes(sound[:length])
        with pytest.raises(BundleError):
            LoadedProgram(own_bundle)
        with pytest.raises(BundleError):
            read_bundle(own_bundle)


@pytest.mark.parametrize("text", ["é", "\\u00e9", "\\ud83d\\ude00", "tab\\t", "\\\\", "🙂"])
def test_texts_in_the_manifest(own_bundle: Path, text: str) -> None:
    body = json.dumps(make_manifest(own_bundle)).replace('"tests"', f'"{text}"') + "}\n"
    write_manifest_text(own_bundle, body)
    LoadedProgram(own_bundle).close()
    assert read_bundle(own_bundle).source == json.loads(f'"{text}"')


@pytest.mark.parametrize("text", ["\\ud83d", "\\ud83dx", "\\udc00", "\\x", "\t", "\\u12"])
def test_bad_texts_in_the_manifest(own_bundle: Path, text: str) -> None:
    write_manifest_text(
        own_bundle, json.dumps(make_manifest(own_bundle)).replace('"tests"', f'"{text}"') + "}\n"
    )
    with pytest.raises(BundleError) as caught:
        LoadedProgram(own_bundle)
    assert caught.value.status == Status.MANIFEST


def test_python_reads_the_manifest(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert (bundle.name, bundle.eos_token_ids, bundle.add_bos) == ("tiny", (0,), False)
    assert bundle.files["weights.bin"] == len(make_weights().to_bytes())
    assert [target.name for target in bundle.targets] == [TARGET]
    assert bundle.tokenizer_path == tiny_bundle / "tokenizer.json"
    assert bundle.chat_template_path is None


def test_sessions_outlive_the_program(tiny_bundle: Path) -> None:
    program = LoadedProgram(tiny_bundle)
    session = Session(program, threads=2)
    program.close()
    sequence = session.create_sequence()
    session.stage(sequence, [1])
    assert session.forward([(sequence, 0)]).logits.shape == (1, 37)
    session.close()
    with pytest.raises(ForerunError, match="closed"):
        session.create_sequence()
    with pytest.raises(ForerunError, match="closed"):
        Session(program)


@pytest.mark.parametrize("size", (0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (5 << 20) + 12345))
def test_a_file_of_any_number_of_pieces_is_vouched_for(own_bundle: Path, size: int) -> None:
    """The compiler's hash of a file is the core's, and a changed byte in any piece is found."""
    content = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    path = own_bundle / "chat_template.jinja"
    path.write_bytes(content.tobytes())
    manifest = make_manifest(own_bundle)
    manifest["files"][path.name] = {"bytes": size, "xxh64": hash_file(path)}
    write_manifest(own_bundle, manifest)
    LoadedProgram(own_bundle)
    for at in {0, size // 2, size - 1} if size else ():
        changed = content.copy()
        changed[at] ^= 1
        path.write_bytes(changed.tobytes())
        with pytest.raises(BundleError, match="changed after"):
            LoadedProgram(own_bundle)
