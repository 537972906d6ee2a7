"""The model families, and finding the one that reads a file's architecture.

A new family is a new file and one word in `FAMILIES`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from forerun.errors import UnsupportedModelError
from forerun.models.checkpoint import RowRange
from forerun.models.config import ModelConfig
from forerun.models.gemma3_family import Gemma3Family
from forerun.models.granite_family import GraniteFamily
from forerun.models.llama import Decoder
from forerun.models.llama_family import LlamaFamily
from forerun.models.phi3_family import Phi3Family
from forerun.models.smollm3_family import SmolLM3Family


class Family(Protocol):
    """What a family knows: its network, and how files name its tensors and write its configuration."""

    name: str
    huggingface_types: tuple[str, ...]
    gguf_architectures: tuple[str, ...]
    norm_offset: float

    def build(self, config: ModelConfig) -> Decoder:
        """The network with uninitialised weights."""
        ...

    def tensor_shapes(self, config: ModelConfig) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight."""
        ...

    def huggingface_name(self, name: str) -> str:
        """The name of one of our weights in a Hugging Face checkpoint."""
        ...

    def gguf_name(self, name: str) -> str:
        """The name of one of our weights in a GGUF file."""
        ...

    def rows_in_file(self, name: str, config: ModelConfig) -> RowRange | None:
        """Where a weight lies in a tensor that files join of several, None where it has a tensor of its own."""
        ...

    def gguf_interleaved_heads(self, architecture: str, name: str, config: ModelConfig) -> int | None:
        """The head count by which a GGUF file interleaved a weight's rows, None where it did not."""
        ...

    def config_from_huggingface(self, values: Mapping[str, Any]) -> ModelConfig:
        """Read a config.json."""
        ...

    def config_from_gguf(
        self,
        values: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        rope_divisors: tuple[float, ...] | None,
    ) -> ModelConfig:
        """Read GGUF metadata."""
        ...


FAMILIES: tuple[type[Family], ...] = (
    LlamaFamily,
    Gemma3Family,
    Phi3Family,
    SmolLM3Family,
    GraniteFamily,
)


def family_of_huggingface(model_type: object, source: Path) -> Family:
    """The family of a config.json's model_type; raises `UnsupportedModelError` listing the known ones."""
    return _find(
        model_type, source, {kind: family for family in FAMILIES for kind in family.huggingface_types}
    )


def family_of_gguf(architecture: object, source: Path) -> Family:
    """The family of a GGUF general.architecture; raises `UnsupportedModelError` listing the known ones."""
    return _find(
        architecture, source, {kind: family for family in FAMILIES for kind in family.gguf_architectures}
    )


def family_named(name: str) -> Family:
    """The family called `name`; raises `UnsupportedModelError` listing the known ones."""
    return _find(name, None, {family.name: family for family in FAMILIES})


def _find(given: object, source: Path | None, known: Mapping[str, type[Family]]) -> Family:
    if not isinstance(given, str) or given not in known:
        where = f"{source}: " if source else ""
        raise UnsupportedModelError(
            f"{where}architecture {given!r} is not supported; supported: {', '.join(sorted(known))}"
        )
    return known[given]()
