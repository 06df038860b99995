"""Turns a model and a request's options into a `RunnerSpec`: context length, slots, bounds of every load option.

Knows no engine and no loaded model. Source: spec api §6 (defaults), cli §12 (context length).
"""

import logging
import os
from dataclasses import replace
from typing import Literal

from msgspec import Struct

from corral.config import Config
from corral.engine.base import RunnerSpec, TunedSettings
from corral.engine.load_options import TEXT_BATCH
from corral.gguf.attention import attends_to_all
from corral.machine.memory import GIB, Memory
from corral.models.model import Model
from corral.options import Options
from corral.serving.parts import KnownParts

log = logging.getLogger(__name__)

MIN_CONTEXT = 4
MIN_VISION_CONTEXT = 2048
"""The least context length, in tokens, and that of a model that sees pictures."""

SMALL_CONTEXT = 4096
CONTEXT_BY_MEMORY = ((47 * GIB, 262144), (23 * GIB, 32768))
"""Automatic context length by the memory models may use; `SMALL_CONTEXT` below the last."""

CONTEXT_STEP = 8192
"""A context that has to grow becomes a multiple of this, or as long as the model was trained for."""

MAX_BATCH = 8192
MAX_LAYERS = 1 << 16
MAX_DEVICES = 1 << 10
MAX_DRAFT = 64
NGRAM_DRAFT = 12
"""Tokens that are drafted at once from text that repeats itself (`benchmarks/speculation.py`)."""

MODEL_DRAFT = 4
"""The same from a model, where a request leaves it open (spec api §4)."""

UNTUNED_ATTENTION, UNTUNED_CACHE = "auto", "f16"
"""The configuration's defaults, in whose place comes what was measured."""

MAX_CONTEXT = 1 << 24
"""The most that a request may ask for; more would break the engine's allocations or its 32-bit integers."""

THREADS_PER_CORE = 4

QWEN_VISION = ("qwen2vl", "qwen25vl", "qwen2.5vl", "qwen3vl")
QWEN_IMAGE_TOKENS = 1024
"""Fewer, and these families see small things poorly (spec cli §15.4)."""

SLOTS = 16
EMBEDDING_SLOTS = 4
"""Requests that a model computes at once, unless `OLLAMA_NUM_PARALLEL` says otherwise."""

CACHE_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
"""Bytes an element of the KV cache takes."""

_KNOWN = KnownParts()


def runner_spec(
    model: Model,
    options: Options,
    config: Config,
    memory: Memory,
    *,
    embed: bool = False,
    rank: bool = False,
    logprobs: bool = False,
    drafting_pays: bool = True,
    drafter: Model | None = None,
    tuned: TunedSettings | None = None,
) -> RunnerSpec:
    """The specification a request wants. The pool's size is left to the scheduler, which knows the free memory.

    `embed`: the request wants vectors, also of a model that generates text; `rank`: it wants documents ranked. Options
    are cut to their bounds. `logprobs`: it wants log probabilities, so nothing may be drafted; `drafting_pays`: whether
    speculation has paid with this model, as far as is known; `tuned`: what was measured for it here, which counts less
    than what options and configuration say; `drafter`: a model of the same vocabulary that drafts for it.
    """
    mode = _mode(model, embed=embed, rank=rank)
    generates = mode == "generate"
    tuned = tuned if generates else None
    config = _with_tuned(config, tuned)
    per_token = model.kv_bytes_per_token(CACHE_BYTES[config.kv_cache_type])
    num_ctx = _context(model, options, config, memory, per_token)
    text_batch, compute_bytes = (0, 0) if generates else _text_batch(model, options, config, memory, num_ctx)
    goes_back = generates and not model.projectors and attends_to_all(model.gguf)
    wanted_draft = _bounded(options.draft_num_predict, 0, MAX_DRAFT)
    drafts = _Drafts()
    if goes_back and not logprobs:
        drafts = _drafts(wanted_draft, config, tuned, drafter, drafting_pays=drafting_pays)
    drafter = drafts.model
    return RunnerSpec(
        model=str(model.weights),
        projectors=tuple(map(str, model.projectors)),
        adapters=tuple(map(str, model.adapters)),
        mode=mode,
        pooling="mean" if mode == "embed" and "embedding" not in model.capabilities else "model",
        num_ctx=num_ctx,
        num_ctx_automatic=options.num_ctx is None,
        grown_ctx=grown_context(num_ctx, model.gguf.context_length or 0, per_token, memory) if generates else 0,
        slots=config.num_parallel or (SLOTS if generates else EMBEDDING_SLOTS),
        num_batch=_bounded(options.num_batch, 1, MAX_BATCH),
        text_batch=text_batch,
        compute_bytes=compute_bytes,
        num_gpu=max(-1, min(options.num_gpu, MAX_LAYERS)),
        main_gpu=_bounded(options.main_gpu, 0, MAX_DEVICES),
        use_mmap=options.use_mmap,
        num_thread=max(0, min(options.num_thread, THREADS_PER_CORE * (os.cpu_count() or 1))),
        draft_num_predict=wanted_draft,
        ngram_draft=drafts.ngram_tokens,
        draft_model=str(drafter.weights) if drafter else "",
        draft_tokens=drafts.model_tokens,
        needs_logprobs=logprobs,
        tuned=tuned,
        own_template=model.native and not embed,
        image_min_tokens=QWEN_IMAGE_TOKENS if model.gguf.architecture.startswith(QWEN_VISION) else 0,
        cache_type=config.kv_cache_type,
        flash_attention=config.flash_attention,
        weights_bytes=model.size + (drafter.size if drafter else 0),
        parts=_KNOWN.of(model),
        cache_bytes_per_token=per_token + (drafter.kv_bytes_per_token(CACHE_BYTES["f16"]) if drafter else 0),
        resumable=goes_back and drafter is None,
    )


def _mode(model: Model, *, embed: bool, rank: bool) -> Literal["generate", "embed", "rank"]:
    """What a model is loaded for; a request may want vectors of one that generates text, or documents ranked."""
    if rank or model.only_ranks:
        return "rank"
    return "embed" if embed or "embedding" in model.capabilities else "generate"


def _bounded(value: int | None, least: int, most: int) -> int | None:
    """An option within its bounds; None where it was not given."""
    return None if value is None else max(least, min(value, most))


def _with_tuned(config: Config, tuned: TunedSettings | None) -> Config:
    """The configuration, with what was measured in place of the defaults of how a cache is kept and computed with."""
    if tuned is None:
        return config
    attention, cache_type = config.flash_attention, config.kv_cache_type
    if attention == UNTUNED_ATTENTION:
        attention = tuned.flash_attention or attention
    if cache_type == UNTUNED_CACHE:
        cache_type = tuned.cache_type or cache_type
    return replace(config, flash_attention=attention, kv_cache_type=cache_type)


class _Drafts(Struct, frozen=True):
    """How many tokens are drafted at once: from text that repeats itself, or else by a model."""

    ngram_tokens: int = 0
    model_tokens: int = 0
    model: Model | None = None


def _drafts(
    wanted: int | None, config: Config, tuned: TunedSettings | None, drafter: Model | None, *, drafting_pays: bool
) -> _Drafts:
    """As the option `wanted` says, what was measured, or our defaults; nothing where that is off or does not pay."""
    tokens = wanted
    if tokens is None:
        usual = NGRAM_DRAFT if tuned is None or tuned.ngram_draft is None else tuned.ngram_draft
        tokens = usual if config.speculation and drafting_pays else 0
    if not tokens or drafter is None or not attends_to_all(drafter.gguf):
        return _Drafts(tokens)
    return _Drafts(0, MODEL_DRAFT if wanted is None else tokens, drafter)


def _context(model: Model, options: Options, config: Config, memory: Memory, bytes_per_token: int) -> int:
    """The context length: as requested, else as configured, else by memory; never more than was trained.

    A model for embedding gets all that it was trained on where nothing else was asked for and memory has room for it.
    """
    trained = model.gguf.context_length or 0
    least = MIN_VISION_CONTEXT if "vision" in model.capabilities else MIN_CONTEXT
    if options.num_ctx is not None:
        wanted = options.num_ctx
    else:
        wanted = usual_context(config, memory, bytes_per_token)
        if not config.context_length and "embedding" in model.capabilities and trained > wanted:
            wanted = max(wanted, _text_context(model, options, config, memory, trained))
    if trained and wanted > trained:
        if options.num_ctx is not None:
            log.warning("model %s: num_ctx %d is more than it was trained on, using %d", model.name, wanted, trained)
        wanted = trained
    return max(min(wanted, MAX_CONTEXT), least)


def grown_context(wanted: int, trained: int, bytes_per_token: int, memory: Memory) -> int:
    """The context length to load, in tokens, where `wanted` is more than the model was loaded with.

    Clients that ask for what a conversation needs at the moment ask for a little more at every turn. So that this costs
    one load instead of one a turn, the context becomes as long as the model was trained for, but takes no more than a
    quarter of what is free; at least it goes to the next step. `trained` 0: not known.
    """
    next_step = -(-wanted // CONTEXT_STEP) * CONTEXT_STEP
    longest = min(trained or next_step, MAX_CONTEXT)
    affordable = memory.available // 4 // bytes_per_token if bytes_per_token > 0 else longest
    if affordable < longest:
        longest = min(longest, max(next_step, affordable // CONTEXT_STEP * CONTEXT_STEP))
    return max(wanted, longest)


def usual_context(config: Config, memory: Memory, bytes_per_token: int) -> int:
    """The context length where a request and a model ask for none: as configured, else by the size of the memory models
    live in, and no more than a quarter of what is free for one context."""
    if config.context_length:
        return config.context_length
    tier = next((tokens for size, tokens in CONTEXT_BY_MEMORY if memory.for_models >= size), SMALL_CONTEXT)
    while tier > SMALL_CONTEXT and tier * bytes_per_token > memory.available // 4:
        tier //= 2
    return tier


def _text_context(model: Model, options: Options, config: Config, memory: Memory, trained: int) -> int:
    """The longest context, of the trained length or halves of it, of which a whole text can be computed at once."""
    tokens, room = trained, _room_to_compute(model, options, memory)
    while tokens > TEXT_BATCH and tokens * _compute_bytes_per_token(model, config, tokens) > room:
        tokens //= 2
    return tokens


def _text_batch(model: Model, options: Options, config: Config, memory: Memory, num_ctx: int) -> tuple[int, int]:
    """Tokens of a text to embed that are computed at once, and the bytes that this takes beside the cache.

    The tokens are the whole context, or the largest half of it that memory suffices for; where a smaller batch is asked
    for, its bytes are counted.
    """
    bytes_per_token = _compute_bytes_per_token(model, config, num_ctx)
    room = _room_to_compute(model, options, memory)
    tokens = num_ctx
    while tokens > TEXT_BATCH and tokens * bytes_per_token > room:
        tokens = max(TEXT_BATCH, tokens // 2)
    batch = _bounded(options.num_batch, 1, MAX_BATCH) or tokens
    return tokens, min(batch, num_ctx) * bytes_per_token


def _room_to_compute(model: Model, options: Options, memory: Memory) -> int:
    """Bytes that computing a text may take: half of what is free beside the weights, in the largest GPU if any."""
    uses_gpu = bool(memory.gpus) and options.num_gpu != 0
    free = max(gpu.free for gpu in memory.gpus) if uses_gpu else memory.available
    return max(0, free - model.size) // 2


def _compute_bytes_per_token(model: Model, config: Config, num_ctx: int) -> int:
    """An upper estimate of what the engine needs, beside the cache, for each token of a text that it embeds.

    The engine computes logits for every token of a text that a generating model embeds, and keeps them (twice four
    bytes a word of the vocabulary), a mask over all it may attend to (four bytes, and two in the form that is computed
    with), and some vectors. Without flash attention each head has its row of scores, too.
    """
    has_cache = model.kv_bytes_per_token(1.0) > 0
    attended = num_ctx * (max(1, config.pool_contexts) if has_cache else 1)
    heads = max(model.gguf.per_layer("attention.head_count") or [0]) if config.flash_attention == "off" else 0
    logits = 8 * model.gguf.vocabulary_size if has_cache else 0
    vectors = 16 * (model.embedding_length + (model.gguf.integer("feed_forward_length") or 0))
    return (6 + 4 * heads) * attended + logits + vectors
