"""What a GGUF file says of the model in it: metadata, tensors and what follows from them. Trusts the reader's checks.

Keys are looked up as spec cli §17 says; capabilities come from spec cli §14.5; `model_info` is spec api §13.
"""

import io
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from msgspec import Struct

from corral.errors import ModelFileError
from corral.gguf.cursor import ByteOrder, Cursor
from corral.gguf.types import FILE_TYPES, UNKNOWN_FILE_TYPE, ValueType

MAX_DECODED_ELEMENTS = 8 << 20
MAX_DECODED_BYTES = 256 << 20
"""Longest array `GGUF.values` makes Python objects of, in elements and in bytes of the file."""

MAX_LAYERS = 512
"""Layers the engine has room for."""

_ABSOLUTE_PREFIXES = ("general.", "tokenizer.", "split.", "adapter.")
_UNLISTED_KEYS = frozenset({"general.name", "tokenizer.chat_template"})


_RANK_POOLING = 4
_RANKING_HEADS = frozenset({"cls.weight", "cls.output.weight"})


class Array(Struct, frozen=True):
    """An array that was checked but not read: `length` elements in `size` bytes at `offset` of the file."""

    type: ValueType
    length: int
    offset: int
    size: int

    def __len__(self) -> int:
        return self.length


class Tensor(Struct, frozen=True):
    """A tensor: its shape in the file's order (row length first), its place in bytes from the file's beginning."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def tensor_chunks(opened: BinaryIO, path: Path, tensor: Tensor) -> Iterator[bytes]:
    """A tensor's bytes out of its open file, a megabyte at most at once; `ModelFileError` when the file has become
    shorter, `OSError` as plain files have it."""
    opened.seek(tensor.offset)
    for start in range(0, tensor.size, _CHUNK_BYTES):
        wanted = min(_CHUNK_BYTES, tensor.size - start)
        chunk = opened.read(wanted)
        if len(chunk) != wanted:
            raise ModelFileError(f'"{path}" ends within tensor "{tensor.name}"')
        yield chunk


_CHUNK_BYTES = 1 << 20

Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = Scalar | Array
Element: TypeAlias = "Scalar | list[Element] | None"
Kind: TypeAlias = Literal["model", "projector", "adapter"]


class GGUF(Struct, frozen=True):
    """What was read of a file. Holds no open file; arrays are read when asked for."""

    path: Path
    size: int
    version: int
    big_endian: bool
    alignment: int
    data_offset: int
    metadata: Mapping[str, Value]
    types: Mapping[str, ValueType]
    tensors: tuple[Tensor, ...]
    contents: Callable[[], bytes] | None = None
    """Gives the header of a file that is not on the disk; None: it is, at `path`."""

    def open(self) -> BinaryIO:
        """The file's bytes, of a planned file only the header's; `OSError`."""
        return open(self.path, "rb") if self.contents is None else io.BytesIO(self.contents())

    @property
    def architecture(self) -> str:
        return self.text("general.architecture") or "unknown"

    @property
    def kind(self) -> Kind:
        """Whether it is a model, a projector for one's images and sound, or a LoRA adapter (spec api §11.3)."""
        declared = self.text("general.type")
        if declared == "adapter":
            return "adapter"
        if declared in ("projector", "mmproj"):
            return "projector"
        if self.architecture == "clip" and any(map(self.flag, _CLIP_ENCODERS)):
            return "projector"
        if self.integer("block_count") is None and self.integer("vision.block_count") is not None:
            return "projector"
        return "model"

    @property
    def split(self) -> tuple[int, int] | None:
        """(number counted from 0, count) when the model is spread over several files."""
        count = self.integer("split.count") or 0
        return (self.integer("split.no") or 0, count) if count > 1 else None

    @property
    def file_type(self) -> str:
        """Name of the quantisation, such as `Q4_K_M`; `unknown` when the file does not say."""
        number = self.integer("general.file_type")
        return UNKNOWN_FILE_TYPE if number is None else FILE_TYPES.get(number, UNKNOWN_FILE_TYPE)

    @property
    def parameter_count(self) -> int:
        """Elements of all tensors; what the file itself says of it is not believed (spec cli §17)."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def weights_bytes(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    @property
    def block_count(self) -> int | None:
        return self.integer("block_count")

    @property
    def context_length(self) -> int | None:
        """Tokens the model was trained on."""
        return self.integer("context_length")

    @property
    def embedding_length(self) -> int | None:
        return self.integer("embedding_length")

    @property
    def vocabulary_size(self) -> int:
        """Tokens of the vocabulary; 0 without one."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        return len(tokens) if isinstance(tokens, Array) else self.integer("vocab_size") or 0

    @property
    def chat_template(self) -> str | None:
        """The Jinja template in the file."""
        return self.text("tokenizer.chat_template")

    @property
    def bos_token_id(self) -> int | None:
        return self._token_id("tokenizer.ggml.bos_token_id")

    @property
    def eos_token_id(self) -> int | None:
        return self._token_id("tokenizer.ggml.eos_token_id")

    @property
    def add_bos(self) -> bool | None:
        """Whether a prompt begins with the BOS token; None leaves it to the tokenizer's kind."""
        value = self.get("tokenizer.ggml.add_bos_token")
        return value if isinstance(value, bool) else None

    @property
    def can_rank(self) -> bool:
        """Whether it has a head that scores a query and a document together."""
        return any(tensor.name in _RANKING_HEADS for tensor in self.tensors)

    @property
    def only_ranks(self) -> bool:
        """Whether it makes no vectors of texts: its pooling is the head, or none was named beside a head."""
        pooling = self.get("pooling_type")
        return pooling == _RANK_POOLING or (pooling is None and self.can_rank)

    @property
    def rank_template(self) -> str | None:
        """The prompt around `{query}` and `{document}`; None where special tokens part them."""
        return self.text("tokenizer.chat_template.rerank")

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Those the metadata alone prove, in the order of spec api §13; templates and parsers add theirs."""
        if self.kind == "projector":
            return ("vision", "audio") if self._hears() else ("vision",)
        found = ["completion" if self.get("pooling_type") is None else "embedding"]
        if self.get("vision.block_count") is not None:
            found.append("vision")
        if self.get("audio.block_count") is not None and self.architecture != "nemotron_h_omni":
            found.append("audio")
        return tuple(found)

    def get(self, key: str) -> Value | None:
        """A key's value; keys of the architecture are named without their prefix (spec cli §17)."""
        if key.startswith(_ABSOLUTE_PREFIXES):
            return self.metadata.get(key)
        scoped = self.metadata.get(f"{self.architecture}.{key}")
        return self.metadata.get(key) if scoped is None else scoped

    def text(self, key: str) -> str | None:
        """A key's value if it is a string."""
        value = self.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        """A key's value if it is a whole number."""
        value = self.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def flag(self, key: str) -> bool:
        """Whether a key is there and true."""
        return self.get(key) is True

    def values(self, key: str) -> list[Element]:
        """The elements of an array, read from the file now; arrays in it become lists.

        Strings that are not UTF-8 get replacement characters. `ModelFileError` if the array is too long to hold.
        """
        array = self.get(key)
        if not isinstance(array, Array):
            raise ModelFileError(f'key "{key}" is not an array')
        if not _decodable(array):
            raise ModelFileError(f'array "{key}" of {array.length} elements is too long to be shown')
        return self._decode(key, array)

    def per_layer(self, key: str) -> list[int] | None:
        """A number for each layer, whether the file gives one for all or an array; None without the key."""
        value = self.get(key)
        layers = self.block_count or 0
        if isinstance(value, Array) and 0 < value.length <= MAX_LAYERS:
            numbers = [number if isinstance(number, int) else 0 for number in self.values(key)]
            return (numbers + numbers[-1:] * layers)[:layers]
        if isinstance(value, int):
            return [value] * layers
        return None

    def kv_bytes_per_token(self, cache_type_bytes: float = 2.0) -> int:
        """Bytes the key-value cache needs for a token of context, at `cache_type_bytes` an element.

        An upper estimate: layers with a sliding window keep less. 0 for models that keep none, such as BERT.
        """
        heads, width = self._kv_heads(), self._head_width()
        if not heads or self.get("attention.causal") is False:
            return 0
        shared = self.integer("attention.shared_kv_layers") or 0
        interval = self.integer("full_attention_interval") or 1
        kept = heads[: max(0, len(heads) - shared)][interval - 1 :: interval]
        return math.ceil(sum(kept) * width * cache_type_bytes)

    def model_info(self, *, verbose: bool) -> dict[str, object]:
        """The metadata as `/api/show` gives them (spec api §13); long arrays are null unless `verbose`."""
        shown: dict[str, object] = {
            key: self._shown(key, value, verbose) for key, value in self.metadata.items() if key not in _UNLISTED_KEYS
        }
        shown["general.parameter_count"] = self.parameter_count
        return shown

    def _shown(self, key: str, value: Value, verbose: bool) -> object:
        if not isinstance(value, Array):
            return _finite(value)
        if not value.length:
            return []
        return _finite(self._decode(key, value)) if verbose and _decodable(value) else None

    def _decode(self, key: str, array: Array) -> list[Element]:
        try:
            with self.open() as file:
                order: ByteOrder = ">" if self.big_endian else "<"
                cursor = Cursor(file, self.size, order, wide=self.version > 1, position=array.offset)
                cursor.subject = f'key "{key}"'
                return _elements(cursor, array.type, array.length)
        except OSError as error:
            raise ModelFileError(f'cannot read "{self.path}": {error.strerror}') from error

    def _token_id(self, key: str) -> int | None:
        number = self.integer(key)
        return number if number is not None and 0 <= number < self.vocabulary_size else None

    def _hears(self) -> bool:
        types = (self.text("projector_type"), self.text("vision.projector_type"))
        return "gemma3nv" not in types and any(
            value is True and key.endswith("has_audio_encoder") for key, value in self.metadata.items()
        )

    def _kv_heads(self) -> list[int] | None:
        return self.per_layer("attention.head_count_kv") or self.per_layer("attention.head_count")

    def _head_width(self) -> int:
        """Elements one head keeps of a token: its key and its value."""
        heads = max(self.per_layer("attention.head_count") or [0])
        usual = (self.embedding_length or 0) // heads if heads > 0 else 0
        key, value = self.integer("attention.key_length"), self.integer("attention.value_length")
        return (usual if key is None else key) + (usual if value is None else value)


_CLIP_ENCODERS = ("has_vision_encoder", "has_audio_encoder", "has_llava_projector")


def _elements(cursor: Cursor, kind: ValueType, count: int) -> list[Element]:
    if kind is ValueType.STRING:
        return [cursor.string().decode(errors="replace") for _ in range(count)]
    if kind is ValueType.ARRAY:
        return [_elements(cursor, ValueType(cursor.uint32()), cursor.length()) for _ in range(count)]
    return list(cursor.scalars(kind, count))


def _decodable(array: Array) -> bool:
    return array.length <= MAX_DECODED_ELEMENTS and array.size <= MAX_DECODED_BYTES


def _finite(element: Element) -> Element:
    """JSON has no word for infinities and NaN: they become null."""
    if isinstance(element, list):
        return [_finite(one) for one in element]
    return None if isinstance(element, float) and not math.isfinite(element) else element
