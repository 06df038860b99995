"""The table of layers in docs/design.md, held against the imports in the code."""

import ast
import sys
from pathlib import Path

import corral

PACKAGE = Path(corral.__file__).parent

WORDS = {
    "corral",
    "errors",
    "names",
    "messages",
    "options",
    "golang",
    "config",
    "telemetry",
    "background",
    "cage",
    "children",
    "system",
    "job",
    "media_kinds",
    "access",
}
FORMATS = {
    "gguf",
    "published",
    "quantize",
    "convert",
    "modelfile",
    "template",
    "parsers",
    "media",
    "schemas",
    "rendering",
    "llamafile",
}
MACHINES = {"machine", "store", "engine"}
BELOW_MACHINES = WORDS | FORMATS
SOURCES = {"sources", "sources.registry"}
BELOW_SERVING = BELOW_MACHINES | MACHINES | SOURCES | {"models"}
MIDDLE = BELOW_SERVING | {"serving", "replicas", "cluster", "upstreams", "inference"}
HTTP = MIDDLE | {"server.http"}

MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(WORDS, WORDS),
    **dict.fromkeys(FORMATS, WORDS | FORMATS),
    **dict.fromkeys(MACHINES, BELOW_MACHINES),
    "models": BELOW_MACHINES | {"store"},
    "sources": BELOW_MACHINES | {"store", "models", "sources.registry"},
    "sources.registry": WORDS | {"store"},
    "upstreams": WORDS | {"engine"},
    "serving": BELOW_MACHINES | {"machine", "engine", "models"},
    "replicas": WORDS,
    "cluster": BELOW_MACHINES | MACHINES | {"serving", "replicas"},
    "inference": BELOW_SERVING | {"serving", "replicas", "cluster", "upstreams"},
    "server.http": MIDDLE,
    "server.ollama": HTTP,
    "server.openai": HTTP,
    "server.anthropic": HTTP,
    "server.page": HTTP,
    "server": HTTP | {"server.page", "server.ollama", "server.openai", "server.anthropic"},
    "client": WORDS,
    "builds": BELOW_MACHINES | MACHINES | {"models", "sources"},
    "doctor": BELOW_MACHINES | MACHINES | {"adopting", "builds", "models", "serving", "sources.registry", "client"},
    "services": WORDS | {"store"},
    "bundle": BELOW_MACHINES | {"store", "models", "sources"},
    "adopting": BELOW_MACHINES | {"store", "models", "sources"},
    "cli": WORDS | {"client", "modelfile", "llamafile"},
    "__main__": {"corral", "cli"},
}
"""What each module or package may import of the others; a file belongs to the longest name that leads to it."""

EXCEPTIONS = {
    ("cli/commands/serve.py", "server"),  # inside the command that is the server
    ("cli/commands/doctor.py", "doctor"),  # inside the command that looks itself
    ("cli/completion/engines.py", "builds"),  # when the name of an engine is typed
    ("cli/commands/bundle.py", "bundle"),  # inside the command that reads the store by itself
    ("cli/commands/bundle.py", "store"),
    ("cli/bundled.py", "bundle"),  # the program in a bundle
    ("cli/commands/adopt.py", "adopting"),  # inside the command that links files by itself
    ("cli/commands/adopt.py", "store"),
    ("cli/commands/service.py", "services"),  # inside the command that installs it
    ("cli/commands/engine.py", "builds"),  # inside the command that builds by itself
    ("cli/commands/engine.py", "engine"),
    ("cli/commands/engine.py", "machine"),
    ("cli/commands/nodes.py", "cluster"),  # inside the command that writes a manifest
    ("cli/commands/tune.py", "builds"),  # inside the command that measures by itself
    ("cli/commands/tune.py", "engine"),
    ("cli/commands/tune.py", "machine"),
}


def imports_of(file: Path) -> set[str]:
    """The rows of the table that a file imports from, anywhere in it; `corral` is the package's own constants."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {row_of(name.split(".")[1:]) for name in found if name.split(".")[0] == "corral"}


def row_of(parts: list[str]) -> str:
    """The longest row that is a beginning of a dotted name."""
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((name for name in names if name in MAY_IMPORT), "corral")


def module_of(file: Path) -> str:
    parts = [part.removesuffix(".py") for part in file.relative_to(PACKAGE).parts]
    return row_of(parts)


def test_every_import_points_down_or_where_the_table_says() -> None:
    wrong = {
        (file.relative_to(PACKAGE).as_posix(), imported)
        for file in PACKAGE.rglob("*.py")
        for imported in imports_of(file) - {module_of(file)} - MAY_IMPORT[module_of(file)]
    }
    assert wrong == EXCEPTIONS


def test_every_module_has_its_row() -> None:
    top = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert top - {"__pycache__", "__init__"} == {row.split(".")[0] for row in MAY_IMPORT} - {"corral"}


def test_words_import_only_the_standard_library_and_few_well_kept_packages() -> None:
    allowed = set(sys.stdlib_module_names) | {"corral", "msgspec", "prometheus_client", "uvloop"}
    files = [file for file in PACKAGE.rglob("*.py") if module_of(file) in WORDS - {"corral"}]
    assert len(files) > len(WORDS)
    for file in files:
        tree = ast.parse(file.read_text("utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.split(".")[0] for name in names} <= allowed, file
