"""Every setting: its name, variable, type, default and sentence, read once and handed on as a value.

Nothing else reads the environment (tests/test_config.py sees to it). Order, last wins: defaults, `corral.toml`,
environment. Source: spec cli §13.
"""

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from corral.errors import BadRequest, ConfigError
from corral.golang import durations

DEFAULT_PORT = 11434
MAX_PORT = 65535

FOREVER = "forever"
"""How a duration without end is written."""

MAX_PARALLEL = 256
"""Sequences that llama.cpp decodes at once at most (`LLAMA_MAX_SEQ`)."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens and clients go: `[scheme://]host[:port][/path]`."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    scheme: str = "http"
    path: str = ""
    is_port_only: bool = field(default=False, compare=False)
    """Whether no host was named (`:1234`): clients go to this machine, a server listens on every interface."""

    @property
    def to_listen(self) -> "Address":
        """The same for a server, whose host is empty when it listens on every interface."""
        return replace(self, host="") if self.is_port_only else self

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.path}"

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def is_unspecified(self) -> bool:
        """Whether it means every interface (`0.0.0.0`, `::`, none); a client then goes to this machine."""
        if not self.host:
            return True
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


class Adjusted(NamedTuple):
    """What a setting's parser returns when the value is not the one that was written, and a sentence that says so."""

    value: Any
    remark: str


def parse_address(text: str) -> Address:
    """`[scheme://]host[:port][/path]`; the default address for an empty text.

    The port is 80 or 443 when a scheme is given without one; a bad port falls back to that default (spec cli §13).
    `BadRequest` for any other text that cannot be read; its sentence leaves out a user name and password.
    """
    return _address_and_port(text)[0]


def _address_and_port(text: str) -> tuple[Address, str]:
    """An address, and its port as it was written when that cannot be read; else empty."""
    if "@" in text:  # anywhere: a password with a slash in it would count as a path, and be shown
        raise BadRequest(f'"{without_password(text)}" has a user name or a password, which are not supported')
    scheme, separator, rest = text.partition("://") if "://" in text else ("http", "", text)
    scheme = scheme.lower()
    default = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if separator else DEFAULT_PORT
    if text == "ollama.com":
        scheme, default = "https", 443
    netloc, slash, path = rest.partition("/")
    is_slip = not separator and netloc.startswith(("http:", "https:"))  # a slash is missing
    if is_slip or not scheme.isalnum() or (text and not netloc):
        raise _no_address(text)
    host, port = _host_and_port(netloc, text)
    is_port_only = bool(netloc) and not host
    address = Address(host or "127.0.0.1", default, scheme, (slash + path).rstrip("/"), is_port_only)
    if not port:
        return address, ""
    if not (port.isascii() and port.isdigit() and len(port) < 20 and int(port) <= MAX_PORT):
        return address, port
    return replace(address, port=int(port)), ""


def _host_and_port(netloc: str, text: str) -> tuple[str, str]:
    """Both as they are written, the host in lower case; either may be empty. `BadRequest` for what is no host."""
    try:
        if netloc.startswith("["):
            host, bracket, rest = netloc[1:].partition("]")
            if not bracket or rest[:1] not in ("", ":"):
                raise ValueError(netloc)
            return str(ipaddress.IPv6Address(host)), rest[1:]
        if netloc.count(":") > 1:
            return str(ipaddress.IPv6Address(netloc)), ""
    except ValueError:
        raise _no_address(text) from None
    host, _, port = netloc.partition(":")
    if not all(letter.isalnum() or letter in "-._" for letter in host):
        raise _no_address(text)
    return host.lower(), port


def _no_address(text: str) -> BadRequest:
    return BadRequest(f'"{text}" is no address; it must look like host:port or http://host:port')


def without_password(text: str) -> str:
    """The text of an address with `…` in the place of a user name and password."""
    before, at, after = text.rpartition("@")
    scheme, separator, _ = before.partition("://")
    kept = scheme + separator if separator and scheme.isalnum() else ""
    return f"{kept}…@{after}" if at else text


def _parse_host(text: str) -> Address | Adjusted:
    address, bad_port = _address_and_port(text)
    if not bad_port:
        return address
    return Adjusted(address, f'invalid port "{bad_port}", using {address.port}')


ON = ("1", "t", "true", "y", "yes", "on")
OFF = ("0", "f", "false", "n", "no", "off")


def parse_switch(text: str) -> bool:
    """Whether a word means on, in upper or lower case; `ValueError` for one that means neither on nor off."""
    if text.lower() not in ON + OFF:
        raise ValueError(text)
    return text.lower() in ON


def parse_natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def _at_most(most: int) -> Callable[[str], int | Adjusted]:
    """A parser of natural numbers that takes larger ones for `most`."""

    def parse(text: str) -> int | Adjusted:
        value = parse_natural(text)
        return value if value <= most else Adjusted(most, f"{value} is too many, using {most}")

    return parse


def parse_keep_alive(text: str) -> float:
    """Seconds of a Go duration or of whole seconds; zero is at once; negative, or `forever`, is for ever."""
    if text.lower() == FOREVER:
        return durations.FOREVER_SECONDS
    try:
        seconds = int(text)
    except ValueError:
        return durations.keep_alive(text)
    return durations.keep_alive(seconds)


def parse_timeout(text: str) -> float:
    """Seconds as `parse_keep_alive` reads them, but zero is for ever too."""
    return parse_keep_alive(text) or durations.FOREVER_SECONDS


def parse_list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def parse_path(text: str) -> Path:
    """Absolute, with `~` and `~user` as home folders."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # the home of a user that does not exist
        raise ValueError(text) from None


def parse_web_address(text: str) -> str:
    """`http[s]://host[:port][/path]`, without a slash at its end; `BadRequest` or `ValueError` for anything else."""
    if not text.startswith(("http://", "https://")):
        raise ValueError(text)
    parse_address(text)
    return text.rstrip("/")


def parse_debug(text: str) -> int:
    """0 info, 1 debug, 2 trace."""
    return 2 if text == "2" else int(parse_switch(text))


def parse_choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(text)
        return text.lower()

    return parse


def parse_on_off(text: str) -> str:
    return "on" if parse_switch(text) else "off"


def parse_flash_attention(text: str) -> str:
    return "auto" if text.lower() == "auto" else parse_on_off(text)


SWITCHES = (parse_switch, parse_debug, parse_on_off, parse_flash_attention)
"""Parsers of settings that a file may set to true or false."""


def _setting(
    default: Any,
    variable: str,
    parse: Callable[[str], Any],
    sentence: str,
    *,
    other: Any = None,
    must_be_valid: bool = False,
) -> Any:
    """A field of `Config`. `parse` returns its value or an `Adjusted`; `ValueError` or `BadRequest`: it cannot.

    `other` is what the variable then means; None: it is ignored. With `must_be_valid` it is an error.
    """
    metadata = {
        "variable": variable,
        "parse": parse,
        "sentence": sentence,
        "other": other,
        "must_be_valid": must_be_valid,
    }
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _user_folder() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # a container may run under a user number without a name
        raise ConfigError("your home folder is not known; set HOME") from error


def _state_folder(environ: Mapping[str, str] | None = None) -> Path:
    """`$XDG_STATE_HOME`, or where that is by default; a relative one counts for nothing (XDG's specification)."""
    base = Path((environ or {}).get("XDG_STATE_HOME", ""))
    return (base if base.is_absolute() else _user_folder() / ".local" / "state") / "corral"


def _home_folder() -> Path:
    return _user_folder() / ".ollama"


def _models_folder() -> Path:
    return _home_folder() / "models"


def _docker_config() -> Path:
    return _user_folder() / ".docker" / "config.json"


CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one process. Every field is a line of `corral config` and of the reference page."""

    host: Address = _setting(
        Address(),
        "OLLAMA_HOST",
        _parse_host,
        "Address the server listens on and the commands go to",
        must_be_valid=True,
    )
    models: Path = _setting(_models_folder, "OLLAMA_MODELS", parse_path, "Folder of the models, shared with Ollama")
    home: Path = _setting(_home_folder, "CORRAL_HOME", parse_path, "Folder of the key pair and the history")
    keep_alive: float = _setting(
        300.0, "OLLAMA_KEEP_ALIVE", parse_keep_alive, "How long an idle model stays loaded; negative: for ever"
    )
    load_timeout: float = _setting(
        300.0, "OLLAMA_LOAD_TIMEOUT", parse_timeout, "How long a load may go without progress; 0 or negative: for ever"
    )
    context_length: int = _setting(
        0, "OLLAMA_CONTEXT_LENGTH", parse_natural, "Context length of models that set none; 0: by model and memory"
    )
    num_parallel: int = _setting(
        0,
        "OLLAMA_NUM_PARALLEL",
        _at_most(MAX_PARALLEL),
        "Requests a model serves at once, up to 256; 0: as many as memory allows, up to 16",
    )
    max_loaded_models: int = _setting(
        0, "OLLAMA_MAX_LOADED_MODELS", parse_natural, "Models kept loaded at once; 0: three for each GPU, or three"
    )
    max_queue: int = _setting(
        512, "OLLAMA_MAX_QUEUE", parse_natural, "Requests that may wait before others are refused"
    )
    origins: tuple[str, ...] = _setting(
        (), "OLLAMA_ORIGINS", parse_list, "Further web origins that may call the server"
    )
    debug: int = _setting(0, "OLLAMA_DEBUG", parse_debug, "More log lines: 1 debug, 2 trace", other=1)
    no_history: bool = _setting(False, "OLLAMA_NOHISTORY", parse_switch, "Keep no history of what is typed", other=True)
    no_prune: bool = _setting(False, "OLLAMA_NOPRUNE", parse_switch, "Keep files that no model refers to", other=True)
    flash_attention: str = _setting(
        "auto", "OLLAMA_FLASH_ATTENTION", parse_flash_attention, "Flash attention: on, off or auto", other="on"
    )
    kv_cache_type: str = _setting(
        "f16", "OLLAMA_KV_CACHE_TYPE", parse_choice(*CACHE_TYPES), "Number type of the KV cache"
    )
    gpu_overhead: int = _setting(
        0, "OLLAMA_GPU_OVERHEAD", parse_natural, "Bytes kept free on each GPU; has no effect yet"
    )
    sched_spread: bool = _setting(
        False, "OLLAMA_SCHED_SPREAD", parse_switch, "Spread every model over all GPUs; has no effect yet", other=True
    )
    go_template: Literal["on", "off", ""] = _setting(
        "",
        "OLLAMA_GO_TEMPLATE",
        parse_on_off,
        "Whether a Modelfile's TEMPLATE is used: on, off, or by comparison with the model's own when empty",
        other="on",
    )
    no_cloud: bool = _setting(
        True,
        "OLLAMA_NO_CLOUD",
        parse_switch,
        "Has no effect: Corral runs models on this machine only, always",
        other=True,
    )
    editor: str = _setting("", "OLLAMA_EDITOR", str, "Editor for long messages; not used yet")
    idle_exit: float = _setting(
        durations.FOREVER_SECONDS,
        "CORRAL_IDLE_EXIT",
        parse_timeout,
        "How long a server without work runs before it ends; 0: for ever. 10m when a command started it",
    )
    log_format: str = _setting(
        "text", "CORRAL_LOG_FORMAT", parse_choice("text", "json"), "Form of log lines: text or json"
    )
    state: Path = _setting(_state_folder, "CORRAL_STATE", parse_path, "Folder of logs and other traces of running")
    docker_config: Path = _setting(
        _docker_config,
        "DOCKER_CONFIG",
        lambda text: parse_path(text) / "config.json",
        "Where `docker login` keeps its credentials, which are used for registries too",
    )
    engine: str = _setting("", "CORRAL_ENGINE", str, "Another llama-server program to use as the engine")
    pool_contexts: int = _setting(
        4, "CORRAL_POOL_CONTEXTS", parse_natural, "Full contexts that the KV pool of a model holds, memory permitting"
    )
    end_repetition: bool = _setting(
        True, "CORRAL_END_REPETITION", parse_switch, "Whether an answer that repeats itself without end is ended"
    )
    keep_responses: int = _setting(
        1000,
        "CORRAL_KEEP_RESPONSES",
        parse_natural,
        "Answers of /v1/responses that are kept, for 30 days, to be gone on from by their id; 0: none",
    )
    body_memory: int = _setting(
        0,
        "CORRAL_BODY_MEMORY",
        parse_natural,
        "Bytes that request bodies may take together while they are read; 0: an eighth of the memory, at least 512 MiB",
    )
    fetch_images: bool = _setting(
        False,
        "CORRAL_FETCH_IMAGES",
        parse_switch,
        "Whether images that a request of OpenAI's or Anthropic's API names by URL are fetched, from public addresses",
    )
    hub: str = _setting(
        "https://huggingface.co",
        "HF_ENDPOINT",
        lambda text: parse_web_address(text),
        "Where `corral search` looks for models: Hugging Face, or a mirror that speaks its API",
    )
    mirrors: Mapping[str, tuple[str, ...]] = _setting(
        dict,
        "CORRAL_MIRRORS",
        lambda text: _parse_mirrors(text),
        "Where else a model may come from: NAME=SOURCE,SOURCE;…",
    )


def _parse_mirrors(text: str) -> dict[str, tuple[str, ...]]:
    """`NAME=SOURCE,SOURCE;NAME=SOURCE`."""
    found = {}
    for entry in filter(None, (entry.strip() for entry in text.split(";"))):
        name, equals, sources = entry.partition("=")
        if not equals:
            raise ValueError(entry)
        found[name.strip()] = parse_list(sources)
    return found


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, where each of its fields came from, and what was wrong with what was given, by field."""

    config: Config
    origins: Mapping[str, str]
    remarks: Mapping[str, str]
    file: Path

    @property
    def warnings(self) -> tuple[str, ...]:
        """Everything that was wrong, a sentence each."""
        return tuple(self.remarks.values())


def load(environ: Mapping[str, str] | None = None) -> Loaded:
    """Reads `corral.toml` and the environment. A value that cannot be read is left at its default, with a warning.

    `ConfigError` for an address that cannot be read, since commands would then act on this machine, and for a file
    that is no TOML, has an unknown key, or a value of the wrong kind.
    """
    environ = os.environ if environ is None else environ
    file = config_file(environ)
    values = _read_file(file)
    origins = {setting.name: str(file) if setting.name in values else "default" for setting in fields(Config)}
    remarks: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Adjusted):
            values[name], remarks[name] = value.value, f'"{file}": {name}: {value.remark}'
    for setting in fields(Config):
        variable = setting.metadata["variable"]
        if text := _unquoted(environ, variable):
            value, remark = _from_variable(variable, text, setting.metadata)
            if value is not None:
                values[setting.name] = value
                origins[setting.name] = variable
                remarks.pop(setting.name, "")  # the file's value does not count
            if remark:
                remarks[setting.name] = remark
    values.setdefault("state", _state_folder(environ))
    return Loaded(Config(**values), origins, remarks, file)


def _from_variable(variable: str, text: str, metadata: Mapping[str, Any]) -> tuple[Any, str]:
    """The value of a variable, None: it is ignored; and what was wrong with it. `ConfigError` as `load`."""
    try:
        value = metadata["parse"](text)
    except (ValueError, BadRequest) as error:
        if metadata["must_be_valid"]:
            raise ConfigError(f"{variable}: {error}") from None
        if metadata["other"] is None:
            return None, f'{variable} is ignored: invalid value "{without_password(text)}"'
        return metadata["other"], f'{variable}: "{text}" is neither on nor off, and means on'
    return (value.value, f"{variable}: {value.remark}") if isinstance(value, Adjusted) else (value, "")


def is_debugging() -> bool:
    """Whether `OLLAMA_DEBUG` is on, for when not even the settings may be readable."""
    return _unquoted(os.environ, "OLLAMA_DEBUG").lower() not in ("", *OFF)


def given_variables() -> dict[str, str]:
    """The variables that look like settings of ours or of Ollama's."""
    return {name: text for name, text in os.environ.items() if name.startswith(("OLLAMA_", "CORRAL_"))}


def wants_no_colours() -> bool:
    """Whether the user asks every program for output without colours (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def is_dumb_terminal() -> bool:
    """Whether the terminal only takes lines: nothing that stands there can be drawn over."""
    return os.environ.get("TERM") == "dumb"


def child_environment(**changes: str) -> dict[str, str]:
    """The variables for a child process: all of this process, with changes."""
    return {**os.environ, **changes}


def _unquoted(environ: Mapping[str, str], variable: str) -> str:
    """A variable's text without blanks and quotes around it; empty when it is not set (spec cli §13)."""
    return environ.get(variable, "").strip().strip("\"'")


def config_file(environ: Mapping[str, str]) -> Path:
    """`$CORRAL_CONFIG`, else `corral.toml` in the user's configuration folder."""
    if named := environ.get("CORRAL_CONFIG"):
        try:
            return parse_path(named)
        except ValueError as error:
            raise ConfigError(f'CORRAL_CONFIG names no file: "{named}"') from error
    base = environ.get("XDG_CONFIG_HOME") or str(_user_folder() / ".config")
    return Path(base) / "corral" / "corral.toml"


def _read_file(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f'cannot read "{file}": {error}') from error
    import tomllib  # most users have no such file, and every command starts faster without it

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f'"{file}" is no valid TOML: {error}') from error
    known = {setting.name: setting for setting in fields(Config)}
    for name in table:
        if name not in known:
            raise ConfigError(f'"{file}" has an unknown setting "{name}"; `corral config` lists them')
    return {
        name: _from_toml(file, name, value, known[name].metadata["parse"])
        for name, value in table.items()
        if value != ""  # as an empty variable: not set
    }


def _from_toml(file: Path, name: str, value: Any, parse: Callable[[str], Any]) -> Any:
    try:
        match value:
            case dict() if name == "mirrors":
                return {key: (item,) if isinstance(item, str) else tuple(item) for key, item in value.items()}
            case dict():
                raise TypeError(value)
            case list() if parse is parse_list:
                return tuple(str(item) for item in value)
            case list():
                raise TypeError(value)
            case bool() if parse not in SWITCHES:
                raise TypeError(value)
            case bool():
                return parse("1" if value else "0")
            case _:
                return parse(str(value))
    except (ValueError, TypeError, BadRequest) as error:
        if name in ("host", "hub"):  # may have a password
            reason = error if isinstance(error, BadRequest) else f'"{without_password(str(value))}" is no address'
            raise ConfigError(f'"{file}": {name}: {reason}') from None
        raise ConfigError(f'"{file}": invalid value for "{name}": {value!r}') from None


def text_of(value: Any) -> str:
    """A setting's value as a person would write it."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return FOREVER if value == durations.FOREVER_SECONDS else durations.text(int(value * durations.SECOND))
        case Address() if value.is_port_only:
            return f"{value.scheme}://:{value.port}{value.path}"
        case tuple():
            return ",".join(map(str, value))
        case dict():
            return ";".join(f"{key}={','.join(sources)}" for key, sources in value.items())
        case _:
            return str(value)
