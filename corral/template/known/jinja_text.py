"""What a Jinja chat template writes: its outputs and the values it assigns, each in one spelling. Never runs it.

White space is dropped where `trim_blocks` and `lstrip_blocks` drop it, which all engines set.
"""

import re
from collections.abc import Iterator


def writings(jinja: str) -> frozenset[str]:
    """Every expression that is written or assigned, its constants in single quotes, neighbouring ones joined.

    What is written without a statement in between is one expression, text between the tags a constant in it. The BOS
    token alone is left out, as the tokenizer writes it; so are refusals, and what trims a text.
    """
    found: list[list[str]] = [[]]
    for kind, text in _parts(jinja.removesuffix("\n")):
        if kind == "{%":
            found += ([], []) if _SILENT.match(text) else (_tokens(_ASSIGNMENT.sub("", text)), [])
            continue
        part = _tokens(text) if kind == "{{" else [_constant(text)]
        found[-1] += ["+", *part] if found[-1] else part
    return frozenset(
        text for text in map(_joined, found) if text not in ("", "''", "bos_token") and "raise_exception(" not in text
    )


_TAG = re.compile(r"(\{[{%#])(-?)(.*?)(-?)[}%#]\}", re.DOTALL)
_SILENT = re.compile(r"\s*(?:if|elif|else|endif|for|endfor)\b")
_ASSIGNMENT = re.compile(r"\A\s*set\s+\w+\s*=")


def _parts(jinja: str) -> Iterator[tuple[str, str]]:
    """What stands in each tag, under what opens it (`{{` or `{%`), and under `text` what is written between them."""
    at, opened, trims = 0, "", ""
    for tag in _TAG.finditer(jinja):
        text = jinja[at : tag.start()]
        if tag[2]:
            text = text.rstrip()
        elif tag[1] != "{{":
            text = re.sub(r"\n[ \t]+\Z" if at else r"(?:\n|\A)[ \t]+\Z", lambda match: match[0].rstrip(" \t"), text)
        yield from _text(text, opened, trims)
        if tag[1] != "{#":
            yield tag[1], tag[3]
        at, opened, trims = tag.end(), tag[1], tag[4]
    yield from _text(jinja[at:], opened, trims)


def _text(text: str, opened: str, trims: str) -> Iterator[tuple[str, str]]:
    """The text after a tag, without what the tag takes of it."""
    if trims:
        text = text.lstrip()
    elif opened in ("{%", "{#"):
        text = text.removeprefix("\n")
    if text:
        yield "text", text


def _tokens(expression: str) -> list[str]:
    plain = _TRIM.sub("", _ATTRIBUTE.sub(r"\1['\2']", expression))
    return [
        _constant(token[1:-1]) if token[0] in "'\"" and len(token) > 1 else token.replace("~", "+")
        for token in _TOKEN.findall(plain)
    ]


_TRIM = re.compile(r"\.strip\(\)|\s*\|\s*trim\b")
_ATTRIBUTE = re.compile(r"\b(message)\.(content|role)\b")
_TOKEN = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|\w+|\S", re.DOTALL)


def _constant(text: str) -> str:
    return "'" + text.replace("\n", "\\n") + "'"


def _joined(tokens: list[str]) -> str:
    joined: list[str] = []
    for token in tokens:
        if joined[-1:] == ["+"] and joined[-2][-1] == token[0] == "'":
            joined.pop()
            joined.append(joined.pop()[:-1] + token[1:])
        elif joined and _is_word(joined[-1]) and _is_word(token):
            joined.append(f" {token}")
        else:
            joined.append(token)
    return "".join(joined)


def _is_word(token: str) -> bool:
    return token[-1].isalnum() or token[-1] == "_"
