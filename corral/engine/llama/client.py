"""Client of llama-server's HTTP API: its routes, and in what order they are asked.

Its JSON is `wire.py`'s subject, what it holds back of an answer that of `held_back.py`, how it is reached that of
`connection.py`.
"""

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from corral.engine.base import (
    MEDIA_MARKER,
    CompletionRequest,
    Embeddings,
    EngineChat,
    Keeping,
    Piece,
    Ranking,
)
from corral.engine.llama import wire
from corral.engine.llama.border import Worker
from corral.engine.llama.characters import TokenText, TokenTexts
from corral.engine.llama.connection import HANG_TIMEOUT, Connection
from corral.engine.llama.held_back import ChatStops, Unsent
from corral.engine.llama.kept import LEAST_TOKENS, KeptConversations
from corral.engine.llama.prefill import PrefillStats, SeenPrefixes, chunked_prefill, is_long
from corral.engine.llama.process import (
    GRACE,
    RunawayTemplateError,
    WorkerProcess,
    discard,
)
from corral.engine.llama.recent import RecentPrompts
from corral.engine.placement import Bytes
from corral.errors import EngineError
from corral.messages import TokenLogprob

FREED_CHECKS, FREED_INTERVAL = 50, 0.02
"""How often it is asked whether a slot is free again, and seconds between that."""


class LlamaEngine:
    """An `Engine` that is the llama-server of a worker process, here or elsewhere.

    `template_error`: why the model's own chat template cannot be run; empty when it can, or was not wanted.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        hang_timeout: float = HANG_TIMEOUT,
        has_llguidance: bool = True,
        template_error: str = "",
    ) -> None:
        self.template_error = template_error
        self.devices: Mapping[str, Bytes] = {}
        """What it said that it holds on each, the CPU among them."""
        self._worker = worker
        self._connection = Connection(worker, hang_timeout)
        self.has_llguidance = has_llguidance
        self._retiring: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._marker: str | None = None
        self._seen_prefixes = SeenPrefixes()
        self._kept: KeptConversations | None = None
        self._recent = RecentPrompts()
        self._token_texts = TokenTexts(self._tokenized)

    @property
    def pid(self) -> int:
        return self._worker.pid

    @property
    def url(self) -> str:
        """Where the worker listens."""
        return self._worker.url

    @property
    def key(self) -> str:
        """What its llama-server wants to be shown."""
        return self._worker.key

    @property
    def log(self) -> Path:
        return self._worker.log_path

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Piece, None]:
        body = {
            "prompt": await self._prompt(request),
            "stream": True,
            "return_tokens": True,
            "stop": list(request.sampling.stop),
            **wire.sampling_body(request.sampling),
            "n_predict": request.max_tokens,
            "n_keep": request.num_keep,
        }
        if request.grammar and self.has_llguidance:
            body["grammar"] = request.grammar
        elif request.schema is not None:
            body["json_schema"] = request.schema
        if request.preserved_tokens:
            body["preserved_tokens"] = list(request.preserved_tokens)
        if request.top_logprobs is not None:
            body["n_probs"] = max(1, request.top_logprobs)
        if request.progress:
            body["return_progress"] = True
        prefill = PrefillStats()
        prompt = "" if request.media or request.written else request.prompt
        async with contextlib.aclosing(self._prefill(prompt, body)) as parts:
            async for prefill in parts:
                if request.progress:
                    yield Piece(progress=prefill.progress)
        tokens = Unsent(request, self._token_texts, self.detokenize)
        async with self._connection.streamed("/completion", body) as answer:
            while events := await answer.events():
                for data in events:
                    event = wire.decoded(wire.decode_completion, data)
                    if event.error is not None:
                        raise wire.refusal(event.error)
                    if event.prompt_progress is not None:  # beside it stands a token that is none
                        yield wire.progress_piece(event.prompt_progress, prefill)
                    elif (usual := tokens.usual_piece(event)) is not None:
                        yield usual
                    elif event.content or event.stop:
                        yield await tokens.piece(event, wire.completion_finish(event, prefill) if event.stop else None)
                    if event.stop:
                        return
        raise await self._connection.dead(None)

    async def _prefill(self, prompt: str | tuple[int, ...], body: dict[str, Any]) -> AsyncGenerator[PrefillStats, None]:
        """Before a request whose cache may be used (`sampling_body`): has a conversation that was kept put into a slot,
        from which the prompt goes on, or else a long new prompt computed in parts.

        Gives what `chunked_prefill` does; nothing for other prompts.
        """
        is_new = isinstance(prompt, str) and self._seen_prefixes.is_new(prompt)
        if not (prompt and body["cache_prompt"]):
            return
        kept = self._kept if self._kept is not None and await self._kept.may_help(prompt) else None
        if self._kept is not None and len(prompt) >= LEAST_TOKENS:
            self._recent.note(prompt)
        in_parts = isinstance(prompt, str) and is_new and is_long(prompt)
        if kept is None and not in_parts:
            return
        tokens = await self.tokenize(prompt, add_special=True) if isinstance(prompt, str) else prompt
        if kept is not None and await kept.restore(tokens):
            return
        if not in_parts:
            return
        async with contextlib.aclosing(chunked_prefill(tokens, self._compute)) as parts:
            async for so_far in parts:
                yield so_far

    def keeps(self, keeping: Keeping, bytes_per_token: int) -> None:
        """Makes it keep conversations there."""
        self._kept = KeptConversations(keeping, self._connection.ask, bytes_per_token)

    async def keep(self) -> None:
        if self._kept is not None and self._worker.alive:
            await self._kept.save()
            async with contextlib.aclosing(self._recent_tokens()) as prompts:
                await self._kept.save_recalled(prompts, self._recall)

    async def _recent_tokens(self) -> AsyncGenerator[Sequence[int], None]:
        for prompt in self._recent.latest_first():
            yield await self.tokenize(prompt, add_special=True) if isinstance(prompt, str) else prompt

    async def _recall(self, tokens: Sequence[int]) -> int | None:
        """Has the engine bring a prompt back from its prompt cache; the slot it is in then. A prompt of which less than
        three quarters were there is broken off: computing it again is not worth the time."""
        body = {"prompt": list(tokens), "n_predict": 0, "cache_prompt": True, "stream": True, "return_progress": True}
        async with self._connection.streamed("/completion", body) as answer:
            while events := await answer.events():
                for data in events:
                    event = wire.decoded(wire.decode_completion, data)
                    if event.error is not None:
                        raise wire.refusal(event.error)
                    if event.prompt_progress is not None and event.prompt_progress.cache < len(tokens) * 3 // 4:
                        return None
                    if event.stop:
                        return event.id_slot
        return None

    async def _compute(self, tokens: Sequence[int]) -> PrefillStats:
        """Has the engine compute a prompt and generate nothing."""
        body = {"prompt": list(tokens), "n_predict": 0, "cache_prompt": True, "stream": False}
        with self._connection.counted():
            answer = await self._connection.ask("POST", "/completion", body)
        timings = msgspec.convert(answer["timings"], wire.Timings)
        return PrefillStats(timings.prompt_n, timings.prompt_ms)

    async def _prompt(self, request: CompletionRequest) -> Any:
        if isinstance(request.prompt, tuple):
            return [*request.prompt, *request.written]
        if request.written:
            return [request.prompt, *request.written]
        if not request.media:
            return request.prompt
        text = request.prompt.replace(MEDIA_MARKER, await self._media_marker())
        if request.prompt.endswith(MEDIA_MARKER):
            text += "\n"  # llama-server aborts when no text comes after the last picture
        return {
            "prompt_string": text,
            "multimodal_data": await asyncio.to_thread(_as_base64, request.media),
        }

    async def _media_marker(self) -> str:
        """The text that stands for a picture, another one in each worker."""
        if self._marker is None:
            self._marker = str((await self._connection.ask("GET", "/props"))["media_marker"])
        return self._marker

    async def chat(self, request: EngineChat) -> AsyncGenerator[Piece, None]:
        if self.template_error:
            raise EngineError(self.template_error)
        has_media = any(message.media for message in request.messages)
        body = await asyncio.to_thread(wire.chat_body, request) if has_media else wire.chat_body(request)
        calls: dict[int, wire.CallParts] = {}
        reason, usage, timings = "", wire.Usage(), wire.Timings()
        stops = ChatStops(request.sampling.stop)
        prefill = PrefillStats()
        async with contextlib.aclosing(self._prefill(request.prompt, body)) as parts:
            async for prefill in parts:
                if request.progress:
                    yield Piece(progress=prefill.progress)
        async with self._connection.streamed("/v1/chat/completions", body) as answer:
            while events := await answer.events():
                for data in events:
                    event = wire.decoded(wire.decode_chat, data)
                    if event.error is not None:
                        raise wire.refusal(event.error)
                    if event.prompt_progress is not None:
                        yield wire.progress_piece(event.prompt_progress, prefill)
                        continue
                    usage, timings = event.usage or usage, event.timings or timings
                    for choice in event.choices:
                        reason = choice.finish_reason or reason
                        wire.collect_calls(calls, choice.delta.tool_calls)
                        logprobs: tuple[TokenLogprob, ...] = ()
                        if request.top_logprobs is not None:
                            logprobs = await self._chat_logprobs(choice, request.top_logprobs)
                        piece = stops.read(wire.chat_piece(choice, logprobs))
                        if piece != Piece():
                            yield piece
                    if stops.found:
                        break
                if stops.found:
                    reason = "stop"
                    break
        if not reason:
            raise await self._connection.dead(None)
        if stops.found:
            await self._wait_for_freed_slot()
        elif (piece := stops.end()) != Piece():
            yield piece
        complete, unread = wire.finished_calls(calls)
        finish = wire.finish_of(
            reason,
            timings,
            prefill,
            prompt=usage.prompt_tokens,
            generated=usage.completion_tokens,
            stop_text=stops.found,
        )
        yield Piece(unread, tool_calls=complete, finish=finish)

    async def _chat_logprobs(self, choice: "wire.Choice", top: int) -> tuple[TokenLogprob, ...]:
        """One a token, also for those that the engine leaves out (`characters`)."""
        if choice.logprobs is None:
            return ()
        found: list[TokenLogprob] = []
        for item in choice.logprobs.content:
            text = bytes(item.bytes or item.token.encode()).decode("utf-8", "replace")
            tokens = () if text.isascii() else await self._token_texts.of(text)
            if len(tokens) > 1 and tokens[-1].id == item.id:
                found += [wire.unmeasured(token.bytes) for token in tokens[:-1]]
                found.append(wire.token_logprob(item, top, tokens[-1].bytes))
            else:
                found.append(wire.token_logprob(item, top))
        return tuple(found)

    async def _wait_for_freed_slot(self) -> None:
        """Waits until an answer that was broken off has left its slot, so that its place in the KV cache is free.

        That takes the time of a token or two. A llama-server that does not show its slots is not waited for.
        """
        with contextlib.suppress(EngineError):
            for _ in range(FREED_CHECKS):
                slots = msgspec.convert(await self._connection.ask("GET", "/slots"), list[wire.Slot])
                if sum(slot.is_processing for slot in slots) <= self._connection.running:
                    return
                await asyncio.sleep(FREED_INTERVAL)

    async def render(self, request: EngineChat) -> str:
        if refused := self.template_error or (self._retiring.result() if self._retiring.done() else ""):
            raise EngineError(refused)
        started = self._connection.started
        asked = asyncio.ensure_future(self._connection.ask("POST", "/apply-template", wire.chat_body(request)))
        try:
            await self._worker.rendering(
                asked,
                self._connection.healthy,
                lambda: bool(self._connection.running or self._connection.started > started),
            )
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
        with self._connection.counted():
            answer = await self._connection.ask(
                "POST", "/v1/embeddings", {"input": list(inputs), "encoding_format": "float"}
            )
        rows = sorted(answer["data"], key=lambda row: int(row["index"]))
        return Embeddings([wire.numbers(row["embedding"]) for row in rows], int(answer["usage"]["prompt_tokens"]))

    async def rank(self, query: str, documents: Sequence[str]) -> Ranking:
        with self._connection.counted():
            answer = await self._connection.ask("POST", "/v1/rerank", {"query": query, "documents": list(documents)})
        rows = sorted(answer["results"], key=lambda row: int(row["index"]))
        return Ranking(wire.numbers([row["relevance_score"] for row in rows]), int(answer["usage"]["prompt_tokens"]))

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        body = {"content": text, "add_special": add_special, "parse_special": True}
        tokens: list[int] = (await self._connection.ask("POST", "/tokenize", body))["tokens"]
        return tokens

    async def _tokenized(self, text: str) -> tuple[TokenText, ...]:
        body = {"content": text, "add_special": False, "parse_special": True, "with_pieces": True}
        found = msgspec.convert(
            (await self._connection.ask("POST", "/tokenize", body))["tokens"], list[wire.TokenPiece]
        )
        return tuple(TokenText(one.id, wire.piece_bytes(one.piece)) for one in found)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return str((await self._connection.ask("POST", "/detokenize", {"tokens": list(tokens)}))["content"])

    async def healthy(self) -> bool:
        return await self._connection.healthy()

    async def wait_until_served(self, process: WorkerProcess, stall_timeout: float) -> None:
        """Waits for a llama-server that reports its port before it has loaded. Errors as `WorkerProcess.ready`."""
        await self._connection.wait_until_served(process, stall_timeout)

    async def ended(self) -> str:
        return await self._worker.ended()

    async def retiring(self) -> str:
        return await asyncio.shield(self._retiring)

    def memory(self) -> int:
        return self._worker.memory()

    def signs_of_life(self) -> tuple[float, int]:
        """What grows while it computes or prints."""
        return self._worker.signs_of_life()

    def last_error(self) -> str:
        """What it printed last of an error. Blocks."""
        return self._worker.last_error()

    def on_devices(self) -> Mapping[str, Bytes]:
        return self.devices

    async def device_error(self) -> str:
        return await asyncio.to_thread(self._worker.device_error)

    async def close(self) -> None:
        await self._connection.close()
        await self._worker.stop(grace=0 if self._retiring.done() else GRACE)


def _as_base64(files: Sequence[bytes]) -> list[str]:
    """Files as the engine takes them; a large one takes tenths of a second."""
    return [base64.b64encode(file).decode() for file in files]
