"""What the compiled program says its kernels read, against the weights file and the schemes' own arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import STRUCTURES, VARIANTS, VOCABULARY_SIZE, tiny_values, write_folder

from forerun.compiler import compile_export
from forerun.export import export_model
from forerun.runtime.profile import Kernel
from forerun.runtime.session import LoadedProgram, Session

MAX_SYNCHRONIZATIONS = 7
Compiled = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """A function (variant, quant) → bundle of a tiny random model."""
    root = tmp_path_factory.mktemp("traffic")

    def make(variant: str, quant: str) -> Path:
        bundle = root / f"{variant}-{quant}"
        if not bundle.exists():
            source = root / f"{variant}-model"
            write_folder(source, seed=1, **VARIANTS[variant])
            compile_export(export_model(source, root / f"{bundle.name}-export", quant).directory, bundle)
        return bundle

    return make


def kernels_of(bundle: Path) -> tuple[Kernel, ...]:
    with LoadedProgram(bundle) as program, Session(program) as session, session.profiler() as profiler:
        return profiler.kernels


# Structures differ in which arrays there are, quantizations in how one is stored: no need for every pair.
@pytest.mark.parametrize(
    ("variant", "quant"),
    (
        *(("llama-untied", quant) for quant in ("f32", "q8", "q4")),
        *((variant, "q4") for variant in ("llama-tied", "llama-biased", "qwen3")),
    ),
)
def test_every_byte_of_the_weights_file_is_some_kernels(variant: str, quant: str, compiled: Compiled) -> None:
    """All arrays of these models are multiples of 64 bytes, so that no padding lies between them."""
    bundle = compiled(variant, quant)
    values = tiny_values(**VARIANTS[variant])
    layers = values["num_hidden_layers"]
    total = 0
    for kernel in kernels_of(bundle):
        if kernel.module in ("head_maxima", "head_blocks"):
            continue  # they read the head's weights
        total += kernel.call_bytes * (1 if kernel.module in ("embed", "head") else layers)
        if kernel.module == "embed" and not values["tie_word_embeddings"]:
            total += kernel.row_bytes * VOCABULARY_SIZE
        if kernel.name.startswith("rope_store"):
            total += kernel.row_bytes * values["max_position_embeddings"]  # all layers share these
    assert total == (bundle / "weights.bin").stat().st_size


@pytest.mark.parametrize(("quant", "group_bytes"), (("f32", 128), ("q8", 34), ("q4", 20)))
def test_a_matmul_reads_its_scheme(quant: str, group_bytes: int, compiled: Compiled) -> None:
    """32 weights: as floats; 8-bit with a half scale; 4-bit with a half scale and minimum."""
    hidden, wide = tiny_values()["hidden_size"], tiny_values()["intermediate_size"]
    found = {
        (kernel.module, kernel.name): kernel
        for kernel in kernels_of(compiled("llama-untied", quant))
        if kernel.name.startswith("linear_")
    }
    sizes = sorted(kernel.call_bytes for (module, _), kernel in found.items() if module == "feed_forward")
    assert sizes == [wide * hidden // 32 * group_bytes, 2 * wide * hidden // 32 * group_bytes]


def test_attention_reads_keys_and_values_of_every_position(compiled: Compiled) -> None:
    values = tiny_values()
    head_dim = values["hidden_size"] // values["num_attention_heads"]
    (kernel,) = [one for one in kernels_of(compiled("llama-untied", "q4")) if one.position_bytes]
    assert kernel.name.startswith("attention_")
    assert kernel.position_bytes == 2 * values["num_key_value_heads"] * head_dim * 2  # halves


def test_attention_in_a_window_reads_no_more_than_its_rows_see(compiled: Compiled) -> None:
    near, far = sorted(
        (one for one in kernels_of(compiled("gemma3", "q4")) if one.position_bytes),
        key=lambda one: -one.window,
    )
    assert (near.window, far.window) == (24, 0)
    assert near.bytes_read(3, 100) == (24 + 2) * near.position_bytes
    assert near.bytes_read(3, 10) == 10 * near.position_bytes
    assert far.bytes_read(3, 100) == 100 * far.position_bytes


@pytest.mark.parametrize("variant", STRUCTURES)
def test_few_synchronizations_a_layer(variant: str, compiled: Compiled) -> None:
    """Barriers of the attention and the feed-forward function together, at 1 to 8 rows and at more."""
    source = (compiled(variant, "q4") / "src" / "program.c").read_text()
    assert source.count("call->barrier(") == 1  # all of them go through finish()
    few, many = 0, 0
    attention = "attention" if "static void attention(" in source else "attention_in_window"
    for function in (attention, "feed_forward"):
        body = source.split(f"static void {function}(")[1].split("\n}\n")[0]
        meets = re.findall(r"^( *)finish\(call, layer, \d+, tid, (0|1|!alone)\);", body, re.MULTILINE)
        few += sum(meet == "1" for _, meet in meets)
        many += sum(meet != "0" and indent == "  " for indent, meet in meets)  # not those in `if (alone)`
    # A norm after a sublayer waits for all of the projection before it.
    most = MAX_SYNCHRONIZATIONS + 2 * (variant == "gemma3")
    assert 0 < few <= most
    assert many <= most + 2  # norms that few rows do not wait for
