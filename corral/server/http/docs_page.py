"""An OpenAPI document as a page to read: HTML with its own style and without scripts. It loads nothing else."""

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

from corral.golang import gojson

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code { font: 0.9em ui-monospace, monospace; }
details { border: 1px solid #8886; border-radius: 6px; margin: 0.5rem 0; padding: 0.4rem 0.8rem; }
summary { cursor: pointer; }
summary b { display: inline-block; min-width: 4.5rem; }
summary span { color: #666; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 0.8rem 0.2rem 0; border-top: 1px solid #8883; }
@media (prefers-color-scheme: dark) { summary span { color: #aaa; } }
@media (max-width: 40rem) { /* a row under the other: the meaning on lines of its own below name, type and default */
  body { margin: 1rem auto; }
  h1, h2, h3, td { overflow-wrap: anywhere; }
  tr { display: block; padding: 0.3rem 0; border-top: 1px solid #8883; }
  tr:has(th) { display: none; }
  td { display: inline; padding: 0 0.4rem 0 0; border: 0; }
  td:last-child { display: block; }
  td:nth-child(3):not(:last-child, :empty)::before { content: "default "; }
}
"""


def page(document: Mapping[str, Any]) -> str:
    """The whole page."""
    info = document["info"]
    title = html.escape(f"{info['title']} {info['version']}")
    body = "".join(_sections(document))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}: routes</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n<p>{_text(info['description'])}</p>\n"
        f'<p>For programs: <a href="openapi.json">openapi.json</a> (OpenAPI {document["openapi"]}).</p>\n'
        f"{body}</body>\n</html>\n"
    )


def _sections(document: Mapping[str, Any]) -> Iterator[str]:
    schemas = document["components"]["schemas"]
    for tag in document["tags"]:
        yield f"<h2>{html.escape(tag['name'])}</h2>\n<p>{_text(tag['description'])}</p>\n"
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation["tags"]:
                    yield _route(path, method, operation, schemas)
    yield "<h2>Objects in requests</h2>\n"
    for name, schema in sorted(schemas.items()):
        if ".replies." not in name and not name.endswith((".Error", "Request")):
            yield f'<h3 id="{html.escape(name)}">{html.escape(name)}</h3>\n{_fields(schema)}'


def _route(path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    head = f"<b>{method.upper()}</b> <code>{html.escape(path)}</code> <span>{_text(operation['summary'])}</span>"
    parts = [f"<details>\n<summary>{head}</summary>\n"]
    if operation.get("description"):
        parts.append(f"<p>{_text(operation['description'])}</p>\n")
    if asked := [parameter for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]:
        properties = {one["name"]: {**one["schema"], "description": one["description"]} for one in asked}
        parts.append(f"<h4>Parameters of the address</h4>\n{_fields({'properties': properties})}")
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h4>Request: {html.escape(media)}</h4>\n")
        schema = content.get("schema", {})
        name = schema.get("$ref", "").rpartition("/")[2]
        if name or "properties" in schema:
            parts.append(_fields(schemas[name] if name else schema))
    parts.append("<h4>Replies</h4>\n<table>\n")
    for status, response in operation["responses"].items():
        media = "<br>".join(f"<code>{html.escape(name)}</code>" for name in response.get("content", {}))
        parts.append(f"<tr><td>{status}</td><td>{media}</td><td>{_text(response['description'])}</td></tr>\n")
    return "".join([*parts, "</table>\n</details>\n"])


def _fields(schema: Mapping[str, Any]) -> str:
    rows = []
    for name, field in schema.get("properties", {}).items():
        given = field.get("default")
        default = "" if given in (None, "") else f"<code>{html.escape(gojson.encode(given).decode())}</code>"
        rows.append(
            f"<tr><td><code>{html.escape(name)}</code></td><td>{_kind(field)}</td>"
            f"<td>{default}</td><td>{_text(field.get('description', ''))}</td></tr>\n"
        )
    head = "<tr><th>field</th><th>type</th><th>default</th><th>meaning</th></tr>\n"
    return f"<table>\n{head}{''.join(rows)}</table>\n"


def _kind(schema: Mapping[str, Any]) -> str:
    """What a field takes, in a few words; that it may be null is not repeated."""
    match schema:
        case {"anyOf": list(options)}:
            return " or ".join(_kind(option) for option in options if option != {"type": "null"})
        case {"$ref": str(reference)}:
            name = html.escape(reference.rpartition("/")[2])
            return f'<a href="#{name}">{name}</a>'
        case {"type": "array", **rest}:
            return f"list of {_kind(rest['items'])}" if rest.get("items") else "list"
        case {"contentMediaType": _}:
            return "file"
        case {"type": list(kinds)}:
            return " or ".join(map(html.escape, kinds))
        case {"type": str(kind)}:
            return html.escape(kind)
        case {"enum": list(values)}:
            return " or ".join(f"<code>{html.escape(str(value))}</code>" for value in values)
        case _:
            return "anything"


def _text(text: str) -> str:
    """A sentence, what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
