"""Bundles whose program is part of the app: opened by a table of programs, no library loaded."""

import ctypes
from pathlib import Path

import pytest
from tiny_model import TARGET, make_manifest, write_manifest

from forerun.runtime.library import Status, load_library

ENTRY = ctypes.CFUNCTYPE(ctypes.c_void_p)


class Linked(ctypes.Structure):
    """`forerun_linked`."""

    _fields_ = (("target", ctypes.c_char_p), ("program", ENTRY), ("draft", ctypes.c_char_p))


def open_linked(
    path: Path, programs: list[tuple[str, object]], count: int | None = None, target: str | None = None
) -> tuple[int, str]:
    """Open, and close again; return the status and the target or the error."""
    library = load_library()
    library.forerun_bundle_target.restype = ctypes.c_char_p
    library.forerun_bundle_target.argtypes = (ctypes.c_void_p,)
    library.forerun_bundle_release.argtypes = (ctypes.c_void_p,)
    table = (Linked * max(1, len(programs)))(*(Linked(name.encode(), entry) for name, entry in programs))
    bundle = ctypes.c_void_p()
    size = len(programs) if count is None else count
    wanted = [target.encode()] if target else []
    opener = library.forerun_bundle_open_linked_for if target else library.forerun_bundle_open_linked
    status = opener(str(path).encode(), table, size, *wanted, ctypes.byref(bundle))
    if status:
        assert not bundle.value
        return status, library.forerun_last_error().decode()
    target = library.forerun_bundle_target(bundle).decode()
    library.forerun_bundle_release(bundle)
    return status, target


@pytest.fixture(scope="module")
def entry(tiny_library: Path) -> object:
    """The program's function, as a linker would find it."""
    return ctypes.cast(ctypes.CDLL(str(tiny_library)).forerun_program_model, ENTRY)


@pytest.fixture
def bare(own_bundle: Path) -> Path:
    """A bundle without its library, as packages hold it."""
    (own_bundle / "lib" / f"{TARGET}.so").unlink()
    manifest = make_manifest(own_bundle)
    del manifest["targets"][TARGET]["library"]
    write_manifest(own_bundle, manifest)
    return own_bundle


def test_it_opens_with_and_without_a_library_in_the_bundle(
    tiny_bundle: Path, bare: Path, entry: object
) -> None:
    assert open_linked(tiny_bundle, [(TARGET, entry)]) == (0, TARGET)
    assert open_linked(bare, [(TARGET, entry)]) == (0, TARGET)


def test_the_first_that_runs_is_taken(own_bundle: Path, entry: object) -> None:
    manifest = make_manifest(own_bundle)
    entries = manifest["targets"]
    for name, changes in (("alien", {"arch": "vax"}), ("newer", {"features": ["quantum"]})):
        entries[name] = {**entries[TARGET], **changes}
    write_manifest(own_bundle, manifest)
    assert open_linked(own_bundle, [("alien", entry), ("newer", entry), (TARGET, entry)]) == (0, TARGET)
    status, error = open_linked(own_bundle, [("alien", entry), ("newer", entry)])
    assert status == Status.CPU_FEATURE and "quantum" in error


def test_only_the_target_that_is_asked_for_is_taken(own_bundle: Path, entry: object) -> None:
    manifest = make_manifest(own_bundle)
    manifest["targets"]["other"] = manifest["targets"][TARGET]
    write_manifest(own_bundle, manifest)
    programs = [("other", entry), (TARGET, entry)]
    assert open_linked(own_bundle, programs) == (0, "other")
    assert open_linked(own_bundle, programs, target=TARGET) == (0, TARGET)
    status, error = open_linked(own_bundle, programs[:1], target=TARGET)
    assert status == Status.UNKNOWN_TARGET and f"for target {TARGET}" in error


def test_mistakes_are_refused(bare: Path, entry: object) -> None:
    status, error = open_linked(bare, [("other", entry)])
    assert status == Status.UNKNOWN_TARGET and "other" in error
    for count in (0, -1):
        assert open_linked(bare, [(TARGET, entry)], count)[0] == Status.INVALID_ARGUMENT
    assert open_linked(bare, [(TARGET, ENTRY())])[0] == Status.INVALID_ARGUMENT
    nothing = ENTRY(lambda: None)
    status, error = open_linked(bare, [(TARGET, nothing)])
    assert status == Status.LIBRARY and "returns nothing" in error


def test_a_bundle_without_library_says_how_to_open_it(bare: Path) -> None:
    library, bundle = load_library(), ctypes.c_void_p()
    status = library.forerun_bundle_open(str(bare).encode(), None, ctypes.byref(bundle))
    assert status == Status.LIBRARY and b"forerun_bundle_open_linked" in library.forerun_last_error()


def test_changed_weights_are_refused(bare: Path, entry: object) -> None:
    weights = bytearray((bare / "weights.bin").read_bytes())
    weights[5] ^= 1
    (bare / "weights.bin").write_bytes(weights)
    assert open_linked(bare, [(TARGET, entry)])[0] == Status.HASH
