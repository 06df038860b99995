"""Load and soak: many clients for a long time, each answer held against its own question, and what is left afterwards.

    python benchmarks/soak.py [--minutes 5] [--clients 200] [--model MODEL.gguf] [--rough] [--growth 10] [--server URL]

Starts a server on a fresh store, with the fake engine of the tests or, with a chat model's file, with the real one.
Each client asks its next question as soon as it has an answer: the prompt is a number of its own, repeated, which
the answer has to go on with (the fake engine is told what to say). With `--rough` clients also leave in the middle of
answers, change between three models of which two may be loaded, and send what is wrong. Every 20 seconds a line says
how it goes.

There are two rounds, a short one to warm up and one of so many minutes. At the end of each, more clients come at once
than may wait: each gets its answer, or 503 with `Retry-After`. Then all leave, and what the server holds is held
against what it held after the first round: memory of server and workers (proportional set size; with the fake engine
only the server's, since it keeps a journal) may have grown by so many per cent, a worker's by its prompt cache, too;
open files, processes, running and waiting requests not at all. `--server` takes one that runs already, with the model
`soak-0`, and looks at its answers only. Ends with 1 when anything was wrong.
"""

import argparse
import asyncio
import itertools
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
from measuring import header

sys.path.insert(0, str(Path(__file__).parent.parent))

from corral import names
from corral.engine.llama.launch import CACHE_RAM_MIB
from corral.models import assemble
from corral.store import Store
from tests.tiny_models import tiny_llama

ROOT = Path(__file__).parent.parent
BEYOND = 150
"""Clients that come at the end beside those that may wait, of whom some are answered at once."""
WARMUP = 0.2
"""Length of the first round, as a part of the second; a minute at most."""
REPORT_SECONDS = 20.0
SETTLE_SECONDS = 4.0
BAD = (
    ("/api/generate", b"{"),
    ("/api/generate", b'{"model":"no-such-model","prompt":"x"}'),
    ("/api/chat", b'{"model":"soak-0","messages":7}'),
    ("/api/generate", b'{"model":"soak-0","options":{"temperature":1e400}}'),
    ("/v1/chat/completions", b'{"model":"soak-0","messages":[{"role":"user","content":"x"}],"n":99}'),
    ("/api/embed", b"[" * 5000),
    ("/api/nothing", b""),
)


@dataclass
class Tally:
    """What happened. `wrong`: sentences about what should not have."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def is_wrong(self, sentence: str) -> None:
        self.counts["wrong"] += 1
        if len(self.wrong) < 20:
            self.wrong.append(sentence)
            print(f"WRONG: {sentence}", flush=True)


class Subject:
    """The server under test: how it is asked, and what of its answers is right."""

    def __init__(
        self, url: str, models: list[str], process: psutil.Process | None, *, queue: int, is_fake: bool
    ) -> None:
        self.url = url
        self.queue = queue
        self.models = models
        self.process = process
        self.is_fake = is_fake

    def question(self, model: str, number: int, tokens: int = 8) -> dict[str, Any]:
        """A request whose answer can be told from all others'."""
        text = str(number)
        say = f"!say={'|'.join([text[:3], text[3:]] * 3)} !delay=0.01"
        options = {"temperature": 0, "num_predict": tokens, "num_ctx": 512}
        prompt = say if self.is_fake else " ".join([text] * 6)
        return {"model": model, "prompt": prompt, "raw": True, "options": options}

    def fits(self, number: int, answer: str) -> bool:
        """Whether an answer goes on with the number, the last time perhaps only with its beginning."""
        text = str(number)
        if self.is_fake:
            return answer == text * 3
        *whole, last = answer.split() or [""]
        return bool(whole) and all(word == text for word in whole) and text.startswith(last)


class Clients:
    """All clients, who share one set of connections."""

    def __init__(self, subject: Subject, session: aiohttp.ClientSession, tally: Tally, until: float) -> None:
        self._subject = subject
        self._session = session
        self._tally = tally
        self._until = until
        self._numbers = itertools.cycle(random.sample(range(10_000, 100_000), 90_000))

    async def load(self, place: int) -> None:
        while time.monotonic() < self._until:
            await self.ask(self._subject.models[0])

    async def rough(self, place: int) -> None:
        chance = random.Random(place)
        while time.monotonic() < self._until:
            model = chance.choices(self._subject.models, [6, *[1] * (len(self._subject.models) - 1)])[0]
            what = chance.random()
            if what < 0.65:
                await self.ask(model)
            elif what < 0.85:
                await self.leave(model, chance.random())
            else:
                await self.send_nonsense(*chance.choice(BAD))

    async def ask(self, model: str) -> None:
        """One question, streamed as often as not; the answer has to be its own."""
        number = next(self._numbers)
        body = {**self._subject.question(model, number), "stream": bool(number % 2)}
        try:
            async with self._session.post("/api/generate", json=body) as response:
                lines = [msgspec.json.decode(line) for line in (await response.read()).splitlines()]
                if response.status == 503 and response.headers.get("Retry-After", "").isdigit():
                    self._tally.counts["503 with Retry-After"] += 1
                    return
        except (aiohttp.ClientError, OSError) as error:
            self._tally.is_wrong(f"no answer for {number}: {error!r}")
            return
        text = "".join(line.get("response", "") for line in lines)
        if response.status != 200 or not lines[-1].get("done") or not self._subject.fits(number, text):
            self._tally.is_wrong(f"{number} was answered with {response.status}: {text or lines!r}")
        else:
            self._tally.counts["right answers"] += 1

    async def leave(self, model: str, moment: float) -> None:
        """Goes away after so many seconds, wherever the answer is then."""
        body = self._subject.question(model, next(self._numbers), tokens=200)
        try:
            async with asyncio.timeout(moment), self._session.post("/api/generate", json=body) as response:
                await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass
        self._tally.counts["clients that left"] += 1

    async def send_nonsense(self, path: str, body: bytes) -> None:
        try:
            async with self._session.post(path, data=body) as response:
                await response.read()
        except (aiohttp.ClientError, OSError) as error:
            self._tally.is_wrong(f"{path} did not answer {body[:40]!r}: {error!r}")
            return
        if response.status not in (400, 404):
            self._tally.is_wrong(f"{path} answered {body[:40]!r} with {response.status}")
        self._tally.counts["bad requests refused"] += 1


@dataclass(frozen=True)
class State:
    """What a server holds. Memory in bytes; the workers' is 0 where it does not count."""

    server_memory: int
    worker_memory: int
    files: int
    workers: int

    @classmethod
    def of(cls, subject: Subject) -> "State":
        assert subject.process is not None
        workers = subject.process.children(recursive=True)
        memory = 0 if subject.is_fake else sum(map(proportional_memory, workers))
        server_memory = proportional_memory(subject.process)
        return cls(server_memory, memory, subject.process.num_fds(), len(workers))

    def __str__(self) -> str:
        memory = f"server {self.server_memory / 2**20:.1f} MiB, workers {self.worker_memory / 2**20:.1f} MiB"
        return f"{memory}, {self.files} open files, {self.workers} workers"


def proportional_memory(process: psutil.Process) -> int:
    """Its own memory and its share of what it has in common with others; 0 when it has just ended."""
    try:
        full = process.memory_full_info()
    except psutil.Error:
        return 0
    return int(getattr(full, "pss", full.rss))


async def run(subject: Subject, clients: int, minutes: float, *, rough: bool, growth: float) -> Tally:
    tally = Tally()
    await play(subject, clients, min(minutes * WARMUP, 1), tally, rough=rough)
    before = State.of(subject) if subject.process is not None else None
    await play(subject, clients, minutes, tally, rough=rough)
    if before is not None:
        after = State.of(subject)
        print(f"after the warm-up: {before}\nin the end:        {after}")
        compare(before, after, tally, growth)
        await look_at_gauges(subject, tally)
    return tally


async def play(subject: Subject, clients: int, minutes: float, tally: Tally, *, rough: bool) -> None:
    """One round, from the first client to some seconds after the last."""
    began = time.monotonic()
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=900)
    async with aiohttp.ClientSession(subject.url, connector=connector, timeout=timeout) as session:
        everyone = Clients(subject, session, tally, began + minutes * 60)
        for model in subject.models:
            await everyone.ask(model)
        reporting = asyncio.create_task(report(subject, tally, began))
        await asyncio.gather(*((everyone.rough if rough else everyone.load)(place) for place in range(clients)))
        reporting.cancel()
        print(f"after {time.monotonic() - began:.0f} s: {dict(tally.counts)}", flush=True)
        await come_at_once(everyone, subject, tally)
    await asyncio.sleep(SETTLE_SECONDS)


async def report(subject: Subject, tally: Tally, began: float) -> None:
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        state = f"; {State.of(subject)}" if subject.process is not None else ""
        print(f"{time.monotonic() - began:6.0f} s  {dict(tally.counts)}{state}", flush=True)


async def come_at_once(everyone: Clients, subject: Subject, tally: Tally) -> None:
    """More clients than may wait: nobody is lost, and those who are sent away are told when to come again."""
    before = tally.counts["503 with Retry-After"]
    clients = subject.queue + BEYOND
    await asyncio.gather(*(everyone.ask(subject.models[0]) for _ in range(clients)))
    refused = tally.counts["503 with Retry-After"] - before
    print(f"{clients} at once: {refused} were refused with 503 and Retry-After, the others answered", flush=True)
    if not refused:
        tally.is_wrong("nobody was refused, though more came than may wait")


def compare(before: State, after: State, tally: Tally, growth: float) -> None:
    for name, cache in (("server_memory", 0), ("worker_memory", CACHE_RAM_MIB << 20)):
        first, last = getattr(before, name), getattr(after, name)
        if last > first * (1 + growth / 100) + cache:
            tally.is_wrong(f"{name} grew from {first >> 20} MiB to {last >> 20} MiB")
    for name in ("files", "workers"):
        if getattr(after, name) > getattr(before, name):
            tally.is_wrong(f"{getattr(after, name)} {name} are left of {getattr(before, name)}")


async def look_at_gauges(subject: Subject, tally: Tally) -> None:
    async with aiohttp.ClientSession(subject.url) as session, session.get("/metrics") as response:
        series = await response.text()
    for gauge in ("corral_num_requests_running", "corral_num_requests_waiting"):
        if left := sum(map(float, re.findall(rf"^{gauge}(?:\{{[^}}]*\}})? (\S+)$", series, re.MULTILINE))):
            tally.is_wrong(f"{gauge} is {left:g} when nobody asks anything")


@contextmanager
def started(model: Path | None, queue: int, *, rough: bool) -> Iterator[Subject]:
    """A server of this tree on a fresh store, with one model, or with three where they are to change."""
    with tempfile.TemporaryDirectory(prefix="corral-soak-") as folder:
        home = Path(folder)
        models = fill(home, model, 3 if rough else 1)
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("OLLAMA_", "CORRAL_"))},
            "HOME": folder,
            "CORRAL_STATE": str(home / "state"),
            "OLLAMA_HOST": "127.0.0.1:0",
            "OLLAMA_MAX_QUEUE": str(queue),
            "OLLAMA_MAX_LOADED_MODELS": "2",
            "CORRAL_SPARE_WORKER": "0",
            # A fake engine is a script, which runs under this interpreter and keeps a journal in its home folder.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "CORRAL_WORKER_FOLDERS": folder,
            **({} if model else {"CORRAL_ENGINE": str(ROOT / "tests" / "fake_engine.py")}),
        }
        log = home / "serve.log"
        with log.open("w") as output:
            command = [sys.executable, "-m", "corral", "serve"]
            process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=output)
        try:
            while not (found := re.search(r"Listening on (\S+)", log.read_text())):
                if process.poll() is not None:
                    sys.exit(f"the server ended: {log.read_text()}")
                time.sleep(0.05)
            yield Subject(f"http://{found[1]}", models, psutil.Process(process.pid), queue=queue, is_fake=model is None)
            if "Traceback" in log.read_text():
                sys.exit(f"the server's log has a trace: {log.read_text()[-4000:]}")
        finally:
            process.terminate()
            process.wait()


def fill(home: Path, model: Path | None, count: int) -> list[str]:
    """The first model is the one that was given; those to change to are tiny."""
    store = Store(home / ".ollama" / "models")
    made = []
    for number in range(count):
        if model is not None:
            file = home / f"{number}.gguf"
            file.write_bytes(model.read_bytes() + bytes(number))  # another file to the store, the same to the engine
        else:
            file = tiny_llama(home / f"{number}.gguf", seed=number)
        made.append(f"soak-{number}")
        assemble.write_model(names.parse(made[-1]), assemble.assemble({file.name: file}, store), store)
    return made


async def main(given: argparse.Namespace) -> int:
    print(header(), end="\n\n", flush=True)
    options: dict[str, Any] = {"rough": given.rough, "growth": given.growth}
    if given.server:
        subject = Subject(given.server, ["soak-0"], None, queue=given.queue, is_fake=given.model is None)
        tally = await run(subject, given.clients, given.minutes, **options)
    else:
        with started(given.model, given.queue, rough=given.rough) as subject:
            tally = await run(subject, given.clients, given.minutes, **options)
    print(f"\n{dict(tally.counts)}")
    print("\n".join(tally.wrong) if tally.wrong else "nothing was wrong")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=5.0)
    arguments.add_argument("--clients", type=int, default=200)
    arguments.add_argument("--queue", type=int, default=512)
    arguments.add_argument("--model", type=Path, help="a chat model's GGUF file; without: the tests' fake engine")
    arguments.add_argument("--rough", action="store_true", help="with clients that leave, change models, send nonsense")
    arguments.add_argument("--server", default="", help="the address of a server that runs already")
    arguments.add_argument("--growth", type=float, default=10.0, help="per cent that memory may grow by")
    sys.exit(asyncio.run(main(arguments.parse_args())))
