"""What a manifest amounts to: files, template, parameters, system text, messages, capabilities. Knows no engine.

Source: spec cli §8 (layers), §14.1 (which template), §14.5 (capabilities); api §13 (what is shown of it).
"""

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar, overload

import msgspec
from msgspec import Struct

from corral import parsers, published, template
from corral.errors import CorralError, ModelFileError, StoreError
from corral.gguf import GGUF
from corral.messages import Json, Message
from corral.models.config import ModelConfig, parse_config
from corral.models.found import Found
from corral.models.index import Index, Summary
from corral.models.listing import Listed, Listing, Lists, signature
from corral.names import Digest, Name
from corral.store import FileState, Layer, MediaType, Store, Stored
from corral.template import Template, renderers

log = logging.getLogger(__name__)

MAX_TEXT = 8 << 20
"""Bytes that a template, system text, parameter or message layer may have."""

GoTemplate = Literal["on", "off", ""]
"""Whether a TEMPLATE layer is used: always, never, or as it compares with the model's own Jinja template."""


class _StoredMessage(Struct, frozen=True):
    role: str = ""
    content: str = ""


Value = TypeVar("Value")


class _ReadOnce(Generic[Value]):
    """A property that is worked out once for each model: its value is kept, or the `CorralError` it ended in."""

    def __init__(self, read: Callable[[Any], Value]) -> None:
        self._read = read
        self.__doc__ = read.__doc__

    def __set_name__(self, owner: "type[Model]", name: str) -> None:
        self._name = name

    @overload
    def __get__(self, model: None, owner: "type[Model]") -> Self: ...

    @overload
    def __get__(self, model: "Model", owner: "type[Model]") -> Value: ...

    def __get__(self, model: "Model | None", owner: "type[Model]") -> Value | Self:
        if model is None:
            return self
        if self._name in model.errors:
            raise model.errors[self._name].with_traceback(None)
        if self._name not in model.values:
            try:
                model.values[self._name] = self._read(model)
            except CorralError as error:
                model.errors[self._name] = error
                raise
        value: Value = model.values[self._name]
        return value


class Model:
    """A model of the store, as its files were when it was read; `Models.load` reads one anew whose files were touched.

    What needs the disk or much time is worked out once: all of it by `read_all`, which `Models.load` calls in a thread,
    so that the event loop finds it there. What is broken in a model is an error of whatever needs it, not of the rest.
    `checks_files`: blobs whose files were touched are hashed again, hard links to a file of the user's among them.
    """

    def __init__(
        self, stored: Stored, store: Store, go_template: GoTemplate = "", *, checks_files: bool = True
    ) -> None:
        self.values: dict[str, Any] = {}
        self.errors: dict[str, CorralError] = {}
        """What `_ReadOnce` properties have come to, by their names."""
        self._checks_files = checks_files
        self.stored = stored
        self.name: Name = stored.name
        self.digest: Digest = stored.digest
        self.modified = stored.modified
        self.size = stored.size
        self.layers: tuple[Layer, ...] = stored.manifest.layers
        self._config_layer = stored.manifest.config
        self._store = store
        self._go_template = go_template

    def read_all(self) -> Self:
        """Works out every property there is; blocking, for as long as hashing the weights may take."""
        for name in _READ_ONCE:
            try:
                getattr(self, name)
            except CorralError:
                continue  # it is kept for whatever needs it
        return self

    @_ReadOnce
    def config(self) -> ModelConfig:
        return parse_config(self._read(self._config_layer))

    @_ReadOnce
    def weights(self) -> Path:
        """The model's GGUF file; `ModelFileError` when there is none."""
        files = self._files(MediaType.MODEL)
        if not files:
            if any(layer.media_type == MediaType.TENSOR for layer in self.layers):
                raise ModelFileError("this model requires MLX support, but the MLX runtime is not available")
            raise ModelFileError(f'model "{self.name}" has no weights')
        return files[0]

    @_ReadOnce
    def projectors(self) -> tuple[Path, ...]:
        return self._files(MediaType.PROJECTOR)

    @_ReadOnce
    def adapters(self) -> tuple[Path, ...]:
        return self._files(MediaType.ADAPTER)

    @_ReadOnce
    def file(self) -> published.File:
        """The weights' file, checked: as it was published, and what the engine gets of it."""
        return published.read(self.weights)

    @property
    def gguf(self) -> GGUF:
        """The weights as the engine gets them."""
        return self.file.text

    @property
    def published_gguf(self) -> GGUF:
        """The weights as they are in the store, which is what a person is shown."""
        return self.file.published_gguf

    @_ReadOnce
    def projector_file(self) -> published.File | None:
        """The first projector's file, checked."""
        return published.read(self.projectors[0]) if self.projectors else None

    @property
    def projector_info(self) -> GGUF | None:
        """The first projector's file as it is in the store."""
        return None if self.projector_file is None else self.projector_file.published_gguf

    @property
    def has_projector(self) -> bool:
        """Whether there is an encoder of pictures or sounds, in a file of its own or in the weights'."""
        return bool(self.projectors) or self.file.projector is not None

    @_ReadOnce
    def system(self) -> str:
        return "".join(self._texts(MediaType.SYSTEM)[-1:])

    @_ReadOnce
    def licenses(self) -> tuple[str, ...]:
        return self._texts(MediaType.LICENSE)

    @_ReadOnce
    def parameters(self) -> dict[str, Json]:
        """Stored options, by name, in the order of the file."""
        found: dict[str, Json] = {}
        for layer in self._of(MediaType.PARAMS):
            found |= self._json(layer, dict[str, Any])
        return found

    @_ReadOnce
    def messages(self) -> tuple[Message, ...]:
        """Turns that stand in front of every conversation."""
        found: list[Message] = []
        for layer in self._of(MediaType.MESSAGES):
            found += [Message.of(item.role, item.content) for item in self._json(layer, list[_StoredMessage])]
        return tuple(found)

    @property
    def family(self) -> str:
        return self.config.model_family or self.published_gguf.architecture

    @property
    def is_gpt_oss(self) -> bool:
        """Whether it is of the family that answers in OpenAI's harmony format and always thinks."""
        return self.family in ("gptoss", "gpt-oss")

    @property
    def quantization(self) -> str:
        """The config's word for it, or the file's when the config has none."""
        declared = self.config.file_type
        return declared if declared not in ("", "unknown") else self.gguf.file_type

    @property
    def context_length(self) -> int:
        """Tokens the model was trained on; 0 when neither config nor file says."""
        return self.config.context_length or self.gguf.context_length or 0

    @property
    def embedding_length(self) -> int:
        return self.config.embedding_length or self.gguf.embedding_length or 0

    @_ReadOnce
    def kv_elements_per_token(self) -> int:
        """Numbers the KV cache keeps of a token of context; an upper estimate, see `GGUF.kv_bytes_per_token`."""
        return self.gguf.kv_bytes_per_token(1.0)

    def kv_bytes_per_token(self, cache_type_bytes: float) -> int:
        """Bytes the KV cache needs for a token of context, at `cache_type_bytes` an element."""
        return math.ceil(self.kv_elements_per_token * cache_type_bytes)

    @_ReadOnce
    def bos_text(self) -> str:
        """The text of the token the tokenizer puts in front of every prompt by itself; empty when it does not."""
        number, adds = self.gguf.bos_token_id, self.gguf.add_bos
        if adds is None:
            adds = self.gguf.text("tokenizer.ggml.model") == "llama"
        if number is None or not adds:
            return ""
        return str(self.gguf.values("tokenizer.ggml.tokens")[number])

    @_ReadOnce
    def go_template_text(self) -> str | None:
        """The text of the TEMPLATE layer."""
        texts = self._texts(MediaType.TEMPLATE) or self._texts(MediaType.PROMPT)
        return texts[-1] if texts else None

    @_ReadOnce
    def template(self) -> Template | None:
        """The Go template that renders conversations; None when the engine runs the model's own (spec cli §14.1)."""
        text, jinja = self.go_template_text, self.gguf.chat_template
        if self.config.renderer:
            if jinja:
                return None
            text = self._text_for_renderer(text)
        if text is None:
            return None if jinja else template.parse("{{ .Prompt }}")
        parsed = template.parse(text)
        if not jinja or self._go_template == "on" or self.output_format in parsers.families():
            return parsed
        if self._go_template == "off" or _jinja_is_better(parsed, jinja):
            return None
        return parsed

    def _text_for_renderer(self, text: str | None) -> str | None:
        """What stands in for one of Ollama's renderers: the TEMPLATE layer if it writes conversations, else ours."""
        if text is not None and template.parse(text).uses_messages:
            return text
        renderer = renderers.resolved(
            self.config.renderer, model=self.name.model + self.name.tag, parameters=self.published_gguf.parameter_count
        )
        marks, is_known = {"<|im_start|>", "<|im_end|>"}, renderer in renderers.names()
        has_chatml = not is_known and marks <= set(self.gguf.values("tokenizer.ggml.tokens"))
        ours = renderers.text_for(renderer, has_chatml=has_chatml)
        if ours is None:
            log.warning('model %s: its renderer "%s" is not known', self.name, self.config.renderer)
        return ours or text

    @_ReadOnce
    def output_format(self) -> str:
        """The name of the parser that reads this model's answers; empty where the template's tags do (cli §14.1)."""
        if self.config.parser:
            return self.config.parser
        text = self.go_template_text or ""
        is_harmony = self.is_gpt_oss and "<|start|>" in text and "<|end|>" in text
        return "harmony" if is_harmony else ""

    @_ReadOnce
    def native_format(self) -> str:
        """The parser of ours that reads the answers to the model's own template; empty where the engine does.

        The engine loses what gpt-oss says beside harmony's messages, or to tools it was not given.
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

    @_ReadOnce
    def capabilities(self) -> tuple[str, ...]:
        """In the order of discovery (spec api §13), none twice."""
        found = list(self.config.capabilities)
        if self.template is None:
            found += template.jinja_capabilities(self.gguf.chat_template or "")
        found += self.published_gguf.capabilities
        if self.projector_info is not None:
            found += self.projector_info.capabilities
        if self.template is not None:
            found += self.template.capabilities
        found += parsers.capabilities(self.config.parser)
        if self.is_gpt_oss:
            found.append("thinking")
        return tuple(dict.fromkeys(found))

    @_ReadOnce
    def can_rank(self) -> bool:
        """Whether it scores documents by how well they answer a query."""
        return self.gguf.can_rank

    @_ReadOnce
    def only_ranks(self) -> bool:
        """Whether it can be loaded for nothing else."""
        return self.gguf.only_ranks

    @_ReadOnce
    def jinja_think_tags(self) -> tuple[str, str] | None:
        """The tags around thoughts in the model's own template; see `template.jinja_think_tags`."""
        return template.jinja_think_tags(self.gguf.chat_template or "")

    @_ReadOnce
    def jinja_tool_tag(self) -> str:
        """What the model's own template writes before a tool call; see `template.jinja_tool_tag`."""
        return template.jinja_tool_tag(self.gguf.chat_template or "")

    @_ReadOnce
    def summary(self) -> Summary:
        """What lists show of it. Where its files cannot be read, that is the summary's `problem`, and the rest comes
        from the config; `CorralError` when that is broken too."""
        declared = Summary(
            format=self.config.model_format or "gguf",
            family=self.config.model_family,
            families=self.config.model_families,
            parameter_size=self.config.model_type,
            file_type=self.config.file_type,
        )
        try:
            return msgspec.structs.replace(
                declared,
                quantization=self.quantization,
                context_length=self.context_length,
                embedding_length=self.embedding_length,
                capabilities=self.capabilities,
            )
        except CorralError as error:
            return msgspec.structs.replace(declared, problem=str(error))

    def _of(self, media_type: MediaType) -> list[Layer]:
        return [layer for layer in self.layers if layer.media_type == media_type]

    def _files(self, media_type: MediaType) -> tuple[Path, ...]:
        find = self._store.open_path if self._checks_files else self._store.blob_path
        files = []
        for layer in self._of(media_type):
            files.append(find(layer.digest))
            if self._checks_files and (size := self._store.blob_size(layer.digest)) != layer.size:
                raise ModelFileError(
                    f'the blob "{layer.digest}" has {size} bytes instead of {layer.size}: '
                    "remove the model, and pull or create it anew"
                )
        return tuple(files)

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


_READ_ONCE = tuple(name for name, member in vars(Model).items() if isinstance(member, _ReadOnce))


class Models:
    """The models of a store, for an event loop: what needs the disk is done in the store's threads.

    A model is read once and kept for as long as its manifest and files stay as they are, the last `keep` of them; what
    lists show is kept on disk. The disk is looked at for each request, unless it is known that nothing has changed.
    """

    def __init__(self, store: Store, go_template: GoTemplate = "", keep: int = 256) -> None:
        self.store = store
        self._go_template = go_template
        self._keep = keep
        self._known: OrderedDict[_Key, Model] = OrderedDict()
        self._loading: dict[_Key, asyncio.Future[Model]] = {}
        self._found: Found[Model] = Found(store)
        self._index = Index(store.root / "index" / "models.json")
        # A list does not hash weights whose file was touched: it need not be sure of them, and would take long.
        self._lists = Lists(
            store,
            self._index,
            go_template,
            lambda stored: Model(stored, store, go_template, checks_files=False).summary,
        )

    async def load(self, name: Name) -> Model:
        """The model, all read: nothing a request asks of it needs the disk. `ModelNotFound`; `StoreError` when its
        manifest is broken. What else is broken is raised by the model's property that needs it."""
        if (model := self._found.get(name)) is not None:
            return model
        look = await self.store.run(self._found.look, name)
        key = (look.stored.name, look.stored.digest, look.stored.modified, look.state)
        if key not in self._known:
            if key not in self._loading:  # requests that come at the same time wait for one reading
                self._loading[key] = asyncio.ensure_future(self._load(key, look.stored))
            model = await asyncio.shield(self._loading[key])
        if key in self._known:
            self._known.move_to_end(key)
            model = self._known[key]
            self._found.put(name, look, model)
        assert model is not None
        return model

    def read(self, name: Name) -> Model:
        """The model, its parts still to be read; blocking. Errors as those of `load`."""
        return Model(self.store.manifest(name), self.store, self._go_template)

    async def all(self) -> Listing:
        """All models whose config can be read; the others are left out with a warning."""
        return await self._lists.all()

    async def list(self, wanted: Callable[[Stored], bool] = lambda _: True) -> list[Listed]:
        """Of those the wanted ones, newest first; no file of another one is read."""
        return await self._lists.some(wanted)

    async def delete(self, name: Name) -> Name:
        """Removes a model, and blobs no other needs; the name as it was spelled. `ModelNotFound`."""
        deleted = await self.store.run_locking(self.store.delete, name)
        with suppress(StoreError):  # the next list does it, if the store can be read then
            await self._lists.look()
        return deleted

    def close(self) -> None:
        """Ends what still waits or hashes."""
        self._lists.close()
        self._found.close()
        self.store.close()

    async def _load(self, key: "_Key", stored: Stored) -> Model:
        try:
            model = await self.store.run(self._read, stored)
        finally:
            del self._loading[key]
        if not model.errors:  # what is broken may be mended, and is looked at again
            self._known[key] = model
            if len(self._known) > self._keep:
                self._known.popitem(last=False)
        return model

    def _read(self, stored: Stored) -> Model:
        known = signature(stored, self.store)
        model = Model(stored, self.store, self._go_template).read_all()
        if "summary" not in model.errors:
            self._index.put(stored.digest.hex, self._go_template, known, model.summary)
        return model


_Key: TypeAlias = tuple[Name, Digest, float, tuple[FileState | None, ...]]
"""A model's name, digest and time, and its files: any change of its manifest or its blobs makes another one of it."""
