"""Pictures that requests name by their address: fetched where that is allowed, and from nowhere within our network."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from starlette.requests import Request

from corral.config import Config
from corral.errors import BadRequest, BodyTooLarge
from corral.messages import Picture
from corral.server.anthropic import linked as anthropic_linked
from corral.server.anthropic import wire as anthropic_wire
from corral.server.http.bodies import body_converted
from corral.server.http.budget import BodyBudget
from corral.server.http.images import MAX_IMAGES, MAX_REDIRECTS, ImageFetcher, LinkedImage
from corral.server.http.reading import whole
from corral.server.openai import linked as openai_linked
from corral.server.openai import wire as openai_wire
from corral.server.openai.responses import items
from corral.sources.registry.addresses import is_public
from tests.asking import post
from tests.conftest import RunningServer, add_model, running_server
from tests.tiny_models import CHATML, tiny_llama

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


class Names(AbstractResolver):
    """Looks names up in a table; another answer each time where it has several."""

    def __init__(self, **addresses: str | list[str]) -> None:
        self._addresses = {name: [one] if isinstance(one, str) else one for name, one in addresses.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self._addresses[host.partition(".")[0]]
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        pass


class Pictures:
    """A server of files, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, Callable[[web.Request], web.StreamResponse]] = {}
        self.requests: list[web.Request] = []
        self.port = 0

    def put(self, path: str, body: bytes = PNG, status: int = 200, **headers: str) -> str:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        self.files[path] = lambda _: web.Response(body=body, status=status, headers=fields)
        return self.url(path)

    def url(self, path: str, host: str = "pictures.test") -> str:
        return f"http://{host}:{self.port}{path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return self.files[request.path](request)


@pytest.fixture
async def pictures() -> AsyncGenerator[Pictures, None]:
    found = Pictures()
    app = web.Application()
    app.router.add_get("/{path:.*}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


def fetcher(*, allowed: Sequence[str] = ("127.0.0.1",), names: Names | None = None, **more: Any) -> ImageFetcher:
    return ImageFetcher(allowed.__contains__, names or Names(pictures="127.0.0.1"), **more)


async def fetched(fetcher: ImageFetcher, *urls: str) -> list[bytes]:
    """The files in the order of the addresses."""
    found: dict[int, bytes] = {}
    held = 0

    async def hold(size: int) -> None:
        nonlocal held
        held += size

    def put(place: int) -> Callable[[bytes], None]:
        return lambda data: found.update({place: data})

    await fetcher.fetch_all([LinkedImage(url, put(place)) for place, url in enumerate(urls)], hold)
    assert held >= sum(len(data) for url, data in {url: found[place] for place, url in enumerate(urls)}.items())
    return [found[place] for place in range(len(urls))]


async def refusal(fetcher: ImageFetcher, url: str) -> str:
    with pytest.raises(BadRequest) as raised:
        await fetched(fetcher, url)
    return str(raised.value)


async def test_pictures_come_in_their_places_each_asked_once(pictures: Pictures) -> None:
    one, other = pictures.put("/a", PNG + b"a"), pictures.put("/b", b"GIF89a" + bytes(20), Content_Type="text/html")
    assert await fetched(fetcher(), one, other, one) == [PNG + b"a", b"GIF89a" + bytes(20), PNG + b"a"]
    assert [request.path for request in pictures.requests] == ["/a", "/b"]


async def test_a_server_learns_nothing_of_us(pictures: Pictures) -> None:
    """Cookies it sets are not sent back, and there are no credentials."""
    one = pictures.put("/a", Set_Cookie="a=b; Path=/")
    await fetched(fetcher(), one, pictures.put("/b"))
    for request in pictures.requests:
        assert set(request.headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}


PRIVATE = [
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1"),
    *("::1", "::", "fe80::1", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "::127.0.0.1", "::7f00:1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1"),
    *("2002:7f00:1::", "2002:a00:1::1", "2001::1", "4000::1"),
]


@pytest.mark.parametrize("address", PRIVATE)
async def test_no_name_leads_into_our_network(address: str) -> None:
    names = Names(pictures=address)
    refused = await refusal(ImageFetcher(resolver=names), "http://pictures.test/a")
    assert refused == 'image URL "http://pictures.test/a" cannot be used: it leads to an address that is not public'
    assert names.asked == ["pictures.test"]


@pytest.mark.parametrize("address", PRIVATE)
async def test_no_address_leads_into_our_network(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    refused = await refusal(ImageFetcher(), f"http://{host}/a")
    assert refused.endswith("cannot be used: it leads to an address that is not public")


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("localhost", "it leads to an address that is not public"),
        ("0x7f000001", "it leads to an address that is not public"),
        *((host, "it is no address") for host in ("127.1", "2130706433", "0177.0.0.1")),
    ],
)
async def test_other_spellings_of_this_machine_lead_nowhere(host: str, why: str) -> None:
    assert await refusal(ImageFetcher(), f"http://{host}/a") == f'image URL "http://{host}/a" cannot be used: {why}'


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


async def test_the_connection_goes_to_the_address_that_was_judged(pictures: Pictures) -> None:
    """A name that means another address the second time is judged anew, and not connected to."""
    url = pictures.put("/a")
    pictures.put("/to", b"", 302, Location=pictures.url("/a", "pictures.elsewhere"))
    names = Names(pictures=["127.0.0.1", "127.0.0.2"])
    assert "not public" in await refusal(fetcher(names=names), pictures.url("/to"))
    assert [request.path for request in pictures.requests] == ["/to"]
    assert await fetched(fetcher(names=Names(pictures=["127.0.0.1", "127.0.0.2"])), url) == [PNG]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_and_judged(pictures: Pictures, status: int) -> None:
    pictures.put("/a")
    assert await fetched(fetcher(), pictures.put("/to", b"", status, Location="/a")) == [PNG]
    inside = pictures.put("/inside", b"", status, Location=f"http://127.0.0.2:{pictures.port}/a")
    assert "not public" in await refusal(fetcher(), inside)
    for location in ("file:///etc/passwd", "ftp://pictures.test/a", "", "gopher://pictures.test/"):
        url = pictures.put("/odd", b"", status, Location=location)
        assert "only http and https addresses are fetched" in await refusal(fetcher(), url)
    named = pictures.put("/named", b"", status, Location=f"http://me:secret@pictures.test:{pictures.port}/a")
    assert "with a user name or password is not fetched" in await refusal(fetcher(), named)


async def test_redirects_end(pictures: Pictures) -> None:
    url = pictures.put("/round", b"", 302, Location="/round")
    assert f"it redirects more than {MAX_REDIRECTS} times" in await refusal(fetcher(), url)
    assert len(pictures.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://pictures.test/a", "only http and https addresses are fetched"),
        ("/a", "only http and https addresses are fetched"),
        ("", "only http and https addresses are fetched"),
        ("http://[::1", "it is no address"),
        ("http://pictures.test:99999/", "it is no address"),
        ("http://pictures.test\nGET /b", "it is no address"),
        ("http://me:secret@pictures.test/", "an address with a user name or password is not fetched"),
    ],
)
async def test_what_is_no_address_of_a_picture_is_refused(url: str, why: str) -> None:
    refused = await refusal(fetcher(), url)
    assert refused.endswith(f"cannot be used: {why}")
    assert "secret" not in refused
    assert refused.isprintable()


async def test_a_file_is_judged_by_what_it_is(pictures: Pictures) -> None:
    """Neither by its name nor by what its server says; what stands after a question mark is not repeated."""
    url = pictures.put("/a.png", b"<html>" * 9, Content_Type="image/png")
    refused = await refusal(fetcher(), f"{url}?key=secret#part")
    assert refused == f'image URL "{url}" cannot be used: it is no picture (PNG, JPEG, WebP, GIF, BMP)'
    for body in (b"", b"\x89PN", b"RIFF\0\0\0\0WAVE" + bytes(40)):
        assert "it is no picture" in await refusal(fetcher(), pictures.put("/b", body))
    assert "answered with status 404" in await refusal(fetcher(), pictures.put("/c", PNG, 404))
    assert "compressed" in await refusal(fetcher(), pictures.put("/d", PNG, Content_Encoding="br"))


async def test_a_file_that_is_too_large_is_not_read(pictures: Pictures) -> None:
    large = pictures.put("/large", PNG + bytes(1000))

    def chunked(_: web.Request) -> web.StreamResponse:
        response = web.Response(body=PNG + bytes(1000))
        response.enable_chunked_encoding()
        return response

    pictures.files["/chunked"] = chunked
    for url in (large, pictures.url("/chunked")):
        assert "it has more than 200 bytes" in await refusal(fetcher(max_bytes=200), url)


async def test_a_server_that_does_not_answer_is_not_waited_for_without_end() -> None:
    """It takes the connection and says nothing."""
    connected = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        url = f"http://pictures.test:{server.sockets[0].getsockname()[1]}/a"
        assert "it did not come within 0.5 seconds" in await refusal(fetcher(seconds=0.5), url)
        assert connected.is_set()


async def test_a_server_that_is_not_there_is_said_so() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://pictures.test:{bound.getsockname()[1]}/a"
        assert "its server cannot be reached" in await refusal(fetcher(), url)


async def test_there_are_not_too_many() -> None:
    with pytest.raises(BadRequest, match=rf"^{MAX_IMAGES + 1} image URLs are too many, at most {MAX_IMAGES} are"):
        await fetched(fetcher(), *(f"http://pictures.test/{number}" for number in range(MAX_IMAGES + 1)))


async def converted(
    body: object, kind: Any, convert: Callable[[Any], Any], links: Any, *, most: int = 1 << 30, **config: Any
) -> Any:
    """What a route makes of a body, with the server of pictures allowed."""
    state = SimpleNamespace(
        runtime=SimpleNamespace(config=Config(**config)), body_budget=BodyBudget(most), images=fetcher()
    )
    data = msgspec.json.encode(body)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data}

    headers = [(b"content-length", str(len(data)).encode())]
    request = Request({"type": "http", "headers": headers, "app": SimpleNamespace(state=state)}, receive)
    async with whole(request, most) as complete:
        assert complete is not None
        _, found = await body_converted(complete, kind, convert, links)
        return found


def openai_links(asked: openai_wire.WireChatRequest) -> Iterator[LinkedImage]:
    return openai_linked.linked_images(message.content for message in asked.messages)


@pytest.mark.parametrize("as_object", [True, False])
async def test_a_chat_of_openais_sees_the_picture(pictures: Pictures, as_object: bool) -> None:
    url = pictures.put("/a")
    part = {"type": "image_url", "image_url": {"url": url} if as_object else url}
    body = {"model": "m", "messages": [{"role": "user", "content": [part, {"type": "text", "text": "what?"}]}]}
    kind = openai_wire.WireChatRequest
    [request] = await converted(body, kind, openai_wire.chat_requests, openai_links, fetch_images=True)
    assert request.messages[0].media == (Picture(PNG),)
    with pytest.raises(BadRequest, match="image URLs are not currently supported"):
        await converted(body, kind, openai_wire.chat_requests, openai_links)
    assert len(pictures.requests) == 1


async def test_what_is_fetched_counts_as_a_part_of_the_body(pictures: Pictures) -> None:
    part = {"type": "image_url", "image_url": {"url": pictures.put("/a", PNG + bytes(5000))}}
    body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    kind = openai_wire.WireChatRequest
    with pytest.raises(BodyTooLarge):
        await converted(body, kind, openai_wire.chat_requests, openai_links, most=4096, fetch_images=True)


async def test_an_item_of_a_response_sees_the_picture(pictures: Pictures) -> None:
    part = {"type": "input_image", "image_url": pictures.put("/a")}
    given = [{"role": "user", "content": [part]}, {"type": "function_call_output", "call_id": "1", "output": [part]}]

    class Asked(msgspec.Struct):
        input: Any = None

    def links(asked: Asked) -> Iterator[LinkedImage]:
        return openai_linked.linked_images(item.get(key) for item in asked.input for key in ("content", "output"))

    found = await converted(
        {"input": given}, Asked, lambda asked: items.read_items(asked.input), links, fetch_images=True
    )
    assert [message.media for message in items.messages_of(found)] == [(Picture(PNG),)] * 2
    assert len(pictures.requests) == 1


async def test_a_message_of_anthropics_sees_the_picture(pictures: Pictures) -> None:
    """Also in the result of a tool."""
    picture = {"type": "image", "source": {"type": "url", "url": pictures.put("/a")}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [picture]}
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [result, picture]}]}
    kind = anthropic_wire.WireMessagesRequest

    def links(asked: anthropic_wire.WireMessagesRequest) -> Iterator[LinkedImage]:
        return anthropic_linked.linked_images(message.content for message in asked.messages)

    request = await converted(body, kind, anthropic_wire.chat_request, links, fetch_images=True)
    assert [message.media for message in request.messages] == [(Picture(PNG),)] * 2
    with pytest.raises(BadRequest, match=r"invalid image source type: url\. Only base64 images are supported\."):
        await converted(body, kind, anthropic_wire.chat_request, links)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("images")
    add_model(work / "home" / ".ollama" / "models", "tiny", tiny_llama(work / "tiny.gguf", chat_template=CHATML))
    with running_server(work / "home", CORRAL_FETCH_IMAGES="1") as running:
        yield running


def test_a_server_refuses_addresses_of_its_own_network_on_every_route(server: RunningServer) -> None:
    url = f"{server.url}/api/tags"
    part = {"type": "image_url", "image_url": {"url": url}}
    picture = {"type": "image", "source": {"type": "url", "url": url}}
    bodies: dict[str, dict[str, object]] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": [part]}]},
        "/v1/responses": {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]},
        "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": [picture]}]},
        "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": [picture]}]},
    }
    for route, body in bodies.items():
        refused = post(server, route, {"model": "tiny", **body})
        assert refused.status == 400, route
        sentence = refused.json["error"]["message"]
        assert sentence == f'image URL "{url}" cannot be used: it leads to an address that is not public'
