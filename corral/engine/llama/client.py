"""Client of llama-server's HTTP API: turns our requests into its JSON and its events into pieces.

No other module knows that API.
"""

import asyncio
import base64
import contextlib
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from corral.engine.base import (
    MEDIA_MARKER,
    CompletionRequest,
    Embeddings,
    EngineChat,
    Finish,
    Piece,
    RunnerSpec,
    Sampling,
)
from corral.engine.llama.characters import TokenText, TokenTexts
from corral.engine.llama.prefill import PrefillStats, SeenPrefixes, chunked_prefill, is_long
from corral.engine.llama.process import GRACE, RunawayTemplateError, WorkerProcess, discard
from corral.engine.llama.stops import StopWords
from corral.errors import EngineDied, EngineError, EngineRefused
from corral.media_kinds import kind_of
from corral.messages import Message, Part, Picture, Sound, Text, TokenLogprob, Tool, ToolCall

HEALTH_TIMEOUT = 10.0
"""Seconds an engine has to answer a health ping (spec cli §11)."""

LARGE = 1 << 18
"""Bytes of JSON that are encoded and decoded in a thread."""

HEALTH_INTERVAL = 0.02
"""Seconds between pings of a llama-server that does not report by itself when it has loaded."""

HANG_TIMEOUT, HANG_PINGS = 60.0, 6
"""Seconds in which a worker with requests has computed nothing and answered no ping, after which it is ended; and the
pings in that time. A loaded machine gives every process some processor time in a minute."""

FREED_CHECKS, FREED_INTERVAL = 50, 0.02
"""How often it is asked whether a slot is free again, and seconds between that."""

T = TypeVar("T")

_GONE = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check corral server logs for details"
)


async def launch(
    spec: RunnerSpec, *, log: Path, stall_timeout: float, program: str = "", cache_ram_mib: int = 1024
) -> "LlamaEngine":
    """Starts a worker for `spec` and waits until it serves; cancelling ends the worker.

    `stall_timeout` is how many seconds the load may go by without progress; the other arguments and the errors are
    those of `WorkerProcess.start` and `WorkerProcess.ready`.
    """
    process = await WorkerProcess.start(spec, log=log, program=program, cache_ram_mib=cache_ram_mib)
    serves = await process.ready(stall_timeout)
    engine = LlamaEngine(process, hang_timeout=min(stall_timeout, HANG_TIMEOUT))
    if not serves:
        await engine.wait_until_served(stall_timeout)
    return engine


class LlamaEngine:
    """An `Engine` that is the llama-server of a worker process."""

    def __init__(self, process: WorkerProcess, *, hang_timeout: float = HANG_TIMEOUT) -> None:
        self._process = process
        self._hang_timeout = hang_timeout
        self._waiting = 0
        self._watch: asyncio.Task[None] | None = None
        self._running = 0
        self._started = 0
        self._retiring: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._session = aiohttp.ClientSession(
            base_url=process.url,
            headers={"Authorization": f"Bearer {process.key}"},
            connector=aiohttp.TCPConnector(limit=0, force_close=True),  # llama-server drops kept connections unasked
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=1 << 18,
        )
        self._marker: str | None = None
        self._seen_prefixes = SeenPrefixes()
        self._token_texts = TokenTexts(self._tokenized)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        """Where the worker listens, on loopback."""
        return self._process.url

    @property
    def log(self) -> Path:
        return self._process.log.path

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Piece, None]:
        body = {
            "prompt": await self._prompt(request),
            "stream": True,
            "return_tokens": True,
            "stop": list(request.sampling.stop),
            **_sampling(request.sampling),
            "n_predict": request.max_tokens,
            "n_keep": request.num_keep,
        }
        if request.schema is not None:
            body["json_schema"] = request.schema
        if request.preserved_tokens:
            body["preserved_tokens"] = list(request.preserved_tokens)
        if request.top_logprobs is not None:
            body["n_probs"] = max(1, request.top_logprobs)
        prefill = PrefillStats() if request.media else await self._prefill(request.prompt, body)
        tokens = _Unsent(request, self._token_texts, self.detokenize)
        async with contextlib.aclosing(self._events("/completion", body)) as events:
            async for data in events:
                event = _decoded(_decode_completion, data)
                if event.error is not None:
                    raise _refusal(event.error)
                if tokens.is_usual(event):
                    yield _piece(event, request.top_logprobs)
                elif event.content or event.stop:
                    yield await tokens.piece(event, _completion_finish(event, prefill) if event.stop else None)
                if event.stop:
                    return
        raise await self._dead(None)

    async def _prefill(self, prompt: str | tuple[int, ...], body: dict[str, Any]) -> PrefillStats:
        """Has a long new prompt computed in parts before the request itself, if its cache may be used (`_sampling`)."""
        if not isinstance(prompt, str) or not self._seen_prefixes.is_new(prompt):
            return PrefillStats()
        if not (body["cache_prompt"] and is_long(prompt)):
            return PrefillStats()
        return await chunked_prefill(await self.tokenize(prompt, add_special=True), self._compute)

    async def _compute(self, tokens: Sequence[int]) -> PrefillStats:
        """Has the engine compute a prompt and generate nothing."""
        body = {"prompt": list(tokens), "n_predict": 0, "cache_prompt": True, "stream": False}
        with self._counted():
            answer = await self._ask("POST", "/completion", body)
        timings = msgspec.convert(answer["timings"], _Timings)
        return PrefillStats(timings.prompt_n, timings.prompt_ms)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Counts a request that computes, and so may fill the prompt cache."""
        self._running += 1
        self._started += 1
        try:
            yield
        finally:
            self._running -= 1

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Has the worker watched while a request waits for it."""
        self._waiting += 1
        if self._watch is None:
            self._watch = asyncio.create_task(self._end_when_hanging())
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._watch.cancel()
                self._watch = None

    async def _end_when_hanging(self) -> None:
        """Ends the worker when it neither computes nor answers pings; its requests fail with the reason.

        Pings are counted, not seconds: while the whole machine sleeps, no ping goes out.
        """
        interval, missed = self._hang_timeout / HANG_PINGS, 0
        await asyncio.sleep(interval)
        while missed < HANG_PINGS:
            before = self._process.signs_of_life()
            if await self._answers(interval):
                missed = 0
                await asyncio.sleep(interval)
            else:
                missed = missed + 1 if self._process.signs_of_life() == before else 0
        await self._process.give_up(f"it did not answer for {self._hang_timeout:.0f} seconds")

    async def _answers(self, seconds: float) -> bool:
        """Whether a ping is answered or refused in time: a worker's end is noticed elsewhere."""
        try:
            async with asyncio.timeout(seconds), self._session.get("/health"):
                return True
        except TimeoutError:
            return False
        except (aiohttp.ClientError, RuntimeError):
            return True

    async def _prompt(self, request: CompletionRequest) -> Any:
        if isinstance(request.prompt, tuple):
            return list(request.prompt)
        if not request.media:
            return request.prompt
        text = request.prompt.replace(MEDIA_MARKER, await self._media_marker())
        if request.prompt.endswith(MEDIA_MARKER):
            text += "\n"  # llama-server aborts when no text comes after the last picture
        return {
            "prompt_string": text,
            "multimodal_data": [base64.b64encode(file).decode() for file in request.media],
        }

    async def _media_marker(self) -> str:
        """The text that stands for a picture, another one in each worker."""
        if self._marker is None:
            self._marker = str((await self._ask("GET", "/props"))["media_marker"])
        return self._marker

    async def chat(self, request: EngineChat) -> AsyncGenerator[Piece, None]:
        body = _chat_body(request)
        calls: dict[int, _CallParts] = {}
        reason, usage, timings = "", _Usage(), _Timings()
        stops = _ChatStops(request.sampling.stop)
        prefill = await self._prefill(request.prompt, body)
        async with contextlib.aclosing(self._events("/v1/chat/completions", body)) as events:
            async for data in events:
                event = _decoded(_decode_chat, data)
                if event.error is not None:
                    raise _refusal(event.error)
                usage, timings = event.usage or usage, event.timings or timings
                for choice in event.choices:
                    reason = choice.finish_reason or reason
                    _collect(calls, choice.delta.tool_calls)
                    piece = stops.read(_chat_piece(choice, await self._chat_logprobs(choice, request.top_logprobs)))
                    if piece != Piece():
                        yield piece
                if stops.found:
                    reason = "stop"
                    break
        if not reason:
            raise await self._dead(None)
        if stops.found:
            await self._wait_for_freed_slot()
        elif (piece := stops.end()) != Piece():
            yield piece
        complete, unread = _finished(calls)
        finish = _finish(reason, timings, prefill, prompt=usage.prompt_tokens, generated=usage.completion_tokens)
        yield Piece(unread, tool_calls=complete, finish=finish)

    async def _chat_logprobs(self, choice: "_Choice", top: int | None) -> tuple[TokenLogprob, ...]:
        """One a token, also for those that the engine leaves out (`characters`)."""
        if top is None or choice.logprobs is None:
            return ()
        found: list[TokenLogprob] = []
        for item in choice.logprobs.content:
            text = bytes(item.bytes or item.token.encode()).decode("utf-8", "replace")
            tokens = () if text.isascii() else await self._token_texts.of(text)
            if len(tokens) > 1 and tokens[-1].id == item.id:
                found += [_unmeasured(token.bytes) for token in tokens[:-1]]
                found.append(_logprob(item, top, tokens[-1].bytes))
            else:
                found.append(_logprob(item, top))
        return tuple(found)

    async def _wait_for_freed_slot(self) -> None:
        """Waits until an answer that was broken off has left its slot, so that its place in the KV cache is free.

        That takes the time of a token or two. A llama-server that does not show its slots is not waited for.
        """
        with contextlib.suppress(EngineError):
            for _ in range(FREED_CHECKS):
                slots = msgspec.convert(await self._ask("GET", "/slots"), list[_Slot])
                if sum(slot.is_processing for slot in slots) <= self._running:
                    return
                await asyncio.sleep(FREED_INTERVAL)

    async def render(self, request: EngineChat) -> str:
        if self._retiring.done():
            raise EngineError(self._retiring.result())
        started = self._started
        asked = asyncio.ensure_future(self._ask("POST", "/apply-template", _chat_body(request)))
        try:
            await self._process.rendering(asked, self.healthy, lambda: bool(self._running or self._started > started))
            text = str(asked.result()["prompt"])
        except RunawayTemplateError as error:
            if not self._retiring.done():
                self._retiring.set_result(str(error))
            raise
        finally:
            await discard(asked)
        if not any(message.media for message in request.messages):
            return text
        return text.replace(await self._media_marker(), MEDIA_MARKER)

    async def embed(self, inputs: Sequence[str]) -> Embeddings:
        with self._counted():
            answer = await self._ask("POST", "/v1/embeddings", {"input": list(inputs), "encoding_format": "float"})
        rows = sorted(answer["data"], key=lambda row: int(row["index"]))
        return Embeddings([_numbers(row["embedding"]) for row in rows], int(answer["usage"]["prompt_tokens"]))

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        body = {"content": text, "add_special": add_special, "parse_special": True}
        tokens: list[int] = (await self._ask("POST", "/tokenize", body))["tokens"]
        return tokens

    async def _tokenized(self, text: str) -> tuple[TokenText, ...]:
        body = {"content": text, "add_special": False, "parse_special": True, "with_pieces": True}
        found = msgspec.convert((await self._ask("POST", "/tokenize", body))["tokens"], list[_TokenPiece])
        return tuple(TokenText(one.id, _piece_bytes(one.piece)) for one in found)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return str((await self._ask("POST", "/detokenize", {"tokens": list(tokens)}))["content"])

    async def healthy(self) -> bool:
        if not self._process.alive:
            return False
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT), self._session.get("/health") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def wait_until_served(self, stall_timeout: float) -> None:
        """Waits for a llama-server that reports its port before it has loaded. Errors as `WorkerProcess.ready`."""
        served = asyncio.ensure_future(self._served())
        try:
            await self._process.progressing(served, stall_timeout)
            served.result()
        except BaseException:
            await self.close()
            raise
        finally:
            await discard(served)

    async def _served(self) -> None:
        while not await self.healthy():
            if not self._process.alive:
                raise self._process.failure()
            await asyncio.sleep(HEALTH_INTERVAL)

    async def ended(self) -> str:
        return await self._process.ended()

    async def retiring(self) -> str:
        return await asyncio.shield(self._retiring)

    def memory(self) -> int:
        return self._process.memory()

    async def close(self) -> None:
        await self._session.close()
        await self._process.stop(grace=0 if self._retiring.done() else GRACE)

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else await _encoded(body)
        try:
            with self._watched():
                async with self._session.request(method, path, data=data) as response:
                    answer = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise await self._dead(error) from error
        if response.status >= 400:
            raise _refusal(_decoded(_decode_failed, answer).error)
        if len(answer) > LARGE:
            return await asyncio.to_thread(_decoded, msgspec.json.decode, answer)
        return _decoded(msgspec.json.decode, answer)

    async def _events(self, path: str, body: Any) -> AsyncGenerator[bytes, None]:
        """The data of each server-sent event."""
        try:
            async with self._streamed(path, body) as response:
                rest = b""
                async for received in response.content.iter_any():
                    *events, rest = (rest + received).split(b"\n\n")
                    for event in events:
                        data = event.lstrip(b"\n")
                        if data.startswith(b"data: {"):
                            yield data[6:]
                        elif data.startswith(b"error: {"):  # as older ones put it
                            raise _refusal(_decoded(_decode_error, data[7:]))
        except (aiohttp.ClientError, OSError) as error:
            raise await self._dead(error) from error
        except RuntimeError as error:
            if not self._session.closed:
                raise
            raise await self._dead(error) from error  # aiohttp's error for a session that is closed meanwhile

    @contextlib.asynccontextmanager
    async def _streamed(self, path: str, body: Any) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """An answer as it comes. Leaving it early closes the connection, which frees the slot."""
        with self._counted(), self._watched():
            async with self._session.post(path, data=await _encoded(body)) as response:
                try:
                    if response.status >= 400:
                        raise _refusal(_decoded(_decode_failed, await response.read()).error)
                    yield response
                finally:
                    response.close()

    async def _dead(self, error: BaseException | None) -> EngineError:
        """Why a connection broke. As a rule the worker is gone, but its exit may become known a moment later.

        `error` None: the answer just ended, without its last event.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                reason = await self._process.ended()
                last = self._process.log.last_error()
                return EngineDied(f"{_GONE} ({reason}{f': {last}' if last else ''})")
        text = str(error or "unexpected EOF")
        return EngineError(f"an error was encountered while running the model: {text}")


class _Error(Struct, frozen=True):
    message: str = "the engine refused the request"
    code: int = 500
    type: str = ""


class _Failed(Struct, frozen=True):
    error: _Error = _Error()


class _Timings(Struct, frozen=True):
    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class _Probability(Struct, frozen=True):
    id: int = -1
    token: str = ""
    bytes: tuple[int, ...] | None = None
    logprob: float | None = 0.0
    top_logprobs: list["_Probability"] = []


class _Completion(Struct, frozen=True):
    content: str = ""
    tokens: tuple[int, ...] = ()
    stop: bool = False
    stop_type: str = ""
    stopping_word: str = ""
    tokens_predicted: int = 0
    completion_probabilities: list[_Probability] = []
    timings: _Timings = _Timings()
    error: _Error | None = None


class _TokenPiece(Struct, frozen=True):
    id: int
    piece: str | list[int]


class _Slot(Struct, frozen=True):
    is_processing: bool = False


class _FunctionDelta(Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(Struct, frozen=True):
    index: int = 0
    id: str | None = None
    function: _FunctionDelta = _FunctionDelta()


class _Delta(Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_CallDelta] = []


class _ChoiceLogprobs(Struct, frozen=True):
    content: list[_Probability] = []


class _Choice(Struct, frozen=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None
    logprobs: _ChoiceLogprobs | None = None


class _Usage(Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _ChatEvent(Struct, frozen=True):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: _Error | None = None


class _CallParts(Struct):
    name: str = ""
    id: str = ""
    arguments: str = ""


_decode_completion = msgspec.json.Decoder(_Completion).decode
_decode_chat = msgspec.json.Decoder(_ChatEvent).decode
_decode_failed = msgspec.json.Decoder(_Failed).decode
_decode_error = msgspec.json.Decoder(_Error).decode


async def _encoded(body: dict[str, Any]) -> bytes:
    """The JSON of a body; that of a large one is made in a thread, so that it does not hold up the event loop."""
    if _size(body) > LARGE:
        return await asyncio.to_thread(msgspec.json.encode, body)
    return msgspec.json.encode(body)


def _size(value: Any) -> int:
    """About how many bytes of JSON a value has: of a list of numbers, by its length."""
    match value:
        case str():
            return len(value)
        case list() if value and isinstance(value[0], int):
            return 4 * len(value)
        case list():
            return sum(map(_size, value))
        case dict():
            return sum(map(_size, value.values()))
        case _:
            return 4


def _decoded(decode: Callable[[bytes], T], data: bytes) -> T:
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"the engine's answer cannot be read: {error}") from error


def _numbers(row: list[float | None]) -> list[float]:
    """JSON has no NaN, so it comes as null."""
    return [math.nan if number is None else number for number in row]


_TOO_LARGE = "is too large to process"
"""What llama-server says of a text to embed that does not fit into a batch, with the code 500 of its own failures."""


def _refusal(error: _Error) -> EngineError:
    if 400 <= error.code < 500:
        return EngineRefused(error.message, code=error.code)
    if _TOO_LARGE in error.message:
        return EngineRefused(error.message, code=400)
    return EngineError(error.message, code=error.code if 500 <= error.code < 600 else 500)


def _sampling(sampling: Sampling) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical_p,
        "repeat_last_n": sampling.repeat_last_n,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        **({} if sampling.seed is None else {"seed": sampling.seed}),
        # A prompt found in the cache gives logits that differ in the last digits from those of a prompt that is read,
        # enough to draw another token; a request with a seed is to give the same text again.
        "cache_prompt": sampling.seed is None or sampling.temperature == 0,
    }


def _piece(event: _Completion, top: int | None) -> Piece:
    """The piece of an event that reports one token with its text."""
    if top is None:
        return Piece(event.content, event.tokens)
    return Piece(event.content, event.tokens, tuple(_logprob(item, top) for item in event.completion_probabilities))


def _completion_finish(event: _Completion, prefill: PrefillStats) -> Finish:
    reason = "length" if event.stop_type == "limit" else "stop"
    stop_text = event.stopping_word if event.stop_type == "word" else ""
    return _finish(reason, event.timings, prefill, generated=event.tokens_predicted, stop_text=stop_text)


class _Unsent:
    """The tokens of a completion that llama-server has not reported, or whose text it has not sent yet.

    It leaves out the tokens within a character. It keeps back the text of tokens that may begin a stop word, and drops
    it when the answer ends at its limit.
    """

    def __init__(
        self,
        request: CompletionRequest,
        texts: TokenTexts,
        detokenize: Callable[[Sequence[int]], Awaitable[str]],
    ) -> None:
        self._top = request.top_logprobs
        self._stop = request.sampling.stop
        self._texts = texts
        self._detokenize = detokenize
        self._reported = 0
        self._sent = ""
        """The text of unsent tokens that had to be sent before it was known which tokens write it."""
        self._ids: list[int | None] = []
        self._probabilities: list[_Probability | None] = []

    def is_usual(self, event: _Completion) -> bool:
        """Whether the event reports one token with its text, and nothing is unsent. Takes in its tokens otherwise."""
        count = event.tokens_predicted - self._reported if event.tokens_predicted else len(event.tokens)
        self._reported += count
        if count == 1 == len(event.tokens) and event.content and not self._ids and not event.stop:
            return True
        missing = max(0, count - len(event.tokens))
        self._ids += [None] * missing + [*event.tokens]
        self._probabilities += [None] * (missing + len(event.tokens) - len(event.completion_probabilities))
        self._probabilities += event.completion_probabilities if event.tokens else ()
        return False

    async def piece(self, event: _Completion, finish: Finish | None) -> Piece:
        """The text of an event with the tokens that write it, as far as they can be known."""
        text = event.content
        if finish is not None:
            while self._ids and self._ids[-1] is None:  # of a character that was not completed
                self._ids.pop()
                self._probabilities.pop()
            if finish.reason == "length" and self._stop:
                text += await self._kept_back()
        if not self._ids:
            return Piece(text, finish=finish)
        if None not in self._ids and self._top is None:
            return self._taken(text, None, finish)
        stop_text = finish.stop_text if finish is not None else ""
        found = await self._texts.matching(self._sent + text + stop_text, self._ids)
        if found is None and None in self._ids and finish is None and self._stop and not self._sent:
            self._sent = text
            return Piece(text)
        if found is None and None in self._ids:
            found = await self._texts.of(self._sent + text + stop_text)
        elif found is None:
            known = [one for one in self._ids if one is not None]
            found = tuple([TokenText(one, (await self._detokenize([one])).encode()) for one in known])
        return self._taken(text, found, finish)

    async def _kept_back(self) -> str:
        """The text that was dropped because it may have begun a stop word."""
        ids = self._ids
        if None not in ids:
            text = await self._detokenize([one for one in ids if one is not None])
            stops = StopWords(self._stop)
            return text if stops.feed(text) != text and not stops.word else ""
        text = await self._texts.beginning(self._stop, ids)
        before = ids[: -len(await self._texts.of(text))] if text else []
        return await self._detokenize([one for one in before if one is not None]) + text

    def _taken(self, text: str, tokens: Sequence[TokenText] | None, finish: Finish | None) -> Piece:
        """A piece with all unsent tokens, which are `tokens` where that is known."""
        ids = tuple(one for one in self._ids if one is not None) if tokens is None else tuple(one.id for one in tokens)
        logprobs: tuple[TokenLogprob, ...] = ()
        if self._top is not None:
            exact = [one.bytes for one in tokens] if tokens is not None and len(tokens) == len(self._ids) else None
            logprobs = tuple(
                _unmeasured(exact[place] if exact else b"")
                if item is None
                else _logprob(item, self._top, exact[place] if exact else None)
                for place, item in enumerate(self._probabilities)
            )
        self._ids, self._probabilities, self._sent = [], [], ""
        return Piece(text, ids, logprobs, finish=finish)


class _ChatStops:
    """Stop words in an answer that the engine parses: in its thoughts and in its content."""

    def __init__(self, words: Sequence[str]) -> None:
        self._thinking: StopWords | None = StopWords(words) if words else None
        self._content: StopWords | None = StopWords(words) if words else None

    @property
    def found(self) -> bool:
        return any(stops is not None and stops.word for stops in (self._thinking, self._content))

    def read(self, piece: Piece) -> Piece:
        """The piece with what has become certain."""
        if self._thinking is None or self._content is None or not (piece.text or piece.thinking):
            return piece
        thinking = self._thinking.feed(piece.thinking)
        if piece.text:
            thinking += self._thinking.flush()
        text = "" if self._thinking.word else self._content.feed(piece.text)
        return Piece(text, logprobs=piece.logprobs, thinking=thinking)

    def end(self) -> Piece:
        """What was kept back until the answer ended."""
        if self._thinking is None or self._content is None:
            return Piece()
        return Piece(self._content.flush(), thinking=self._thinking.flush())


def _logprob(item: _Probability, top: int, own: bytes | None = None) -> TokenLogprob:
    """`own`: the token's bytes, where the item has those of more tokens, or none."""
    alternatives = tuple(_logprob(other, 0) for other in item.top_logprobs[:top])
    if own is not None:
        return TokenLogprob(own.decode("utf-8", "replace"), _bounded(item.logprob), tuple(own), alternatives)
    raw = item.bytes if item.bytes is not None else tuple(item.token.encode())
    return TokenLogprob(item.token, _bounded(item.logprob), raw, alternatives)


def _unmeasured(own: bytes) -> TokenLogprob:
    """A token within a character, whose probability the engine does not say: as if it were certain, no alternatives."""
    return TokenLogprob(own.decode("utf-8", "replace"), 0.0, tuple(own), ())


def _bounded(logprob: float | None) -> float:
    return min(0.0, logprob or 0.0)


def _piece_bytes(piece: str | list[int]) -> bytes:
    return piece.encode() if isinstance(piece, str) else bytes(piece)


def _chat_body(request: EngineChat) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "reasoning_format": "deepseek",
        **_sampling(request.sampling),
        "max_tokens": request.max_tokens,
        "n_keep": request.num_keep,
    }
    if request.sampling.stop:
        body["timings_per_token"] = True  # the client ends the answer at a stop word, before timings would come
    if request.messages and request.messages[-1].role == "assistant" and not request.messages[-1].tool_calls:
        # The model goes on with this answer. One with calls is complete, and another answer follows it.
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    template_values: dict[str, Any] = {}
    if request.tools:
        body["tools"] = [_tool(tool, tool.parameters) for tool in request.tools]
        body["parallel_tool_calls"] = True
    if request.call_schemas:
        # The engine makes its grammar from the tools of the body, and renders the template with these instead.
        template_values["tools"] = body["tools"]
        body["tools"] = [_tool(*pair) for pair in zip(request.tools, request.call_schemas, strict=True)]
    if request.think is not None:
        template_values["enable_thinking"] = bool(request.think)
        if isinstance(request.think, str):
            body["reasoning_effort"] = request.think
    if template_values:
        body["chat_template_kwargs"] = template_values
    if request.schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "schema", "schema": request.schema}}
    if request.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": max(1, request.top_logprobs)}
    return body


def _message(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.media:
        wire["content"] = [_part(part) for part in message.content if part != Text("")]
    if message.tool_calls:
        wire["tool_calls"] = [_call(call) for call in message.tool_calls]
    texts = {"reasoning_content": message.thinking, "name": message.tool_name, "tool_call_id": message.tool_call_id}
    return wire | {name: text for name, text in texts.items() if text}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Picture(file):
            url = f"data:image/{kind_of(file) or 'png'};base64,{base64.b64encode(file).decode()}"
            return {"type": "image_url", "image_url": {"url": url}}
        case Sound(file):
            audio = {"data": base64.b64encode(file).decode(), "format": kind_of(file) or "wav"}
            return {"type": "input_audio", "input_audio": audio}


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()}
    return {"type": "function", "id": call.id, "function": function}


def _tool(tool: Tool, parameters: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _collect(calls: dict[int, _CallParts], deltas: Sequence[_CallDelta]) -> None:
    for delta in deltas:
        parts = calls.setdefault(delta.index, _CallParts())
        parts.id = delta.id or parts.id
        parts.name += delta.function.name or ""
        parts.arguments += delta.function.arguments or ""


def _finished(calls: dict[int, _CallParts]) -> tuple[tuple[ToolCall, ...], str]:
    """The complete calls, and as text those whose arguments were cut off, which must not be made."""
    complete: list[ToolCall] = []
    unread = ""
    for _, parts in sorted(calls.items()):
        try:
            arguments = msgspec.json.decode(parts.arguments or "{}", type=dict[str, Any])
        except msgspec.MsgspecError:
            unread += f'{{"name": "{parts.name}", "arguments": {parts.arguments}'
        else:
            complete.append(ToolCall(parts.name, arguments, len(complete), parts.id))
    return tuple(complete), unread


def _chat_piece(choice: _Choice, logprobs: tuple[TokenLogprob, ...]) -> Piece:
    return Piece(choice.delta.content or "", logprobs=logprobs, thinking=choice.delta.reasoning_content or "")


def _finish(
    reason: str, timings: _Timings, prefill: PrefillStats, *, prompt: int = 0, generated: int = 0, stop_text: str = ""
) -> Finish:
    """How an answer ended, with the prefill before it; `prompt` and `generated` tokens where they are known."""
    return Finish(
        reason="length" if reason == "length" else "stop",
        stop_text=stop_text,
        prompt_tokens=prompt or timings.cache_n + timings.prompt_n,
        cached_tokens=max(0, timings.cache_n - prefill.tokens),
        prompt_duration=int((timings.prompt_ms + prefill.milliseconds) * 1e6),
        generated_tokens=generated or timings.predicted_n,
        generation_duration=int(timings.predicted_ms * 1e6),
    )
