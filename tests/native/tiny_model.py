"""The tiny decoder of tiny_program.c: compiling it, making bundles of it, and its definition in numpy."""

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from forerun.compiler.bundle import hash_file

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("tiny_program.c")

LAYERS, HIDDEN, HEADS, HEAD_DIM, FEED_FORWARD, VOCABULARY = 3, 12, 4, 3, 10, 37
KV_HEADS = (2, 1, 2)
MAX_ROWS, MAX_GATHER, CONTEXT = 12, 12, 200
TARGET = "tiny"


@dataclass(frozen=True)
class Layer:
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    output: np.ndarray
    up: np.ndarray
    down: np.ndarray


@dataclass(frozen=True)
class Weights:
    embed: np.ndarray
    layers: tuple[Layer, ...]
    head: np.ndarray

    def to_bytes(self) -> bytes:
        """In the order of tiny_program.c's offsets."""
        arrays = [self.embed]
        for layer in self.layers:
            arrays += [layer.query, layer.key, layer.value, layer.output, layer.up, layer.down]
        return b"".join(np.ascontiguousarray(array).tobytes() for array in (*arrays, self.head))


def make_weights(seed: int = 0, vocabulary: int = VOCABULARY) -> Weights:
    """Random weights, large enough that attention is not flat."""
    generator = np.random.default_rng(seed)

    def draw(rows: int, columns: int) -> np.ndarray:
        return generator.normal(0, 1.5 / np.sqrt(columns), (rows, columns)).astype(np.float32)

    shapes = ((HIDDEN, HIDDEN), (6, HIDDEN), (6, HIDDEN), (HIDDEN, HIDDEN), (FEED_FORWARD, HIDDEN))
    layers = tuple(
        Layer(*(draw(*shape) for shape in shapes), draw(HIDDEN, FEED_FORWARD)) for _ in range(LAYERS)
    )
    return Weights(draw(vocabulary, HIDDEN), layers, draw(vocabulary, HIDDEN) * 3)


def compile_program(library: Path, *options: str) -> Path:
    """Build tiny_program.c as a shared library with the system's compiler."""
    include = ROOT / "runtime" / "native" / "include"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-ffp-contract=off"]
    command = ["cc", *flags, f"-I{include}", *options, str(SOURCE), "-o", str(library), "-lm"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def make_manifest(folder: Path, **changes: Any) -> dict[str, Any]:
    """The manifest of the files in `folder`; `changes` replace top-level members."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {
        name: {"bytes": (folder / name).stat().st_size, "xxh64": hash_file(folder / name)}
        for name in names
        if name != "manifest.json"
    }
    config = {
        "layers": LAYERS,
        "hidden_size": HIDDEN,
        "heads": HEADS,
        "kv_heads": 2,
        "head_dim": HEAD_DIM,
        "vocabulary_size": VOCABULARY,
        "context_length": CONTEXT,
    }
    target = {
        "library": f"lib/{TARGET}.so",
        "symbol": "forerun_program_model",
        "arch": platform.machine(),
        "features": [],
    }
    manifest = {
        "name": "tiny",
        "family": "llama",
        "quant": "f32",
        "config": config,
        "tokenizer": {"bos_token_id": None, "eos_token_ids": [0], "add_bos": False},
        "targets": {TARGET: target},
        "files": files,
        "drafters": [],
        "exits": [],
        "costs": {},
        "source": "tests",
        "forerun": "0.1.0",
    }
    return {**manifest, **changes}


def write_manifest(folder: Path, manifest: Mapping[str, Any], version: int = 3) -> None:
    """Write manifest.json with its header line."""
    write_manifest_text(folder, json.dumps(manifest, indent=1) + "}\n", version)


def write_manifest_text(folder: Path, body: str, version: int = 3) -> None:
    """Write any text after a header that vouches for it."""
    digest = xxhash.xxh64_hexdigest(body.encode())
    header = f'{{"format": "forerun-bundle", "version": {version}, "xxh64": "{digest}", "manifest":\n'
    (folder / "manifest.json").write_text(header + body, encoding="utf-8")


def make_bundle(folder: Path, library: Path, weights: Weights) -> Path:
    """A complete bundle in `folder` around a library that `compile_program` made."""
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / f"{TARGET}.so").write_bytes(library.read_bytes())
    (folder / "weights.bin").write_bytes(weights.to_bytes())
    manifest = make_manifest(folder)
    manifest["config"]["vocabulary_size"] = len(weights.embed)
    write_manifest(folder, manifest)
    return folder


def normalize(hidden: np.ndarray) -> np.ndarray:
    return hidden / np.sqrt((hidden * hidden).mean() + 1e-5)


def run_tokens(weights: Weights, token_ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The definition: logits [n, V] and hidden states after each layer [L, n, D], in double precision."""
    count = len(token_ids)
    hidden = np.zeros((count, HIDDEN))
    for position, token_id in enumerate(token_ids):
        angles = 0.1 * (position % 50) * np.arange(1, HIDDEN + 1)
        hidden[position] = weights.embed[token_id] + 0.5 * np.sin(angles)
    taps = np.zeros((LAYERS, count, HIDDEN))
    for number, layer in enumerate(weights.layers):
        hidden = run_layer(layer, KV_HEADS[number], hidden)
        taps[number] = hidden
    return np.array([weights.head.astype(np.float64) @ normalize(row) for row in hidden]), taps


def run_layer(layer: Layer, kv_heads: int, hidden: np.ndarray) -> np.ndarray:
    normal = np.array([normalize(row) for row in hidden])
    query, key, value = (normal @ matrix.T for matrix in (layer.query, layer.key, layer.value))
    attended = np.zeros_like(hidden)
    for head in range(HEADS):
        mine = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        shared = head // (HEADS // kv_heads)
        theirs = slice(shared * HEAD_DIM, (shared + 1) * HEAD_DIM)
        scores = query[:, mine] @ key[:, theirs].T
        scores[np.triu_indices(len(hidden), 1)] = -np.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        attended[:, mine] = weights / weights.sum(axis=1, keepdims=True) @ value[:, theirs]
    hidden = hidden + attended @ layer.output.T
    up = np.array([normalize(row) for row in hidden]) @ layer.up.T
    return hidden + (up / (1 + np.exp(-up))) @ layer.down.T
