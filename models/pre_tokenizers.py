"""How byte-level tokenizers cut text before merging, by the names of `tokenizer.ggml.pre`.

Which name stands for what is defined by llama.cpp's llama-vocab.cpp. The expressions are those of the models' own
tokenizer.json files where llama.cpp only comes near them (`gpt-4o`, `tekken`).
"""

from dataclasses import dataclass

# Alternatives that expressions are made of.
_ENDINGS = r"'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE = rf"(?i:{_ENDINGS})"
_START = r"[^\r\n\p{L}\p{N}]?"
_WORD = rf"{_START}\p{{L}}+"
_DIGIT, _THREE_DIGITS = r"\p{N}", r"\p{N}{1,3}"
_SIGN = r" ?[^\s\p{L}\p{N}]+"
_SIGNS, _SLASHED = rf"{_SIGN}[\r\n]*", rf"{_SIGN}[\r\n/]*"
_LINES, _LAST_SPACE, _SPACES = r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"
# Words that begin in capitals and go on in small letters.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (f"{_START}{_UPPER}*{_LOWER}+", f"{_START}{_UPPER}+{_LOWER}*")
_CHINESE_JAPANESE = "[一-龥぀-ゟ゠-ヿ]+"
_CHINESE_KOREAN = "[一-龥ࠀ-一가-퟿]+"


def _one_of(*alternatives: str) -> str:
    return "|".join(alternatives)


_GPT2 = _one_of(_ENDINGS, r" ?\p{L}+", r" ?\p{N}+", _SIGN, _LAST_SPACE, _SPACES)
_LLAMA3 = _one_of(_ANY_CASE, _WORD, _THREE_DIGITS, _SIGNS, _LINES, _LAST_SPACE, _SPACES)
_JAIS2 = _one_of(
    *(_ANY_CASE, _WORD, _THREE_DIGITS, _SIGNS, _LINES),
    *(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4, "1,2")),
    r"\s",
)
_QWEN2 = _one_of(_ANY_CASE, _WORD, _DIGIT, _SIGNS, _LINES, _LAST_SPACE, _SPACES)
_QWEN35 = _one_of(
    *(_ANY_CASE, rf"{_START}[\p{{L}}\p{{M}}]+", _DIGIT, r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),
    *(_LINES, _LAST_SPACE, _SPACES),
)
_UFAKZEKA = _one_of(_WORD, _DIGIT, _SIGNS, _LINES, _LAST_SPACE, _SPACES)
_TEKKEN = _one_of(*_CASED, _DIGIT, _SLASHED, _LINES, _LAST_SPACE, _SPACES)
_GPT4O = _one_of(
    *(f"{word}{_ANY_CASE}?" for word in _CASED), _THREE_DIGITS, _SLASHED, _LINES, _LAST_SPACE, _SPACES
)
_DEEPSEEK3 = _one_of(
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+""",
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r" ?[\p{P}\p{S}]+[\r\n]*",
    *(_LINES, _LAST_SPACE, _SPACES),
)
# Letters with cases. Escaped are those that are canonically equal to others, which editors may put in their place.
_DEEPSEEK_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7d"
    "ᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛ"
    "Ꜣ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_YOUTU_SCRIPTS = _one_of("[가-힣ㄱ-ㆎ]+", "[！…“”‘’—：；，、-〿︰-﹏]+", "[ㄅ-ㄯ]+", "[一-龥぀-ゟ゠-ヿ]+")
_YOUTU = _one_of(*(f"{word}{_ANY_CASE}?" for word in _CASED), _DIGIT, _SLASHED, _LINES, _LAST_SPACE, _SPACES)
_BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"
_BAILING = _one_of(
    *(r"'(?i:[sdmt]|ll|ve|re)", _WORD, _DIGIT, _SIGNS, r"\s*[\r\n]", _LAST_SPACE, _SPACES),
)
_SEED = _one_of(_ANY_CASE, _WORD, _DIGIT, r" ?[^\s\p{L}\p{N}\r\n]+", _LINES, _LAST_SPACE, _SPACES)
_EXAONE_MOE = _one_of(
    *(_ANY_CASE, rf"{_START}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+", _DIGIT),
    *(rf"{_SIGN}[\r\n/]?", r"\s*[\r\n]", _LAST_SPACE, _SPACES),
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
    PreTokenizer(
        (
            *("gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion", "granite-docling", "exaone4", "gigachat"),
            *("a.x-4.0", "mellum", "modern-bert", "roberta-bpe"),
            *("jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code"),
        ),
        (_GPT2,),
    ),
    PreTokenizer(
        (*("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),),
        (_DIGIT, _GPT2),
    ),
    PreTokenizer(
        (
            *("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
            "jina-v5-nano",
        ),
        (_LLAMA3,),
        ignore_merges=True,
        add_bos=True,
    ),
    PreTokenizer(("dbrx", "smaug-bpe", "chatglm-bpe", "glm4"), (_LLAMA3,)),
    PreTokenizer(("jais-2",), (_JAIS2,)),
    PreTokenizer(
        ("minicpm5",), (_THREE_DIGITS, _LLAMA3.replace(_THREE_DIGITS, r"\p{N}+")), ignore_merges=True
    ),
    PreTokenizer(("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"), (_QWEN2,), compose=True),
    PreTokenizer(("stablelm2", "hunyuan", "solar-open", "grok-2"), (_QWEN2,)),
    PreTokenizer(("laguna",), (r"[^\n]+|[\n]+", _QWEN2)),
    PreTokenizer(("qwen35",), (_QWEN35,), compose=True),
    PreTokenizer(("ufakzeka",), (_UFAKZEKA,)),
    PreTokenizer(("tekken",), (_TEKKEN,), ignore_merges=True, add_bos=True),
    PreTokenizer(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), (_GPT4O,)),
    PreTokenizer(("granite-embed-multi-97m",), (_GPT4O,), ignore_merges=True),
    PreTokenizer(
        ("deepseek-llm",),
        (
            *(r"[\r\n]", rf"\s?[{_DEEPSEEK_LETTERS}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            *(r"\s+(?![\s\S])", _CHINESE_KOREAN, r"\p{N}+"),
        ),
    ),
    PreTokenizer(("deepseek-coder",), (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE_KOREAN, _DIGIT)),
    PreTokenizer(
        ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), (_THREE_DIGITS, _CHINESE_JAPANESE, _DEEPSEEK3)
    ),
    PreTokenizer(("youtu",), (_YOUTU_SCRIPTS, _YOUTU), ignore_merges=True),
    PreTokenizer(("falcon",), (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    PreTokenizer(("bloom", "poro-chat", "gpt3-finnish"), (_BLOOM,)),
    PreTokenizer(("viking",), (_BLOOM, _DIGIT)),
    PreTokenizer(("bailingmoe", "bailingmoe2", "llada-moe"), (_BAILING,)),
    PreTokenizer(("seed-coder",), (_SEED,)),
    PreTokenizer(("exaone-moe",), (_EXAONE_MOE,)),
    PreTokenizer(("default",), (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
)
