"""Messages → prompt: who stands in front, what is dropped to fit the context, where the pictures go.

The caller hands in how tokens are counted. Source: spec api §8.4; cli §15.
"""

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec
from msgspec import Struct

from corral.engine.base import MEDIA_MARKER
from corral.errors import BadRequest, ContextExceeded, EngineError, EngineRefused, Unsupported
from corral.inference.written import PromptWriter, Write
from corral.media import MAX_FILES, PICTURES, SOUNDS, kind_of, prepare
from corral.messages import Message, Text, Think, Tool
from corral.models.model import Model
from corral.parsers.families.harmony import with_identifiers
from corral.template import Template, number_images

IMAGE_TOKENS = 768
"""What a picture counts for while a history is cut (spec cli §15.1)."""

TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the "
    "context length in settings, or use a model with a longer context length"
)

Count = Callable[[str], Awaitable[int]]
"""Tokens of a text."""


class Prompt(Struct, frozen=True, kw_only=True):
    """What the engine gets. `messages` are those that were kept; `dropped_tokens` what was left out to fit."""

    text: str
    messages: tuple[Message, ...] = ()
    media: tuple[bytes, ...] = ()
    tokens: int | None = None
    """Its length, when it was counted."""
    dropped_tokens: int = 0


def conversation(model: Model, messages: Sequence[Message]) -> list[Message]:
    """The model's stored turns and the given ones; its system text in front unless the request begins with one."""
    found = [*model.messages, *messages]
    if model.system and (not messages or messages[0].role != "system"):
        found.insert(0, Message.of("system", model.system))
    found = [msgspec.structs.replace(m, role="system") if m.role == "developer" else m for m in found]
    if model.family == "qwen3" or model.name.model == "deepseek-r1":
        found = _without_old_thoughts(found)
    return found


def _without_old_thoughts(messages: list[Message]) -> list[Message]:
    """Leading `<think>` blocks of answers before the last question are not shown to the model again."""
    last = max((index for index, message in enumerate(messages) if message.role == "user"), default=-1)
    return [
        _without_leading_thought(message) if index < last and message.role == "assistant" else message
        for index, message in enumerate(messages)
    ]


def _without_leading_thought(message: Message) -> Message:
    match message.content:
        case (Text(text), *rest):
            kept = _LEADING_THOUGHT.sub("", text)
            return msgspec.structs.replace(message, content=(*((Text(kept),) if kept else ()), *rest))
        case _:
            return message


_LEADING_THOUGHT = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)


def template_writer(template: Template, tools: Sequence[Tool], think: Think, output_format: str = "") -> Write:
    """Writes prompts with a Go template. Harmony models know tools by identifiers only."""

    async def write(messages: Sequence[Message]) -> str:
        numbered, named = number_images(messages), list(tools)
        if output_format == "harmony":
            numbered, named = with_identifiers(numbered, named)
        if not named and (text := template.render_small(numbered, think=think)) is not None:
            return text
        return await rendered(partial(template.render, numbered, tools=named, think=think))

    return write


async def rendered(write: Callable[[], str]) -> str:
    """A template's text. A long conversation or a bad template takes up to a second, in which others go on."""
    return await asyncio.get_running_loop().run_in_executor(_WRITERS, write)


_WRITERS = ThreadPoolExecutor(2, "templates")


async def build(
    messages: Sequence[Message],
    writer: PromptWriter,
    count: Count,
    limit: int | None,
    *,
    image_tokens: int = 0,
) -> Prompt:
    """The prompt of the longest end of the conversation that fits `limit` tokens; None: all of it (spec cli §15.1).

    System messages and the last message are always kept. Lengths in bytes save most of the counting: a text has no
    more tokens than bytes.
    """
    candidates: dict[int, _Candidate] = {}

    async def measure(first: int) -> _Candidate:
        if first not in candidates:
            kept, text = await writer.written(messages, first)
            extra = image_tokens * sum(len(message.media) for message in kept)
            fits_by_bytes = limit is None or len(text.encode()) + 1 + extra <= limit
            candidates[first] = _Candidate(kept, text, None if fits_by_bytes else await count(text) + extra)
        return candidates[first]

    whole = chosen = await measure(0)
    if limit is not None and whole.tokens is not None and whole.tokens > limit:
        chosen = await measure(await _first_that_fits(len(messages), limit, measure))
    dropped = 0
    if chosen is not whole and whole.tokens is not None:
        dropped = whole.tokens - (chosen.tokens if chosen.tokens is not None else await count(chosen.text))
    media = tuple(part.data for message in chosen.messages for part in message.media)
    return Prompt(
        text=chosen.text, messages=chosen.messages, media=media, tokens=chosen.tokens, dropped_tokens=max(0, dropped)
    )


class _Candidate(Struct, frozen=True):
    """Messages that may be kept and their prompt; `tokens` None: so few that they need not be counted."""

    messages: tuple[Message, ...]
    text: str
    tokens: int | None


async def _first_that_fits(length: int, limit: int, measure: Callable[[int], Awaitable[_Candidate]]) -> int:
    """The least number of dropped messages that fits; all but the last when nothing does. Longer ends are longer."""
    low, high = 1, max(0, length - 1)
    while low < high:
        middle = (low + high) // 2
        tokens = (await measure(middle)).tokens
        if tokens is None or tokens <= limit:
            high = middle
        else:
            low = middle + 1
    return high


def refusal(error: EngineError) -> EngineError:
    """What a Jinja template said when it refused a conversation, or why it failed, without the engine's words around.

    Other errors stay as they are.
    """
    if said := re.search(r"Jinja Exception: (.+)", str(error)):
        return EngineRefused(f"the model's template refuses the conversation: {said[1]}", code=error.code)
    if "While executing" in str(error) and (why := re.search(r"^Error: (.+)", str(error), re.MULTILINE)):
        return type(error)(f"the model's template fails at the conversation: {why[1]}", code=error.code)
    return error


def check_modalities(model: Model, files: Sequence[bytes]) -> None:
    """`Unsupported` for pictures or sounds that the model cannot read."""
    modalities = {"vision", "audio"} & set(model.capabilities)
    if files and not modalities:
        raise Unsupported(str(model.name), "multimodal input")
    kinds = {kind_of(file) for file in files} if modalities else set()
    if "vision" not in modalities and kinds & set(PICTURES):
        raise Unsupported(str(model.name), "images")
    if "audio" not in modalities and kinds & set(SOUNDS):
        raise Unsupported(str(model.name), "audio")


async def readable(model: Model, files: Sequence[bytes]) -> tuple[bytes, ...]:
    """Files as the engine gets them; `Unsupported` for what the model cannot read, `BadRequest` for broken ones."""
    if not files:
        return ()
    check_modalities(model, files)
    return await asyncio.get_running_loop().run_in_executor(_DECODERS, prepare, files)


_DECODERS = ThreadPoolExecutor(2, "images")
"""Few, because a large picture takes half a gigabyte while it is read."""


def with_media(messages: Sequence[Message], files: Sequence[bytes]) -> Iterator[Message]:
    """The messages with these files in place of theirs, in order."""
    left = iter(files)
    for message in messages:
        content = tuple(part if isinstance(part, Text) else type(part)(next(left)) for part in message.content)
        yield msgspec.structs.replace(message, content=content)


def with_media_markers(text: str, media: Sequence[bytes]) -> tuple[str, tuple[bytes, ...]]:
    """`[img-N]` tags replaced by the engine's marker, and the files in the order of their markers (spec cli §15.4)."""
    if not media:
        return text, ()
    order: list[bytes] = []

    def place(match: re.Match[str]) -> str:
        number = int(match[1])
        if number >= len(media):
            return match[0]
        if len(order) == MAX_FILES:
            raise BadRequest(f"more than {MAX_FILES} images in one prompt")
        order.append(media[number])
        return MEDIA_MARKER

    return re.sub(r"\[img-(\d{1,4})\]", place, text), tuple(order)


def ends_in_picture(built: Prompt) -> bool:
    return bool(built.media) and built.text.endswith(f"[img-{len(built.media) - 1}]")


def without_open_thought(text: str, think_tags: tuple[str, str] | None) -> str:
    """The prompt for an answer that has to fit a schema at once, without thinking first.

    Some templates end every prompt in the tag that opens a thought; it is closed, as templates that can do without
    thoughts write that.
    """
    if think_tags is None or not text.rstrip().endswith(think_tags[0]):
        return text
    return f"{text.rstrip()}\n\n{think_tags[1]}\n\n"


def with_numbers(text: str) -> str:
    """The engine's markers as `[img-N]` tags."""
    numbers = itertools.count()
    return re.sub(re.escape(MEDIA_MARKER), lambda _: f"[img-{next(numbers)}]", text)


def shortened(tokens: Sequence[int], limit: int, num_keep: int, *, has_bos: bool, shift: bool) -> tuple[int, ...]:
    """A prompt that is too long for `limit` tokens, with its middle taken out (spec cli §15.3).

    `ContextExceeded` when the context may not be shifted.
    """
    if len(tokens) <= limit - 1:
        return tuple(tokens)
    if not shift:
        raise ContextExceeded(TOO_LONG, tokens=len(tokens), limit=limit)
    keep = len(tokens) if num_keep < 0 else num_keep + int(has_bos)
    keep = min(keep, limit - 1)
    remaining = limit - max((limit - keep) // 2, 1)
    return (*tokens[:keep], *tokens[len(tokens) - (remaining - keep) :])
