"""The emulator of AMX instructions against numpy, and what it must refuse as the processor does."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from amx_emulation import HERE, Emulator, build

# Of the left and the right operand: tdpbssd, tdpbsud, tdpbusd, tdpbuud, as numbered in amx_calls.c.
FORMS = ((np.int8, np.int8), (np.int8, np.uint8), (np.uint8, np.int8), (np.uint8, np.uint8))


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    made = Emulator(tmp_path_factory.mktemp("emulator"))
    with made.running():
        yield made


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return ctypes.CDLL(str(build("amx_calls", tmp_path_factory.mktemp("calls"))))


def configuration(**sizes: tuple[int, int]) -> np.ndarray:
    """Return a configuration: `tile1=(rows, bytes of a row)`."""
    config = np.zeros(64, np.uint8)
    config[0] = 1
    for name, (rows, row_bytes) in sizes.items():
        tile = int(name.removeprefix("tile"))
        config[48 + tile] = rows
        config[16 + 2 * tile : 18 + 2 * tile] = np.frombuffer(np.uint16(row_bytes).tobytes(), np.uint8)
    return config


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parametrize("form", range(len(FORMS)))
def test_products_are_those_of_numpy(
    emulator: Emulator, calls: ctypes.CDLL, form: int, rng: np.random.Generator
) -> None:
    for _ in range(20):
        rows, columns, quads = (int(rng.integers(1, 17)) for _ in range(3))
        left_type, right_type = FORMS[form]
        # Wider in memory than the tile: the rest must stay as it is.
        left = rng.integers(0, 256, (rows, 4 * quads + 5)).astype(np.uint8).view(left_type)
        right = rng.integers(0, 256, (quads, 4 * columns + 9)).astype(np.uint8).view(right_type)
        sums = rng.integers(-(2**31), 2**31, (32, columns + 3)).astype(np.int32)
        expected = sums.copy()
        four_deep = right[:, : 4 * columns].reshape(quads, columns, 4).transpose(0, 2, 1)
        products = left[:, : 4 * quads].astype(np.int32) @ four_deep.reshape(4 * quads, columns).astype(
            np.int32
        )
        expected[:rows, :columns] += products
        expected[16 : 16 + rows, :columns] = products
        config = configuration(tile1=(rows, 4 * columns), tile2=(rows, 4 * quads), tile3=(quads, 4 * columns))
        strides = [ctypes.c_int64(array.strides[0]) for array in (left, right, sums)]
        operands = [x for pair in zip(map(pointer, (left, right, sums)), strides, strict=True) for x in pair]
        calls.multiply_tiles(form, pointer(config), *operands)
        assert np.array_equal(sums, expected)
    assert not emulator.configured()


def test_every_addressing_mode_reaches_the_same_place(
    emulator: Emulator, calls: ctypes.CDLL, rng: np.random.Generator
) -> None:
    given = rng.integers(0, 256, (16, 200)).astype(np.uint8)
    taken = np.zeros((8, 0x2000), np.uint8)
    before = emulator.counts()
    calls.move_tiles(pointer(given), ctypes.c_int64(200), pointer(taken), ctypes.c_int64(64 + 6))
    flat = taken.reshape(-1)
    for start in (0, 0x4000 - 0x40, 0x8000):
        copied = np.lib.stride_tricks.as_strided(flat[start:], (16, 64), (70, 1))
        assert np.array_equal(copied, given[:, :64]), hex(start)
    # Without an index the distance of rows is 0: all are the first.
    assert np.array_equal(flat[0xC000 : 0xC000 + 1024].reshape(16, 64), np.tile(given[0, :64], (16, 1)))
    counts = {kind: count - before[kind] for kind, count in emulator.counts().items()}
    assert counts == {"configure": 1, "release": 1, "zero": 0, "load": 4, "store": 5, "multiply": 0}


def test_threads_have_tiles_of_their_own(emulator: Emulator, calls: ctypes.CDLL) -> None:
    seen = []

    def configure() -> None:
        calls.configure_only(pointer(configuration(tile0=(1, 4))))
        seen.append(emulator.configured())

    thread = threading.Thread(target=configure)
    thread.start()
    thread.join()
    assert seen == [True] and not emulator.configured()


TILES = {"tile1": (4, 8), "tile2": (4, 12), "tile3": (3, 8)}
WRONG = {
    "undefined": ("undefined", []),
    "another kind of product": ("multiply_floats", [configuration(**TILES)]),
    "no configuration": ("zero_unconfigured", []),
    "one tile twice": ("multiply_into_itself", [configuration(**TILES)]),
    "too many rows": ("configure_only", [configuration(tile1=(17, 64))]),
    "rows too long": ("configure_only", [configuration(tile1=(16, 65))]),
    "rows without bytes": ("configure_only", [configuration(tile1=(16, 0))]),
    "a palette that does not exist": ("configure_only", [configuration() * 2]),
    "a reserved byte": ("configure_only", [configuration(tile8=(1, 0))]),
    "sums with other rows": ("multiply_tiles", [configuration(**TILES | {"tile1": (5, 8)})]),
    "sums with other columns": ("multiply_tiles", [configuration(**TILES | {"tile1": (4, 12)})]),
    "other inputs": ("multiply_tiles", [configuration(**TILES | {"tile3": (2, 8)})]),
}
SCRIPT = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
from amx_emulation import Emulator, build
from pathlib import Path
folder = Path(sys.argv[2])
emulator, calls = Emulator(folder), ctypes.CDLL(str(build("amx_calls", folder)))
config, rows = ctypes.create_string_buffer(bytes.fromhex(sys.argv[4]), 64), ctypes.create_string_buffer(4096)
given = [rows, ctypes.c_int64(64)] * 3
with emulator.running():
    if sys.argv[3] == "multiply_tiles":
        calls.multiply_tiles(0, config, *given)
    else:
        getattr(calls, sys.argv[3])(config)
print("went on")
"""


def run_apart(folder: Path, function: str, config: np.ndarray) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, str(HERE), str(folder), function, config.tobytes().hex()]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("wrong", WRONG)
def test_what_the_processor_would_refuse_ends_the_process(wrong: str, tmp_path: Path) -> None:
    function, config = WRONG[wrong]
    done = run_apart(tmp_path, function, config[0] if config else configuration())
    assert (done.returncode, done.stdout) == (-signal.SIGILL, ""), done.stderr


def test_the_same_calls_go_through_where_they_are_right(tmp_path: Path) -> None:
    for function in ("multiply_tiles", "configure_only"):
        done = run_apart(tmp_path, function, configuration(**TILES))
        assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr
