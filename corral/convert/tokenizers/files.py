"""The files of a checkpoint's folder that say something of its tokenizer, read within bounds. Decides nothing."""

import json
import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from corral.errors import ModelFileError
from corral.messages import Json

log = logging.getLogger(__name__)

MAX_BYTES = 128 << 20
"""Bytes that one file of a tokenizer may have."""

MAX_TEMPLATE = 8 << 20
"""Bytes that a chat template may have."""

SENTENCEPIECE = "tokenizer.model"


class AddedToken:
    """A token that was added to a trained vocabulary; `special` ones are not text but marks in it."""

    def __init__(self, number: int, text: str, special: bool) -> None:
        self.number, self.text, self.special = number, text, special


class Folder:
    """A checkpoint's files by their names, and its `config.json`. Each file is read once, when it is asked for."""

    def __init__(self, files: Mapping[str, Path], config: Mapping[str, Json]) -> None:
        self.files = files
        self.config = config

    @cached_property
    def has_sentencepiece(self) -> bool:
        """Whether `tokenizer.model` is SentencePiece's: other programs give tables in base64 the same name."""
        return SENTENCEPIECE in self.files and self.read(SENTENCEPIECE).startswith(b"\n")

    @cached_property
    def tokenizer(self) -> Mapping[str, Json] | None:
        """`tokenizer.json`; None without it."""
        return self._object("tokenizer.json") if "tokenizer.json" in self.files else None

    @cached_property
    def model(self) -> Mapping[str, Json]:
        """The vocabulary's part of `tokenizer.json`."""
        return self.part("model")

    @cached_property
    def settings(self) -> Mapping[str, Json]:
        """`tokenizer_config.json`; empty without it."""
        return self._object("tokenizer_config.json")

    @cached_property
    def special_tokens(self) -> Mapping[str, Json]:
        """`special_tokens_map.json`; empty without it."""
        return self._object("special_tokens_map.json")

    @cached_property
    def generation(self) -> Mapping[str, Json]:
        """`generation_config.json`; empty without it."""
        return self._object("generation_config.json")

    @cached_property
    def chat_template(self) -> Mapping[str, Json]:
        """`chat_template.json`; empty without it."""
        return self._object("chat_template.json")

    def part(self, name: str) -> Mapping[str, Json]:
        """An object in `tokenizer.json`, empty where it is missing or null."""
        return as_object((self.tokenizer or {}).get(name), f"tokenizer.json: {name}")

    def steps(self, name: str) -> list[Mapping[str, Json]]:
        """The steps of a `normalizer`, `pre_tokenizer`, `post_processor` or `decoder`, out of their sequences."""
        return list(_steps(self.part(name), name, 0))

    def warn_of_normalizers(self, *known: str) -> None:
        """Logs which changes a tokenizer makes to a text and the engine does not; those of types `known` it makes."""
        others = [str(step.get("type")) for step in self.steps("normalizer") if step.get("type") not in known]
        if others:
            log.warning("the tokenizer changes texts first, the engine does not: %s", ", ".join(others)[:200])

    @cached_property
    def added_tokens(self) -> list[AddedToken]:
        """Tokens added to the vocabulary; where files disagree, the later of this list is right.

        They stand in `added_tokens.json`, `tokenizer.json` and `tokenizer_config.json`.
        """
        found = []
        named = self._special_texts()
        for text, number in self._object("added_tokens.json").items():
            found.append(_added(number, text, text in named or looks_special(text), "added_tokens.json"))
        for entry in as_list((self.tokenizer or {}).get("added_tokens"), "tokenizer.json: added_tokens"):
            token = as_object(entry, "tokenizer.json: added_tokens")
            found.append(_added(token.get("id"), token.get("content"), token.get("special"), "tokenizer.json"))
        decoder = as_object(self.settings.get("added_tokens_decoder"), "tokenizer_config.json: added_tokens_decoder")
        for key, entry in decoder.items():
            token = as_object(entry, "tokenizer_config.json: added_tokens_decoder")
            number = int(key) if key.isdecimal() and len(key) < 10 else None
            found.append(_added(number, token.get("content"), token.get("special"), "tokenizer_config.json"))
        return found

    def read(self, name: str) -> bytes:
        """A file's bytes; `ModelFileError` when it is too large or cannot be read."""
        try:
            with open(self.files[name], "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ModelFileError(f'cannot read "{name}": {error.strerror}') from error
        if len(data) > MAX_BYTES:
            raise ModelFileError(f'"{name}" is larger than {MAX_BYTES >> 20} MB')
        return data

    def text(self, name: str) -> str:
        """A file's text; `ModelFileError` when it is not UTF-8."""
        try:
            return self.read(name).decode()
        except UnicodeDecodeError as error:
            raise ModelFileError(f'"{name}" is not UTF-8: byte {error.start}') from error

    def _special_texts(self) -> set[str]:
        """Texts that files give a role, such as beginning or padding a text."""
        found: set[str] = set()
        for source in (self.special_tokens, self.settings):
            for key, value in source.items():
                if key.endswith(("_token", "_special_tokens")):
                    found |= {text for one in as_several(value) if isinstance(text := content(one), str)}
        return found

    def _object(self, name: str) -> Mapping[str, Json]:
        if name not in self.files:
            return {}
        try:
            found = json.loads(self.text(name).removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise ModelFileError(f'"{name}" is not JSON: {reason}') from error
        return as_object(found, name)


def looks_special(text: str) -> bool:
    """Whether a token's text is written like a mark: where no file says whether it is one."""
    return text.startswith(("<|", "<｜", "[")) and text.endswith(("|>", "｜>", "]"))


def as_object(value: Json, where: str) -> Mapping[str, Json]:
    """`value` as a JSON object; null is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ModelFileError(f"{where} is not a JSON object")
    return value


def as_list(value: Json, where: str) -> list[Json]:
    """`value` as a JSON array; null is an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ModelFileError(f"{where} is not a JSON array")
    return value


def as_several(value: Json) -> list[Json]:
    """A list as it is, anything else as a list of one."""
    return value if isinstance(value, list) else [value]


def as_text(value: Json, where: str) -> str:
    """`value` as text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise ModelFileError(f"{where} is not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ModelFileError(f"{where} has half a surrogate pair") from error
    return value


_MAX_NESTING = 8


def _steps(part: Mapping[str, Json], name: str, depth: int) -> Iterator[Mapping[str, Json]]:
    if depth > _MAX_NESTING:
        raise ModelFileError(f"tokenizer.json: {name} is nested too deeply")
    if part.get("type") != "Sequence":
        if part:
            yield part
        return
    for key in ("normalizers", "pretokenizers", "processors", "decoders"):
        for step in as_list(part.get(key), f"tokenizer.json: {name}"):
            yield from _steps(as_object(step, f"tokenizer.json: {name}"), name, depth + 1)


def content(token: Json) -> Json:
    """The text of a token that is given as text, or as an object with more about it."""
    return token.get("content") if isinstance(token, dict) else token


def _added(number: Json, text: Json, special: Json, where: str) -> AddedToken:
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ModelFileError(f"{where}: an added token has no number")
    return AddedToken(number, as_text(text, f"{where}: added token {number}"), special is True)
