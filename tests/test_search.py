"""`corral search` and `/api/search`, against a stand-in that speaks the hub's API (`tests/hub_api.py`)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from corral import gguf
from corral.config import Config
from corral.engine.base import RunnerSpec
from corral.errors import ModelFileError
from corral.machine.gpus import Gpu
from corral.machine.memory import GIB, Memory
from corral.server.ollama.search import suggested
from corral.serving.requirements import Requirements, fit, forecast, without
from corral.sources.hub.files import File, level_of, quantisations
from tests.asking import ask
from tests.commands import Outcome, Shell
from tests.conftest import RunningServer, StartServer, running_server
from tests.fake_server import FakeServer, reply
from tests.gguf_bytes import STRING, U32, Header
from tests.hub_api import HubApi, put_examples, running_hub_api

MIB = 1 << 20


@pytest.mark.parametrize(
    ("path", "level"),
    [
        ("a-Q4_K_M.gguf", "Q4_K_M"),
        ("a.q4_k_m.gguf", "Q4_K_M"),
        ("a-IQ3_XXS.gguf", "IQ3_XXS"),
        ("UD-Q4_K_XL/a-UD-Q4_K_XL-00001-of-00002.gguf", "UD-Q4_K_XL"),
        ("Q5_K_S/a-00001-of-00002.gguf", "Q5_K_S"),
        ("a-Q4_0_4_8.gguf", "Q4_0_4_8"),
        ("a-Q6_K_L.gguf", "Q6_K_L"),
        ("a-Q6_K.gguf", "Q6_K"),
        ("a-f16.gguf", "F16"),
        ("a-bf16.gguf", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("a-IQ4_NL-imat.gguf", "IQ4_NL"),
        ("a-TQ1_0.gguf", "TQ1_0"),
        ("F16/a-Q5_1.gguf", "Q5_1"),
        ("Q4all.gguf", ""),
        ("model.gguf", ""),
    ],
)
def test_a_files_name_tells_its_quantisation(path: str, level: str) -> None:
    assert level_of(path) == level


def test_quantisations_are_named_as_they_are_pulled_smallest_first() -> None:
    files = [
        File("README.md", 100),
        File("a-Q8_0.gguf", 800),
        File("a-Q4_K_M.gguf", 400),
        File("old/a-Q4_K_M.gguf", 300),  # the same quantisation again
        File("BF16/a-00001-of-00002.gguf", 1000),
        File("BF16/a-00002-of-00002.gguf", 600),
        File("a-Q2_K-00001-of-00002.gguf", 100),  # its second part is missing
        File("mmproj-f16.gguf", 50),
        File("mmproj-f32.gguf", 90),
        File("imatrix.gguf", 10),
        File("strange name.gguf", 70),
        File("plain.GGUF", 700),
    ]
    found = [(str(one.name), one.level, one.size, one.first) for one in quantisations("me/Model-GGUF", files)]
    assert found == [
        ("hf.co/me/Model-GGUF:a-Q4_K_M.gguf", "Q4_K_M", 350, "old/a-Q4_K_M.gguf"),
        ("hf.co/me/Model-GGUF:Q4_K_M", "Q4_K_M", 450, "a-Q4_K_M.gguf"),
        ("hf.co/me/Model-GGUF:plain.GGUF", "", 750, "plain.GGUF"),
        ("hf.co/me/Model-GGUF:Q8_0", "Q8_0", 850, "a-Q8_0.gguf"),
        ("hf.co/me/Model-GGUF:BF16", "BF16", 1650, "BF16/a-00001-of-00002.gguf"),
    ]


@pytest.mark.parametrize("repository", ["me/..", "../etc", "me/a:b", "me", "a/b/c", "me/" + "a" * 90])
def test_a_repository_that_cannot_be_pulled_has_no_quantisations(repository: str) -> None:
    assert quantisations(repository, [File("a-Q4_0.gguf", 1)]) == ()


def test_the_beginning_of_a_file_says_what_it_can(tiny_gguf: Path, tmp_path: Path) -> None:
    data, whole = tiny_gguf.read_bytes(), gguf.read(tiny_gguf)
    path = tmp_path / "beginning"
    known = 0
    for length in range(24, whole.data_offset, 97):
        path.write_bytes(data[:length])
        beginning = gguf.read_beginning(path, len(data))
        assert list(beginning.metadata.items()) == list(whole.metadata.items())[: len(beginning.metadata)]
        assert len(beginning.metadata) >= known
        known = len(beginning.metadata)
    assert known > 5
    assert beginning.kv_bytes_per_token(1.0) == whole.kv_bytes_per_token(1.0) > 0


def test_what_is_no_beginning_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "beginning"
    for data in (b"", b"GGUF", b"<html>" * 100, b"GGUF\x03\0\0\0" + b"\xff" * 16):
        path.write_bytes(data)
        with pytest.raises(ModelFileError):
            gguf.read_beginning(path, 1 << 30)


SMALL = Memory(8 * GIB, 4 * GIB)


@pytest.mark.parametrize(
    ("config", "elements", "trained", "expected"),
    [
        (Config(), 1000, 131072, Requirements(GIB, 4096, 4096 * 2000, GIB + 4096 * 2000 + 64 * MIB)),
        (Config(), 1000, 2048, Requirements(GIB, 2048, 2048 * 2000, GIB + 2048 * 2000 + 64 * MIB)),
        (Config(context_length=8192), 1000, 0, Requirements(GIB, 8192, 8192 * 2000, GIB + 8192 * 2000 + 64 * MIB)),
        (Config(kv_cache_type="q8_0"), 1000, 0, Requirements(GIB, 4096, 4096 * 1063, GIB + 4096 * 1063 + 64 * MIB)),
        (Config(), 0, 131072, Requirements(GIB, 4096, 0, GIB + 64 * MIB)),
    ],
)
def test_what_a_model_would_need(config: Config, elements: int, trained: int, expected: Requirements) -> None:
    assert forecast(GIB, elements, trained, config, SMALL) == expected


def test_what_fits() -> None:
    with_gpu = replace_gpus(SMALL, Gpu("a", "A", 8 * GIB, 6 * GIB))
    sizes = (3 * GIB, 4 * GIB, 7 * GIB, 9 * GIB, 11 * GIB)
    assert [fit(size, SMALL) for size in sizes] == ["yes", "tight", "no", "no", "no"]
    assert [fit(size, with_gpu) for size in sizes] == ["yes", "yes", "yes", "tight", "no"]


def replace_gpus(memory: Memory, *gpus: Gpu) -> Memory:
    return Memory(memory.total, memory.available, gpus)


def test_a_loaded_model_gives_way() -> None:
    loaded = RunnerSpec(model="a", num_ctx=4096, slots=16, pool=8192, weights_bytes=GIB, cache_bytes_per_token=1000)
    assert without([], SMALL) == SMALL
    assert without([loaded], SMALL).available == SMALL.available + GIB + 8192 * 1000 + 64 * MIB
    assert without([loaded] * 9, SMALL).available == SMALL.total


@pytest.mark.parametrize(
    ("fits", "place"),
    [
        (["yes", "yes", "yes", "no"], 1),
        (["yes", "tight", "no", "no"], 0),
        (["tight", "tight", "tight", "no"], 1),
        (["no", "no", "no", "no"], 0),
    ],
)
def test_the_usual_quantisation_is_suggested_if_it_fits(fits: list[str], place: int) -> None:
    levels = ["Q2_K", "Q4_K_M", "Q8_0", "F16"]
    rows = [{"quantization_level": level, "fits": word} for level, word in zip(levels, fits, strict=True)]
    assert suggested(rows) == place


@pytest.fixture(scope="module")
def running_hub() -> Iterator[HubApi]:
    with running_hub_api() as running:
        yield running


@pytest.fixture
def hub(running_hub: HubApi) -> HubApi:
    """The hub with its examples, whatever tests before put into it."""
    running_hub.answers.clear()
    running_hub.models.clear()
    running_hub.asked.clear()
    put_examples(running_hub)
    return running_hub


@pytest.fixture(scope="module")
def server(running_hub: HubApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that asks the hub."""
    with running_server(tmp_path_factory.mktemp("search"), HF_ENDPOINT=running_hub.url) as server:
        yield server


@pytest.fixture(scope="module")
def lonely_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server where no hub answers."""
    with running_server(tmp_path_factory.mktemp("search-lonely"), HF_ENDPOINT="http://127.0.0.1:1") as server:
        yield server


def searched(server: RunningServer, words: str, **more: Any) -> Any:
    query = "".join(f"&{name}={value}" for name, value in more.items())
    answer = ask(server, "GET", f"/api/search?q={quote(words)}{query}")
    assert answer.status == 200, answer.body
    return answer.json


def test_a_server_finds_models_and_judges_them(server: RunningServer, hub: HubApi) -> None:
    answer = searched(server, "llama")
    assert [model["name"] for model in answer["models"]] == [
        "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF",
        "hf.co/unsloth/Llama-Big-70B-GGUF",
        "hf.co/someone/tiny-llama-vision",
        "hf.co/other/llama-without-files",
    ]
    first = answer["models"][0]
    rows = first.pop("quantizations")
    assert first == {
        "name": "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF",
        "downloads": 1_234_567,
        "likes": 210,
        "gated": False,
        "modified_at": "2026-03-01T12:00:00+00:00",
        "architecture": "llama",
        "parameter_size": "3.2B",
        "context_length": 131072,
        "suggested": first["suggested"],
    }
    assert [row["quantization_level"] for row in rows] == [
        "Q2_K",
        "Q3_K_M",
        "IQ4_XS",
        "Q4_K_M",
        "Q5_K_M",
        "Q8_0",
        "F16",
    ]
    needs = rows[0]["requirements"]
    assert needs["weights"] == rows[0]["size"] == 1_400_000_000
    assert needs["kv_cache"] == 256 * needs["context_length"], "two layers, one head of 32 keys and 32 values, 2 bytes"
    assert needs["total"] == needs["weights"] + needs["kv_cache"] + 64 * MIB
    assert answer["memory"]["total"] >= answer["memory"]["available"] > 0
    big = answer["models"][1]["quantizations"]
    assert [(row["name"], row["size"]) for row in big] == [
        ("hf.co/unsloth/Llama-Big-70B-GGUF:UD-Q4_K_XL", 42_000_000_000),
        ("hf.co/unsloth/Llama-Big-70B-GGUF:BF16", 120_000_000_000),
    ]
    assert answer["models"][2]["gated"] is True


@pytest.mark.parametrize(
    "words",
    [
        "bartowski/Llama-3.2-3B-Instruct-GGUF",
        "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q8_0",
        "https://huggingface.co/bartowski/Llama-3.2-3B-Instruct-GGUF",
    ],
)
def test_a_name_or_an_address_is_found_too(server: RunningServer, hub: HubApi, words: str) -> None:
    answer = searched(server, words)
    assert [model["name"] for model in answer["models"]] == ["hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF"]


def test_the_limit_is_handed_on_and_kept(server: RunningServer, hub: HubApi) -> None:
    assert len(searched(server, "llama", limit=2)["models"]) == 2
    listed = json.dumps([{"id": f"a/m{number}"} for number in range(500)]).encode()
    hub.answers["/api/models"] = (200, {}, listed)
    assert len(searched(server, "llama", limit=3)["models"]) == 3


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("", "q is required: the words to look for"),
        ("?q=%20", "q is required: the words to look for"),
        ("?q=hf.co/", "q is required: the words to look for"),
        ("?q=a%0ab", "q must be one line of at most 200 characters"),
        ("?q=" + "a" * 201, "q must be one line of at most 200 characters"),
        ("?q=a&limit=0", 'limit must be a number from 1 to 50, got "0"'),
        ("?q=a&limit=51", 'limit must be a number from 1 to 50, got "51"'),
        ("?q=a&limit=many", 'limit must be a number from 1 to 50, got "many"'),
    ],
)
def test_a_search_that_cannot_be_made(lonely_server: RunningServer, query: str, error: str) -> None:
    answer = ask(lonely_server, "GET", f"/api/search{query}")
    assert (answer.status, answer.error) == (400, error)


def test_without_a_connection_a_sentence_says_where_it_looked(lonely_server: RunningServer) -> None:
    answer = ask(lonely_server, "GET", "/api/search?q=llama")
    assert answer.status == 500
    assert answer.error == (
        'models are looked for at "http://127.0.0.1:1": Get "http://127.0.0.1:1/api/models": '
        "dial tcp 127.0.0.1:1: connect: connection refused"
    )


def test_a_proxy_is_asked(start_server: StartServer, hub: HubApi) -> None:
    server = start_server(HF_ENDPOINT="http://hub.example", HTTP_PROXY=hub.url)
    assert len(searched(server, "llama")["models"]) == 4
    assert all(target.startswith("http://hub.example/") for target in hub.asked)


HOSTILE = {
    "no JSON": b"<html>sorry</html>",
    "another form": b'{"error":"x"}',
    "deep": b"[" * 100_000,
    "no text": b'[{"id":"\xff\xfe"}]',
    "large": b'["' + b"a" * (5 << 20) + b'"]',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_list_that_is_none_is_an_error(server: RunningServer, hub: HubApi, body: bytes) -> None:
    hub.answers["/api/models"] = (200, {}, body)
    answer = ask(server, "GET", "/api/search?q=llama")
    assert answer.status == 500
    assert f'the answer of "{hub.url}/api/models" is ' in answer.error


def test_names_that_lead_elsewhere_are_passed_over(server: RunningServer, hub: HubApi) -> None:
    ids = [
        "../../etc/passwd",
        "a/../b",
        "a/b/c",
        "a",
        "a/b?x",
        "a/\x1b[2J",
        "http://127.0.0.1/a",
        "other/llama-without-files",
    ]
    hub.answers["/api/models"] = (200, {}, json.dumps([{"id": id_} for id_ in ids]).encode())
    assert [model["name"] for model in searched(server, "x")["models"]] == ["hf.co/other/llama-without-files"]
    assert hub.asked[1:] == ["/api/models/other/llama-without-files?blobs=true"]


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_one_repository_amiss_costs_only_that_one(server: RunningServer, hub: HubApi, body: bytes) -> None:
    hub.answers["/api/models/unsloth/Llama-Big-70B-GGUF"] = (200, {}, body)
    first, broken, *_ = searched(server, "llama")["models"]
    assert len(first["quantizations"]) == 7
    assert broken["error"].startswith(f'the answer of "{hub.url}/api/models/unsloth/Llama-Big-70B-GGUF" is ')
    assert broken["quantizations"] == []


def test_members_that_make_no_sense_are_left_out(server: RunningServer, hub: HubApi) -> None:
    members: dict[str, Any] = {"downloads": -5, "lastModified": "soon", "likes": 1e300}
    gguf_member = {"total": -1, "architecture": "x" * 99, "context_length": 1e99}
    sizes = {"a-Q4_0.gguf": -1, "a-Q8_0.gguf": 1 << 60, "a-Q5_0.gguf": 5}
    hub.put("a/llama-odd", sizes, **members, gguf=gguf_member)
    hub.models["a/llama-odd"]["likes"] = None
    (model,) = searched(server, "llama-odd")["models"]
    assert [row["quantization_level"] for row in model["quantizations"]] == ["Q5_0"]
    del model["quantizations"]
    assert model == {
        "name": "hf.co/a/llama-odd",
        "downloads": 0,
        "likes": 0,
        "gated": False,
        "suggested": "hf.co/a/llama-odd:Q5_0",
    }


STORAGE = "/storage/bartowski/Llama-3.2-3B-Instruct-GGUF/resolve/main/Llama-3.2-3B-Instruct-Q2_K.gguf"


@pytest.mark.parametrize(
    "answer",
    [
        (403, {}, b"gated"),
        (200, {}, b"no GGUF at all" * 9999),
        (206, {"Content-Encoding": "gzip"}, b"\x1f\x8b"),
        (302, {"Location": "ftp://elsewhere/x"}, b""),
        (302, {"Location": "http://169.254.169.254/secrets"}, b""),
        (206, {}, b"GGUF" + (3).to_bytes(4, "little") + b"\0" * 16),
        (206, {}, b"GGUF" + (3).to_bytes(4, "little") + b"\0" * 8 + (9).to_bytes(8, "little") + b"\xff" * 99),
    ],
)
def test_a_file_that_cannot_be_looked_into_leaves_the_context_unknown(
    server: RunningServer, hub: HubApi, answer: tuple[int, dict[str, str], bytes]
) -> None:
    hub.answers[STORAGE] = answer
    first = searched(server, "bartowski")["models"][0]["quantizations"][0]
    assert first["requirements"] == {"weights": 1_400_000_000, "total": 1_400_000_000 + 64 * MIB}


def test_numbers_of_a_hostile_file_are_bounded(server: RunningServer, hub: HubApi) -> None:
    for layers, width in ((1 << 31, 64), (512, (1 << 32) - 1)):
        numbers = {"block_count": layers, "embedding_length": width, "attention.head_count": 1}
        keys: list[tuple[str, int, Any]] = [("general.architecture", STRING, "llama")]
        keys += [(f"llama.{name}", U32, number) for name, number in numbers.items()]
        hub.answers[STORAGE] = (206, {}, Header(keys).encode())
        first = searched(server, "bartowski")["models"][0]["quantizations"][0]
        assert set(first["requirements"]) == {"weights", "total"}


def shown(name: str, **members: Any) -> dict[str, Any]:
    return {"name": name, "downloads": 0, "likes": 0, "gated": False, "quantizations": [], **members}


def quantised(name: str, size: int, memory: int, fits: str) -> dict[str, Any]:
    level = name.rpartition(":")[2]
    return {"name": name, "quantization_level": level, "size": size, "fits": fits, "requirements": {"total": memory}}


FOUND = {
    "models": [
        shown(
            "hf.co/me/Model-GGUF",
            downloads=1_200_000,
            modified_at="2001-03-01T12:00:00+00:00",
            suggested="hf.co/me/Model-GGUF:Q4_K_M",
            gated=True,
            quantizations=[
                quantised("hf.co/me/Model-GGUF:Q4_K_M", 2_000_000_000, 2_300_000_000, "yes"),
                quantised("hf.co/me/Model-GGUF:Q6_K", 2_700_000_000, 3_000_000_000, "yes"),
                quantised("hf.co/me/Model-GGUF:Q8_0", 3_400_000_000, 3_800_000_000, "tight"),
                quantised("hf.co/me/Model-GGUF:F16", 6_400_000_000, 6_800_000_000, "no"),
            ],
        ),
        shown("hf.co/me/Broken", error="404: \x1b[2Jgone"),
        shown("hf.co/me/Empty"),
    ],
    "memory": {"total": 8_000_000_000, "available": 4_000_000_000, "gpus": 0},
}


def test_the_command_shows_a_table(tmp_path: Path) -> None:
    with FakeServer({"GET /api/search?q=my+model&limit=3": reply(FOUND)}) as server:
        outcome = Shell(tmp_path, server.host).run("search", "my", "model", "--limit", "3")
    table, _, note = outcome.stdout.partition("\n\n")
    updated = table.splitlines()[1].rpartition("M        ")[2]
    assert updated.endswith(" years ago")
    assert table == (
        "NAME                          SIZE    MEMORY    FITS    DOWNLOADS    UPDATED      \n"
        f"hf.co/me/Model-GGUF:Q4_K_M    2 GB    2.3 GB    yes     1.20M        {updated}\n"
        "    fits: Q4_K_M 2 GB, Q6_K 2.7 GB\n"
        "    tight: Q8_0 3.4 GB\n"
        "    too large: F16 6.4 GB\n"
        "    gated: its files are only for accounts that have agreed to its terms\n"
        "hf.co/me/Broken                                         0\n"
        "    its files are not known: 404: [2Jgone\n"
        "hf.co/me/Empty                                          0\n"
        "    none of its files can be pulled"
    )
    assert note.startswith("MEMORY is what a model takes with its usual context; 4 GB are free")
    assert (outcome.status, outcome.stderr) == (0, "")


def test_a_narrow_terminal_gets_fewer_columns_and_short_lines(tmp_path: Path) -> None:
    with FakeServer({"GET /api/search?q=m": reply(FOUND)}) as server:
        outcome = Shell(tmp_path, server.host).terminal("search", "m", columns=60).finish()
    lines = outcome.stdout.splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "MEMORY", "FITS"]
    assert max(map(len, lines)) <= 60


def test_json_is_the_servers_answer(tmp_path: Path) -> None:
    with FakeServer({"GET /api/search?q=m": reply(FOUND)}) as server:
        outcome = Shell(tmp_path, server.host).run("search", "m", "--json")
    assert json.loads(outcome.stdout) == FOUND


def test_nothing_found_is_said_beside_the_output(tmp_path: Path) -> None:
    with FakeServer({"GET /api/search?q=m": reply({"models": []})}) as server:
        outcome = Shell(tmp_path, server.host).run("search", "m")
    assert outcome == Outcome(0, "", 'no model in GGUF form has "m" in its name\n')


@pytest.mark.parametrize("value", ["hf-mirror.com", "ftp://x", "https://", "https://user:secret@x"])
def test_an_address_of_the_hub_that_cannot_be_read_is_ignored(value: str) -> None:
    from corral.config import load

    loaded = load({"HF_ENDPOINT": value, "HOME": "/nonexistent"})
    assert loaded.config.hub == "https://huggingface.co"
    assert len(loaded.warnings) == 1
    assert "secret" not in loaded.warnings[0]
