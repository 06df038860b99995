"""Reads the settings: defaults, `corral.toml`, environment; the last wins."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from corral.config.address import without_password
from corral.config.environment import config_file, current, engines_folder, state_folder, unquoted
from corral.config.settings import Config
from corral.config.values import SWITCHES, Adjusted, parse_list, parse_pairs, parse_replicas
from corral.errors import BadRequest, ConfigError


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
    environ = current(environ)
    file = config_file(environ)
    values = _read_file(file)
    origins = {setting.name: str(file) if setting.name in values else "default" for setting in fields(Config)}
    remarks: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Adjusted):
            values[name], remarks[name] = value.value, f'"{file}": {name}: {value.remark}'
    for setting in fields(Config):
        variable = setting.metadata["variable"]
        if variable and (text := unquoted(environ, variable)):
            value, remark = _from_variable(variable, text, setting.metadata)
            if value is not None:
                values[setting.name] = value
                origins[setting.name] = variable
                remarks.pop(setting.name, "")  # the file's value does not count
            if remark:
                remarks[setting.name] = remark
    values.setdefault("state", state_folder(environ))
    values.setdefault("engines", engines_folder(environ))
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


def variables_of(loaded: Loaded, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables by which a server elsewhere gets the same settings: those of `loaded` and its file's name."""
    environ = current(environ)
    settings = {setting.metadata["variable"] for setting in fields(Config)} & set(loaded.origins.values())
    return {name: environ[name] for name in sorted(settings | {"CORRAL_CONFIG"}) if name in environ}


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
