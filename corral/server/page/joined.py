"""The page's modules as one file. They are sources for people; a browser pays for each request, and gets one.

Each module becomes a function's body that gives what it exports, in an order in which none comes before those that it
imports. Knows the forms of `import` and `export` that the page's sources have, and refuses others.
"""

import posixpath
import re
from collections.abc import Mapping
from graphlib import TopologicalSorter

_IMPORT = re.compile(r'^import (?:\{ ([\w\s,]+?),? \}|\* as (\w+)) from "(\.[\w./-]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async function\*?|function\*?|class|const) (\w+))", re.MULTILINE)
_LATE = re.compile(r'\bimport\("(\.[\w./-]+)"\)')
_UNKNOWN = re.compile(r'^(?:import|export)\b|(?<![#\w.])import\((?!`)|^\S.* from "\.', re.MULTILINE)
_WAITS = re.compile(r"^(?:const .* = )?await ", re.MULTILINE)


def joined(modules: Mapping[str, str]) -> str:
    """One module that does what all of these do, by their paths.

    `ValueError` for a form that is not known, a module that is not there, and modules that need each other.
    """
    imported = {path: _imported(path, text) for path, text in modules.items()}
    if missing := set().union(*imported.values()) - modules.keys():
        raise ValueError(f'there is no module "{min(missing)}"')
    return "\n".join(_as_value(path, modules[path]) for path in TopologicalSorter(imported).static_order())


def _imported(path: str, text: str) -> set[str]:
    """The paths of the modules that one needs, at once or later."""
    return {_resolved(path, found) for _, _, found in _IMPORT.findall(text)} | {
        _resolved(path, found) for found in _LATE.findall(text)
    }


def _as_value(path: str, text: str) -> str:
    def imports(found: re.Match[str]) -> str:
        names, whole, of = found.groups()
        value = _name(_resolved(path, of))
        return f"const {whole} = {value};" if whole else f"const {{ {names.replace(' as ', ': ')} }} = {value};"

    exported = _EXPORT.findall(text)
    body = _EXPORT.sub("", _IMPORT.sub(imports, text))
    body = _LATE.sub(lambda found: f"Promise.resolve({_name(_resolved(path, found[1]))})", body)
    if unknown := _UNKNOWN.search(body):
        line = body[unknown.start() :].partition("\n")[0]
        raise ValueError(f'"{path}" has a form of import or export that is not known: {line}')
    waits = "async " if _WAITS.search(text) else ""
    given = f"return {{ {', '.join(exported)} }};" if exported else ""
    return f"const {_name(path)} = {'await ' if waits else ''}({waits}() => {{\n{body}{given}\n}})();"


def _resolved(path: str, other: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), other))


def _name(path: str) -> str:
    """What a module's exports are called; no name of the sources has a dollar sign."""
    return "$" + re.sub(r"\W", "_", path.removesuffix(".js"))
