"""The OpenAPI 3.1 document of routes, made from the types that their requests and replies have. Knows no dialect.

Requests are read leniently, and their schemas say so: null is as good as left out, also in lists and maps of objects,
and what is not known is ignored.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from corral import __version__
from corral.golang import gojson
from corral.server.http.dialect import Dialect
from corral.server.http.fields import field_of
from corral.server.http.operation import STRING, Operation, Schema, an_object
from corral.server.http.routing import DocumentedRoute

DESCRIPTION = """Every route of this server. Requests are read leniently: null is as good as left out, keys may be \
written in any case, unknown ones are ignored, and the header `content-type` is looked at where a form is sent only. A \
request from a web origin or for a host name that may not speak to the server gets an empty 403. A server that can be \
reached from other machines asks for a key. Errors within a stream come as its last part, in the form of those below."""

ABOUT_DIALECTS = {
    "Ollama": "Ollama's API, with additions of Corral's.",
    "OpenAI": "OpenAI's API.",
    "Anthropic": "Anthropic's API.",
    "Corral": "What Corral has of its own.",
}

STATUSES = {
    301: "The path is not in its clean form, which the header `location` has.",
    307: "The path is not in its clean form, which the header `location` has.",
    400: "The request cannot be read, or asks for what cannot be done as asked.",
    401: "The server asks for a key, and there was none that it knows.",
    403: "The caller may not ask for this.",
    404: "What was named does not exist.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    429: "The key has used what it may use a minute; the header `retry-after` says when to go on.",
    500: "Something failed: the engine, the disk, a registry, a model's file. Ollama's API also answers options and "
    "formats of the wrong type so.",
    501: "The engine cannot do this with the model.",
    502: "Another server that answers for the model failed, and there is none that was not tried.",
    503: "There is too much to do, or the server ends: the same request may be answered later.",
    508: "The request has come back to this server by way of others, or has passed too many of them.",
}

PATH_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "digest": {"type": "string", "pattern": "^sha256[:-][0-9a-fA-F]{64}$"},
    "id": {"type": "string", "minLength": 1},
    "name": {"type": "string", "minLength": 1, "description": "The name of a model; it may have slashes."},
}

BODY_ERRORS = (408, 413)
"""Statuses of routes that read a body of JSON or a form, and the first of those that take a file."""


def document(routes: Sequence[DocumentedRoute]) -> dict[str, Any]:
    """The whole document. Takes some ten milliseconds."""
    components = _Components(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        for method in sorted(route.methods or ()):
            paths.setdefault(path, {})[method.lower()] = _operation(route, path, method, components)
    names = dict.fromkeys(route.dialect.name for route in routes)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Corral", "version": __version__, "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": ABOUT_DIALECTS[name]} for name in names],
        "paths": paths,
        "components": {"schemas": components.schemas, "securitySchemes": _SCHEMES},
    }


def _operation(route: DocumentedRoute, path: str, method: str, components: "_Components") -> dict[str, Any]:
    operation, dialect = route.operation, route.dialect
    parameters = re.findall(r"\{(\w+)\}", path)
    summary, description = described(route)
    found: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{path}").strip("_"),
        "tags": [dialect.name],
        "summary": summary,
    }
    if description:
        found["description"] = description
    if parameters or operation.query:
        found["parameters"] = [
            *({"name": name, "in": "path", "required": True, "schema": PATH_PARAMETERS[name]} for name in parameters),
            *(_query_parameter(name, schema) for name, schema in operation.query.items()),
        ]
    if operation.takes is not None:
        schema = components.request(dialect, operation.takes)
        if operation.requires:
            schema = {**schema, "properties": dict(operation.requires), "required": list(operation.requires)}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if operation.takes_form is not None:
        found["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": operation.takes_form}}}
    if operation.takes_bytes and method != "HEAD":
        found["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    found["responses"] = dict(_responses(route, components, bool(parameters), method == "HEAD"))
    found["security"] = [] if route.needs.scope is None else _SECURITY
    return found


_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}, {}]
"""A key in one of two headers, or none where the server asks for none."""
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of this server."},
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "The same, as Anthropic's send it.",
    },
}


def _query_parameter(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in schema.items() if key not in ("description", "required")}
    return {
        "name": name,
        "in": "query",
        "required": bool(schema.get("required")),
        "description": schema.get("description", ""),
        "schema": own,
    }


def described(route: DocumentedRoute) -> tuple[str, str]:
    """The first sentence of a route's description, and the others, without references to the specification."""
    text = re.sub(r" \(spec api [^)]*\)| ?Source: spec .*", "", route.description)
    summary, _, rest = text.partition(". ")
    return summary.rstrip("."), rest


def _responses(
    route: DocumentedRoute, components: "_Components", has_parameters: bool, is_head: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    operation, dialect = route.operation, route.dialect
    content = dict(_contents(operation, dialect, components))
    for status, sentence in operation.success.items():
        yield str(status), {"description": sentence, **({"content": content} if content and not is_head else {})}
    if has_parameters:
        for status in (301, 307):
            yield str(status), {"description": STATUSES[status]}
    for status in sorted(_error_statuses(route) - operation.success.keys()):
        takes_body = operation.takes is not None or operation.takes_form is not None
        has_to_come = status == 408 and operation.takes_bytes
        if status in BODY_ERRORS and not takes_body and not has_to_come:
            continue
        envelope = _envelope(dialect, components)
        if status == 404 and has_parameters:
            envelope |= _TEXT  # the path may lead nowhere
        yield str(status), {"description": STATUSES[status], **({} if is_head else {"content": envelope})}


def _error_statuses(route: DocumentedRoute) -> set[int]:
    """Those of its dialect or its own, with what its callers are refused with."""
    given = route.dialect.statuses if route.operation.errors is None else route.operation.errors
    refusals = {401} if route.needs.scope is not None else set()
    return {*given} - {401, 429} | refusals | {403} | ({429} if route.needs.asks_model else set())


_TEXT: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}


def _envelope(dialect: Dialect, components: "_Components") -> dict[str, Any]:
    if dialect.envelope is None:
        return dict(_TEXT)
    return {"application/json": {"schema": components.error(dialect)}}


def _contents(
    operation: Operation, dialect: Dialect, components: "_Components"
) -> Iterator[tuple[str, dict[str, Any]]]:
    if operation.answers is not None:
        yield "application/json", {"schema": components.reply(dialect, operation.answers)}
    if operation.lines is not None:
        line = components.reply(dialect, operation.lines)
        sentence = "With `stream`: a JSON object a line, each as `x-itemSchema` says; the last may be an error."
        yield "application/x-ndjson", {"schema": {"description": sentence}, "x-itemSchema": line}
    if operation.events:
        yield "text/event-stream", {"schema": {"description": operation.events}, "x-itemSchema": _EVENT}
    if operation.text:
        yield operation.text, {"schema": {"type": "string"}}


_EVENT = an_object({"data": STRING}, {"event": STRING})
"""A server-sent event."""


class _Components:
    """The schemas of all types, by the names under which they are referred to."""

    def __init__(self, routes: Iterable[DocumentedRoute]) -> None:
        self.schemas: dict[str, Any] = {}
        self._references: dict[tuple[str, type[Struct]], dict[str, Any]] = {}
        by_dialect: dict[str, list[DocumentedRoute]] = {}
        for route in routes:
            by_dialect.setdefault(route.dialect.name, []).append(route)
        for name, of_dialect in by_dialect.items():
            operations = [route.operation for route in of_dialect]
            requests = {operation.takes for operation in operations if operation.takes is not None}
            self._add(name, f"{name}.", requests, are_requests=True)
            replies = [schema for one in operations for schema in (one.answers, one.lines)]
            self._add(name, f"{name}.replies.", set(_structs(replies)), are_requests=False)
            envelope = of_dialect[0].dialect.envelope
            if envelope is not None:
                self.schemas[f"{name}.Error"] = envelope

    def _add(self, dialect: str, prefix: str, kinds: set[type[Struct]], *, are_requests: bool) -> None:
        ordered = sorted(kinds, key=lambda kind: (kind.__module__, kind.__qualname__))
        references, found = msgspec.json.schema_components(ordered, ref_template="{name}")
        names = {given: prefix + _short(given) for given in found}
        for given, schema in found.items():
            renamed = _renamed(schema, names)
            renamed.pop("title", None)
            self.schemas[names[given]] = _lenient(dialect, _short(given), renamed) if are_requests else renamed
        for kind, reference in zip(ordered, references, strict=True):
            self._references[prefix, kind] = _renamed(reference, names)

    def request(self, dialect: Dialect, kind: type[Struct]) -> dict[str, Any]:
        return self._references[f"{dialect.name}.", kind]

    def reply(self, dialect: Dialect, schema: Schema) -> Any:
        """The schema with the types in it replaced by references to theirs."""
        return self._resolved(f"{dialect.name}.replies.", schema)

    def error(self, dialect: Dialect) -> dict[str, Any]:
        return {"$ref": f"#/components/schemas/{dialect.name}.Error"}

    def _resolved(self, prefix: str, value: Any) -> Any:
        match value:
            case type():
                return self._references[prefix, value]
            case Mapping():
                return {key: self._resolved(prefix, item) for key, item in value.items()}
            case list():
                return [self._resolved(prefix, item) for item in value]
            case _:
                return value


def _structs(value: Any) -> Iterator[type[Struct]]:
    """The types anywhere in schemas."""
    match value:
        case type():
            yield value
        case Mapping():
            yield from _structs(list(value.values()))
        case list():
            for item in value:
                yield from _structs(item)


def _short(name: str) -> str:
    """The name of a type as readers see it. One that several modules have comes with its module, of which two are kept:
    `corral.server.openai.responses.wire.WireText` is `responses.Text`."""
    *modules, last = name.split(".")
    shown = last.removeprefix("Wire").lstrip("_")
    return f"{modules[-2]}.{shown}" if len(modules) > 1 else shown


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """The same schema with references to the names under which types are listed."""
    match value:
        case {"$ref": str(name)}:
            return {**value, "$ref": f"#/components/schemas/{names[name]}"}
        case dict():
            return {key: _renamed(item, names) for key, item in value.items()}
        case list() | tuple():  # a default may be a tuple
            return [_renamed(item, names) for item in value]
        case _:
            return value


def _lenient(dialect: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a request's object as it is really read: null is as good as left out (`gojson.decode`)."""
    properties = {}
    for name, given in schema.get("properties", {}).items():
        if name != gojson.WHOLE:
            properties[name] = _lenient_field(dialect, kind.rpartition(".")[2], name, given)
    found = {key: value for key, value in schema.items() if key not in ("required", "description")}
    return {**found, "properties": properties}


def _lenient_field(dialect: str, kind: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
    said = field_of(dialect, kind, name)
    default = {"default": given["default"]} if given.get("default") is not None else {}
    own = {key: value for key, value in given.items() if key != "default"}
    if said is not None and said.schema is not None and (not own or not {"type", "anyOf"} & said.schema.keys()):
        own = {**own, **said.schema}
    own = {key: _or_null_within(value) if key in _WITHIN else value for key, value in own.items()}
    allows_null = not own or {"type": "null"} in own.get("anyOf", ())
    schema = own if allows_null else {"anyOf": [*own.get("anyOf", [own]), {"type": "null"}]}
    return {**({"description": said.sentence} if said else {}), **schema, **default}


_WITHIN = ("items", "additionalProperties")


def _or_null_within(value: Any) -> Any:
    """A schema for the elements of a list or map: null is read as an empty object, or left out, where those are."""
    options = value.get("anyOf", [value]) if isinstance(value, dict) else []
    has_objects = any("$ref" in option for option in options)
    return {"anyOf": [*options, {"type": "null"}]} if has_objects else value
