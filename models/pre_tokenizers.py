"""How byte-level tokenizers cut text before merging, by the names of `tokenizer.ggml.pre`.

Which name stands for what is defined by llama.cpp's llama-vocab.cpp. The expressions are those of the models' own
tokenizer.json files where llama.cpp only comes near them (`gpt-4o`, `tekken`).
"""

from dataclasses import dataclass

_ENDINGS = r"'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE = rf"(?i:{_ENDINGS})"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
_GPT2 = rf"{_ENDINGS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
_LLAMA3 = _ANY_CASE + _WORD + r"|\p{N}{1,3}" + _SIGNS + _SPACES
_QWEN2 = _ANY_CASE + _WORD + r"|\p{N}" + _SIGNS + _SPACES
# Words that begin in capitals and end in small letters; marks belong to either.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START, _SLASHES = r"[^\r\n\p{L}\p{N}]?", r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"
_TEKKEN = f"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*|" + r"\p{N}" + _SLASHES + _SPACES
_CASED = f"{_START}{_UPPER}*{_LOWER}+{_ANY_CASE}?|{_START}{_UPPER}+{_LOWER}*{_ANY_CASE}?|"
_GPT4O = _CASED + r"\p{N}{1,3}" + _SLASHES + _SPACES
_DIGIT, _THREE_DIGITS = r"\p{N}", r"\p{N}{1,3}"
_CHINESE_JAPANESE = "[一-龥぀-ゟ゠-ヿ]+"
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*" + _SPACES
)


@dataclass(frozen=True)
class PreTokenizer:
    """How text is cut before merging: expressions applied one after the other."""

    names: tuple[str, ...]
    splits: tuple[str, ...]
    ignore_merges: bool = False
    compose: bool = False
    add_bos: bool = False


PRE_TOKENIZERS = (
    PreTokenizer(("gpt-2", "phi-2", "olmo", "mpt"), (_GPT2,)),
    PreTokenizer(("smollm", "starcoder", "refact"), (_DIGIT, _GPT2)),
    PreTokenizer(("llama-bpe", "llama3", "llama-v3"), (_LLAMA3,), ignore_merges=True, add_bos=True),
    PreTokenizer(("qwen2", "deepseek-r1-qwen"), (_QWEN2,), compose=True),
    PreTokenizer(("default",), (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
)
