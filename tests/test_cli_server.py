"""The command over the real server: with the real model, and with servers that it starts itself."""

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.commands import Outcome, Shell, servers_of, shell_without_server
from tests.conftest import FAKE_ENGINE, RunningServer, StartServer
from tests.fake_server import FakeServer, reply
from tests.processes import wait_for_end

MODEL = "smollm2:135m"
AGO = r"(Less than a second|\d+ seconds?|About a minute|\d+ minutes) ago"


@pytest.fixture
def shell(real_server: RunningServer, tmp_path: Path) -> Shell:
    return Shell(tmp_path, real_server.host)


def test_the_starter_model_is_listed_and_shown(shell: Shell) -> None:
    listed = shell.run("list", "smol")
    assert (listed.status, listed.stderr) == (0, "")
    row = rf"smollm2:135m    [0-9a-f]{{12}}    98 MB    {AGO} +"
    assert re.fullmatch(rf"NAME +ID +SIZE +MODIFIED +\n{row}\n", listed.stdout)
    shown = shell.run("show", MODEL)
    assert (shown.status, shown.stderr) == (0, "")
    assert shown.stdout.startswith(
        "  Model\n"
        "    architecture        llama      \n"
        "    parameters          134.52M    \n"
        "    context length      8192       \n"
        "    embedding length    576        \n"
        "    quantization        Q4_1       \n"
        "\n"
        "  Capabilities\n"
        "    completion    \n"
    )


def test_the_model_answers_is_loaded_and_can_be_stopped(shell: Shell) -> None:
    schema = {"type": "object", "properties": {"blue": {"type": "boolean"}}, "required": ["blue"]}
    flags = ("--verbose", "--keepalive", "10m", "--format", json.dumps(schema))
    answered = shell.run("run", MODEL, *flags, "Is the sky blue?")
    assert answered.status == 0
    assert answered.stdout.endswith("\n\n")
    assert isinstance(json.loads(answered.stdout)["blue"], bool)
    labels = [line[:22].strip() for line in answered.stderr.splitlines()]
    assert labels[0] == "total duration:"
    assert labels[-3:] == ["eval count:", "eval duration:", "eval rate:"]
    loaded = shell.run("ps")
    row = rf"{MODEL} +[0-9a-f]{{12}} +\d+ MB +100% CPU +\d+ +(9|10) minutes from now +"
    assert re.fullmatch(rf"NAME +ID +SIZE +PROCESSOR +CONTEXT +UNTIL +\n{row}\n", loaded.stdout)
    assert shell.run("stop", MODEL) == Outcome(0, "", "")


def test_what_the_real_server_refuses_reads_as_recorded(shell: Shell) -> None:
    assert shell.run("show", "nope") == Outcome(1, "", "Error: model 'nope:latest' not found\n")
    assert shell.run("cp", "nope", "x") == Outcome(1, "", 'Error: model "nope" not found\n')
    assert shell.run("rm", "nope") == Outcome(1, "", "Error: model 'nope' not found\n")
    assert shell.run("stop", "nope") == Outcome(1, "", 'Error: couldn\'t find model "nope" to stop\n')
    thinking = f'Error: 400 Bad Request: "{MODEL}" does not support thinking\n'
    assert shell.run("run", MODEL, "--think=true", "hi") == Outcome(1, "", thinking)
    refused = shell.run("pull", "127.0.0.1:9/library/x", "--insecure")
    assert (refused.status, refused.stdout) == (1, "")
    assert refused.stderr.startswith("pulling manifest\nError: pull model manifest: ")


def test_models_travel_from_file_to_store_to_archive_and_back(
    start_server: StartServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    shell = Shell(tmp_path, start_server().host)
    archive = tmp_path / "models.tar"
    pulled = shell.run("pull", str(tiny_gguf))
    assert (pulled.status, pulled.stdout) == (0, "")
    assert pulled.stderr.endswith("success\n")
    assert shell.run("cp", "tiny", "me/other") == Outcome(0, "copied 'tiny' to 'me/other'\n", "")
    assert shell.run("export", "tiny", "me/other", str(archive)).status == 0
    assert shell.run("rm", "tiny", "me/other") == Outcome(0, "deleted 'tiny'\ndeleted 'me/other'\n", "")
    assert shell.run("list").stdout == "NAME    ID    SIZE    MODIFIED \n"
    assert shell.run("import", str(archive), "--name", "me/other").status == 0
    assert [line.split()[0] for line in shell.run("list").stdout.splitlines()] == ["NAME", "me/other:latest"]


def test_the_version_is_the_running_servers(shell: Shell) -> None:
    assert shell.run("--version") == Outcome(0, "corral version is 0.1.0\n", "")
    under_another_name = Shell(shell.home, shell.host, "ollama")
    assert under_another_name.run("-v") == Outcome(0, "ollama version is 0.33.0\n", "")


def test_a_second_server_says_that_the_address_is_taken(real_server: RunningServer, shell: Shell) -> None:
    refused = shell.run("serve")
    assert refused.status == 1
    sentence = f"Error: listen tcp {real_server.host}: bind: address already in use"
    hint = "a corral server runs there already; a command may have started it"
    assert refused.stderr.splitlines()[-2:] == [sentence, hint]


def test_a_server_says_that_another_program_has_the_address(lonely: Shell) -> None:
    with FakeServer({"GET /api/version": reply({"version": "0.33.0"})}) as server:
        refused = lonely.run("serve", OLLAMA_HOST=server.host)
    assert refused.status == 1
    assert refused.stderr.splitlines()[-1] == f"Error: listen tcp {server.host}: bind: address already in use"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_well_when_asked_to(start_server: StartServer, number: signal.Signals) -> None:
    server = start_server()
    server.process.send_signal(number)
    assert server.process.wait(30) == 0


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Shell]:
    with shell_without_server(tmp_path) as shell:
        yield shell


def test_a_server_that_a_command_starts_at_a_port_alone_serves_this_machine_only(lonely: Shell) -> None:
    port = lonely.host.rsplit(":", 1)[1]
    assert lonely.run("list", OLLAMA_HOST=f":{port}").status == 0
    with closing(socket.create_connection(("127.0.0.1", int(port)))):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", int(port)))


def test_a_command_starts_the_server_that_is_missing(lonely: Shell) -> None:
    assert lonely.run("list") == Outcome(0, "NAME    ID    SIZE    MODIFIED \n", "")
    assert lonely.run("ps").status == 0
    assert len(servers_of(lonely, "Started")) == 1


def test_a_server_that_a_command_starts_has_a_key_for_the_command(lonely: Shell) -> None:
    listed = lonely.run("list", CORRAL_REQUIRE_KEY="1")
    assert listed == Outcome(0, "NAME    ID    SIZE    MODIFIED \n", "")
    secret = (lonely.home / ".ollama" / "corral-key").read_text().strip()
    assert secret not in (lonely.home / "state" / "serve.log").read_text()


def test_the_server_is_ours_whatever_lies_in_the_current_folder(lonely: Shell) -> None:
    (lonely.home / "corral.py").write_text("raise SystemExit('not this one')")
    assert lonely.run("list").status == 0


def test_commands_that_start_together_share_one_server(lonely: Shell) -> None:
    processes = [lonely.start("list") for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert outputs == [(b"NAME    ID    SIZE    MODIFIED \n", b"")] * 3
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(servers_of(lonely, "Started")) == 1


def test_a_server_that_was_started_ends_itself_when_idle(lonely: Shell) -> None:
    assert lonely.run("list", CORRAL_IDLE_EXIT="1s").status == 0
    (server,) = servers_of(lonely, "Started")
    wait_for_end(server)
    assert servers_of(lonely, "Finished") == [server]


def test_a_conversation_outlives_the_server_it_began_with(lonely: Shell, tiny_gguf: Path) -> None:
    engine = {"CORRAL_ENGINE": str(FAKE_ENGINE), "CORRAL_WORKER_FOLDERS": str(lonely.home)}
    assert lonely.run("pull", str(tiny_gguf), **engine).status == 0
    terminal = lonely.terminal("run", "tiny", variables=engine)
    terminal.wait_for("Send a message")
    (server,) = servers_of(lonely, "Started")
    os.kill(server, signal.SIGTERM)
    wait_for_end(server)
    assert servers_of(lonely, "Finished") == [server]
    terminal.type("Are you there? !tokens=5\r")
    terminal.wait_for("Send a message")
    terminal.type("/bye\r")
    assert terminal.finish().status == 0
    assert len(servers_of(lonely, "Started")) == 2


def test_a_server_that_cannot_start_shows_the_end_of_its_log(lonely: Shell) -> None:
    refused = lonely.run("list", OLLAMA_ORIGINS="nonsense")
    assert (refused.status, refused.stdout) == (1, "")
    first, *rest = refused.stderr.splitlines()
    assert first == f'Error: the server could not be started; its log is "{lonely.home}/state/serve.log"'
    assert rest[-1].startswith('  Error: OLLAMA_ORIGINS: "nonsense"')


def test_a_state_folder_that_cannot_be_made_is_named(lonely: Shell) -> None:
    (lonely.home / "file").touch()
    refused = lonely.run("list", CORRAL_STATE=str(lonely.home / "file" / "state"))
    sentence = f'could not start a server: cannot write "{lonely.home}/file/state": Not a directory'
    assert refused == Outcome(1, "", f"Error: {sentence}\n")
