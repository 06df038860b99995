"""`serve`: the one command that is the server instead of its client. Source: spec cli §2.2."""

import logging
from dataclasses import fields

from corral import config
from corral.cli.framework.commands import Arguments, Count, command
from corral.client import Client
from corral.config.address import Address
from corral.errors import CorralError

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
SETTINGS = (
    *FIRST,
    *(setting.name for setting in fields(config.Config) if setting.name not in FIRST + NOT_THE_SERVERS),
)


@command("serve", "Start {Program}", count=Count(exact=0), aliases=("start",), settings=SETTINGS)
def serve(arguments: Arguments) -> None:
    from corral import telemetry
    from corral.server.serve import serve as serve_until_signal

    loaded = config.load()
    telemetry.set_up_logging(debug=loaded.config.debug, form=loaded.config.log_format)
    for warning in loaded.warnings:
        logging.getLogger(__name__).warning("%s", warning)
    try:
        serve_until_signal(loaded.config)
    except CorralError as error:
        if "address already in use" in str(error) and _is_corral(loaded.config.host):
            raise CorralError(f"{error}\na corral server runs there already; a command may have started it") from error
        raise


def _is_corral(address: Address) -> bool:
    """Whether a Corral server listens there."""
    try:
        return bool(Client(address).version().corral)
    except CorralError:
        return False
