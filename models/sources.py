"""Finding and opening a model by what the user typed: a GGUF file, a Hugging Face folder, or
`package:NAME`.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

from forerun.errors import ModelFileError
from forerun.models.checkpoint import Checkpoint
from forerun.models.families import family_named
from forerun.models.gguf_source import open_gguf
from forerun.models.llama import Decoder
from forerun.models.safetensors_source import open_huggingface

PACKAGE_PREFIX = "package:"


def resolve_source(source: Path | str) -> Path:
    """The absolute path of a model; `package:NAME` is the only .gguf file inside an installed Python package.

    The package is found, not imported, unless it holds no such file but a function `assemble` that puts one together
    from the parts that other packages hold. Raises `ModelFileError` when there is nothing of that name.
    """
    text = str(source)
    if text.startswith(PACKAGE_PREFIX):
        return _file_in_package(text.removeprefix(PACKAGE_PREFIX))
    path = Path(text).expanduser().resolve()
    if not path.exists():
        raise ModelFileError(
            f"{text} does not exist; give a .gguf file, a Hugging Face folder or {PACKAGE_PREFIX}NAME"
        )
    return path


def open_checkpoint(source: Path | str) -> Checkpoint:
    """Open a model without reading its weights.

    Raises `ModelFileError` for missing, truncated or malformed files, `UnsupportedModelError` for
    architectures that are not known.
    """
    path = resolve_source(source)
    if path.is_dir():
        return open_huggingface(path)
    if path.suffix == ".safetensors":
        raise ModelFileError(f"{path} holds weights only; give its folder, which also has config.json")
    return open_gguf(path)


def load_model(source: Path | str) -> Decoder:
    """The model as a torch module in float32 (quantized weights dequantized), in evaluation mode.

    Raises what `open_checkpoint` raises.
    """
    return load_decoder(open_checkpoint(source))


def load_decoder(checkpoint: Checkpoint) -> Decoder:
    """The decoder of an opened checkpoint with its weights in float32."""
    model = family_named(checkpoint.family).build(checkpoint.config)
    for name, parameter in model.named_parameters():
        parameter.data = torch.from_numpy(checkpoint.tensors[name].read_float32())
    # Assigning `data` of a tied head is done once, through the embedding: they are one parameter.
    model.eval()
    return model


def _file_in_package(name: str) -> Path:
    if not name.isidentifier():
        raise ModelFileError(
            f"{PACKAGE_PREFIX}{name}: {name!r} is not the name of a top-level Python package"
        )
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModelFileError(
            f"the Python package {name!r} is not installed; pip install {name.replace('_', '-')}"
        )
    found = sorted(
        path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.gguf")
    )
    if not found and (assembled := _assembled(name)) is not None:
        return assembled
    if len(found) != 1:
        shown = ", ".join(path.name for path in found) or "none"
        raise ModelFileError(
            f"the Python package {name!r} must hold exactly one .gguf file; it holds: {shown}"
        )
    return found[0].resolve()


def _assembled(name: str) -> Path | None:
    """The file that a package's `assemble` makes, or has made before, where it chooses to; None without one."""
    assemble = getattr(import_module(name), "assemble", None)
    if not callable(assemble):
        return None
    try:
        return Path(assemble()).resolve()
    except Exception as error:  # the package's own code may raise anything
        raise ModelFileError(
            f"the Python package {name!r} could not put its .gguf file together: {error}"
        ) from error
