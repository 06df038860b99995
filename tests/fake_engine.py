#!/usr/bin/env python3
"""A llama-server that only pretends: its command line and its HTTP, without a model. Standard library only.

It does what words in the prompt say (`!tokens=5 !crash-after=3`, see `Answer`), and at load what the file
`fake_engine.json` in the home folder says (see `load`). Everything that happens to it is written down, line by
line, in `engines/<pid>.jsonl` in the home folder, which outlives it; `GET /journal` returns the same, and can wait.
"""

import argparse
import codecs
import json
import os
import re
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, unquote_to_bytes, urlsplit

HOME = Path(os.environ.get("HOME", "."))
KEY = os.environ.get("LLAMA_API_KEY", "")
SPEED = float(os.environ.get("FAKE_ENGINE_SPEED", "1"))
PROMPT_MS, TOKEN_MS = 10.0 / SPEED, 2.0 / SPEED


def arguments(argv: list[str]) -> argparse.Namespace:
    """The options Corral gives an engine; anything else is refused, as llama-server does."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for text in (
        "host",
        "model",
        "cache-type-k",
        "cache-type-v",
        "pooling",
        "mmproj",
        "chat-template",
        "slot-save-path",
    ):
        parser.add_argument(f"--{text}", default="")
    for text, choices in (("flash-attn", "on off auto"), ("fit", "on off"), ("load-mode", "auto none mmap mlock dio")):
        parser.add_argument(f"--{text}", choices=choices.split())
    for number in ("port", "ctx-size", "parallel", "kv-unified-per-slot", "batch-size", "ubatch-size", "gpu-layers"):
        parser.add_argument(f"--{number}", type=int, default=0)
    for number in ("main-gpu", "threads", "threads-batch", "cache-ram", "image-min-tokens"):
        parser.add_argument(f"--{number}", type=int)
    parser.add_argument("--spec-type", choices=["ngram-simple"])
    for number in ("spec-ngram-simple-size-n", "spec-ngram-simple-size-m"):
        parser.add_argument(f"--{number}", type=int)
    for switch in (
        "no-webui",
        "no-repack",
        "offline",
        "kv-unified",
        "embeddings",
        "reranking",
        "context-shift",
        "no-warmup",
        "no-prefill-assistant",
    ):
        parser.add_argument(f"--{switch}", action="store_true")
    parser.add_argument("--lora", action="append", default=[])
    return parser.parse_args(argv)


class Journal:
    """What happened: one JSON object an event, in a file and in memory."""

    def __init__(self, path: Path) -> None:
        self._changed = threading.Condition()
        self._events: list[dict[str, Any]] = []
        path.parent.mkdir(exist_ok=True)
        self._file = open(path, "a")  # noqa: SIM115 - stays open as long as the process lives

    def write(self, event: str, **facts: Any) -> None:
        with self._changed:
            self._events.append({"event": event, **facts})
            self._file.write(json.dumps(self._events[-1]) + "\n")
            self._file.flush()
            self._changed.notify_all()

    def wait(self, event: str, count: int) -> list[dict[str, Any]]:
        """All events, as soon as so many of a kind are among them."""
        with self._changed:
            self._changed.wait_for(lambda: sum(item["event"] == event for item in self._events) >= count)
            return list(self._events)


class Slots:
    """Requests that generate at this moment, and the tokens they may come to hold, against the pool's size."""

    def __init__(self, slots: int, tokens: int) -> None:
        self.slots, self.tokens = slots, tokens
        self.running: dict[int, int] = {}
        self._lock = threading.Lock()

    @contextmanager
    def held(self, number: int, tokens: int, journal: Journal) -> Iterator[None]:
        with self._lock:
            self.running[number] = min(tokens, OPTIONS.kv_unified_per_slot or tokens)
            at_once, needed = len(self.running), sum(self.running.values())
        journal.write("running", number=number, at_once=at_once, tokens=needed)
        if at_once > self.slots or needed > self.tokens:
            journal.write("overflow", at_once=at_once, tokens=needed)
        try:
            yield
        finally:
            with self._lock:
                del self.running[number]


@dataclass
class Answer:
    """What the words in a prompt ask for.

    `!tokens=N` so many tokens `w1 w2 …`; `!say=a|b` just these pieces (percent-encoded), each a token, which may be
    a part of a character only, and the last of them `!times=N` times;
    `!think=…` thoughts before them and `!call=a|b` calls of tools after them (chat only),
    with `!arguments=…|…` (percent-encoded JSON) where they are not to be about Oslo;
    `!read=S` seconds for each part of a prompt that is read in parts, and for its rest until the file `go` appears;
    `!delay=S` seconds before each token; `!hold=N` waits after N tokens until the file `go` appears in the home
    folder; `!hang` and `!hang-after=N` answer nothing more; `!error=STATUS`, `!error-after=N` and `!old-error-after=N`
    refuse; `!drop=N` closes the first N connections of all that ask so, unanswered;
    `!crash` and `!crash-after=N` end the process; `!cut-after=N` drops the connection; `!nan` embeds as no
    number; `!render-hang` and `!render-grow=MIB` make the chat template hang, with so much more memory, until the file
    `rendered` appears in the home folder.
    """

    words: dict[str, str]
    pieces: list[bytes] = field(default_factory=list)
    begun: int = 0
    """How many of the pieces stand behind the prompt already."""

    @classmethod
    def to(cls, prompt: str, schema: dict[str, Any] | None = None) -> "Answer":
        """The answer to a prompt; one that has to fit a schema does, unless the words say what is to be said."""
        words = dict(re.findall(r"!([a-z-]+)(?:=([^\s!<]+))?", prompt))
        pieces = [unquote_to_bytes(piece) for piece in words["say"].split("|")] if "say" in words else []
        pieces += pieces[-1:] * (int(words.get("times", 1)) - 1)
        if schema is not None and not {"say", "tokens"} & words.keys():
            pieces = words_of(json.dumps(instance(schema), ensure_ascii=False))
        return cls(words, pieces or [f"w{number} ".encode() for number in range(1, int(words.get("tokens", 3)) + 1)])

    def after(self, tokens: list[int]) -> "Answer":
        """The same, gone on with behind those of its tokens that a prompt ends in."""
        said = [token_of(piece) for piece in self.pieces]
        begun = next((size for size in range(len(said), 0, -1) if tokens[-size:] == said[:size]), 0)
        return Answer(self.words, self.pieces, begun)

    def calls(self) -> list[tuple[str, str]]:
        """Names and arguments."""
        names = [name for name in self.words.get("call", "").split("|") if name]
        given = [unquote(one) for one in self.words["arguments"].split("|")] if "arguments" in self.words else []
        return [(name, given[place] if given else '{"city":"Oslo"}') for place, name in enumerate(names)]

    def at(self, word: str, position: int) -> bool:
        """Whether `!word-after=N` (or `!word` for the beginning) falls on this place."""
        return self.words.get(f"{word}-after") == str(position) or (position == 0 and self.words.get(word) == "")


VOCABULARY: dict[bytes, int] = {}
VOCABULARY_LOCK = threading.Lock()


def tokens_of(text: str) -> list[int]:
    """A number for each word with the blanks before it, and for each byte of a character that is not ASCII."""
    return [token_of(word) for word in words_of(text)]


def words_of(text: str) -> list[bytes]:
    return re.findall(rb"\s*[^\s\x80-\xff]+|[\x80-\xff]|\s+", text.encode())


def token_of(piece: bytes) -> int:
    """The number of a piece that is said at once."""
    with VOCABULARY_LOCK:
        return VOCABULARY.setdefault(piece, len(VOCABULARY))


def bytes_of(tokens: list[int]) -> bytes:
    words = list(VOCABULARY)
    return b"".join(words[token] for token in tokens)


def text_of(tokens: list[int]) -> str:
    return bytes_of(tokens).decode(errors="replace")


def is_whole(text: bytes) -> bool:
    """Whether a text does not end in a part of a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(text)
    return decoder.getstate()[0] == b""


def piece_json(token: int) -> dict[str, Any]:
    """A token and its text, or its bytes where they are no text."""
    piece = bytes_of([token])
    try:
        return {"id": token, "piece": piece.decode()}
    except UnicodeDecodeError:
        return {"id": token, "piece": list(piece)}


def common_length(one: list[int], other: list[int]) -> int:
    """How many tokens two lists have in common at their beginning."""
    differences = (place for place, (mine, yours) in enumerate(zip(one, other, strict=False)) if mine != yours)
    return next(differences, min(len(one), len(other)))


class Cache:
    """The tokens of the latest prompts and their answers; a prompt that begins like one of them is not read anew."""

    def __init__(self) -> None:
        self._held: deque[list[int]] = deque(maxlen=64)

    def found(self, tokens: list[int]) -> int:
        """How many tokens of a prompt are in the cache; the last one never is, since it gives the next one."""
        longest = max((common_length(held, tokens) for held in list(self._held)), default=0)
        return max(0, min(longest, len(tokens) - 1))

    def keep(self, tokens: list[int]) -> None:
        self._held.append(tokens)


CACHE = Cache()


class Refused(Exception):
    """The request is bad; the arguments are the status and the sentence of the answer."""


def check_prompt(tokens: list[int]) -> None:
    """Refuses what llama-server refuses of a prompt before it computes."""
    most = OPTIONS.kv_unified_per_slot
    if most and len(tokens) >= most:
        raise Refused(
            400,
            f"request ({len(tokens)} tokens) exceeds the available context size ({most} tokens), try increasing it",
        )


def instance(schema: dict[str, Any]) -> Any:
    """A value that fits a simple schema."""
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return instance(schema[choice][0])
    match schema.get("type"):
        case "object":
            return {name: instance(schema["properties"][name]) for name in schema.get("required", [])}
        case "array":
            return [instance(schema["items"]) for _ in range(schema.get("minItems", 0))]
        case "string":
            return "x" * schema.get("minLength", 1)
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "null":
            return None
    return True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    number = 0
    dropped = 0
    lock = threading.Lock()

    def log_message(self, format: str, *args: Any) -> None:
        if self.path != "/health":
            print(format % args, file=sys.stderr, flush=True)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/health":
            self.reply(*((200, {"status": "ok"}) if READY.is_set() else (503, error(503, "Loading model"))))
        elif not self.admitted():
            return
        elif url.path == "/journal":
            asked = parse_qs(url.query)
            self.reply(200, JOURNAL.wait(asked.get("event", [""])[0], int(asked.get("count", ["0"])[0])))
        elif url.path == "/props":
            self.reply(200, {"media_marker": "<__fake_media__>", "total_slots": OPTIONS.parallel})
        elif url.path == "/slots":
            busy = len(SLOTS.running)
            self.reply(200, [{"id": n, "is_processing": n < busy} for n in range(OPTIONS.parallel)])
        else:
            self.reply(404, error(404, "File Not Found"))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.admitted():
            return
        with Handler.lock:
            Handler.number += 1
            self.number = Handler.number
        JOURNAL.write("request", number=self.number, path=self.path, body=body)
        routes = {
            "/completion": self.completion,
            "/v1/chat/completions": self.chat,
            "/apply-template": self.apply_template,
            "/tokenize": self.tokenize,
            "/detokenize": self.detokenize,
            "/v1/embeddings": self.embeddings,
            "/v1/rerank": self.rerank,
        }
        how = "closed"
        try:
            if self.path in routes:
                routes[self.path](body)
            else:
                self.reply(404, error(404, "File Not Found"))
        except Refused as refusal:
            status, sentence = refusal.args
            self.reply(status, error(status, sentence))
            how = "done"
        except (ConnectionError, Hangup):
            self.close_connection = True
        finally:
            JOURNAL.write("ended", number=self.number, path=self.path, how=how)

    def admitted(self) -> bool:
        if KEY and self.headers.get("Authorization") != f"Bearer {KEY}":
            self.reply(401, error(401, "Invalid API Key"))
            return False
        return True

    def tokenize(self, body: dict[str, Any]) -> None:
        tokens = tokens_of(body["content"])
        self.reply(200, {"tokens": [piece_json(one) for one in tokens] if body.get("with_pieces") else tokens})

    def detokenize(self, body: dict[str, Any]) -> None:
        if any(token >= len(VOCABULARY) for token in body["tokens"]):
            raise Refused(500, f"vector::_M_range_check: __n >= this->size() (which is {len(VOCABULARY)})")
        self.reply(200, {"content": text_of(body["tokens"])})

    def completion(self, body: dict[str, Any]) -> None:
        prompt = body["prompt"]
        if isinstance(prompt, dict):
            prompt = prompt["prompt_string"]
        if prompt == []:
            raise Refused(400, '"prompt" must not be empty')
        parts = [prompt] if isinstance(prompt, str) else prompt  # tokens, perhaps behind a text
        tokens = [token for part in parts for token in (tokens_of(part) if isinstance(part, str) else [part])]
        if any(token >= len(VOCABULARY) for token in tokens):
            raise Refused(400, "Prompt contains invalid tokens")
        text = parts[0] if isinstance(parts[0], str) else text_of(tokens)
        answer = Answer.to(text, body.get("json_schema"))
        answer = answer if isinstance(prompt, str) else answer.after(tokens)
        said: list[int] = []
        with SLOTS.held(self.number, len(tokens) + body["n_predict"], JOURNAL):
            if self.refused(answer):
                return
            check_prompt(tokens)
            cached = CACHE.found(tokens) if body["cache_prompt"] else 0
            if not body["stream"]:
                self.pause(float(answer.words.get("read", 0)))
            else:
                self.begin_stream()
                for progress in self.read(body, len(tokens), cached, answer):
                    head = {"index": 0, "content": "", "tokens": [0], "stop": False, "id_slot": -1}
                    counts = {"tokens_predicted": 0, "tokens_evaluated": len(tokens)}
                    self.event({**head, **counts, "prompt_progress": progress})
                speech = Speech(self.spoken(answer, body["n_predict"]), body.get("stop", []))
                said = speech.said
                for text, token in speech:
                    event = {"index": 0, "content": text, "tokens": [token], "stop": False, "id_slot": -1}
                    if body.get("n_probs"):
                        event["completion_probabilities"] = [probability(text, token, body["n_probs"])]
                    self.event({**event, "tokens_predicted": len(said), "tokens_evaluated": len(tokens)})
            CACHE.keep([*tokens, *said])
        # The slot is free when the last event comes.
        last = {
            "index": 0,
            "content": "",
            "tokens": [],
            "stop": True,
            "timings": timings(len(tokens), len(said), cached),
        }
        if not body["stream"]:
            self.reply(200, last)
            return
        counts = {"tokens_predicted": len(said), "tokens_evaluated": len(tokens)}
        self.event({**last, **counts, "stop_type": speech.ended(answer), "stopping_word": speech.stop_word})
        self.chunk(b"")

    def chat(self, body: dict[str, Any]) -> None:
        prompt = rendered(body["messages"])
        schema = body["response_format"]["json_schema"]["schema"] if "response_format" in body else None
        tokens, answer = tokens_of(prompt), Answer.to(prompt, schema)
        with SLOTS.held(self.number, len(tokens) + body["max_tokens"], JOURNAL):
            if self.refused(answer):
                return
            check_prompt(tokens)
            self.begin_stream()
            cached = CACHE.found(tokens) if body["cache_prompt"] else 0
            for progress in self.read(body, len(tokens), cached, answer):
                self.delta({"role": "assistant", "content": None}, {"prompt_progress": progress})
            self.delta({"role": "assistant", "content": None})
            for thought in filter(None, answer.words.get("think", "").split("|")):
                self.delta({"reasoning_content": unquote(thought)})
            speech = Speech(self.spoken(answer, body["max_tokens"]), body.get("stop", []))
            for text, token in speech:
                found = [probability(text, token, body["top_logprobs"])] if body.get("logprobs") else []
                more = {"logprobs": {"content": found}} if found else {}
                if body.get("timings_per_token"):
                    more["timings"] = timings(len(tokens), len(speech.said), cached)
                if text:
                    self.delta({"content": text}, more)
            for place, (name, given) in enumerate(answer.calls()):
                call = {"index": place, "id": f"call_fake{place or ''}", "type": "function"}
                self.delta({"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]})
                for piece in (given[:8], given[8:]):
                    self.delta({"tool_calls": [{"index": place, "function": {"arguments": piece}}]})
            CACHE.keep([*tokens, *speech.said])
        is_cut = speech.ended(answer) == "limit"
        self.delta({}, finish_reason="length" if is_cut else "tool_calls" if answer.calls() else "stop")
        usage = {"prompt_tokens": len(tokens), "completion_tokens": len(speech.said)}
        usage["total_tokens"] = sum(usage.values())
        self.event({"choices": [], "usage": usage, "timings": timings(len(tokens), len(speech.said), cached)})
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def read(self, body: dict[str, Any], total: int, cached: int, answer: Answer) -> Iterator[dict[str, Any]]:
        """How far a prompt has been read, where that is asked for: at the beginning, and after each batch."""
        if body.get("return_progress"):
            yield {"total": total, "cache": cached, "processed": cached, "time_ms": 0}
            while "read" in answer.words and not (HOME / "go").exists():
                self.pause(0.01)
            for processed in [*range(cached + OPTIONS.batch_size, total, OPTIONS.batch_size), total]:
                yield {"total": total, "cache": cached, "processed": processed, "time_ms": int(PROMPT_MS)}

    def apply_template(self, body: dict[str, Any]) -> None:
        prompt = rendered(body["messages"])
        words = Answer.to(prompt).words
        grown = b"x" * (int(words.get("render-grow", 0)) << 20)
        if grown or "render-hang" in words:
            JOURNAL.write("rendering", number=self.number, bytes=len(grown))
            while not (HOME / "rendered").exists():
                time.sleep(0.01)  # like a template's run, it does not notice when the client goes away
        self.reply(200, {"prompt": prompt})

    def embeddings(self, body: dict[str, Any]) -> None:
        if not OPTIONS.embeddings:
            self.reply(501, error(501, "This server does not support embeddings. Start it with `--embeddings`"))
            return
        for text in body["input"]:
            if self.refused(Answer.to(text)):
                return
            count, most = len(tokens_of(text)), OPTIONS.ubatch_size
            if count > most:
                sentence = f"input ({count} tokens) is too large to process. increase the physical batch size"
                raise Refused(500, f"{sentence} (current batch size: {most})")
        rows = [
            {"index": place, "embedding": [None if "!nan" in text else float(len(text)), 1.0, 2.0]}
            for place, text in enumerate(body["input"])
        ]
        total = sum(len(tokens_of(text)) for text in body["input"])
        self.reply(200, {"data": rows[::-1], "usage": {"prompt_tokens": total, "total_tokens": total}})

    def rerank(self, body: dict[str, Any]) -> None:
        """The score of a document is how many words of the query it has."""
        if not OPTIONS.reranking:
            self.reply(501, error(501, "This server does not support reranking. Start it with `--reranking`"))
            return
        rows, total = [], 0
        for place, text in enumerate(body["documents"]):
            if self.refused(Answer.to(text)):
                return
            count, most = len(tokens_of(body["query"])) + len(tokens_of(text)) + 3, OPTIONS.ubatch_size
            if count > most:
                sentence = f"input ({count} tokens) is too large to process. increase the physical batch size"
                raise Refused(500, f"{sentence} (current batch size: {most})")
            total += count
            common = len(set(body["query"].split()) & set(text.split()))
            rows.append({"index": place, "relevance_score": None if "!nan" in text else float(common)})
        rows.sort(key=lambda row: row["relevance_score"] or 0.0, reverse=True)
        self.reply(200, {"results": rows, "usage": {"prompt_tokens": total, "total_tokens": total}})

    def refused(self, answer: Answer) -> bool:
        """Does what is to happen before anything is answered; true when that was all."""
        if Handler.dropped < int(answer.words.get("drop", 0)):
            Handler.dropped += 1
            raise Hangup
        if "error" in answer.words:
            status = int(answer.words["error"])
            self.reply(status, error(status, f"refused with {status}"))
            return True
        self.stumble(answer, 0, started=False)
        return False

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def spoken(self, answer: Answer, limit: int) -> Iterator[bytes]:
        for position, piece in enumerate(answer.pieces[answer.begun :][:limit], answer.begun + 1):
            self.pause(float(answer.words.get("delay", 0)))
            yield piece
            self.stumble(answer, position, started=True)
            if answer.words.get("hold") == str(position):
                JOURNAL.write("held", number=self.number)
                while not (HOME / "go").exists():
                    self.pause(0.01)

    def stumble(self, answer: Answer, position: int, *, started: bool) -> None:
        if answer.at("crash", position):
            print("error: the fake engine was told to crash", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGABRT)
            time.sleep(60)
        if answer.at("hang", position):
            JOURNAL.write("hanging", number=self.number)
            while True:
                self.pause(60)
        if started and answer.at("error", position):
            self.event(error(500, "the fake engine failed"))
            self.chunk(b"")
            raise Hangup
        if started and answer.at("old-error", position):  # how older llama-servers put it
            self.chunk(b"error: " + json.dumps(error(500, "the fake engine failed")["error"]).encode() + b"\n\n")
            self.chunk(b"")
            raise Hangup
        if answer.at("cut", position):
            raise Hangup

    def pause(self, seconds: float) -> None:
        """Waits, but notices when the client closes its side."""
        if select.select([self.connection], [], [], seconds)[0]:
            raise Hangup

    def delta(
        self, delta: dict[str, Any], more: dict[str, Any] | None = None, finish_reason: str | None = None
    ) -> None:
        """An event of a chat; `more` may hold log probabilities and timings."""
        event = dict(more or {})
        probabilities = {"logprobs": event.pop("logprobs")} if "logprobs" in event else {}
        self.event(
            {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, **probabilities}], **event}
        )

    def event(self, event: dict[str, Any]) -> None:
        self.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def reply(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Hangup(Exception):
    """The connection ends here."""


def error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "type": "fake_error"}}


class Speech:
    """Pieces that are said until a stop word: iterating gives the text that may be sent and the token it ends with.

    As with llama-server, a token that ends within a character is not reported at all; what may be the beginning of a
    stop word is kept back until it is known not to be, and what is kept back when the answer ends is lost.
    """

    def __init__(self, pieces: Iterator[bytes], stop: list[str]) -> None:
        self.said: list[int] = []
        self.stop_word = ""
        self._pieces, self._stop = pieces, stop

    def __iter__(self) -> Iterator[tuple[str, int]]:
        kept = b""
        for piece in self._pieces:
            self.said.append(token_of(piece))
            kept += piece
            if not is_whole(kept):
                continue
            text = kept.decode(errors="replace")
            found = [(text.index(word), word) for word in self._stop if word in text]
            if found:
                place, self.stop_word = min(found)
                yield text[:place], self.said[-1]
                return
            if any(text.endswith(word[:size]) for word in self._stop for size in range(1, len(word))):
                yield "", self.said[-1]
            else:
                yield text, self.said[-1]
                kept = b""

    def ended(self, answer: Answer) -> str:
        """Why, in llama-server's words."""
        return "word" if self.stop_word else "limit" if len(answer.pieces) > answer.begun + len(self.said) else "eos"


def timings(prompt: int, said: int, cached: int) -> dict[str, Any]:
    read = {"cache_n": cached, "prompt_n": prompt - cached, "prompt_ms": PROMPT_MS}
    return {**read, "predicted_n": said, "predicted_ms": said * TOKEN_MS}


def probability(text: str, token: int, count: int) -> dict[str, Any]:
    """A token's, beside the text that was sent with it; only the alternatives have the token's own bytes."""
    own = bytes_of([token])
    same = {"id": token, "token": own.decode(errors="replace"), "bytes": list(own), "logprob": -0.25}
    other = {"id": 1 << 20, "token": "other", "bytes": list(b"other"), "logprob": -1.5}
    sent = {"id": token, "token": text, "bytes": list(text.encode()), "logprob": -0.25}
    return {**sent, "top_logprobs": [same, other][:count]}


def rendered(messages: list[dict[str, Any]]) -> str:
    """A template of its own: `<role>content` for each message."""
    return "".join(f"<{message['role']}>{plain(message.get('content') or '')}" for message in messages) + "<assistant>"


def plain(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "<__fake_media__>") for part in content)


def read_orders() -> dict[str, Any]:
    """What `fake_engine.json` says; `model` in it restricts that to files whose path contains the text, `own_template`
    to engines that run the file's own chat template."""
    try:
        orders: dict[str, Any] = json.loads((HOME / "fake_engine.json").read_text())
    except FileNotFoundError:
        return {}
    if orders.get("own_template") and OPTIONS.chat_template:
        return {}
    return orders if orders.get("model", "") in OPTIONS.model else {}


def load(orders: dict[str, Any]) -> None:
    """Loads as `orders` say.

    `loads_when`: a file of the home folder that must appear first; `prints`: lines until then. `spins_after`: text
    printed before it computes for ever, as a chat template may that is tried at load. `fails`: text printed
    before it exits with status 1; `fails_above_context`: only with a pool larger than that; `fails_times`: only the
    first so many engines. `crashes`: it aborts. `never_healthy`: it goes on loading for ever. `ignores_sigterm`: only
    SIGKILL ends it.
    """
    JOURNAL.write("loading", pid=os.getpid())
    if gate := orders.get("loads_when"):
        while not (HOME / gate).exists():
            if orders.get("prints"):
                print("loading tensors", file=sys.stderr, flush=True)
            time.sleep(0.01)
    if text := orders.get("spins_after"):
        print(text, file=sys.stderr, flush=True)
        while True:
            pass
    earlier = len(list((HOME / "engines").glob("*.jsonl"))) - 1
    too_large = OPTIONS.ctx_size > orders.get("fails_above_context", 0)
    if "fails" in orders and too_large and earlier < orders.get("fails_times", 1 << 30):
        print(orders["fails"], file=sys.stderr, flush=True)
        os._exit(1)
    if orders.get("crashes"):
        os.abort()
    if not orders.get("never_healthy"):
        READY.set()
        JOURNAL.write("ready")


if __name__ == "__main__":
    if sys.argv[1:] == ["--version"]:
        print("version: 7 (fake)")
        sys.exit()
    OPTIONS = arguments(sys.argv[1:])
    READY = threading.Event()
    JOURNAL = Journal(HOME / "engines" / f"{os.getpid()}.jsonl")
    SLOTS = Slots(OPTIONS.parallel, OPTIONS.ctx_size)
    ORDERS = read_orders()
    if ORDERS.get("ignores_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer((OPTIONS.host, OPTIONS.port), Handler)
    facts = {"port": OPTIONS.port, "key": KEY, "options": vars(OPTIONS), "environ": dict(os.environ)}
    JOURNAL.write("started", pid=os.getpid(), at=time.time(), **facts)
    threading.Thread(target=load, args=(ORDERS,), daemon=True).start()
    server.serve_forever()
