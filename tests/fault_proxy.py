"""A proxy in front of a registry that breaks things on request: a program of its own, controlled over HTTP.

It listens at two addresses. The first is the registry's; the second, "elsewhere", stands for the hosts a registry sends
its clients on to. `PUT /_faults/rules` sets the rules, `GET /_faults/log` gives what was asked and sent, `GET
/_faults/held?count=N` answers once rules hold N answers back and `POST /_faults/release` lets them go on.

A rule is an object: `method` and `path` (a regular expression) and `at` ("registry" or "elsewhere") say which requests
it is for; `skip` lets the first few pass and `times` is how many it then strikes. What it does:

    hold                    answers only when released
    status, body            answers so, instead of the registry
    headers                 go over the answer's own; null: without that header
    forward                 asks this server instead of the registry
    with                    adds these headers to the request
    redirect                answers 307 to this URL; "elsewhere": to the same path there
    cut_after               breaks the connection after so many bytes of the body
    cut_request_after       breaks the connection after so many bytes of the request's body
    stall_after, hold_after goes silent after so many bytes: for ever, or until released
    hold_at                 holds back everything once so many bytes were sent in all
    corrupt_at              changes the byte there
    ignore_range            asks the registry for all of it
    endless                 never ends the body
    silent                  never answers
    uploads                 takes parts of uploads "elsewhere", as Ollama's registry does
"""

import argparse
import asyncio
import hashlib
import itertools
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

CHUNK = 16 << 10
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "expect"}


class Proxy:
    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.elsewhere = ""
        self.rules: list[dict[str, Any]] = []
        self.log: list[dict[str, Any]] = []
        self.sent = 0
        self.held = 0
        self.held_more = asyncio.Condition()
        self.released = asyncio.Event()
        self.parts: dict[str, dict[int, bytes]] = {}
        self.session: aiohttp.ClientSession | None = None

    # What the test says

    async def control(self, request: web.Request) -> web.StreamResponse:
        match request.method, request.match_info["what"]:
            case "PUT", "rules":
                self.rules = [{**rule, "seen": 0} for rule in await request.json()]
                self.log.clear()
                self.held = 0
                self.released.clear()
                self.sent = 0
            case "PUT", "upstream":
                self.upstream = (await request.text()).rstrip("/")
            case "GET", "log":
                return web.json_response(self.log)
            case "GET", "held":
                count = int(request.query.get("count", "1"))
                async with self.held_more:
                    await self.held_more.wait_for(lambda: self.held >= count)
            case "POST", "release":
                self.released.set()
            case _:
                raise web.HTTPNotFound
        return web.Response()

    # What the client sees

    async def serve(self, request: web.Request, at: str) -> web.StreamResponse:
        rule = self.choose(request, at)
        entry = {
            "at": at,
            "method": request.method,
            "path": request.path_qs,
            "range": request.headers.get("Range", ""),
            "headers": dict(request.headers),
            "time": time.monotonic(),
            "status": 0,
            "sent": 0,
        }
        self.log.append(entry)
        response: web.StreamResponse = web.Response()
        if "hold" in rule:
            await self.hold()
            await self.released.wait()
        if "uploads" in rule or (at == "elsewhere" and "/_parts/" in request.path):
            response = await self.take_part(request)
        elif "silent" in rule:
            await self.hold()
            await asyncio.Event().wait()
        elif "redirect" in rule:
            target = self.elsewhere + request.path_qs if rule["redirect"] == "elsewhere" else rule["redirect"]
            response = web.Response(status=307, headers={"Location": target})
        elif "status" in rule:
            headers = {name: value for name, value in rule.get("headers", {}).items() if value is not None}
            response = web.Response(status=rule["status"], text=rule.get("body", ""), headers=headers)
        else:
            try:
                response = await self.forward(request, rule, entry)
            except (ConnectionResetError, aiohttp.ClientError):
                return web.Response()  # it reaches no client: the connection is broken
        entry["status"] = response.status
        return response

    def choose(self, request: web.Request, at: str) -> dict[str, Any]:
        for rule in self.rules:
            wanted = rule.get("method", request.method) == request.method and rule.get("at", at) == at
            if wanted and re.search(rule.get("path", ""), request.path_qs):
                rule["seen"] += 1
                skip = rule.get("skip", 0)
                if skip < rule["seen"] <= skip + rule.get("times", 10**9):
                    return rule
        return {}

    async def forward(self, request: web.Request, rule: dict[str, Any], entry: dict[str, Any]) -> web.StreamResponse:
        assert self.session is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        if rule.get("ignore_range"):
            headers.pop("Range", None)
        data = self.upload(request, rule) if request.can_read_body else None
        headers.update(rule.get("with", {}))
        path = request.raw_path if request.raw_path.startswith("/") else f"/{request.raw_path.split('/', 3)[3]}"
        url = rule.get("forward", self.upstream) + path
        if "endless" in rule:
            return await self.send_endless(request, entry)
        async with self.session.request(
            request.method, URL(url, encoded=True), headers=headers, data=data, allow_redirects=False
        ) as answer:
            return await self.pass_on(request, answer, rule, entry)

    async def upload(self, request: web.Request, rule: dict[str, Any]) -> AsyncIterator[bytes]:
        left = rule.get("cut_request_after", sys.maxsize)
        async for chunk in request.content.iter_chunked(CHUNK):
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                assert request.transport is not None
                request.transport.abort()
                raise ConnectionResetError

    async def pass_on(
        self, request: web.Request, answer: aiohttp.ClientResponse, rule: dict[str, Any], entry: dict[str, Any]
    ) -> web.StreamResponse:
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        for name, value in rule.get("headers", {}).items():
            headers = {key: old for key, old in headers.items() if key.lower() != name.lower()}
            if value is not None:
                headers[name] = value
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        entry["status"] = answer.status
        position = 0
        async for chunk in answer.content.iter_chunked(CHUNK):
            for fragment, deed in self.fragments(chunk, position, rule):
                await self.do(deed, request)
                await response.write(fragment)
                position += len(fragment)
                entry["sent"] += len(fragment)
                self.sent += len(fragment)
        await response.write_eof()
        return response

    def fragments(self, chunk: bytes, position: int, rule: dict[str, Any]) -> list[tuple[bytes, str]]:
        """The chunk cut where something is to happen, with what is to happen before each fragment."""
        if position <= rule.get("corrupt_at", -1) < position + len(chunk):
            index = rule["corrupt_at"] - position
            chunk = chunk[:index] + bytes([chunk[index] ^ 0xFF]) + chunk[index + 1 :]
        cuts = {position: ""}
        for deed in ("cut_after", "stall_after", "hold_after"):
            if deed in rule and position <= rule[deed] < position + len(chunk):
                cuts[rule[deed]] = deed
        if "hold_at" in rule and self.sent + len(chunk) > rule["hold_at"]:
            cuts[max(position, rule["hold_at"] - self.sent + position)] = "hold_at"
        edges = [*sorted(cuts), position + len(chunk)]
        return [(chunk[start - position : end - position], cuts[start]) for start, end in itertools.pairwise(edges)]

    async def do(self, deed: str, request: web.Request) -> None:
        if deed == "cut_after":
            assert request.transport is not None
            request.transport.close()
            raise ConnectionResetError
        if deed == "stall_after":
            await self.hold()
            await asyncio.Event().wait()
        if deed in ("hold_after", "hold_at"):
            await self.hold()
            await self.released.wait()

    async def hold(self) -> None:
        """Counts an answer that is held back from here on."""
        async with self.held_more:
            self.held += 1
            self.held_more.notify_all()

    async def send_endless(self, request: web.Request, entry: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * CHUNK)
            entry["sent"] += CHUNK

    # Ollama's way of taking uploads

    async def take_part(self, request: web.Request) -> web.StreamResponse:
        """PATCH is sent elsewhere, where PUT keeps the part; the last PUT checks the parts and hands on the whole."""
        upload = request.path
        if request.method == "PATCH":
            start = int(request.headers["Content-Range"].partition("-")[0])
            headers = {
                "Location": f"{self.elsewhere}/_parts/{start}{upload}",
                "Docker-Upload-Location": str(request.url),
            }
            return web.Response(status=307, headers=headers)
        if "/_parts/" in upload:
            _, _, begin, upload = upload.split("/", 3)
            self.parts.setdefault(f"/{upload}", {})[int(begin)] = await request.read()
            return web.Response(status=200)
        parts = [data for _, data in sorted(self.parts.pop(upload).items())]
        md5 = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
        if request.query.get("etag") != f"{md5}-{len(parts)}":
            return web.Response(status=400, text=f"etag is not {md5}-{len(parts)}")
        assert self.session is not None
        headers = {"Content-Type": "application/octet-stream", "Host": request.headers["Host"]}
        url = URL(self.upstream + request.raw_path, encoded=True)
        async with self.session.put(url, data=b"".join(parts), headers=headers) as answer:
            return web.Response(status=answer.status, body=await answer.read())

    # Running

    async def run(self) -> None:
        async with aiohttp.ClientSession(
            auto_decompress=False, timeout=aiohttp.ClientTimeout(), connector=aiohttp.TCPConnector(limit=0)
        ) as self.session:
            registry = await self.listen("registry")
            self.elsewhere = await self.listen("elsewhere")
            print(json.dumps({"registry": registry, "elsewhere": self.elsewhere}), flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

    async def listen(self, at: str) -> str:
        app = web.Application(client_max_size=1 << 30)
        if at == "registry":
            app.router.add_route("*", "/_faults/{what}", self.control)
        app.router.add_route("*", "/{path:.*}", lambda request: self.serve(request, at))
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return urlsplit(site.name)._replace(netloc=f"127.0.0.1:{runner.addresses[0][1]}").geturl()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Runs until its standard input ends.")
    parser.add_argument("--upstream", default="", help="the registry's URL")
    asyncio.run(Proxy(parser.parse_args().upstream).run())
