"""Where ONNX files come from here: optimum's own beside this file, one of forerun's, and hand-made ones."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_models import VARIANTS, write_folder

from forerun.compiler.onnx_bundle import bundle_onnx
from forerun.export import export_model

HERE = Path(__file__).parent
FROM_OPTIMUM = ("llama", "gemma3", "gpt2")
MODELS = (*FROM_OPTIMUM, "forerun")
VOCABULARY, SIZE = 65, 8


def make_bundle(name: str, folder: Path) -> Path:
    """The bundle of one of MODELS, below `folder`."""
    source = HERE / name
    if name == "forerun":
        model = write_folder(folder / "model", seed=3, **VARIANTS["gemma3"])
        source = export_model(model, folder / "export", "q4").directory
    return bundle_onnx(source, folder / "bundle").bundle


def write_decoder(
    folder: Path,
    *,
    element: int = TensorProto.FLOAT,
    leak: float = 0.0,
    rows: int | str = "sequence_length",
    inputs: Mapping[str, int] = MappingProxyType({}),
    without: tuple[str, ...] = (),
    external: str = "",
) -> Path:
    """A folder as optimum writes it, with llama's tokenizer and config.json. The decoder is of a few operators: its
    logits depend on a row's token alone.

    `leak` is how much of the mean of all rows of a call each gets. `rows` is the shape of input_ids, `inputs` (with
    their element types) are taken beside the usual ones, `without` names inputs and outputs left out, `external` the
    file for the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(HERE / "llama" / name, folder / name)
    dtype = helper.tensor_dtype_to_np_dtype(element)
    table = np.random.default_rng(0).standard_normal((VOCABULARY, SIZE)).astype(dtype)
    integers, cache = TensorProto.INT64, ["batch_size", 1, "past", SIZE]
    taken = {
        "input_ids": (integers, ["batch_size", rows]),
        "attention_mask": (integers, ["batch_size", "total"]),
        "past_key_values.0.key": (element, cache),
        "past_key_values.0.value": (element, cache),
        **{name: (kind, ["n"]) for name, kind in inputs.items()},
    }
    given = {
        "logits": (element, ["batch_size", "sequence_length", "vocabulary"]),
        "present.0.key": (element, ["batch_size", 1, "total", SIZE]),
        "present.0.value": (element, ["batch_size", 1, "total", SIZE]),
    }
    stored = {"table": table, "one": np.array([1]), "leak": np.array(leak, dtype)}
    graph = helper.make_graph(
        make_nodes(without),
        "decoder",
        [helper.make_tensor_value_info(name, *facts) for name, facts in taken.items() if name not in without],
        [helper.make_tensor_value_info(name, *facts) for name, facts in given.items() if name not in without],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = {"save_as_external_data": True, "location": external, "size_threshold": 100} if external else {}
    onnx.save(model, folder / "model.onnx", **options)
    return folder


def make_nodes(without: tuple[str, ...]) -> list[onnx.NodeProto]:
    """The decoder of `write_decoder`: the rows of a table are hidden states, keys, values and the head at once."""
    pasts = {
        kind: [name for name in (f"past_key_values.0.{kind}",) if name not in without]
        for kind in ("key", "value")
    }
    return [
        helper.make_node("Gather", ["table", "input_ids"], ["own"]),
        helper.make_node("ReduceMean", ["own", "one"], ["mean"]),
        helper.make_node("Mul", ["mean", "leak"], ["leaked"]),
        helper.make_node("Add", ["own", "leaked"], ["hidden"]),
        helper.make_node("Transpose", ["table"], ["head"], perm=[1, 0]),
        helper.make_node("MatMul", ["hidden", "head"], ["logits"]),
        helper.make_node("Unsqueeze", ["own", "one"], ["row"]),
        *(helper.make_node("Concat", [*pasts[kind], "row"], [f"present.0.{kind}"], axis=2) for kind in pasts),
    ]


def change_config(folder: Path, **changes: object) -> None:
    """Change entries of config.json; None removes one."""
    values = {**json.loads((folder / "config.json").read_text()), **changes}
    kept = {name: value for name, value in values.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
