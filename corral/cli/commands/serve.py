"""`serve`: the one command that is the server instead of its client. Source: spec cli §2.2."""

import logging
from dataclasses import fields, replace

from corral import config
from corral.access import own_key
from corral.cli.framework.commands import Arguments, Count, command
from corral.cli.framework.flags import Flag
from corral.client import Client
from corral.config.values import parse_host_and_port, parse_path
from corral.errors import BadRequest, CorralError

FIRST = (
    "debug",
    "host",
    "context_length",
    "keep_alive",
    "max_loaded_models",
    "max_queue",
    "models",
    "num_parallel",
    "no_cloud",
    "no_prune",
    "origins",
    "sched_spread",
    "flash_attention",
    "kv_cache_type",
    "gpu_overhead",
    "load_timeout",
)
"""The settings that the original explains, in its order."""

NOT_THE_SERVERS = ("editor", "no_history")
ONLY_IN_THE_FILE = ("upstreams",)
SETTINGS = (
    *FIRST,
    *(
        setting.name
        for setting in fields(config.Config)
        if setting.name not in FIRST + NOT_THE_SERVERS + ONLY_IN_THE_FILE
    ),
)


@command(
    "serve",
    "Start {Program}",
    count=Count(exact=0),
    flags=[
        Flag(
            "--insecure-no-auth",
            kind="bool",
            sentence="Let everyone who reaches the server do everything: ask for no key",
        ),
        Flag(
            "--ray",
            kind="string",
            sentence="Run models on the nodes of the Ray cluster at HOST:PORT, as docs/ray.md says",
        ),
        Flag(
            "--ray-models",
            kind="string",
            sentence="With --ray: a models folder that all nodes see at this path",
        ),
        Flag(
            "--ray-insecure",
            kind="bool",
            sentence="With --ray: join a cluster in which strangers can run programs, too",
        ),
    ],
    aliases=("start",),
    settings=SETTINGS,
)
def serve(arguments: Arguments, insecure_no_auth: bool, ray: str, ray_models: str, ray_insecure: bool) -> None:
    from corral import telemetry
    from corral.server.serve import serve as serve_until_signal

    loaded = config.load()
    settings = replace(loaded.config, insecure_no_auth=True) if insecure_no_auth else loaded.config
    settings = _with_ray(settings, ray, ray_models, ray_insecure)
    telemetry.set_up_logging(debug=settings.debug, form=settings.log_format)
    for warning in loaded.warnings:
        logging.getLogger(__name__).warning("%s", warning)
    try:
        serve_until_signal(settings)
    except CorralError as error:
        if "address already in use" in str(error) and _is_corral(settings):
            raise CorralError(f"{error}\na corral server runs there already; a command may have started it") from error
        raise


def _with_ray(settings: config.Config, address: str, models: str, is_insecure: bool) -> config.Config:
    """The settings with what the flags say of a cluster. `BadRequest` for what cannot be."""
    try:
        settings = replace(
            settings,
            ray=parse_host_and_port(address) if address else settings.ray,
            ray_models=str(parse_path(models)) if models else settings.ray_models,
            ray_insecure=is_insecure or settings.ray_insecure,
        )
    except ValueError as error:
        raise BadRequest(f"--ray: {error}") from error
    if not settings.ray and (models or is_insecure):
        raise BadRequest("--ray-models and --ray-insecure belong to --ray")
    return settings


def _is_corral(settings: config.Config) -> bool:
    """Whether a Corral server listens there."""
    try:
        return bool(Client(settings.host, key=own_key.for_server(settings)).version().corral)
    except CorralError:
        return False
