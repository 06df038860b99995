"""Settings: where they come from, what they may be, and what an address means (spec cli §13)."""

import ast
import json
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import config
from corral.config import load
from corral.config.address import Address, parse_address
from corral.config.upstreams import ServedBy, Upstream
from corral.config.values import text_of
from corral.errors import BadRequest, ConfigError

FOREVER = float("inf")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("example.com", Address("example.com", 11434)),
        ("127.0.0.1:1234", Address("127.0.0.1", 1234)),
        ("0.0.0.0", Address("0.0.0.0", 11434)),
        (":1234", Address("127.0.0.1", 1234)),
        ("", Address("127.0.0.1", 11434)),
        ("http://example.com", Address("example.com", 80)),
        ("https://example.com", Address("example.com", 443, "https")),
        ("https://example.com:8443/ollama/", Address("example.com", 8443, "https", "/ollama")),
        ("example.com/path", Address("example.com", 11434, "http", "/path")),
        ("ollama.com", Address("ollama.com", 443, "https")),
        ("example.com:99999", Address("example.com", 11434)),
        ("example.com:port", Address("example.com", 11434)),
        ("https://example.com:0x1", Address("example.com", 443, "https")),
        ("[::1]:1234", Address("::1", 1234)),
        ("[::1]", Address("::1", 11434)),
        ("::1", Address("::1", 11434)),
        ("http://[::1]:5", Address("::1", 5)),
        ("HTTPS://Example.com:5", Address("example.com", 5, "https")),
        ("my_host:5", Address("my_host", 5)),
        ("[fe80::1%eth0]:5", Address("fe80::1%eth0", 5)),
    ],
)
def test_address(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "loopback", "unspecified"),
    [
        ("127.0.0.1", True, False),
        ("127.9.9.9", True, False),
        ("localhost", True, False),
        ("[::1]", True, False),
        ("0.0.0.0", False, True),
        ("[::]", False, True),
        ("192.168.1.2", False, False),
        ("example.com", False, False),
    ],
)
def test_what_an_address_reaches(text: str, loopback: bool, unspecified: bool) -> None:
    address = parse_address(text)
    assert (address.is_loopback, address.is_unspecified) == (loopback, unspecified)


def test_an_address_is_written_as_it_is_called() -> None:
    assert str(Address()) == "http://127.0.0.1:11434"
    assert str(Address("::1", 1, "https", "/x")) == "https://[::1]:1/x"


UNREADABLE_HOSTS = [
    "gpu:11434:11434",
    "http://[::1",
    "[gpu]:11434",
    "[::1]x:1",
    "gpu:1,other:1",
    "gpu,other",
    "http://gpu:11434:/",
    "http://",
    "http://$GPU:1",
    "https:///ollama",
    "unix:///run/corral.sock",
    "/ollama",
    "*:11434",
    "gpu box",
    "gpu?x=1",
    "http:\\\\gpu:11434",
    "http:/gpu:11434",
    "https:gpu",
    "1::2::3",
]


@pytest.mark.parametrize("text", UNREADABLE_HOSTS)
def test_an_address_that_cannot_be_read_is_an_error_that_names_the_variable(environ: dict[str, str], text: str) -> None:
    sentence = f'"{text}" is no address; it must look like host:port or http://host:port'
    with pytest.raises(ConfigError) as from_variable:
        load({**environ, "OLLAMA_HOST": text})
    assert str(from_variable.value) == f"OLLAMA_HOST: {sentence}"
    file = Path(environ["CORRAL_CONFIG"])
    file.write_text(f"host = {json.dumps(text)}\n")
    with pytest.raises(ConfigError) as from_file:
        load(environ)
    assert str(from_file.value) == f'"{file}": host: {sentence}'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:geheim@gpu-box:11434", "http://…@gpu-box:11434"),
        ("ssh://me:geheim@gpu:22", "ssh://…@gpu:22"),
        ("user@gpu:1", "…@gpu:1"),
        ("http://user:ge@geheim@gpu", "http://…@gpu"),
        ("https://user:geheim/1@gpu", "https://…@gpu"),
        ("https://user:1/geheim@gpu:2/ollama", "https://…@gpu:2/ollama"),
        ("user:geheim://@gpu", "…@gpu"),
        ("http://user:geheim@[::1", "http://…@[::1"),
    ],
)
def test_a_password_in_an_address_is_refused_and_not_shown(environ: dict[str, str], text: str, shown: str) -> None:
    sentence = f'"{shown}" has a user name or a password, which are not supported'
    with pytest.raises(ConfigError) as from_variable:
        load({**environ, "OLLAMA_HOST": text})
    assert str(from_variable.value) == f"OLLAMA_HOST: {sentence}"
    file = Path(environ["CORRAL_CONFIG"])
    for value in (json.dumps(text), json.dumps([text])):
        file.write_text(f"host = {value}\n")
        with pytest.raises(ConfigError) as from_file:
            load(environ)
        assert str(from_file.value).startswith(f'"{file}": host: ')
        assert "geheim" not in str(from_file.value)


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("gpu:99999", Address("gpu", 11434), "99999"),
        ("gpu:abc", Address("gpu", 11434), "abc"),
        ("http://gpu:-1", Address("gpu", 80), "-1"),
        ("[::1]:1x", Address("::1", 11434), "1x"),
        ("gpu:" + "9" * 5000, Address("gpu", 11434), "9" * 5000),
    ],
)
def test_a_port_that_cannot_be_read_is_a_warning(
    environ: dict[str, str], text: str, address: Address, port: str
) -> None:
    loaded = load({**environ, "OLLAMA_HOST": text})
    assert (loaded.config.host, loaded.origins["host"]) == (address, "OLLAMA_HOST")
    assert loaded.warnings == (f'OLLAMA_HOST: invalid port "{port}", using {address.port}',)
    file = Path(environ["CORRAL_CONFIG"])
    file.write_text(f"host = {json.dumps(text)}\n")
    assert load(environ).config.host == address
    assert load(environ).warnings == (f'"{file}": host: invalid port "{port}", using {address.port}',)
    assert load({**environ, "OLLAMA_HOST": "gpu:1"}).warnings == ()


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except BadRequest:
        return
    assert 0 <= address.port <= 65535


@pytest.mark.parametrize(
    ("text", "shown", "listens"),
    [
        (":1234", "http://:1234", ":1234"),
        (":", "http://:11434", ":11434"),
        ("http://:80", "http://:80", ":80"),
        ("0.0.0.0:1234", "http://0.0.0.0:1234", "0.0.0.0:1234"),
        ("gpu:1234", "http://gpu:1234", "gpu:1234"),
        ("", "http://127.0.0.1:11434", "127.0.0.1:11434"),
    ],
)
def test_a_port_alone_means_every_interface_to_a_server(text: str, shown: str, listens: str) -> None:
    address = parse_address(text)
    assert text_of(address) == shown
    assert parse_address(shown).to_listen == address.to_listen
    assert (address.to_listen.netloc, address.to_listen.is_loopback) == (listens, listens.startswith("127."))


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"CORRAL_CONFIG": str(tmp_path / "corral.toml")}


def test_defaults(environ: dict[str, str]) -> None:
    loaded = load(environ)
    found = loaded.config
    assert (found.host, found.keep_alive, found.load_timeout) == (Address(), 300.0, 300.0)
    assert (found.context_length, found.num_parallel, found.max_loaded_models, found.max_queue) == (0, 0, 0, 512)
    assert (found.flash_attention, found.kv_cache_type, found.go_template) == ("auto", "f16", "")
    assert found.models == Path.home() / ".ollama" / "models"
    assert found.idle_exit == FOREVER
    assert loaded.warnings == ()
    assert set(loaded.origins.values()) == {"default"}


@pytest.mark.parametrize(
    ("variable", "text", "setting", "value"),
    [
        ("OLLAMA_HOST", " '0.0.0.0:5' ", "host", Address("0.0.0.0", 5)),
        ("OLLAMA_KEEP_ALIVE", "10", "keep_alive", 10.0),
        ("OLLAMA_KEEP_ALIVE", "1h", "keep_alive", 3600.0),
        ("OLLAMA_KEEP_ALIVE", "-1", "keep_alive", FOREVER),
        ("OLLAMA_KEEP_ALIVE", "-1s", "keep_alive", FOREVER),
        ("OLLAMA_KEEP_ALIVE", "0", "keep_alive", 0.0),
        ("OLLAMA_KEEP_ALIVE", "9" * 400, "keep_alive", FOREVER),
        ("OLLAMA_LOAD_TIMEOUT", "0", "load_timeout", FOREVER),
        ("OLLAMA_LOAD_TIMEOUT", "-5", "load_timeout", FOREVER),
        ("OLLAMA_LOAD_TIMEOUT", "90s", "load_timeout", 90.0),
        ("OLLAMA_CONTEXT_LENGTH", "8192", "context_length", 8192),
        ("OLLAMA_NUM_PARALLEL", "4", "num_parallel", 4),
        ("OLLAMA_MAX_QUEUE", "0", "max_queue", 0),
        ("OLLAMA_ORIGINS", "http://a, app://b ,,", "origins", ("http://a", "app://b")),
        ("OLLAMA_DEBUG", "1", "debug", 1),
        ("OLLAMA_DEBUG", "2", "debug", 2),
        ("OLLAMA_DEBUG", "true", "debug", 1),
        ("OLLAMA_DEBUG", "false", "debug", 0),
        ("OLLAMA_NOPRUNE", "yes", "no_prune", True),
        ("OLLAMA_NOPRUNE", "F", "no_prune", False),
        ("OLLAMA_FLASH_ATTENTION", "0", "flash_attention", "off"),
        ("OLLAMA_FLASH_ATTENTION", "1", "flash_attention", "on"),
        ("OLLAMA_FLASH_ATTENTION", "AUTO", "flash_attention", "auto"),
        ("OLLAMA_KV_CACHE_TYPE", "Q8_0", "kv_cache_type", "q8_0"),
        ("OLLAMA_GO_TEMPLATE", "0", "go_template", "off"),
        ("OLLAMA_FLASH_ATTENTION", "off", "flash_attention", "off"),
        ("OLLAMA_FLASH_ATTENTION", "No", "flash_attention", "off"),
        ("OLLAMA_FLASH_ATTENTION", "on", "flash_attention", "on"),
        ("OLLAMA_GO_TEMPLATE", "off", "go_template", "off"),
        ("OLLAMA_GO_TEMPLATE", "ON", "go_template", "on"),
        ("OLLAMA_NOHISTORY", "OFF", "no_history", False),
        ("OLLAMA_NOPRUNE", "n", "no_prune", False),
        ("OLLAMA_SCHED_SPREAD", "no", "sched_spread", False),
        ("OLLAMA_NO_CLOUD", "fAlSe", "no_cloud", False),
        ("OLLAMA_DEBUG", "off", "debug", 0),
        ("OLLAMA_DEBUG", "no", "debug", 0),
        ("OLLAMA_DEBUG", "on", "debug", 1),
        ("OLLAMA_KEEP_ALIVE", "forever", "keep_alive", FOREVER),
        ("OLLAMA_NUM_PARALLEL", "256", "num_parallel", 256),
        ("OLLAMA_CONTEXT_LENGTH", "9" * 20, "context_length", int("9" * 20)),
        ("CORRAL_IDLE_EXIT", "forever", "idle_exit", FOREVER),
        ("CORRAL_IDLE_EXIT", "0", "idle_exit", FOREVER),
        ("CORRAL_IDLE_EXIT", "30", "idle_exit", 30.0),
        ("CORRAL_LOG_FORMAT", "JSON", "log_format", "json"),
        ("CORRAL_MIRRORS", "a=x,y;b=z", "mirrors", {"a": ("x", "y"), "b": ("z",)}),
    ],
)
def test_a_variable_sets_its_setting(
    environ: dict[str, str], variable: str, text: str, setting: str, value: object
) -> None:
    loaded = load({**environ, variable: text})
    assert getattr(loaded.config, setting) == value
    assert loaded.origins[setting] == variable
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("OLLAMA_MAX_QUEUE", "many"),
        ("OLLAMA_MAX_QUEUE", "-1"),
        ("OLLAMA_MAX_QUEUE", "1.5"),
        ("OLLAMA_KEEP_ALIVE", "5 minutes"),
        ("OLLAMA_KEEP_ALIVE", "9" * 5000),
        ("OLLAMA_KV_CACHE_TYPE", "f17"),
        ("OLLAMA_MODELS", "~nobody-of-this-name/models"),
        ("CORRAL_LOG_FORMAT", "xml"),
        ("CORRAL_MIRRORS", "nothing"),
    ],
)
def test_a_value_that_cannot_be_read_is_a_warning_and_the_default(
    environ: dict[str, str], variable: str, text: str
) -> None:
    loaded = load({**environ, variable: text})
    assert loaded.config == load(environ).config
    assert loaded.warnings == (f'{variable} is ignored: invalid value "{text}"',)


@pytest.mark.parametrize(
    ("variable", "setting", "value"),
    [
        ("OLLAMA_NOPRUNE", "no_prune", True),
        ("OLLAMA_DEBUG", "debug", 1),
        ("OLLAMA_FLASH_ATTENTION", "flash_attention", "on"),
        ("OLLAMA_GO_TEMPLATE", "go_template", "on"),
    ],
)
def test_a_word_that_is_neither_on_nor_off_is_a_warning_and_on(
    environ: dict[str, str], variable: str, setting: str, value: object
) -> None:
    loaded = load({**environ, variable: "maybe"})
    assert getattr(loaded.config, setting) == value
    assert loaded.warnings == (f'{variable}: "maybe" is neither on nor off, and means on',)


def test_logs_lie_where_the_user_keeps_such_things(environ: dict[str, str], tmp_path: Path) -> None:
    usual = Path.home() / ".local" / "state" / "corral"
    assert load(environ).config.state == usual
    for text in ("", "relative/folder", "~/state"):
        assert load({**environ, "XDG_STATE_HOME": text}).config.state == usual
    elsewhere = {**environ, "XDG_STATE_HOME": str(tmp_path)}
    assert load(elsewhere).config.state == tmp_path / "corral"
    assert load({**elsewhere, "CORRAL_STATE": "/own"}).config.state == Path("/own")
    Path(environ["CORRAL_CONFIG"]).write_text('state = "/of-the-file"\n')
    assert load(elsewhere).config.state == Path("/of-the-file")


SWITCHES = ("no_history", "no_prune", "sched_spread", "no_cloud", "debug", "flash_attention", "go_template")


@pytest.mark.parametrize("setting", SWITCHES)
def test_off_is_off_in_the_file(environ: dict[str, str], setting: str) -> None:
    file = Path(environ["CORRAL_CONFIG"])
    for text in ('"off"', '"no"', '"Off"', '"false"', '"0"', "false", "0"):
        file.write_text(f"{setting} = {text}\n")
        assert getattr(load(environ).config, setting) in (False, 0, "off"), text
    for text in ('"on"', '"yes"', '"TRUE"', '"1"', "true", "1"):
        file.write_text(f"{setting} = {text}\n")
        assert getattr(load(environ).config, setting) in (True, 1, "on"), text
    file.write_text(f'{setting} = "maybe"\n')
    with pytest.raises(ConfigError, match=f'invalid value for "{setting}"'):
        load(environ)


def test_what_config_shows_can_be_written_into_the_file(environ: dict[str, str]) -> None:
    file = Path(environ["CORRAL_CONFIG"])
    shown = {
        setting.name: text_of(getattr(load(environ).config, setting.name))
        for setting in fields(config.Config)
        if setting.name not in ("docker_config", "mirrors", "upstreams")  # a folder's file; tables
    }
    for flash_attention, go_template in (("on", "off"), ("off", "on"), ("auto", "")):
        shown |= {"flash_attention": flash_attention, "go_template": go_template}
        file.write_text("".join(f"{name} = {json.dumps(text)}\n" for name, text in shown.items()))
        found = load(environ).config
        assert {name: text_of(getattr(found, name)) for name in shown} == shown


@pytest.mark.parametrize("text", ["257", "300", "1000000", "9" * 20])
def test_more_requests_at_once_than_the_engine_serves_is_a_warning(environ: dict[str, str], text: str) -> None:
    loaded = load({**environ, "OLLAMA_NUM_PARALLEL": text})
    assert loaded.config.num_parallel == 256
    assert loaded.warnings == (f"OLLAMA_NUM_PARALLEL: {text} is too many, using 256",)
    file = Path(environ["CORRAL_CONFIG"])
    file.write_text(f'num_parallel = "{text}"\n')
    assert load(environ).config.num_parallel == 256
    assert load(environ).warnings == (f'"{file}": num_parallel: {text} is too many, using 256',)


def test_an_empty_variable_is_none(environ: dict[str, str]) -> None:
    assert load({**environ, "OLLAMA_KEEP_ALIVE": "", "OLLAMA_HOST": '""'}).config == load(environ).config


def test_the_environment_wins_over_the_file(environ: dict[str, str]) -> None:
    file = Path(environ["CORRAL_CONFIG"])
    file.write_text(
        'keep_alive = "1h"\nmax_queue = 7\norigins = ["http://a", "http://b"]\nno_prune = true\nhost = "0.0.0.0:1"\n'
        '[mirrors]\nx = ["y", "z"]\nw = "v"\n'
    )
    loaded = load({**environ, "OLLAMA_MAX_QUEUE": "9"})
    found = loaded.config
    assert (found.keep_alive, found.max_queue, found.no_prune) == (3600.0, 9, True)
    assert (found.origins, found.host) == (("http://a", "http://b"), Address("0.0.0.0", 1))
    assert found.mirrors == {"x": ("y", "z"), "w": ("v",)}
    assert loaded.origins["keep_alive"] == str(file)
    assert loaded.origins["max_queue"] == "OLLAMA_MAX_QUEUE"
    assert loaded.origins["debug"] == "default"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("keep_alive = ", "is no valid TOML"),
        ("keepalive = 1", 'has an unknown setting "keepalive"'),
        ("max_queue = -1", "invalid value for \"max_queue\": -1"),
        ("max_queue = true", "invalid value for \"max_queue\": True"),
        ("load_timeout = false", "invalid value for \"load_timeout\": False"),
        ("max_queue = [1]", "invalid value for \"max_queue\": [1]"),
        ('kv_cache_type = "f17"', "invalid value for \"kv_cache_type\": 'f17'"),
        ("[keep_alive]\na = 1", "invalid value for \"keep_alive\": {'a': 1}"),
        ("mirrors = 5", "invalid value for \"mirrors\": 5"),
        ("[mirrors]\na = 5", "invalid value for \"mirrors\": {'a': 5}"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_an_error(environ: dict[str, str], text: str, sentence: str) -> None:
    Path(environ["CORRAL_CONFIG"]).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(environ)
    assert sentence in str(caught.value)


def test_every_setting_can_be_written_and_read_back(environ: dict[str, str]) -> None:
    for setting in fields(config.Config):
        default = getattr(load(environ).config, setting.name)
        text = text_of(default)
        # DOCKER_CONFIG names a folder, the setting the file in it; "forever" is for people
        if text and text != "forever" and setting.name != "docker_config":
            read = getattr(load({**environ, setting.metadata["variable"]: text}).config, setting.name)
            assert read == default, setting.name


def test_a_config_file_in_the_home_of_no_user_is_an_error() -> None:
    with pytest.raises(ConfigError) as raised:
        load({"CORRAL_CONFIG": "~nobody-of-this-name/corral.toml"})
    assert str(raised.value) == 'CORRAL_CONFIG names no file: "~nobody-of-this-name/corral.toml"'


def test_the_environment_is_read_in_one_file() -> None:
    package = Path(config.__file__).parent.parent
    files = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if reads_the_environment(path)}
    assert files == {"config/environment.py", "bundle/bootstrap.py"}, "the latter stands alone, in bundles"


def reads_the_environment(file: Path) -> bool:
    """Whether a module names what holds the variables, `os.environ`, or what asks for one, `os.getenv`."""
    names = {"environ", "environb", "getenv", "getenvb"}
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "os" and node.attr in names:
                return True
        elif isinstance(node, ast.ImportFrom) and node.module == "os" and names & {alias.name for alias in node.names}:
            return True
    return False


def test_models_that_draft_are_pairs_of_names_from_a_variable_or_a_table(tmp_path: Path) -> None:
    pairs = {"llama3.3:70b": "llama3.2:1b", "a": "b"}
    text = "llama3.3:70b=llama3.2:1b,a=b"
    found = config.load({"CORRAL_DRAFT_MODELS": text}).config.draft_models
    assert (found, text_of(found)) == (pairs, text)
    file = tmp_path / "corral.toml"
    file.write_text('[draft_models]\n"llama3.3:70b" = "llama3.2:1b"\na = "b"\n')
    assert config.load({"CORRAL_CONFIG": str(file)}).config.draft_models == pairs
    for wrong in ("a=", "=b", "a", "a=b c//"):
        assert config.load({"CORRAL_DRAFT_MODELS": wrong}).config.draft_models == {}


UPSTREAMS = """
context_length = 4096

[models]
folder = "/srv/models"

[models."Qwen3-32B"]
upstreams = [
    {url = "http://10.0.0.5:8000/v1", key_file = "/run/key", model = "Qwen/Qwen3-32B", weight = 2},
    {url = "https://[fd00::7]/openai/v1/"},
]
spill = "remote-first"
capabilities = ["vision", "completion"]
"""


def test_the_file_says_which_servers_answer_for_a_model(environ: dict[str, str]) -> None:
    Path(environ["CORRAL_CONFIG"]).write_text(UPSTREAMS)
    loaded = load(environ)
    first = Upstream(url="http://10.0.0.5:8000", key_file=Path("/run/key"), model="Qwen/Qwen3-32B", weight=2.0)
    second = Upstream(url="https://[fd00::7]:443/openai")
    assert loaded.config.upstreams == {
        "qwen3-32b:latest": ServedBy(
            upstreams=(first, second), spill="remote-first", capabilities=("completion", "vision")
        ),
    }
    assert loaded.config.models == Path("/srv/models")
    assert loaded.origins["upstreams"] == loaded.origins["models"] == environ["CORRAL_CONFIG"]
    assert (first.name, second.name) == ("10.0.0.5:8000", "[fd00::7]:443/openai")
    assert text_of(loaded.config.upstreams) == (
        "qwen3-32b:latest: http://10.0.0.5:8000 as Qwen/Qwen3-32B (weight 2), "
        "https://[fd00::7]:443/openai; remote-first; completion, vision"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("upstreams = []", "upstreams: \"[]\" is no list of tables such as {url = …}"),
        ("spill = 'local-first'", "upstreams: nothing is no list of tables such as {url = …}"),
        ("upstreams = [5]", "upstreams: \"5\" is no table such as {url = …}"),
        ("upstreams = [{}]", "url: nothing is no address; it must look like http://host:port/v1"),
        ("upstreams = [{url='ftp://a'}]", "url: \"ftp://a\" is no address; it must look like http://host:port/v1"),
        ("upstreams = [{url='http://a:99999'}]", "url: \"http://a:99999\" is no address; it must look like"),
        ("upstreams = [{url='http://a/v1?key=5'}]", "url: \"http://a/v1?key=5\" is no address; it must look like"),
        ("upstreams = [{url='http://:8000'}]", "url: \"http://:8000\" is no address; it must look like"),
        ("upstreams = [{url='http://u:secret@a'}]", "\"http://…@a\" has a user name or a password, which are not"),
        ("upstreams = [{url='http://a', weight=0}]", "weight: \"0\" is no number above 0, and at most 1000"),
        ("upstreams = [{url='http://a', weight=nan}]", "weight: \"nan\" is no number above 0, and at most 1000"),
        ("upstreams = [{url='http://a', weight='2'}]", "weight: \"2\" is no number above 0, and at most 1000"),
        ("upstreams = [{url='http://a', model=3}]", "model: \"3\" is no name of a model"),
        ("upstreams = [{url='http://a', key_file=3}]", "key_file: \"3\" names no file"),
        ("upstreams = [{url='http://a', key='abc'}]", "\"key\" means nothing here; there are url, key_file"),
        ("upstreams = [{url='http://a'}, {url='http://a/v1'}]", "upstreams: \"a:80\" is there twice"),
        ("upstreams = [{url='http://a'}]\nspill = 'never'", "\"never\" is neither \"local-first\" nor"),
        ("upstream = [{url='http://a'}]", "\"upstream\" means nothing here; there are upstreams, spill"),
        ("upstreams = [{url='http://a'}]\ncapabilities = 'tools'", "capabilities: \"tools\" is no list of words"),
        ("upstreams = [{url='http://a'}]\ncapabilities = []", "capabilities: \"[]\" is no list of words such as"),
        ("upstreams = [{url='http://a'}]\ncapabilities = ['tools', 'cooking']",
         "capabilities: \"cooking\" is none; there are completion, tools, vision, audio, thinking, embedding"),
        ("upstreams = [{url='http://a'}]\ncapabilities = [5]", "capabilities: \"5\" is none; there are completion"),
    ],
)  # fmt: skip
def test_upstreams_that_cannot_be_used_are_an_error(environ: dict[str, str], text: str, sentence: str) -> None:
    Path(environ["CORRAL_CONFIG"]).write_text(f'[models."qwen"]\n{text}\n')
    with pytest.raises(ConfigError) as caught:
        load(environ)
    assert str(caught.value).startswith(f'"{environ["CORRAL_CONFIG"]}": models."qwen": ')
    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[models."a b"]\nupstreams = [{url="http://a"}]', 'models."a b": invalid model name'),
        ('[models]\nqwen = 5', 'models."qwen": "5" is no table'),
        ('[models.a]\nupstreams=[{url="http://a"}]\n[models.A]\nupstreams=[{url="http://a"}]', "named twice"),
        ('upstreams = 5', 'unknown setting "upstreams"'),
    ],
)  # fmt: skip
def test_a_table_of_models_that_is_none_is_an_error(environ: dict[str, str], text: str, sentence: str) -> None:
    Path(environ["CORRAL_CONFIG"]).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(environ)
    assert sentence in str(caught.value)
