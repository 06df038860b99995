"""A test for each class of hole that Ollama, llama.cpp and vLLM are known for, with the CVE it is named by.

Most guards are tested at length where they belong; the table `ELSEWHERE` says where. Here each is met at its door once.
"""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from corral import gguf, names
from corral.cli.program import ALIASES, COMMANDS, HIDDEN
from corral.engine.base import RunnerSpec
from corral.engine.llama.worker import WorkerConfig, arguments
from corral.errors import CorralError, InvalidName, ModelFileError, StoreError
from corral.parsers.python_calls import python_calls
from corral.sources.registry.auth import parse_challenges
from corral.store import Store
from corral.store.manifest import parse_manifest
from tests.asking import ask, post
from tests.conftest import FAKE_ENGINE, ROOT, RunningServer, add_model, running_server
from tests.engines import engines
from tests.gguf_bytes import ARRAY, F32, STRING, U32, ArrayOf, FakeTensor, Header, Raw
from tests.tiny_models import CHATML, tiny_llama

ELSEWHERE = {
    "CVE-2024-7773 CVE-2024-45436 an archive writes outside its folder": (
        "test_sources_archive.py::test_a_hostile_archive_is_refused_and_leaves_nothing"
    ),
    "CVE-2024-12886 an answer without end": (
        "test_registry_auth.py::test_a_token_service_that_never_ends_is_cut_short",
        "test_registry_hostile.py::test_an_endless_blob",
    ),
    "CVE-2024-12886 an answer that is small only while it is packed": (
        "test_registry_hostile.py::test_a_registry_that_will_not_give_a_manifest"
    ),
    "CVE-2025-1975 CVE-2026-15685 numbers of a hostile manifest": "test_registry_hostile.py::test_a_size_that_is_none",
    "CVE-2025-51471 a token goes where the registry says": (
        "test_registry_auth.py::test_a_realm_on_another_host_gets_nothing"
    ),
    "CVE-2025-15514 a picture that is none": "test_media.py::test_half_a_picture_is_refused",
    "CVE-2026-5530 the server is sent into its own network": (
        "test_registry_hostile.py::test_a_public_registry_may_not_send_us_into_our_own_network"
    ),
    "CVE-2025-6242 CVE-2026-24779 CVE-2026-25960 CVE-2026-34753 addresses of pictures": (
        "test_images_by_url.py::test_other_spellings_of_this_machine_lead_nowhere",
        "test_images_by_url.py::test_the_connection_goes_to_the_address_that_was_judged",
        "test_images_by_url.py::test_redirects_are_followed_and_judged",
    ),
    "CVE-2026-5757 CVE-2026-7482 a tensor beyond its file is read on create": (
        "test_hostile_gguf.py::test_a_hostile_file_is_refused_or_harmless"
    ),
    "CVE-2025-49847 CVE-2025-52566 and the heap write of PLaMo-2: a hostile vocabulary": (
        "test_hostile_gguf.py::test_the_server_goes_on_and_keeps_nothing_of_what_it_refused"
    ),
    "CVE-2026-43631 a worker ends while it is asked": (
        "test_server_faults.py::test_an_engine_killed_while_idle_is_not_noticed_by_the_next_request"
    ),
    "CVE-2024-34359 CVE-2025-61620 a hostile Jinja template": (
        "test_template_hostile_jinja.py::test_a_hostile_template_fails_the_requests_that_need_it"
    ),
    "CVE-2025-48887 CVE-2025-29770 CVE-2026-73556 patterns and grammars without end": (
        "test_structured_schemas.py::test_too_much_is_refused_at_once"
    ),
    "CVE-2025-48956 headers without end": "test_connections.py::test_headers_are_bounded_in_number_and_size",
    "CVE-2026-34756 frames and files without end": "test_media.py::test_there_are_only_so_many_files",
    "CVE-2026-73555 traces in answers": (
        "test_no_secrets.py::test_whatever_a_route_is_asked_it_does_not_say_how_it_works"
    ),
    "CVE-2026-7482 secrets in the environment of the process that reads models": (
        "test_engine_process.py::test_the_program_gets_what_was_asked_for_and_no_secrets"
    ),
}


@pytest.mark.parametrize("hole", ELSEWHERE)
def test_the_guards_that_are_tested_elsewhere_are(hole: str) -> None:
    named = ELSEWHERE[hole]
    for place in (named,) if isinstance(named, str) else named:
        file, name = place.split("::")
        assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), place


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("holes")
    models = work / "home" / ".ollama" / "models"
    add_model(models, "fake", tiny_llama(work / "fake.gguf"))
    add_model(models, "native", tiny_llama(work / "native.gguf", seed=1, chat_template=CHATML))
    with running_server(work / "home", CORRAL_ENGINE=str(FAKE_ENGINE)) as running:
        yield running


@cache
def modules() -> list[tuple[Path, list[ast.AST]]]:
    """Every module of the project with everything that stands in it."""
    paths = sorted((ROOT / "corral").rglob("*.py"))
    return [(path, list(ast.walk(ast.parse(path.read_text("utf-8"))))) for path in paths]


# Ollama


def test_dns_rebinding(server: RunningServer) -> None:
    """CVE-2024-28224."""
    for headers in ({"Host": "evil.example"}, {"Host": "localhost", "Origin": "http://evil.example"}):
        assert ask(server, "GET", "/api/tags", headers=headers).status == 403
        assert ask(server, "DELETE", "/api/delete", {"model": "fake"}, headers).status == 403


TRAVERSALS = [
    "../../../../etc/passwd",
    "sha256:../../../../etc/passwd",
    "sha256:" + "../" * 21 + "a",
    "sha256-" + "a" * 63 + "/",
    "sha256:" + "a" * 64 + "/../x",
    "sha256:" + "A" * 64,
    "sha256:" + "a" * 64 + "\n",
    "sha256:" + "٣" * 64,
    "sha512:" + "a" * 64,
    "",
]


@pytest.mark.parametrize("text", TRAVERSALS)
def test_a_digest_that_is_a_path(server: RunningServer, text: str) -> None:
    """CVE-2024-37032, CVE-2025-44779, CVE-2026-7020."""
    with pytest.raises(InvalidName):
        names.parse_digest(text)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": text, "size": 1}
    with pytest.raises(StoreError):
        parse_manifest(json.dumps({"schemaVersion": 2, "config": layer, "layers": [layer]}).encode())
    assert post(server, "/api/create", {"model": "x", "files": {"x.gguf": text}, "stream": False}).status == 400


def test_names_of_blobs_are_made_in_one_place() -> None:
    """CVE-2026-7020 was the same hole as CVE-2024-37032, two years later and in new code."""
    makers = {path.relative_to(ROOT / "corral").as_posix() for path, nodes in modules() if _joins_a_digest(nodes)}
    assert makers == {"names.py"}


def _joins_a_digest(nodes: list[ast.AST]) -> bool:
    """Whether a text of the form `sha256-…` or `sha256:…` is put together anywhere."""
    parts = (node.values[0] for node in nodes if isinstance(node, ast.JoinedStr) and node.values)
    return any(isinstance(part, ast.Constant) and re.match(r"sha256[-:]$", str(part.value)) for part in parts)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/random", "/proc/self/mem", "/"])
def test_a_file_that_never_ends(server: RunningServer, tmp_path: Path, path: str) -> None:
    """CVE-2024-39721."""
    store = Store(tmp_path)
    with pytest.raises(CorralError):
        store.adopt(Path(path))
    digest = "sha256:" + "a" * 64
    body = {"model": "x", "files": {"x.gguf": digest}, "paths": {digest: path}, "stream": False}
    assert post(server, "/api/create", body).status >= 400
    assert "error" in post(server, "/api/pull", {"model": "x", "source": f"file://{path}", "stream": False}).json


@pytest.mark.parametrize("more", [{}, {"X-Forwarded-For": "203.0.113.7"}], ids=["program", "stranger"])
def test_whether_a_file_exists(server: RunningServer, more: dict[str, str]) -> None:
    """CVE-2024-39719, CVE-2024-39722: what is said of a file that is there and of one that is not is the same."""
    answers = []
    for path in ("/etc/passwd", "/etc/no-such-file"):
        for route, body in (
            ("/api/create", {"model": "x", "from": path, "stream": False}),
            ("/api/create", {"model": "x", "files": {path: "sha256:" + "a" * 64}, "stream": False}),
            ("/api/push", {"model": path, "stream": False}),
            ("/api/show", {"model": path}),
            ("/api/copy", {"source": path, "destination": "x"}),
        ):
            answer = ask(server, "POST", route, body, more)
            answers.append((route, answer.status, _without(path, answer.body.decode())))
    assert answers[: len(answers) // 2] == answers[len(answers) // 2 :]
    if more:
        digest = "sha256:" + "a" * 64
        body = {"model": "x", "files": {"x": digest}, "paths": {digest: "/etc/passwd"}, "stream": False}
        assert ask(server, "POST", "/api/create", body, more).status == 403
        body = {"model": "x", "source": "file:///etc/passwd"}
        assert ask(server, "POST", "/api/pull", body, more).status == 403


def _without(path: str, text: str) -> str:
    """An answer without the path that was asked for, of which strangers read the last part."""
    return text.replace(path, "PATH").replace(f"…/{Path(path).name}", "PATH")


_LLAMA: list[tuple[str | bytes, int, Any]] = [("general.architecture", STRING, "llama")]
_TEXT_BEYOND_THE_FILE = Raw((1 << 62).to_bytes(8, "little"))
DEEPEST = ArrayOf(ARRAY, [ArrayOf(U32, [1])])
HOSTILE_FILES = {
    "CVE-2026-65315 keys without end": Header(_LLAMA, key_count=1 << 62),
    "CVE-2026-65315 tensors without end": Header(_LLAMA, tensor_count=(1 << 64) - 1),
    "CVE-2024-21802 a text beyond the file": Header([*_LLAMA, ("x", STRING, _TEXT_BEYOND_THE_FILE)]),
    "CVE-2024-39720 cut short": Header(_LLAMA, [FakeTensor("a.weight", (8, 8))], bytes(16)),
    "CVE-2025-0315 a list without end": Header([*_LLAMA, ("x", ARRAY, ArrayOf(U32, [1], 1 << 61))]),
    "CVE-2025-0317 division by nothing": Header([*_LLAMA, ("general.alignment", U32, 0)]),
    "CVE-2025-53630 sizes that overflow": Header(_LLAMA, [FakeTensor("a.weight", (1 << 32, 1 << 32))], bytes(64)),
    "CVE-2026-27940 offsets that overflow": Header(_LLAMA, [FakeTensor("a.weight", (4,), offset=(1 << 64) - 32)]),
    "CVE-2026-33298 bytes that overflow": Header(_LLAMA, [FakeTensor("a", (1 << 31, 1 << 31, 4), kind=8)], bytes(64)),
    "CVE-2024-32878 a key twice": Header([*_LLAMA, ("x", U32, 1), ("x", F32, 1.0)]),
    "CVE-2025-66960 a list of lists of lists": Header(
        [*_LLAMA, ("x", ARRAY, ArrayOf(ARRAY, [ArrayOf(ARRAY, [ArrayOf(ARRAY, [ArrayOf(ARRAY, [DEEPEST])])])]))]
    ),
    "CVE-2024-12055 no header": Header(magic=b"GGUX"),
}


@pytest.mark.parametrize("hole", HOSTILE_FILES)
def test_a_hostile_model_file(tmp_path: Path, hole: str) -> None:
    """And CVE-2025-0312, CVE-2025-0313, CVE-2024-8063, CVE-2025-66959: refused before native code sees it."""
    path = tmp_path / "x.gguf"
    path.write_bytes(HOSTILE_FILES[hole].encode())
    with pytest.raises(ModelFileError):
        gguf.check_new(gguf.read(path))


def test_there_is_no_updater() -> None:
    """CVE-2026-42248, CVE-2026-42249: programs come from the package index, by the user's own pip."""
    found = {name for name in (*COMMANDS, *ALIASES, *HIDDEN) if "upd" in name or "upgrade" in name}
    assert found == {"update"}, "which only says what to type"
    (nodes,) = (nodes for path, nodes in modules() if path.match("cli/commands/update.py"))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imported if re.match(r"subprocess|os|http|asyncio|aiohttp|urllib\.request$", name)]


# llama.cpp


def test_no_remote_workers() -> None:
    """CVE-2024-42477, CVE-2024-42478, CVE-2024-42479, CVE-2026-34159: llama.cpp's RPC is never turned on.

    Nor is what it has beside models: CVE-2026-43631 was in going to sleep.
    """
    spec = RunnerSpec(model="m.gguf", num_ctx=2048, slots=4, pool=8192, adapters=("a.gguf",), projectors=("p.gguf",))
    given = arguments(WorkerConfig(spec=spec, key="k", parent=1, program="llama-server"), 1234)
    assert given[:4] == ["--host", "127.0.0.1", "--port", "1234"]
    assert not [word for word in given if re.search(r"rpc|sleep|props$|api-key|path-prefix", word)]
    texts = [str(node.value) for _, nodes in modules() for node in nodes if isinstance(node, ast.Constant)]
    assert not [text for text in texts if re.fullmatch(r"--rpc|-rpc|rpc_servers|--props|--tools", text)]


def test_fields_of_the_engine_in_a_request(server: RunningServer) -> None:
    """CVE-2026-21869: `n_discard`. CVE-2025-62426: `chat_template_kwargs`. Only what is known goes to the engine."""
    foreign = {
        "n_discard": -1,
        "n_keep": -9,
        "id_slot": 7,
        "grammar": "root ::= root",
        "lora": [{"id": 0, "scale": 1e9}],
        "chat_template_kwargs": {"a": 1},
        "samplers": ["x"],
        "n_indent": -1,
        "t_max_predict_ms": -1,
        "n_cmpl": 99,
        "post_sampling_probs": True,
        "response_fields": ["x"],
        "json_schema": {},
        "speculative.n_max": 1 << 40,
    }
    body = {"model": "fake", "prompt": "x", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
    for path in ("/api/generate", "/api/chat", "/v1/completions", "/v1/chat/completions", "/v1/messages"):
        for model in ("fake", "native"):
            answer = post(server, path, {**body, **foreign, "model": model, "options": foreign, "stream": False})
            assert answer.status == 200, answer
    sent = [asked for engine in engines(server.home) for path in COMPUTING for asked in engine.bodies(path)]
    assert len(sent) >= 10
    for asked in sent:
        assert not asked.keys() & (foreign.keys() - {"n_keep"}), asked
        assert asked.get("n_keep", 0) >= -1


COMPUTING = ("/completion", "/v1/chat/completions")


# vLLM


def test_no_pickles_and_nothing_evaluated() -> None:
    """CVE-2024-9053, CVE-2025-30165, CVE-2025-32444, CVE-2025-47277, CVE-2025-9141; Jinja2: CVE-2024-34359."""
    forbidden = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "torch", "jinja2", "yaml", "code"}
    found = []
    for path, nodes in modules():
        for node in nodes:
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            method = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            shell = isinstance(node, ast.keyword) and node.arg == "shell"
            if (
                forbidden & {name.split(".")[0] for name in imported}
                or called in ("eval", "exec", "compile", "__import__")
                or method in ("os.system", "os.popen", "importlib.import_module", "subprocess.getoutput")
                or shell
            ):
                found.append((path.name, ast.unparse(node)))
    assert found == [
        ("program.py", "importlib.import_module(f'corral.cli.commands.{entry.module}')"),  # of a table
        ("job.py", "importlib.import_module(module)"),  # as its parent says
    ]


def test_a_tool_call_that_is_a_program(tmp_path: Path) -> None:
    """CVE-2025-9141."""
    trap = tmp_path / "trap"
    for text in (f"[f(x=__import__('os').mkdir('{trap}'))]", f"[f(x=open('{trap}','w'))]", "[f(x=[y for y in ()])]"):
        with pytest.raises(ValueError, match=r"."):
            python_calls(text)
    assert not trap.exists()


def test_code_beside_a_checkpoint_is_not_run(server: RunningServer, tmp_path: Path) -> None:
    """CVE-2026-22807, CVE-2026-27893: there is no `trust_remote_code` to be got around."""
    (tmp_path / "modeling_x.py").write_text(f"open({str(tmp_path / 'trap')!r}, 'w')")
    config = {"architectures": ["X"], "model_type": "x", "auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    files = {}
    for path in sorted(tmp_path.iterdir()):
        files[path.name] = str(Store(server.models).add_bytes(path.read_bytes())[0])
    assert "error" in post(server, "/api/create", {"model": "x", "files": files, "stream": False}).json
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/chat/completions", '"n":1000000'),
        ("/v1/completions", '"n":-1'),
        ("/v1/completions", '"prompt":[%s"x"]' % ('"x",' * 1000)),
        ("/v1/chat/completions", '"logprobs":true,"top_logprobs":1000000'),
        ("/v1/chat/completions", f'"logit_bias":{json.dumps(dict.fromkeys(range(3000), 1))}'),
        ("/api/generate", '"options":{"stop":[%s"x"]}' % ('"x",' * 10000)),
        ("/api/generate", '"top_logprobs":1000000'),
    ],
)
def test_lists_and_numbers_without_end(server: RunningServer, path: str, field: str) -> None:
    """CVE-2026-34756, CVE-2026-5497."""
    body = '{"model":"fake","messages":[{"role":"user","content":"x"}],"prompt":"x",' + field + "}"
    assert post(server, path, body.encode()).status == 400


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", '"x"', str(10**30)])
@pytest.mark.parametrize("field", ["temperature", "top_p", "frequency_penalty"])
def test_a_temperature_that_is_no_number(server: RunningServer, field: str, number: str) -> None:
    """CVE-2026-54235. A number that is only large is cut to what the engine takes, where it is called."""
    before = len([body for engine in engines(server.home) for body in engine.bodies()])
    for path, place in (("/api/generate", '"options":{"%s":%s}'), ("/v1/completions", '"%s":%s')):
        body = '{"model":"fake","prompt":"x","stream":false,%s}' % (place % (field, number))
        answer = post(server, path, body.encode())
        assert answer.status in ((200,) if number.isdigit() else (400, 500)), answer
    for asked in [body for engine in engines(server.home) for body in engine.bodies()][before:]:
        assert abs(asked[field]) <= 1e6


def test_a_header_that_takes_time_to_read() -> None:
    """CVE-2025-48887, in another place: what a registry answers is read in one pass, however it is made."""
    assert parse_challenges(["," * 300_000, " " * 300_000, '"' * 99_999]) == []
    assert len(parse_challenges(["a " * 50_000])) == 50_000
