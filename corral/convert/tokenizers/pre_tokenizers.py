"""Which of the engine's ways to cut a text up before BPE is the one of a `tokenizer.json`.

A way is told by its steps: the regexes that split, and digits or punctuation kept apart. The same regex is spelled in
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
    name = (_WHOLE_WORDS.get(steps) if merges_are_skipped else None) or NAMES.get(steps)
    if name is None:
        log.warning(
            "no way of the engine to cut a text up fits this tokenizer, so text may become other tokens: %s", steps
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
_CHINESE = "[一-龥ࠀ-一가-퟿]+"
_LATIN = (
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-"
    r"ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
)
_DEEPSEEK_3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
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
    ("[\r\n]", _LATIN, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", _CHINESE, DIGIT): "deepseek-llm",
    ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE, DIGIT): "deepseek-coder",
    (r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK_3): "deepseek-v3",
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

_WHOLE_WORDS: dict[tuple[str, ...], str] = {(_LLAMA_3,): "llama-bpe"}
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
