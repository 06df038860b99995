"""What a manifest amounts to: files, template, parameters, system text, messages, capabilities. Knows no engine.

Source: spec cli §8 (layers), §14.1 (which template), §14.5 (capabilities); api §13 (what is shown of it).
"""

import logging
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from corral import gguf, parsers, template
from corral.errors import CorralError, ModelFileError
from corral.gguf import GGUF
from corral.messages import Json, Message
from corral.models.config import ModelConfig, parse_config
from corral.names import Digest, Name
from corral.store import Layer, MediaType, Store, Stored
from corral.template import Template

log = logging.getLogger(__name__)

MAX_TEXT = 8 << 20
"""Bytes that a template, system text, parameter or message layer may have."""

GoTemplate = Literal["on", "off", ""]
"""Whether a TEMPLATE layer is used: always, never, or as it compares with the model's own Jinja template."""


class _StoredMessage(Struct, frozen=True):
    role: str = ""
    content: str = ""


class Model:
    """A model of the store. Its blobs are read when they are first asked for; they never change under a digest."""

    def __init__(self, stored: Stored, store: Store, go_template: GoTemplate = "") -> None:
        self.name: Name = stored.name
        self.digest: Digest = stored.digest
        self.modified = stored.modified
        self.size = stored.size
        self.layers: tuple[Layer, ...] = stored.manifest.layers
        self._config_layer = stored.manifest.config
        self._store = store
        self._go_template = go_template

    @cached_property
    def config(self) -> ModelConfig:
        return parse_config(self._read(self._config_layer))

    @cached_property
    def weights(self) -> Path:
        """The model's GGUF file; `ModelFileError` when there is none."""
        files = self._files(MediaType.MODEL)
        if not files:
            if any(layer.media_type == MediaType.TENSOR for layer in self.layers):
                raise ModelFileError("this model requires MLX support, but the MLX runtime is not available")
            raise ModelFileError(f'model "{self.name}" has no weights')
        return files[0]

    @cached_property
    def projectors(self) -> tuple[Path, ...]:
        return self._files(MediaType.PROJECTOR)

    @cached_property
    def adapters(self) -> tuple[Path, ...]:
        return self._files(MediaType.ADAPTER)

    @cached_property
    def gguf(self) -> GGUF:
        """The weights' file, checked."""
        return gguf.read(self.weights)

    @cached_property
    def projector_info(self) -> GGUF | None:
        """The first projector's file, checked."""
        return gguf.read(self.projectors[0]) if self.projectors else None

    @property
    def parent(self) -> str:
        """What the weights were taken over from: a model's short name or a file's name; empty when unknown."""
        return next((layer.from_ for layer in self.layers if layer.media_type == MediaType.MODEL), "")

    @cached_property
    def system(self) -> str:
        return "".join(self._texts(MediaType.SYSTEM)[-1:])

    @cached_property
    def licenses(self) -> tuple[str, ...]:
        return self._texts(MediaType.LICENSE)

    @cached_property
    def parameters(self) -> dict[str, Json]:
        """Stored options, by name, in the order of the file."""
        found: dict[str, Json] = {}
        for layer in self._of(MediaType.PARAMS):
            found |= self._json(layer, dict[str, Any])
        return found

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """Turns that stand in front of every conversation."""
        found: list[Message] = []
        for layer in self._of(MediaType.MESSAGES):
            found += [Message.of(item.role, item.content) for item in self._json(layer, list[_StoredMessage])]
        return tuple(found)

    @property
    def family(self) -> str:
        return self.config.model_family or self.gguf.architecture

    @property
    def quantization(self) -> str:
        """The config's word for it, or the file's when the config has none."""
        declared = self.config.file_type
        return declared if declared not in ("", "unknown") else self.gguf.file_type

    @property
    def context_length(self) -> int:
        """Tokens the model was trained on; 0 when nobody says."""
        return self.config.context_length or self.gguf.context_length or 0

    @property
    def embedding_length(self) -> int:
        return self.config.embedding_length or self.gguf.embedding_length or 0

    @cached_property
    def bos_text(self) -> str:
        """The text of the token the tokenizer puts in front of every prompt by itself; empty when it does not."""
        number, adds = self.gguf.bos_token_id, self.gguf.add_bos
        if adds is None:
            adds = self.gguf.text("tokenizer.ggml.model") == "llama"
        if number is None or not adds:
            return ""
        return str(self.gguf.values("tokenizer.ggml.tokens")[number])

    @cached_property
    def go_template_text(self) -> str | None:
        """The text of the TEMPLATE layer."""
        texts = self._texts(MediaType.TEMPLATE) or self._texts(MediaType.PROMPT)
        return texts[-1] if texts else None

    @cached_property
    def template(self) -> Template | None:
        """The Go template that renders conversations; None when the engine runs the model's own (spec cli §14.1)."""
        text, jinja = self.go_template_text, self.gguf.chat_template
        if self.config.renderer and jinja:
            return None
        if text is None:
            return None if jinja else template.parse("{{ .Prompt }}")
        parsed = template.parse(text)
        if not jinja or self._go_template == "on" or self.output_format in parsers.families():
            return parsed
        if self._go_template == "off" or _jinja_is_better(parsed, jinja):
            return None
        return parsed

    @property
    def output_format(self) -> str:
        """The name of the parser that reads this model's answers; empty for what its template tells (cli §14.1)."""
        if self.config.parser:
            return self.config.parser
        text = self.go_template_text or ""
        is_harmony = self.family in ("gptoss", "gpt-oss") and "<|start|>" in text and "<|end|>" in text
        return "harmony" if is_harmony else ""

    @property
    def native_format(self) -> str:
        """The parser of ours that reads the answers to the model's own template; empty where the engine does.

        The engine loses what gpt-oss says beside harmony's messages, or to tools that nobody gave it.
        """
        is_harmony = self.template is None and template.jinja_is_harmony(self.gguf.chat_template or "")
        return "harmony" if is_harmony else ""

    @property
    def native(self) -> bool:
        """Whether the engine renders conversations and parses answers."""
        return self.template is None

    @property
    def shown_template(self) -> str:
        """The template that is in use, as text: Go's, or the model's own Jinja."""
        if self.template is None:
            return self.gguf.chat_template or "{{ .Prompt }}"
        return self.template.text

    @cached_property
    def capabilities(self) -> tuple[str, ...]:
        """In the order of discovery (spec api §13), none twice."""
        found = list(self.config.capabilities)
        if self.template is None:
            found += template.jinja_capabilities(self.gguf.chat_template or "")
        found += self.gguf.capabilities
        if self.projector_info is not None:
            found += self.projector_info.capabilities
        if self.template is not None:
            found += self.template.capabilities
        if self.family in ("gptoss", "gpt-oss"):
            found.append("thinking")
        return tuple(dict.fromkeys(found))

    def _of(self, media_type: MediaType) -> list[Layer]:
        return [layer for layer in self.layers if layer.media_type == media_type]

    def _files(self, media_type: MediaType) -> tuple[Path, ...]:
        return tuple(self._store.open_path(layer.digest) for layer in self._of(media_type))

    def _texts(self, media_type: MediaType) -> tuple[str, ...]:
        return tuple(self._read(layer).decode("utf-8", "replace") for layer in self._of(media_type))

    def _json(self, layer: Layer, kind: type[Any]) -> Any:
        try:
            return msgspec.json.decode(self._read(layer), type=kind)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ModelFileError(f'model "{self.name}": {layer.media_type} is broken: {error}') from error

    def _read(self, layer: Layer) -> bytes:
        if layer.size > MAX_TEXT:
            raise ModelFileError(f'model "{self.name}": {layer.media_type} of {layer.size} bytes is too large')
        try:
            with open(self._store.blob_path(layer.digest), "rb") as file:
                return file.read(MAX_TEXT)
        except OSError as error:
            raise ModelFileError(f'model "{self.name}": cannot read {layer.digest}: {error.strerror}') from error


def _jinja_is_better(parsed: Template, jinja: str) -> bool:
    """Spec cli §14.1, rule 3: the Jinja template can do more, or the same with a full round trip of tools."""
    ours, theirs = set(parsed.capabilities), set(template.jinja_capabilities(jinja))
    our_trip, their_trip = parsed.has_tool_round_trip, template.jinja_has_tool_round_trip(jinja)
    if len(theirs) > len(ours) and (not our_trip or their_trip):
        return True
    return theirs == ours and "tools" in ours and their_trip and not our_trip


class Models:
    """The models of a store, each read once and kept by its digest."""

    def __init__(self, store: Store, go_template: GoTemplate = "", keep: int = 256) -> None:
        self.store = store
        self._go_template = go_template
        self._keep = keep
        self._known: OrderedDict[tuple[Name, Digest, float], Model] = OrderedDict()

    def load(self, name: Name) -> Model:
        """`ModelNotFound` when there is no such model."""
        return self._model(self.store.manifest(name))

    def list(self) -> list[Model]:
        """All whose config can be read, newest first; the others are left out with a warning."""
        found = []
        for stored in self.store.list():
            model = self._model(stored)
            try:
                _ = model.config
            except CorralError as error:
                log.warning("%s is left out: %s", stored.name, error)
                continue
            found.append(model)
        return found

    def _model(self, stored: Stored) -> Model:
        key = (stored.name, stored.digest, stored.modified)
        model = self._known.pop(key, None) or Model(stored, self.store, self._go_template)
        self._known[key] = model
        if len(self._known) > self._keep:
            self._known.popitem(last=False)
        return model
