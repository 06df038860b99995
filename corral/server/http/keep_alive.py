"""How long a model is to stay loaded, as requests say it. Source: spec api §5.1."""

from corral.errors import BadRequest
from corral.golang import durations
from corral.messages import Json


def read_keep_alive(value: Json) -> float | None:
    """Seconds; infinity for ever, and for what is longer than any duration; None when not given (spec api §5.1)."""
    match value:
        case None:
            return None
        case bool():
            raise BadRequest("Unsupported type: 'bool'")
        case int() | float() | str():
            return durations.keep_alive(value)
        case list():
            raise BadRequest("Unsupported type: '[]interface {}'")
        case _:
            raise BadRequest("Unsupported type: 'map[string]interface {}'")
