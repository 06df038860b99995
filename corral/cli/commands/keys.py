"""`keys`: who may use the server. On this machine the file of keys is changed, whether a server runs or not; where
OLLAMA_HOST is another machine, its server is asked.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import click

from corral import config
from corral.access import own_key
from corral.access.scopes import SCOPES
from corral.cli import connection
from corral.cli.display import terminal
from corral.cli.display.tables import print_table, table
from corral.cli.display.text import printable
from corral.cli.display.units import now, relative_time
from corral.cli.framework.commands import Arguments, Count, command, program_name
from corral.cli.framework.flags import Flag
from corral.client.keys import Key
from corral.errors import BadRequest

if TYPE_CHECKING:
    from corral.access.keys import Key as KeptKey
    from corral.access.keys import Wish
    from corral.client import Client

ACTIONS = {
    "list": "Show the keys there are",
    "create": "Make one, which is shown once",
    "revoke": "Take one out, by its id or name",
}

HELP = """\
List, make and revoke the keys by which clients use the server

  {program} keys [list]        Show the keys there are
  {program} keys create NAME   Make one, which is shown once
  {program} keys revoke NAME   Take one out, by its name or id

Keys are needed where the server listens on an address that other machines reach."""


@command(
    "keys [ACTION] [NAME]",
    HELP,
    count=Count(least=0, most=2),
    completes=("actions",),
    actions=ACTIONS,
    flags=[
        Flag(
            "--scope",
            kind="string",
            values=SCOPES,
            sentence="With create: infer to ask models, as it is if not given, manage to change them, admin for all",
        ),
        Flag(
            "--model",
            kind="string",
            many=True,
            sentence="With create: the models it is for, by a name or a pattern; repeatable",
        ),
        Flag("--requests-per-minute", kind="int", sentence="With create: how often it may ask a model"),
        Flag("--tokens-per-minute", kind="int", sentence="With create: how many tokens prompts and answers may take"),
    ],
    settings=("host", "home"),
)
def keys(
    arguments: Arguments, scope: str, model: tuple[str, ...], requests_per_minute: int, tokens_per_minute: int
) -> None:
    action, *names = arguments or ("list",)
    if action not in ACTIONS:
        raise BadRequest(f'no action "{action}": there are {", ".join(ACTIONS)}')
    if action == "list" and names:
        raise BadRequest(f'"{names[0]}" is one argument too many')
    if action != "list" and not names:
        raise BadRequest(f"requires the name of a key: {program_name()} keys {action} NAME")
    if action != "create" and (scope or model or requests_per_minute or tokens_per_minute):
        raise BadRequest("--scope, --model and the limits belong to `keys create`")
    keeper = _keeper()
    match action:
        case "list":
            print_table(keys_table(keeper.keys(), now(), terminal.width(sys.stdout)))
        case "create":
            from corral.access.keys import Wish

            wish = Wish(
                name=names[0],
                scope=scope or "infer",
                models=model,
                requests_per_minute=requests_per_minute,
                tokens_per_minute=tokens_per_minute,
            )
            _show_new(*keeper.create(wish))
        case "revoke":
            key = keeper.revoke(names[0])
            click.echo(f"revoked '{printable(key.name)}' ({printable(key.id)})")


def _show_new(key: Key, secret: str) -> None:
    """The secret alone on standard output, so that a script may take it."""
    click.echo(f"made '{printable(key.name)}' ({printable(key.id)}), of scope {printable(key.scope)}", err=True)
    click.echo(printable(secret))
    note = 'It is shown this once. Clients take it from OLLAMA_API_KEY, or send it as "Authorization: Bearer KEY".'
    click.echo(note, err=True)


HEADERS = ("ID", "NAME", "SCOPE", "MODELS", "REQUESTS/MIN", "TOKENS/MIN", "CREATED")
SPARE = HEADERS[:2:-1]
"""Those that a narrow window need not show, from the last on."""


def keys_table(found: Sequence[Key], moment: datetime, width: int | None) -> str:
    """A row for each key; a window of `width` columns shows what fits, None: there is no window."""
    rows = [
        (
            key.id,
            key.name,
            key.scope,
            ",".join(key.models) or "all",
            str(key.requests_per_minute or "-"),
            str(key.tokens_per_minute or "-"),
            relative_time(key.created_at, moment),
        )
        for key in found
    ]
    return table(HEADERS, rows, width=width, spare=SPARE)


class _Keeper(Protocol):
    """Where the keys are."""

    def keys(self) -> Sequence[Key]: ...
    def create(self, wish: "Wish") -> tuple[Key, str]: ...
    def revoke(self, text: str) -> Key: ...


def _keeper() -> _Keeper:
    settings = config.load().config
    if own_key.is_this_machine(settings.host):
        return _File(settings)
    return _Server(connection.connect())


class _Server:
    """The keys of a server on another machine."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def keys(self) -> Sequence[Key]:
        return self._client.keys()

    def create(self, wish: "Wish") -> tuple[Key, str]:
        return self._client.create_key({name: getattr(wish, name) for name in wish.__struct_fields__})

    def revoke(self, text: str) -> Key:
        return self._client.revoke_key(text)


class _File:
    """The keys of this user's server, which sees what is changed."""

    def __init__(self, settings: config.Config) -> None:
        from corral.access.file import KeyFile

        self._settings = settings
        self._file: KeyFile = KeyFile(settings.home)

    def keys(self) -> Sequence[Key]:
        return [_shown(key) for key in self._file.read()]

    def create(self, wish: "Wish") -> tuple[Key, str]:
        key, secret = self._file.add(wish)
        self._record("create", key)
        return _shown(key), secret

    def revoke(self, text: str) -> Key:
        key = self._file.revoke(text)
        own_key.forget(self._settings.home, key.sha256)
        self._record("revoke", key)
        return _shown(key)

    def _record(self, action: str, key: "KeptKey") -> None:
        from corral.access.audit import AuditLog, Entry

        audit = AuditLog(self._settings.state)
        audit.add(Entry(who="local", address="", action=f"keys {action}", key=key.id, outcome="done"))
        audit.close()


def _shown(key: "KeptKey") -> Key:
    return Key(
        id=key.id,
        name=key.name,
        scope=key.scope,
        models=key.models,
        requests_per_minute=key.requests_per_minute,
        tokens_per_minute=key.tokens_per_minute,
        created_at=datetime.fromtimestamp(key.created, UTC),
    )
