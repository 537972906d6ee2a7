"""Which scheme each tensor gets under `--quant`: one small class per choice."""

from dataclasses import dataclass
from typing import Protocol

from forerun.errors import OptionError
from forerun.export.schemes import SCHEMES
from forerun.export.signature import GROUP
from forerun.models.checkpoint import StoredTensor
from forerun.registry import Registry

# Block types of at most this many bits per weight are nearest to a 4-bit scheme.
_FOUR_BIT_LIMIT = 4.5
_VOCABULARY_TENSORS = ("embed.weight", "head.weight")


@dataclass(frozen=True)
class Choice:
    """A scheme by name; `exact`: the stored blocks are taken over; `note`: why it is not what was asked
    for.
    """

    scheme: str
    exact: bool = False
    note: str = ""


class Policy(Protocol):
    """Chooses the scheme of a weight matrix; norms and biases are always float32 and never asked about."""

    name: str

    def choose(self, tensor_name: str, tensor: StoredTensor) -> Choice:
        """The scheme for one matrix [N, K]."""
        ...


class KeepPolicy:
    """The file's own blocks wherever a scheme holds them exactly, else the nearest scheme."""

    name = "keep"

    def choose(self, tensor_name: str, tensor: StoredTensor) -> Choice:
        """Exact takeover, float32 for plain numbers, otherwise by bits per weight."""
        if tensor.read_blocks is None:
            return Choice("float32")
        exact = _exact_scheme(tensor)
        if exact is not None:
            return Choice(exact, exact=True)
        nearest = "affine4" if tensor.bits_per_weight <= _FOUR_BIT_LIMIT else "symmetric8"
        note = f"no scheme holds {tensor.type_name} blocks exactly; {nearest} is nearest"
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
    (KeepPolicy, Float32Policy, EightBitPolicy, FourBitPolicy, AllFourBitPolicy, FourBitVocabularyPolicy),
)


def find_policy(quant: str | None, kind: str) -> Policy:
    """The policy called `quant`; None means `keep` for GGUF files and `q8` for Hugging Face folders.

    Raises `OptionError` listing the known ones.
    """
    name = ("keep" if kind == "gguf" else "q8") if quant is None else quant
    if name not in POLICIES:
        raise OptionError(f"unknown quantization {name!r}; known: {', '.join(POLICIES)}")
    return POLICIES[name]()


def _exact_scheme(tensor: StoredTensor) -> str | None:
    """The scheme that holds a tensor's blocks exactly, if there is one."""
    return next((name for name, scheme in SCHEMES.items() if tensor.type_name in scheme.exact_types), None)


def _wanted(tensor: StoredTensor, scheme: str) -> Choice:
    exact = tensor.read_blocks is not None and tensor.type_name in SCHEMES[scheme].exact_types
    return Choice(scheme, exact=exact)


def _grouped(tensor: StoredTensor, choice: Choice) -> Choice:
    """float32 instead where rows do not divide into groups."""
    if choice.exact or tensor.shape[1] % GROUP == 0:
        return choice
    return Choice("float32", note=f"rows of {tensor.shape[1]} do not divide into groups of {GROUP}")
