"""What people see: commands typed into a terminal, one after the other, and the whole screen after each.

The screens are `.txt` files in `tests/goldens/screens`, the help pages those in `tests/goldens/cli`. They are compared
in `test_cli_screens`; whether a new one is right is for the person to judge who records it, by reading it.

    python -m tests.screens --record    # writes all of them anew
"""

import argparse
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyte

from corral.cli import program
from tests.commands import CORRAL, Shell, Terminal
from tests.conftest import FAKE_ENGINE, running_server
from tests.fake_server import Answer, FakeServer, lines, raw, reply
from tests.tiny_models import tiny_llama

FOLDER = Path(__file__).with_name("goldens") / "screens"
PAGES = Path(__file__).with_name("goldens") / "cli"
ROWS = 200

VARIABLES = {
    "CORRAL_ENGINE": str(FAKE_ENGINE),
    "OLLAMA_CONTEXT_LENGTH": "2048",
    "OLLAMA_KEEP_ALIVE": "-1",
    "OLLAMA_NUM_PARALLEL": "2",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}
"""The server's environment: nothing depends on the machine or leaves it."""

MODELFILE = """\
FROM ./tiny.gguf
TEMPLATE "{{ if .System }}[{{ .System }}] {{ end }}{{ .Prompt }}"
PARAMETER temperature 0
PARAMETER stop "<|im_end|>"
SYSTEM "You are a pirate who answers in one short sentence, and never without the word arr in it, whatever is asked."
LICENSE \"\"\"First line of the license
Second line of it

Third line of it\"\"\"
"""
FILES = {
    "Modelfile": MODELFILE,
    "broken.modelfile": "FROM tiny\n\nPARAMETERS temperature 0\n",
    "lost.modelfile": "FROM ./weights/lost.gguf\n",
    "chat.json": '[{"role": "user", "content": "Why?"}]',
    "wrong.json": '{"messages": [}',
}

BEFORE = [
    (r"/tmp/corral-\w{8}", "/tmp/corral-12345678"),
    (r"127\.0\.0\.1:[1-9]\d{4}", "127.0.0.1:11434"),
    (r"(?<![-\w])[0-9a-f]{8}(?![-\w])", "KEYSIDIS"),
    (r"\bcorral-[-\w]{43}(?![-\w])", "corral-SECRET"),
]
"""What differs from run to run: replaced before the terminal breaks lines."""

FILTERS = [
    (r"sha256[:-][0-9a-f]{20,64}", "DIGEST"),
    (r"\b[0-9a-f]{12}\b", "ID"),
    (r"(Less than a second|1 second|\d+ seconds|About a minute|\d+ minutes) (ago|from now)", "TIME"),
    (r"(duration: +)[\d.]+(ns|µs|ms|s)\b", r"\1DURATION"),
    (r"[\d.]+ tokens/s", "RATE"),
    (r"((?:\bID|pirate:latest) +)\d+ MB(?= +100% CPU)", r"\1MEMORY"),
]
"""The same, replaced on the screen, where tables are as wide as they were."""


@dataclass(frozen=True)
class Step:
    """A command line, in windows so wide, to the server of all steps or to one that answers from a script."""

    name: str
    line: str
    columns: tuple[int, ...] = (80,)
    routes: Mapping[str, Answer] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    aged: str = ""
    """A manifest that is made three hours old first, so that models have an order."""


GIGABYTES = 4_661_224_676
BLOBS = ("6e4c38e1172f", "ID of a part, which is longer than most windows are wide, as no honest server would send it")
PULLED = {
    "POST /api/pull": lines(
        {"status": "pulling manifest"},
        *(
            {"status": f"pulling {name}", "digest": f"sha256:{name}", "total": GIGABYTES, "completed": GIGABYTES}
            for name in BLOBS
        ),
        {"status": "verifying sha256 digest"},
        {"status": "success"},
    )
}
ANSWER = (
    "Roses are red, violets are blue, 天空是蓝色的, and a word of donaudampfschifffahrtsgesellschaftskapitän length"
)
SAID = {
    "POST /api/show": reply({"capabilities": ["completion"]}),
    "POST /api/generate": lines({"response": ANSWER, "done": False}, {"response": "", "done": True}),
}
ASKED = {
    "id": "req_1f0c6a7be3d94d3ab5c27d81",
    "created_at": "0001-01-01T00:00:00Z",
    "kind": "chat",
    "model": "pirate:latest",
    "state": "done",
    "reason": "stop",
    "queue_duration": 1_400_000,
    "load_duration": 812_000_000,
    "plan_duration": 2_300_000,
    "prompt_duration": 431_000_000,
    "generation_duration": 5_120_000_000,
    "first_token_duration": 1_251_000_000,
    "total_duration": 6_391_000_000,
    "prompt_tokens": 2131,
    "cached_tokens": 1900,
    "generated_tokens": 371,
    "context_length": 4096,
}
EXPLAINED = {
    "GET /api/requests": reply(
        {
            "requests": [
                {**ASKED, "id": "req_77", "state": "answering", "reason": "", "generation_duration": 0},
                ASKED,
                {**ASKED, "id": "req_5b", "model": "me/captain:v1", "state": "failed", "reason": "the client left"},
            ]
        }
    )
}
NOT_OURS = {
    "html": {**reply("<html><h1>It works!</h1></html>", 404), "headers": {"Content-Type": "text/html"}},
    "json": reply({"jsonrpc": "2.0", "id": 1}),
    "list": reply("[1, 2]"),
    "text": reply("Hello! This is some other server, which has a lot to say."),
    "ssh": raw("SSH-2.0-OpenSSH_9.9\r\n"),
    "nothing": raw(""),
}
REFUSED = {"GET /api/tags": reply({"error": "this server wants an API key"}, 401)}
MOVED = {**reply("", 301), "headers": {"Location": "https://elsewhere.example/"}}

STEPS = [
    Step("version", "corral --version"),
    Step("version-command", "corral version"),
    Step("version-ollama", "ollama -v"),
    Step("version-none", "corral --version", variables={"OLLAMA_HOST": "127.0.0.1:1"}),
    Step("list-empty", "corral list"),
    Step("ps-empty", "corral ps"),
    Step("create", "corral create pirate"),
    Step("create-from", "corral create me/captain:v1 -f -", variables={"STDIN": "FROM pirate\nPARAMETER num_ctx 64\n"}),
    Step("create-broken", "corral create x -f broken.modelfile", (80, 40)),
    Step("create-lost", "corral create x -f lost.modelfile"),
    Step("create-missing", "corral create x -f nowhere/Modelfile"),
    Step("create-name", "corral create 'my model'"),
    Step("create-kind", "corral create x -q q9"),
    Step("list", "corral list", (80, 200), aged="registry.ollama.ai/library/pirate/latest"),
    Step("list-narrow", "corral list pirate", (40,)),
    Step("list-prefix", "ollama ls ME/"),
    Step("show", "corral show pirate", (80, 40, 200)),
    Step("show-ollama", "ollama show pirate"),
    Step("show-verbose", "corral show pirate -v"),
    Step("show-modelfile", "corral show pirate --modelfile"),
    Step("show-parameters", "corral show pirate --parameters"),
    Step("show-system", "corral show pirate --system"),
    Step("show-template", "corral show pirate --template"),
    Step("show-license", "corral show pirate --license"),
    Step("show-two", "corral show pirate --license --system"),
    Step("show-prompt", "corral show pirate --prompt chat.json"),
    Step("show-prompt-wrong", "corral show pirate --prompt wrong.json"),
    Step("show-missing", "corral show nope"),
    Step("run", "corral run pirate Ahoy !tokens=6"),
    Step("run-verbose", "corral run pirate --verbose Ahoy !tokens=6"),
    Step("run-wrapped", "corral run m Why?", (80, 40, 200), SAID),
    Step("run-think", "corral run pirate --think Hi"),
    Step("run-missing", "ollama run 127.0.0.1:9/library/nope Hi"),
    Step("run-keepalive", "ollama run pirate --keepalive soon Hi"),
    Step("run-no-value", "corral run pirate Hi --format"),
    Step("run-number", "corral run pirate Hi --dimensions many"),
    Step("ps", "corral ps", (80, 40, 200)),
    Step("explain", "corral explain", (80, 40, 200), EXPLAINED),
    Step("explain-one", "corral explain req_1f", (80, 40), EXPLAINED),
    Step("explain-missing", "corral explain nope", routes=EXPLAINED),
    Step("explain-none", "corral explain", routes={"GET /api/requests": reply({"requests": []})}),
    Step("stop", "corral stop pirate"),
    Step("stop-missing", "corral stop nope"),
    Step("cp", "corral cp pirate buccaneer"),
    Step("cp-missing", "corral cp nope other"),
    Step("cp-one", "ollama cp pirate"),
    Step("rm", "corral rm buccaneer nope"),
    Step("rm-none", "corral rm"),
    Step("export", "corral export pirate me/captain:v1 both.tar"),
    Step("rm-two", "corral rm pirate me/captain:v1"),
    Step("import", "corral import both.tar"),
    Step("import-missing", "corral import nowhere.tar"),
    Step("pull-file", "corral pull ./tiny.gguf --name mine"),
    Step("pull-bars", "corral pull m", (80, 40, 200), PULLED),
    Step("pull-unreachable", "corral pull nope"),
    Step("pull-file-missing", "corral pull ./nowhere.gguf"),
    Step("push-unreachable", "corral push 127.0.0.1:9/me/x --insecure"),
    Step("config", "corral config", (80, 140)),
    Step("engine-nameless", "corral engine use"),
    Step("engine-action", "corral engine compile"),
    Step("engine-missing", "corral engine remove nope"),
    Step("keys-none", "corral keys"),
    Step("keys-create", "corral keys create alice --model 'llama*' --model me/captain --requests-per-minute 60"),
    Step("keys-create-again", "corral keys create alice"),
    Step("keys-create-admin", "corral keys create boss --scope admin"),
    Step("keys-create-scope", "corral keys create bob --scope root"),
    Step("keys-create-pattern", "corral keys create bob --model hf.co/*"),
    Step("keys", "corral keys list", (80, 40, 200)),
    Step("keys-revoke", "corral keys revoke alice"),
    Step("keys-revoke-missing", "corral keys revoke alice"),
    Step("keys-wanted", "corral list", routes=REFUSED),
    Step("keys-unknown", "corral list", routes=REFUSED, variables={"OLLAMA_API_KEY": "none"}),
    Step("completion-none", "corral completion tcsh"),
    Step("unknown", "ollama lst"),
    Step("unknown-far", "corral frobnicate --all"),
    Step("unknown-flag", "corral list --all"),
    Step("unknown-letter", "corral show -x pirate"),
    Step("unknown-page", "corral help frobnicate"),
    Step("elsewhere", "ollama list", variables={"OLLAMA_HOST": "http://127.0.0.1:1/behind/a/proxy"}),
    Step("address", "corral list", variables={"OLLAMA_HOST": "http://user:secret@gpu-box:11434"}),
    *(Step(f"not-ours-{name}", "corral list", routes={"GET /api/tags": answer}) for name, answer in NOT_OURS.items()),
    Step("not-ours-moved", "ollama list", routes={"GET /api/tags": MOVED}),
    *(
        Step(f"not-ours-run-{name}", "corral run m Hi", routes={"POST /api/show": answer})
        for name, answer in NOT_OURS.items()
    ),
    Step("cut-list", "corral list", routes={"GET /api/tags": lines({"models": []}, end="cut")}),
    Step("cut-pull", "corral pull m", routes={"POST /api/pull": lines({"status": "pulling manifest"}, end="cut")}),
    Step("ended-pull", "corral pull m", routes={"POST /api/pull": lines({"status": "pulling manifest"})}),
    Step(
        "cut-run",
        "corral run m Hi",
        routes={**SAID, "POST /api/generate": lines({"response": "The sky"}, end="cut")},
    ),
]


def screens() -> Iterator[tuple[str, str]]:
    """The name of each golden file, and what is on the screen now; all steps after each other on one server."""
    with place() as (home, host), ExitStack() as stack:
        for step in STEPS:
            server = stack.enter_context(FakeServer(step.routes)).host if step.routes else host
            for columns in step.columns:
                name = step.name if columns == step.columns[0] else f"{step.name}.{columns}"
                yield name, filtered(screen(step, home, server, columns), FILTERS)


def pages() -> Iterator[tuple[str, str]]:
    """The name of each help page under the name `ollama`, and the page."""
    with tempfile.TemporaryDirectory() as home:
        shell = Shell(Path(home), program="ollama")
        for name in ("", *program.COMMANDS):
            yield name or "root", shell.run(*name.split(), "--help").stdout


@contextmanager
def place() -> Iterator[tuple[Path, str]]:
    """A home folder with files in it, whose path is always as long, and the address of a server on an empty store."""
    with tempfile.TemporaryDirectory(prefix="corral-", dir="/tmp") as folder:
        home = Path(folder)
        for name, text in FILES.items():
            (home / name).write_text(text)
        tiny_llama(home / "tiny.gguf")
        (home / "bin").mkdir()
        for name in ("corral", "ollama"):
            (home / "bin" / name).symlink_to(CORRAL)
        with running_server(home / "server", **VARIABLES) as server:
            yield home, server.host


def screen(step: Step, home: Path, host: str, columns: int) -> str:
    """The command line, all that is on the screen when it has ended, and its exit status."""
    if step.aged:
        moment = time.time() - 3 * 3600
        os.utime(home / "server" / ".ollama" / "models" / "manifests" / step.aged, (moment, moment))
    shell = Shell(home, host)
    variables = dict(step.variables)
    piped = variables.pop("STDIN", "")
    environment = {**shell.terminal_environment(), **variables}
    environment["PATH"] = f"{home / 'bin'}:{environment['PATH']}"
    (home / "piped").write_text(piped)
    line = f"{step.line} < {home / 'piped'}" if piped else step.line
    terminal = Terminal(["sh", "-c", line], environment, columns, rows=ROWS, whole=True, folder=home)
    outcome = terminal.finish()
    shown = pyte.Screen(columns, ROWS)
    pyte.Stream(shown).feed(filtered(outcome.stdout, BEFORE).replace("\n", "\r\n"))
    rows = "\n".join(row.rstrip() for row in shown.display).rstrip("\n")
    return "\n".join([f"$ {step.line}", *([rows] if rows else []), f"[{outcome.status}]\n"])


def filtered(text: str, filters: Sequence[tuple[str, str]]) -> str:
    for pattern, name in filters:
        text = re.sub(pattern, name, text)
    return text


def record() -> None:
    for folder, found in ((FOLDER, dict(screens())), (PAGES, dict(pages()))):
        folder.mkdir(exist_ok=True)
        for file in folder.glob("*.txt"):
            if file.stem not in found:
                file.unlink()
        for name, text in found.items():
            (folder / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", required=True, help="write the golden files anew")
    parser.parse_args()
    record()
