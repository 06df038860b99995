"""Errors by kind, as Ollama's dialect writes them."""

import json
from collections.abc import Iterator

import pytest

from corral import errors
from corral.errors import CorralError
from corral.server.http.error_table import Row
from corral.server.ollama.errors import dialect


def kinds(above: type[CorralError] = CorralError) -> Iterator[type[CorralError]]:
    """The kinds of `corral/errors.py`."""
    yield above
    for kind in above.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from kinds(kind)


def test_the_tree_on_the_first_page_is_the_tree_of_the_code() -> None:
    drawn = (errors.__doc__ or "").split("`str(error)`")[0].replace("├", " ").replace("└", " ").replace("─", " ")
    assert {kind.__name__ for kind in kinds()} <= set(drawn.split())


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (errors.StoreError("the disk is gone"), 500, "the disk is gone"),
        (errors.InvalidName("invalid model name"), 400, "invalid model name"),
        (errors.InvalidOption("seed", "type integer"), 500, 'option "seed" must be of type integer'),
        (errors.InvalidFormat('"xml"'), 500, 'invalid format: "xml"; expected "json" or a valid JSON Schema object'),
        (errors.ModelRequired(), 400, "model is required"),
        (errors.ModelNotFound("m"), 404, "model 'm' not found"),
        (errors.NotPublished("file does not exist"), 500, "file does not exist"),
        (errors.Unsupported("m", "chat"), 400, '"m" does not support chat'),
        (errors.Unsupported("m", "tools", "host/x/m:latest"), 400, "host/x/m:latest does not support tools"),
        (errors.ContextExceeded("too long", tokens=9, limit=4), 400, "too long"),
        (errors.BodyTooLarge(7), 413, "request body is larger than 7 bytes"),
        (errors.RemoteModel("m:cloud"), 403, "ollama cloud is disabled: remote model is unavailable"),
        (errors.QueueFull(), 503, "server busy, please try again.  maximum pending requests exceeded"),
        (errors.ServerStopping(), 503, "the server is stopping"),
        (errors.EngineRefused("no", code=404), 404, "no"),
        (errors.EngineError("no", code=501), 501, "no"),
        (errors.OutOfMemory("no room"), 500, "no room"),
        (errors.InternalError(), 500, "internal server error, see the log of corral"),
    ],
    ids=lambda value: value.kind if isinstance(value, CorralError) else "",
)
def test_each_kind_has_its_status_and_sentence(error: CorralError, status: int, sentence: str) -> None:
    answer = dialect().answer(error)
    assert (answer.status_code, json.loads(bytes(answer.body))) == (status, {"error": sentence})
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)
    assert dialect().line(error) == bytes(answer.body) + b"\n"


def test_a_route_may_write_a_kind_in_its_own_way() -> None:
    own = dialect({errors.NotFound: Row(410, lambda error: f"gone: {error}"), errors.ModelNotFound: Row(404)})
    answer = own.answer(errors.ModelNotFound("m"))
    assert (answer.status_code, json.loads(bytes(answer.body))) == (404, {"error": "gone: model 'm' not found"})


def test_kinds_have_names_for_metrics() -> None:
    assert errors.OutOfMemory.kind == "out_of_memory"
    assert errors.EngineError.kind == "engine"
    assert errors.CorralError.kind == "error"
