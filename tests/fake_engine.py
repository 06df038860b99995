#!/usr/bin/env python3
"""A llama-server that only pretends: its command line and its HTTP, without a model. Standard library only.

It does what words in the prompt tell it (`!tokens=5 !crash-after=3`, see `Answer`), and at load what the file
`fake_engine.json` in the home folder tells it (see `load`). Everything that happens to it is written down, line by
line, in `engines/<pid>.jsonl` in the home folder, which outlives it; `GET /journal` returns the same, and can wait.
"""

import argparse
import json
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

HOME = Path(os.environ.get("HOME", "."))
KEY = os.environ.get("LLAMA_API_KEY", "")
PROMPT_MS, TOKEN_MS = 10.0, 2.0


def arguments(argv: list[str]) -> argparse.Namespace:
    """The options Corral gives an engine; anything else is refused, as llama-server does."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for text in ("host", "model", "cache-type-k", "cache-type-v", "pooling", "mmproj", "chat-template"):
        parser.add_argument(f"--{text}", default="")
    for text, choices in (("flash-attn", "on off auto"), ("fit", "on off"), ("load-mode", "auto none mmap mlock dio")):
        parser.add_argument(f"--{text}", choices=choices.split())
    for number in ("port", "ctx-size", "parallel", "kv-unified-per-slot", "batch-size", "ubatch-size", "gpu-layers"):
        parser.add_argument(f"--{number}", type=int, default=0)
    for number in ("main-gpu", "threads", "threads-batch", "cache-ram", "image-min-tokens"):
        parser.add_argument(f"--{number}", type=int)
    for switch in ("no-webui", "offline", "kv-unified", "embeddings", "context-shift", "no-warmup"):
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

    `!tokens=N` so many tokens `w1 w2 …`; `!say=a|b` just these pieces (percent-encoded); `!think=…` thoughts before
    them and `!call=name` a tool call after them (chat only); `!delay=S` seconds before each token; `!hold=N` waits
    after N tokens until the file `go` appears in the home folder; `!hang` and `!hang-after=N` answer nothing more;
    `!error=STATUS`, `!error-after=N` and `!old-error-after=N` refuse; `!crash` and `!crash-after=N` end the process;
    `!cut-after=N` drops the connection; `!nan` embeds as no number; `!render-hang` and `!render-grow=MIB` make the
    chat template hang, with so much more memory, until the file `rendered` appears in the home folder.
    """

    words: dict[str, str]
    pieces: list[str] = field(default_factory=list)

    @classmethod
    def to(cls, prompt: str) -> "Answer":
        words = dict(re.findall(r"!([a-z-]+)(?:=([^\s!<]+))?", prompt))
        pieces = [unquote(piece) for piece in words["say"].split("|")] if "say" in words else []
        return cls(words, pieces or [f"w{number} " for number in range(1, int(words.get("tokens", 3)) + 1)])

    def at(self, word: str, position: int) -> bool:
        """Whether `!word-after=N` (or `!word` for the beginning) falls on this place."""
        return self.words.get(f"{word}-after") == str(position) or (position == 0 and self.words.get(word) == "")


VOCABULARY: dict[str, int] = {}
VOCABULARY_LOCK = threading.Lock()


def tokens_of(text: str) -> list[int]:
    """A number for each word with the blanks before it."""
    with VOCABULARY_LOCK:
        return [VOCABULARY.setdefault(word, len(VOCABULARY)) for word in re.findall(r"\s*\S+|\s+\Z", text)]


def text_of(tokens: list[int]) -> str:
    words = list(VOCABULARY)
    return "".join(words[token] for token in tokens)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    number = 0
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
            "/tokenize": lambda body: self.reply(200, {"tokens": tokens_of(body["content"])}),
            "/detokenize": lambda body: self.reply(200, {"content": text_of(body["tokens"])}),
            "/v1/embeddings": self.embeddings,
        }
        how = "closed"
        try:
            if self.path in routes:
                routes[self.path](body)
            else:
                self.reply(404, error(404, "File Not Found"))
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

    def completion(self, body: dict[str, Any]) -> None:
        prompt = body["prompt"]
        if isinstance(prompt, dict):
            prompt = prompt["prompt_string"]
        tokens = tokens_of(prompt) if isinstance(prompt, str) else prompt
        answer = Answer.to(prompt if isinstance(prompt, str) else text_of(prompt))
        with SLOTS.held(self.number, len(tokens) + body["n_predict"], JOURNAL):
            if not body["stream"]:
                if self.refused(answer, headers=False):
                    return
                self.reply(200, {"content": "", "stop": True, "timings": timings(len(tokens), 0)})
                return
            if self.refused(answer):
                return
            said = 0
            for position, piece in enumerate(self.spoken(answer, body["n_predict"]), 1):
                event = {"index": 0, "content": piece, "tokens": tokens_of(piece), "stop": False, "id_slot": -1}
                if body.get("n_probs"):
                    event["completion_probabilities"] = [probability(piece, body["n_probs"])]
                self.event({**event, "tokens_predicted": position, "tokens_evaluated": len(tokens)})
                said = position
            self.event(
                {
                    "index": 0,
                    "content": "",
                    "tokens": [],
                    "stop": True,
                    "stop_type": "limit" if len(answer.pieces) > said else "eos",
                    "tokens_predicted": said,
                    "tokens_evaluated": len(tokens),
                    "timings": timings(len(tokens), said),
                }
            )
            self.chunk(b"")

    def chat(self, body: dict[str, Any]) -> None:
        prompt = rendered(body["messages"])
        tokens, answer = tokens_of(prompt), Answer.to(prompt)
        with SLOTS.held(self.number, len(tokens) + body["max_tokens"], JOURNAL):
            if self.refused(answer):
                return
            self.delta({"role": "assistant", "content": None})
            for thought in filter(None, answer.words.get("think", "").split("|")):
                self.delta({"reasoning_content": unquote(thought)})
            said = 0
            for piece in self.spoken(answer, body["max_tokens"]):
                logprobs = {"content": [probability(piece, body["top_logprobs"])]} if body.get("logprobs") else None
                self.delta({"content": piece}, logprobs=logprobs)
                said += 1
            if name := answer.words.get("call"):
                call = {"index": 0, "id": "call_fake", "type": "function"}
                self.delta({"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]})
                self.delta({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]})
                self.delta({"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]})
            self.delta({}, finish_reason="length" if len(answer.pieces) > said else "stop")
            usage = {"prompt_tokens": len(tokens), "completion_tokens": said, "total_tokens": len(tokens) + said}
            self.event({"choices": [], "usage": usage, "timings": timings(len(tokens), said)})
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")

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
            if self.refused(Answer.to(text), headers=False):
                return
        rows = [
            {"index": place, "embedding": [None if "!nan" in text else float(len(text)), 1.0, 2.0]}
            for place, text in enumerate(body["input"])
        ]
        total = sum(len(tokens_of(text)) for text in body["input"])
        self.reply(200, {"data": rows[::-1], "usage": {"prompt_tokens": total, "total_tokens": total}})

    def refused(self, answer: Answer, *, headers: bool = True) -> bool:
        """Does what is to happen before anything is answered; true when that was all."""
        if "error" in answer.words:
            status = int(answer.words["error"])
            self.reply(status, error(status, f"refused with {status}"))
            return True
        self.stumble(answer, 0, started=False)
        if headers:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
        return False

    def spoken(self, answer: Answer, limit: int) -> Iterator[str]:
        for position, piece in enumerate(answer.pieces[:limit], 1):
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
        self, delta: dict[str, Any], finish_reason: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> None:
        more = {"logprobs": logprobs} if logprobs else {}
        self.event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, **more}]})

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


def timings(prompt: int, said: int) -> dict[str, Any]:
    read = {"cache_n": 0, "prompt_n": prompt, "prompt_ms": PROMPT_MS}
    return {**read, "predicted_n": said, "predicted_ms": said * TOKEN_MS}


def probability(token: str, count: int) -> dict[str, Any]:
    same = {"id": 1, "token": token, "bytes": list(token.encode()), "logprob": -0.25}
    other = {"id": 2, "token": "other", "bytes": list(b"other"), "logprob": -1.5}
    return {**same, "top_logprobs": [same, other][:count]}


def rendered(messages: list[dict[str, Any]]) -> str:
    """A template of its own: `<role>content` for each message."""
    return "".join(f"<{message['role']}>{plain(message.get('content') or '')}" for message in messages) + "<assistant>"


def plain(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "<__fake_media__>") for part in content)


def orders() -> dict[str, Any]:
    """What `fake_engine.json` says; `model` in it restricts that to files whose path contains the text."""
    try:
        told: dict[str, Any] = json.loads((HOME / "fake_engine.json").read_text())
    except FileNotFoundError:
        return {}
    return told if told.get("model", "") in OPTIONS.model else {}


def load(told: dict[str, Any]) -> None:
    """Loads as it was told.

    `loads_when`: a file of the home folder that must appear first; `prints`: lines until then. `spins_after`: text
    printed before it computes for ever, as a chat template may that is tried at load. `fails`: text printed
    before it exits with status 1; `fails_above_context`: only with a pool larger than that; `fails_times`: only the
    first so many engines. `never_healthy`: it goes on loading for ever. `ignores_sigterm`: only SIGKILL ends it.
    """
    JOURNAL.write("loading", pid=os.getpid())
    if gate := told.get("loads_when"):
        while not (HOME / gate).exists():
            if told.get("prints"):
                print("loading tensors", file=sys.stderr, flush=True)
            time.sleep(0.01)
    if text := told.get("spins_after"):
        print(text, file=sys.stderr, flush=True)
        while True:
            pass
    earlier = len(list((HOME / "engines").glob("*.jsonl"))) - 1
    too_large = OPTIONS.ctx_size > told.get("fails_above_context", 0)
    if "fails" in told and too_large and earlier < told.get("fails_times", 1 << 30):
        print(told["fails"], file=sys.stderr, flush=True)
        os._exit(1)
    if not told.get("never_healthy"):
        READY.set()
        JOURNAL.write("ready")


if __name__ == "__main__":
    OPTIONS = arguments(sys.argv[1:])
    READY = threading.Event()
    JOURNAL = Journal(HOME / "engines" / f"{os.getpid()}.jsonl")
    SLOTS = Slots(OPTIONS.parallel, OPTIONS.ctx_size)
    TOLD = orders()
    if TOLD.get("ignores_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer((OPTIONS.host, OPTIONS.port), Handler)
    facts = {"port": OPTIONS.port, "key": KEY, "options": vars(OPTIONS), "environ": dict(os.environ)}
    JOURNAL.write("started", pid=os.getpid(), at=time.time(), **facts)
    threading.Thread(target=load, args=(TOLD,), daemon=True).start()
    server.serve_forever()
