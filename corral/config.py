"""Every setting: its name, variable, type, default and sentence, read once and handed on as a value.

Nothing else reads the environment (tests/test_config.py sees to it). Order, last wins: defaults, `corral.toml`,
environment. Source: spec cli §13.
"""

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from corral.errors import BadRequest, ConfigError
from corral.golang import durations

DEFAULT_PORT = 11434


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens and clients go: `[scheme://]host[:port][/path]`."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    scheme: str = "http"
    path: str = ""

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
        """Whether it means every interface (`0.0.0.0`, `::`); a client then goes to this machine."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """A bad port falls back to the scheme's default; the port is 80 or 443 when only a scheme is given."""
    if "://" in text:
        scheme, _, rest = text.partition("://")
        default = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT)
    else:
        scheme, rest, default = "http", text, DEFAULT_PORT
    if text == "ollama.com":
        scheme, default = "https", 443
    netloc, slash, path = rest.partition("/")
    try:
        parts = urlsplit(f"//{netloc}" if netloc.count(":") < 2 or "[" in netloc else f"//[{netloc}]")
        host = parts.hostname or "127.0.0.1"
    except ValueError:
        raise BadRequest(f'invalid host "{text}"') from None
    try:
        port = default if parts.port is None else parts.port
    except ValueError:
        port = default
    return Address(host, port, scheme, (slash + path).rstrip("/"))


def parse_bool(text: str) -> bool:
    """Go's spellings; any other text that is not empty means true."""
    return text not in ("0", "f", "F", "false", "FALSE", "False")


def parse_natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def parse_keep_alive(text: str) -> float:
    """Seconds of a Go duration or of whole seconds; zero is at once, negative for ever."""
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


def parse_debug(text: str) -> int:
    """0 info, 1 debug, 2 trace."""
    return int(text) if text in ("1", "2") else int(parse_bool(text))


def parse_choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(text)
        return text.lower()

    return parse


def parse_flash_attention(text: str) -> str:
    return "auto" if text.lower() == "auto" else "on" if parse_bool(text) else "off"


def _setting(default: Any, variable: str, parse: Callable[[str], Any], sentence: str) -> Any:
    metadata = {"variable": variable, "parse": parse, "sentence": sentence}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _user_folder() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # a container may run under a user number without a name
        raise ConfigError("your home folder is not known; set HOME") from error


def _state_folder() -> Path:
    return _user_folder() / ".local" / "state" / "corral"


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
        Address(), "OLLAMA_HOST", parse_address, "Address the server listens on and the commands go to"
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
        parse_natural,
        "Requests a model serves at once; 0: as many as memory allows, up to 16",
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
    debug: int = _setting(0, "OLLAMA_DEBUG", parse_debug, "More log lines: 1 debug, 2 trace")
    no_history: bool = _setting(False, "OLLAMA_NOHISTORY", parse_bool, "Keep no history of what is typed")
    no_prune: bool = _setting(False, "OLLAMA_NOPRUNE", parse_bool, "Keep files that no model refers to")
    flash_attention: str = _setting(
        "auto", "OLLAMA_FLASH_ATTENTION", parse_flash_attention, "Flash attention: on, off or auto"
    )
    kv_cache_type: str = _setting(
        "f16", "OLLAMA_KV_CACHE_TYPE", parse_choice(*CACHE_TYPES), "Number type of the KV cache"
    )
    gpu_overhead: int = _setting(
        0, "OLLAMA_GPU_OVERHEAD", parse_natural, "Bytes kept free on each GPU; has no effect yet"
    )
    sched_spread: bool = _setting(
        False, "OLLAMA_SCHED_SPREAD", parse_bool, "Spread every model over all GPUs; has no effect yet"
    )
    go_template: Literal["on", "off", ""] = _setting(
        "",
        "OLLAMA_GO_TEMPLATE",
        lambda text: "on" if parse_bool(text) else "off",
        "Whether a Modelfile's TEMPLATE is used: on, off, or by comparison with the model's own when empty",
    )
    no_cloud: bool = _setting(
        True, "OLLAMA_NO_CLOUD", parse_bool, "Has no effect: Corral runs models on this machine only, always"
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
        True, "CORRAL_END_REPETITION", parse_bool, "Whether an answer that repeats itself without end is ended"
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
    """A configuration, where each of its fields came from, and what was wrong with what was given."""

    config: Config
    origins: Mapping[str, str]
    warnings: tuple[str, ...]
    file: Path


def load(environ: Mapping[str, str] | None = None) -> Loaded:
    """Reads `corral.toml` and the environment. A value that cannot be read is left at its default, with a warning.

    `ConfigError` for a file that is no TOML, has an unknown key, or a value of the wrong kind.
    """
    environ = os.environ if environ is None else environ
    file = config_file(environ)
    values: dict[str, Any] = {}
    origins = {setting.name: "default" for setting in fields(Config)}
    warnings = []
    for name, value in _read_file(file).items():
        values[name] = value
        origins[name] = str(file)
    for setting in fields(Config):
        variable = setting.metadata["variable"]
        text = _unquoted(environ, variable)
        if not text:
            continue
        try:
            values[setting.name] = setting.metadata["parse"](text)
            origins[setting.name] = variable
        except (ValueError, BadRequest):
            warnings.append(f'{variable} is ignored: invalid value "{text}"')
    return Loaded(Config(**values), origins, tuple(warnings), file)


def is_debugging() -> bool:
    """Whether `OLLAMA_DEBUG` is on, for when not even the settings may be readable."""
    return parse_debug(_unquoted(os.environ, "OLLAMA_DEBUG") or "0") > 0


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
    return {name: _from_toml(file, name, value, known[name].metadata["parse"]) for name, value in table.items()}


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
            case bool() if parse in (parse_natural, parse_keep_alive, parse_timeout):
                raise TypeError(value)
            case bool():
                return parse("1" if value else "0")
            case _:
                return parse(str(value))
    except (ValueError, TypeError, BadRequest):
        raise ConfigError(f'"{file}": invalid value for "{name}": {value!r}') from None


def text_of(value: Any) -> str:
    """A setting's value as a person would write it."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return "forever" if value == durations.FOREVER_SECONDS else durations.text(int(value * durations.SECOND))
        case tuple():
            return ",".join(map(str, value))
        case dict():
            return ";".join(f"{key}={','.join(sources)}" for key, sources in value.items())
        case _:
            return str(value)
