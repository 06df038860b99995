"""Every load option in one table: the request's option, the field of `RunnerSpec`, when a loaded model can serve a
request that asks for it, the parameter of the built-in engine, and the arguments of a llama-server program.

Knows no process and no request. The worker writes parameters or arguments from it, the scheduler compares by it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from msgspec import Struct

from corral.engine.base import RunnerSpec
from corral.engine.placement import Placement

PLAIN_TEMPLATE = "chatml"
"""A built-in chat template that replaces the file's own where the engine must not run that one."""

TEXT_BATCH = 2048
"""Tokens of a text to embed that are computed at once where no more is known of the memory."""

NGRAM = 6
"""Tokens that must stand in the conversation twice before what followed them is drafted."""

Value: TypeAlias = bool | int | str | tuple[str, ...]


class Setting(Struct, frozen=True):
    """One choice in both forms: `parameter` of xllamacpp's `CommonParams` (a dotted path) and its `value`, and the
    `arguments` that mean the same on llama-server's command line.

    An empty `parameter` has no counterpart in the wheel's engine.
    An enumeration's member is given by the end of its name, in lower case: `q8_0`, `mean`.
    """

    parameter: str
    value: Value
    arguments: tuple[str, ...]


class LoadOption(Struct, frozen=True, kw_only=True):
    """One field of `RunnerSpec` and everything that follows from it."""

    field: str
    option: str = ""
    """The request's option that sets the field; empty: the model or the configuration does."""
    can_serve: Callable[[RunnerSpec, RunnerSpec], bool]
    """Whether a model loaded by the second specification can serve a request for the first."""
    settings: Callable[[RunnerSpec], Sequence[Setting]] = lambda spec: ()


def can_serve(wanted: RunnerSpec, loaded: RunnerSpec) -> bool:
    """Whether a loaded model can serve a request: never reload to shrink, nor for an option the request leaves open."""
    return all(option.can_serve(wanted, loaded) for option in LOAD_OPTIONS)


def same_model(one: RunnerSpec, other: RunnerSpec) -> bool:
    """Whether both are the same weights in the same use: names do not matter, and embedding is another use."""
    return all(option.can_serve(one, other) for option in LOAD_OPTIONS if option.field in IDENTITY)


def settings(spec: RunnerSpec) -> Iterator[Setting]:
    """Everything that a worker is to set for a specification, the same for every engine."""
    yield from COMMON
    for option in LOAD_OPTIONS:
        yield from option.settings(spec)


def batches(spec: RunnerSpec) -> tuple[int, int]:
    """Tokens of a logical and a physical batch: by context unless given; an embedding fits into one (spec api §6)."""
    automatic = 2048 if spec.num_ctx > 32768 else 1024 if spec.num_ctx > 4096 else 512
    if spec.mode != "generate":
        automatic = min(spec.text_batch or TEXT_BATCH, spec.num_ctx)
    elif spec.tuned is not None:
        automatic = spec.tuned.num_batch or automatic
    physical = spec.num_batch or automatic
    return (max(physical, 512) if spec.mode == "generate" else physical), physical


def _same(field: str) -> Callable[[RunnerSpec, RunnerSpec], bool]:
    return lambda wanted, loaded: bool(getattr(wanted, field) == getattr(loaded, field))


def _same_if_given(
    field: str, unset: int | None = None, default: int | None = None
) -> Callable[[RunnerSpec, RunnerSpec], bool]:
    """Equal, or not given. `unset` marks "not given"; a model loaded without the option has `default`."""

    def compare(wanted: RunnerSpec, loaded: RunnerSpec) -> bool:
        asked, found = getattr(wanted, field), getattr(loaded, field)
        return bool(asked == unset or asked == (default if found is None else found))

    return compare


def _always(wanted: RunnerSpec, loaded: RunnerSpec) -> bool:
    """For what follows from the model's files or from the configuration, and for sizes chosen at each load."""
    return True


def _number(parameter: str, flag: str, value: int) -> Setting:
    return Setting(parameter, value, (flag, str(value)))


def _text(parameter: str, flag: str, value: str) -> Setting:
    return Setting(parameter, value, (flag, value))


def _mode(spec: RunnerSpec) -> Sequence[Setting]:
    if spec.mode == "rank":
        return [
            Setting("embedding", True, ("--reranking",)),
            Setting("pooling_type", "rank", ()),  # that flag means both
        ]
    if spec.mode == "embed":
        return [Setting("embedding", True, ("--embeddings",))]
    return [Setting("ctx_shift", True, ("--context-shift",))]


def _pooling(spec: RunnerSpec) -> Sequence[Setting]:
    return [_text("pooling_type", "--pooling", "mean")] if spec.pooling == "mean" else []


def _batch(spec: RunnerSpec) -> Sequence[Setting]:
    logical, physical = batches(spec)
    return [_number("n_batch", "--batch-size", logical), _number("n_ubatch", "--ubatch-size", physical)]


def _gpu_layers(spec: RunnerSpec) -> Sequence[Setting]:
    """A placement or a given number of layers is loaded as it is. Without, the engine fits the model into the GPUs'
    memory."""
    if spec.placement is not None:
        return _placed(spec, spec.placement)
    if spec.num_gpu < 0:
        return []
    return [_number("n_gpu_layers", "--gpu-layers", spec.num_gpu), Setting("fit_params", False, ("--fit", "off"))]


def _placed(spec: RunnerSpec, placement: Placement) -> Sequence[Setting]:
    """The wheel's engine cannot be told which devices to use: those without a layer get no share of the tensors."""
    names = ",".join(share.device for share in placement.shares) or "none"
    found: list[Setting] = [
        _number("n_gpu_layers", "--gpu-layers", placement.layers),
        Setting("fit_params", False, ("--fit", "off")),
        Setting("", names, ("--device", names)),
    ]
    if placement.devices > 1 and placement.shares:
        parts = ",".join(str(share.layers) for share in placement.shares)
        split = placement.split if len(placement.split) <= _SPLITS else placement.split[:_SPLITS]
        found.append(Setting("tensor_split", tuple(map(str, split)), ("--tensor-split", parts)))
    if placement.cpu_moe:
        where = _experts_of(placement.cpu_moe)
        found.append(Setting("tensor_buft_overrides", where, ("--n-cpu-moe", str(placement.cpu_moe))))
    if spec.projectors and not placement.shares:
        found.append(Setting("mmproj_use_gpu", False, ("--no-mmproj-offload",)))
    if placement.shares:
        found.append(_number("verbosity", "--verbosity", _SAYS_BUFFERS))
    return found


_SPLITS = 128
"""Devices that the wheel's engine has room for."""

_SAYS_BUFFERS = 4
"""The level from which llama.cpp says what it holds on each device."""


def _threads(spec: RunnerSpec) -> Sequence[Setting]:
    if spec.num_thread <= 0:
        return []
    return [
        _number("cpuparams.n_threads", "--threads", spec.num_thread),
        _number("cpuparams_batch.n_threads", "--threads-batch", spec.num_thread),
    ]


def _tuned(spec: RunnerSpec) -> Sequence[Setting]:
    """What only tuning sets; threads, batches, cache and drafts stand where requests set them, too."""
    is_plain = spec.tuned is not None and not spec.tuned.repack
    return [Setting("no_extra_bufts", True, ("--no-repack",))] if is_plain else []


def _mmap(spec: RunnerSpec) -> Sequence[Setting]:
    if spec.use_mmap is None:
        return []
    return [_text("load_mode", "--load-mode", "mmap" if spec.use_mmap else "none")]


def _adapters(spec: RunnerSpec) -> Sequence[Setting]:
    flags = tuple(word for path in spec.adapters for word in ("--lora", path))
    return [Setting("lora_adapters", spec.adapters, flags)] if spec.adapters else []


def _ngram_draft(spec: RunnerSpec) -> Sequence[Setting]:
    """Drafts what followed the last time that the same few tokens stood in the conversation.

    Of the engine's ways to look that up, this one depends on nothing but the tokens of the request itself, so that the
    same request drafts the same whatever other slots do.
    """
    if not spec.ngram_draft:
        return []
    return [
        Setting("speculative.types", "ngram_simple", ("--spec-type", "ngram-simple")),
        _number("speculative.ngram_simple.size_n", "--spec-ngram-simple-size-n", NGRAM),
        _number("speculative.ngram_simple.size_m", "--spec-ngram-simple-size-m", spec.ngram_draft),
    ]


def _draft_model(spec: RunnerSpec) -> Sequence[Setting]:
    """Its layers stay in main memory: the placement on GPUs leaves no room for them."""
    if not spec.draft_model:
        return []
    return [
        Setting("speculative.types", "draft_simple", ("--spec-type", "draft-simple")),
        _text("speculative.draft.mparams.path", "--spec-draft-model", spec.draft_model),
        _number("speculative.draft.n_max", "--spec-draft-n-max", spec.draft_tokens),
        _number("speculative.draft.n_gpu_layers", "--spec-draft-ngl", 0),
    ]


def _same_draft(wanted: RunnerSpec, loaded: RunnerSpec) -> bool:
    """A request that leaves it open takes what there is, also where a load of its own would draft otherwise."""
    drafted = loaded.draft_tokens or loaded.ngram_draft
    found = drafted if loaded.draft_num_predict is None else loaded.draft_num_predict
    return wanted.draft_num_predict in (None, found)


def _flash_attention(spec: RunnerSpec) -> Sequence[Setting]:
    member = {"on": "enabled", "off": "disabled", "auto": "auto"}[spec.flash_attention]
    return [Setting("flash_attn_type", member, ("--flash-attn", spec.flash_attention))]


COMMON = (
    Setting("ui", False, ("--no-webui",)),
    Setting("offline", True, ("--offline",)),
    # A warm-up costs as much as it saves: the first request warms the same pages.
    Setting("warmup", False, ("--no-warmup",)),
    Setting("prefill_assistant", False, ("--no-prefill-assistant",)),  # a request says which answers are gone on with
    Setting("kv_unified", True, ("--kv-unified",)),
)
"""What every worker sets, whatever it loads."""

PER_SLOT = "--kv-unified-per-slot"
"""Without it a slot may fill the whole pool, so that the pool has to be one context."""

SPARED: dict[str, dict[str, tuple[str, ...]]] = {
    "--no-webui": {},
    "--offline": {},
    "--no-warmup": {},
    "--no-prefill-assistant": {},
    "--cache-ram": {},
    "--slot-save-path": {},
    "--fit": {},
    PER_SLOT: {},
    "--device": {},
    "--n-cpu-moe": {},
    "--override-tensor": {},
    "--verbosity": {},
    "--no-mmproj-offload": {},
    "--load-mode": {"none": ("--no-mmap",)},
    "--context-shift": {},
    "--image-min-tokens": {},
    "--no-repack": {},
    "--spec-type": {},
    "--spec-draft-model": {},
    "--spec-draft-n-max": {},
    "--spec-draft-ngl": {},
    "--spec-ngram-simple-size-n": {},
    "--spec-ngram-simple-size-m": {},
}
"""Flags that a llama-server of another age may lack and a model is loaded without, and what means the same there, by
the flag's value. Answers are right without them; without others, such as the context of one request, they are not."""


def spared(arguments: Sequence[str], without: Sequence[str]) -> Sequence[str]:
    """The arguments of one setting for a llama-server that lacks some flags."""
    if not arguments or arguments[0] not in without:
        return arguments
    if arguments[0] == "--n-cpu-moe" and "--override-tensor" not in without:
        return ("--override-tensor", _experts_of(int(arguments[1])))
    return SPARED[arguments[0]].get(arguments[1] if len(arguments) > 1 else "", ())


def _experts_of(layers: int) -> str:
    """What `--n-cpu-moe` stands for: the tensors of the experts of the first layers, and where they lie."""
    numbers = "|".join(map(str, range(layers)))
    return rf"blk\.({numbers})\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"


IDENTITY = ("model", "mode", "pooling")
"""The fields that make two specifications the same model in the same use."""

LOAD_OPTIONS: tuple[LoadOption, ...] = (
    LoadOption(
        field="model",
        can_serve=_same("model"),
        settings=lambda spec: [_text("model.path", "--model", spec.model)],
    ),
    LoadOption(field="mode", can_serve=_same("mode"), settings=_mode),
    LoadOption(field="pooling", can_serve=_same("pooling"), settings=_pooling),
    LoadOption(
        field="num_ctx",
        option="num_ctx",
        can_serve=lambda wanted, loaded: wanted.num_ctx_automatic or wanted.num_ctx <= loaded.num_ctx,
        settings=lambda spec: [_number("kv_unified_per_slot", "--kv-unified-per-slot", spec.num_ctx)],
    ),
    LoadOption(field="num_ctx_automatic", can_serve=_always),
    LoadOption(field="grown_ctx", can_serve=_always),
    LoadOption(
        field="slots", can_serve=_always, settings=lambda spec: [_number("n_parallel", "--parallel", spec.slots)]
    ),
    LoadOption(field="pool", can_serve=_always, settings=lambda spec: [_number("n_ctx", "--ctx-size", spec.pool)]),
    LoadOption(field="num_batch", option="num_batch", can_serve=_same_if_given("num_batch"), settings=_batch),
    LoadOption(field="text_batch", can_serve=_always),
    LoadOption(field="compute_bytes", can_serve=_always),
    LoadOption(field="num_gpu", option="num_gpu", can_serve=_same_if_given("num_gpu", unset=-1), settings=_gpu_layers),
    LoadOption(
        field="main_gpu",
        option="main_gpu",
        can_serve=_same_if_given("main_gpu", default=0),
        settings=lambda spec: (
            []
            if spec.main_gpu is None or spec.placement is not None
            else [_number("main_gpu", "--main-gpu", spec.main_gpu)]
        ),
    ),
    LoadOption(field="use_mmap", option="use_mmap", can_serve=_same_if_given("use_mmap"), settings=_mmap),
    LoadOption(
        field="num_thread", option="num_thread", can_serve=_same_if_given("num_thread", unset=0), settings=_threads
    ),
    LoadOption(
        # Compared, so that a request for another value gets a load of its own.
        field="draft_num_predict",
        option="draft_num_predict",
        can_serve=_same_draft,
    ),
    LoadOption(field="ngram_draft", can_serve=_always, settings=_ngram_draft),
    LoadOption(field="draft_model", can_serve=_always, settings=_draft_model),
    LoadOption(field="draft_tokens", can_serve=_always),
    LoadOption(
        # It reports 0.0 and no alternatives for each that was accepted.
        field="needs_logprobs",
        can_serve=lambda wanted, loaded: not (wanted.needs_logprobs and (loaded.ngram_draft or loaded.draft_tokens)),
    ),
    LoadOption(field="tuned", can_serve=_always, settings=_tuned),
    LoadOption(
        field="projectors",
        can_serve=_same("projectors"),
        settings=lambda spec: [_text("mmproj.path", "--mmproj", path) for path in spec.projectors[:1]],
    ),
    LoadOption(field="adapters", can_serve=_same("adapters"), settings=_adapters),
    LoadOption(
        field="own_template",
        can_serve=lambda wanted, loaded: loaded.own_template or not wanted.own_template,
        settings=lambda spec: [] if spec.own_template else [_text("chat_template", "--chat-template", PLAIN_TEMPLATE)],
    ),
    LoadOption(
        field="image_min_tokens",
        can_serve=_always,
        settings=lambda spec: [
            _number("image_min_tokens", "--image-min-tokens", tokens) for tokens in [spec.image_min_tokens] if tokens
        ],
    ),
    LoadOption(
        field="cache_type",
        can_serve=_always,
        settings=lambda spec: [
            _text("cache_type_k", "--cache-type-k", spec.cache_type),
            _text("cache_type_v", "--cache-type-v", spec.cache_type),
        ],
    ),
    LoadOption(field="flash_attention", can_serve=_always, settings=_flash_attention),
    LoadOption(field="weights_bytes", can_serve=_always),
    LoadOption(field="cache_bytes_per_token", can_serve=_always),
    LoadOption(field="parts", can_serve=_always),
    LoadOption(field="placement", can_serve=_always),
    LoadOption(field="resumable", can_serve=_always),
)
"""One row a field of `RunnerSpec`, in its order."""
