"""Which of the engine's ways to cut a text up before BPE is the one of a `tokenizer.json`.

A way is known by its steps: the regexes that split, and digits or punctuation kept apart. The same regex is spelled in
several ways, so spellings are made alike before they are compared. The names are the engine's.
"""

import logging
import re
from collections.abc import Iterator, Mapping

from corral.convert.tokenizers.files import Folder
from corral.messages import Json

log = logging.getLogger(__name__)


def recognise(folder: Folder) -> str:
    """The engine's name; `default`, with a warning, for a way it does not have."""
    steps = tuple(_steps(folder))
    merges_are_skipped = folder.model.get("ignore_merges") is True
    name = (WHOLE_WORDS.get(steps) if merges_are_skipped else None) or NAMES.get(steps)
    if name is None:
        log.warning(
            "no way of the engine to cut a text up fits this tokenizer, so text may become other tokens: %s",
            str(steps)[:500],
        )
        return "default"
    if any(step.get("add_prefix_space") is True for step in folder.steps("pre_tokenizer")):
        log.warning("the tokenizer puts a space in front of a text, the engine does not")
    return name


_ENDINGS = "'s|'t|'re|'ve|'m|'ll|'d"
GPT_2 = rf"{_ENDINGS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
DIGIT = r"\p{N}"
DIGITS = r"\p{N}+"
PUNCTUATION = "punctuation"
"""Steps that `tokenizer.json` has no regex for."""

_ANY_CASE = f"(?i:{_ENDINGS})"
_BREAKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_LLAMA_3 = rf"{_ANY_CASE}|{_WORD}|\p{{N}}{{1,3}}|{_MARKS}|{_BREAKS}"
_QWEN_2 = rf"{_ANY_CASE}|{_WORD}|\p{{N}}|{_MARKS}|{_BREAKS}"
_QWEN_35 = (
    rf"{_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BREAKS}"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SLASHED = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BREAKS}"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_TEKKEN = rf"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*|\p{{N}}|{_SLASHED}"
_GPT_4O = rf"{_BEFORE}{_UPPER}*{_LOWER}+{_ANY_CASE}?|{_BEFORE}{_UPPER}+{_LOWER}*{_ANY_CASE}?|\p{{N}}{{1,3}}|{_SLASHED}"
_CHINESE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_LATIN = (
    r"\s?[A-Za-z"
    "\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-"
    "\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b"
    "\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-"
    "\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124"
    "\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-"
    "\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787"
    "\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f"
    "\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-"
    "\U000118df\U0001e900-\U0001e943"
    "]+"
)
"""Letters of the Latin, Greek and other alphabets with two cases, as DeepSeek's first models list them."""
_DEEPSEEK_3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_BREAKS}"
)

NAMES: dict[tuple[str, ...], str] = {
    (GPT_2,): "gpt-2",
    (DIGIT, GPT_2): "smollm",
    (_LLAMA_3,): "dbrx",
    (_QWEN_2,): "qwen2",
    (_QWEN_35,): "qwen35",
    (_TEKKEN,): "tekken",
    (_GPT_4O,): "gpt-4o",
    (r"\d{1,3}(?=(?:\d{3})*\b)", _GPT_4O): "tiny_aya",
    (
        "[\r\n]",
        _LATIN,
        "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
        r"\s+$",
        _CHINESE,
        DIGIT,
    ): "deepseek-llm",
    ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE, DIGIT): "deepseek-coder",
    (r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK_3): "deepseek-v3",
    (PUNCTUATION, GPT_2, DIGITS, "[0-9][0-9][0-9]"): "falcon",
    (PUNCTUATION, GPT_2, "[0-9][0-9][0-9]"): "falcon",
    (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",): (
        "bailingmoe"
    ),
    (rf"{_ANY_CASE}|{_WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_BREAKS}",): "seed-coder",
    (rf"{_WORD}|\p{{N}}|{_MARKS}|{_BREAKS}",): "ufakzeka",
    (r"\p{N}{1,3}", rf"{_ANY_CASE}|{_WORD}|\p{{N}}+|{_MARKS}|{_BREAKS}"): "minicpm5",
    (r"[^\n]+|[\n]+", _QWEN_2): "laguna",
}
"""The engine's name for the steps of a pre-tokenizer."""

WHOLE_WORDS: dict[tuple[str, ...], str] = {(_LLAMA_3,): "llama-bpe"}
"""The same where a word that is a token of its own is taken without looking at the merges."""


def _steps(folder: Folder) -> Iterator[str]:
    for step in folder.steps("pre_tokenizer"):
        match step.get("type"):
            case "ByteLevel":
                if step.get("use_regex") is not False:
                    yield GPT_2
            case "Digits":
                yield DIGIT if step.get("individual_digits") is True else DIGITS
            case "Punctuation" if step.get("behavior") == "Contiguous":
                yield PUNCTUATION
            case "Split" if _keeps_everything(step):
                yield _pattern(step)
            case other:
                yield f"unknown {other}"


def _keeps_everything(step: Mapping[str, Json]) -> bool:
    """Whether both what the pattern finds and what lies between stay in the text, each as a piece of its own."""
    return step.get("behavior") == "Isolated" or (step.get("behavior") == "Removed" and step.get("invert") is True)


def _pattern(step: Mapping[str, Json]) -> str:
    pattern = step.get("pattern")
    if not isinstance(pattern, dict):
        return "unknown"
    regex = pattern.get("Regex")
    if not isinstance(regex, str):
        return re.escape(str(pattern.get("String")))
    regex = regex.replace(_ANY_CASE_SPELLED, _ANY_CASE)
    return regex.replace("]?+", "]?").replace("]++", "]+")  # possessive: the same matches, found sooner


_ANY_CASE_SPELLED = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
