"""Which scheme each tensor gets under `--quant`: one small class per choice."""

from dataclasses import dataclass
from typing import Protocol

from forerun.errors import OptionError
from forerun.export.schemes import SCHEMES
from forerun.export.signature import GROUP
from forerun.models.checkpoint import StoredTensor
from forerun.registry import Registry

# Block types that no scheme holds as they are, whose few values a smaller scheme than symmetric8 fits all the same.
FITTING = {
    **dict.fromkeys(("TQ1_0", "TQ2_0", "MXFP4", "IQ1_S", "IQ3_S"), "symmetric5"),
    **dict.fromkeys(("Q3_K", "IQ1_M", "IQ3_XXS", "NVFP4"), "symmetric6"),
}
_VOCABULARY_TENSORS = ("embed.weight", "head.weight")


@dataclass(frozen=True)
class Choice:
    """A scheme by name; `takes_blocks`: the stored integers are taken over; `note`: what of the file is not kept, or
    why the scheme is not what was asked for.
    """

    scheme: str
    takes_blocks: bool = False
    note: str = ""


class Policy(Protocol):
    """Chooses the scheme of a weight matrix; norms and biases are always float32 and never asked about."""

    name: str

    def choose(self, tensor_name: str, tensor: StoredTensor) -> Choice:
        """The scheme for one matrix [N, K]."""
        ...


class KeepPolicy:
    """The file's own blocks wherever a scheme holds them, else the nearest scheme."""

    name = "keep"

    def choose(self, tensor_name: str, tensor: StoredTensor) -> Choice:
        """Takeover of the integers, float32 for plain numbers, otherwise a scheme that fits the type's values."""
        if tensor.read_blocks is None:
            return Choice("float32")
        for name in SCHEMES:
            if _holds(name, tensor):
                return _taken(name, tensor)
        nearest = FITTING.get(tensor.type_name, "symmetric8")
        note = f"no scheme holds {tensor.type_name} blocks as they are; {nearest} is nearest"
        return _grouped(tensor, Choice(nearest, note=note))


class Float32Policy:
    """Everything in float32."""

    name = "f32"

    def choose(self, tensor_name: str, tensor: StoredTensor) -> Choice:
        """float32."""
        return Choice("float32")


class EightBitPolicy:
    """Symmetric int8 for every matrix."""

    name = "q8"

    def choose(self, tensor_name: str, tensor: StoredTensor) -> Choice:
        """symmetric8; blocks that are already of that form are taken over."""
        return _grouped(tensor, _wanted(tensor, "symmetric8"))


class FourBitPolicy:
    """Affine int4 layers, 8-bit embedding and head."""

    name = "q4"

    def choose(self, tensor_name: str, tensor: StoredTensor) -> Choice:
        """affine4 or symmetric8; blocks that are already of that form are taken over, which loses nothing."""
        return _grouped(
            tensor, _wanted(tensor, "symmetric8" if tensor_name in _VOCABULARY_TENSORS else "affine4")
        )


class FiveBitPolicy:
    """Affine 5-bit layers, 8-bit embedding and head."""

    name = "q5"

    def choose(self, tensor_name: str, tensor: StoredTensor) -> Choice:
        """affine5 or symmetric8; blocks that are already of that form are taken over."""
        return _grouped(
            tensor, _wanted(tensor, "symmetric8" if tensor_name in _VOCABULARY_TENSORS else "affine5")
        )


class SixBitPolicy:
    """Symmetric 6-bit layers, 8-bit embedding and head."""

    name = "q6"

    def choose(self, tensor_name: str, tensor: StoredTensor) -> Choice:
        """symmetric6 or symmetric8; blocks that are already of that form are taken over."""
        return _grouped(
            tensor, _wanted(tensor, "symmetric8" if tensor_name in _VOCABULARY_TENSORS else "symmetric6")
        )


class AllFourBitPolicy:
    """Affine int4 for every matrix: for drafts, whose errors cost hits and never a token."""

    name = "q4-all"

    def choose(self, tensor_name: str, tensor: StoredTensor) -> Choice:
        """affine4; blocks that are already of that form are taken over."""
        return _grouped(tensor, _wanted(tensor, "affine4"))


class FourBitVocabularyPolicy:
    """Symmetric int8 layers, 4-bit embedding and head: for drafts whose layers bear no 4 bits, as those trained from a
    model's last layer, with sums of few large terms.
    """

    name = "q4-vocab"

    def choose(self, tensor_name: str, tensor: StoredTensor) -> Choice:
        """affine4 or symmetric8; blocks that are already of that form are taken over."""
        return _grouped(
            tensor, _wanted(tensor, "affine4" if tensor_name in _VOCABULARY_TENSORS else "symmetric8")
        )


POLICIES: Registry[Policy] = Registry(
    "quantization",
    (
        KeepPolicy,
        Float32Policy,
        EightBitPolicy,
        SixBitPolicy,
        FiveBitPolicy,
        FourBitPolicy,
        AllFourBitPolicy,
        FourBitVocabularyPolicy,
    ),
)


def find_policy(quant: str | None, kind: str) -> Policy:
    """The policy called `quant`; None means `keep` for GGUF files and `q8` for Hugging Face folders.

    Raises `OptionError` listing the known ones.
    """
    name = ("keep" if kind == "gguf" else "q8") if quant is None else quant
    if name not in POLICIES:
        raise OptionError(f"unknown quantization {name!r}; known: {', '.join(POLICIES)}")
    return POLICIES[name]()


def _holds(scheme: str, tensor: StoredTensor) -> bool:
    """Whether a scheme holds the integers of a tensor's blocks."""
    entry = SCHEMES[scheme]
    return tensor.read_blocks is not None and tensor.type_name in (*entry.exact_types, *entry.rounded_types)


def _taken(scheme: str, tensor: StoredTensor) -> Choice:
    rounded = tensor.type_name in SCHEMES[scheme].rounded_types
    note = (
        f"{tensor.type_name} multiplies its scales in two steps; they are rounded to float16"
        if rounded
        else ""
    )
    return Choice(scheme, takes_blocks=True, note=note)


def _wanted(tensor: StoredTensor, scheme: str) -> Choice:
    return _taken(scheme, tensor) if _holds(scheme, tensor) else Choice(scheme)


def _grouped(tensor: StoredTensor, choice: Choice) -> Choice:
    """float32 instead where rows do not divide into groups."""
    if choice.takes_blocks or tensor.shape[1] % GROUP == 0:
        return choice
    return Choice("float32", note=f"rows of {tensor.shape[1]} do not divide into groups of {GROUP}")
