"""The table of layers in docs/design.md, held against the imports in the code."""

import ast
from pathlib import Path

import corral

PACKAGE = Path(corral.__file__).parent

WORDS = {"corral", "errors", "names", "messages", "options", "golang", "config", "telemetry", "background"}
FORMATS = {"gguf", "modelfile", "template", "parsers", "media", "schemas"}
MACHINES = {"store", "machine", "engine", "models", "sources"}
DECISIONS = {"serving"}
MEETING_POINT = {"inference"}

BELOW_FORMATS = WORDS
BELOW_MACHINES = WORDS | FORMATS
BELOW_DECISIONS = WORDS | FORMATS | MACHINES

MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(WORDS, WORDS),
    **dict.fromkeys(FORMATS, BELOW_FORMATS),
    "store": BELOW_MACHINES,
    "models": BELOW_MACHINES | {"store"},
    "sources": BELOW_MACHINES | {"store", "models"},
    "machine": BELOW_MACHINES,
    "engine": BELOW_MACHINES,
    "serving": WORDS | FORMATS | {"models", "engine", "machine"},
    **dict.fromkeys(MEETING_POINT, BELOW_DECISIONS | DECISIONS | MEETING_POINT),
    "server": BELOW_DECISIONS | DECISIONS | MEETING_POINT,
    "client": WORDS,
    "cli": WORDS | {"client"},
    "__main__": {"corral", "cli"},
}
"""Top-level modules by what they may import of the others. `cli.serve` may also import `server`, inside its command."""

EXCEPTIONS = {("cli/serve.py", "server")}


def imports_of(file: Path) -> set[str]:
    """Top-level modules of corral that a file imports, anywhere in it; `corral` is the package's own constants."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "corral" else {module}
    ours = {name.split(".")[1] if "." in name else "corral" for name in found if name.split(".")[0] == "corral"}
    return {name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() else "corral" for name in ours}


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).parts
    name = parts[0].removesuffix(".py")
    return "corral" if name == "__init__" else name


def test_every_import_points_down_or_where_the_table_says() -> None:
    wrong = {
        (file.relative_to(PACKAGE).as_posix(), imported)
        for file in PACKAGE.rglob("*.py")
        for imported in imports_of(file) - {module_of(file)} - MAY_IMPORT[module_of(file)]
    }
    assert wrong - EXCEPTIONS == set()


def test_every_module_has_its_row() -> None:
    assert {module_of(file) for file in PACKAGE.rglob("*.py")} <= MAY_IMPORT.keys()


def test_words_import_only_the_standard_library_and_two_well_kept_packages() -> None:
    import sys

    allowed = set(sys.stdlib_module_names) | {"corral", "msgspec", "prometheus_client"}
    files = [file for file in PACKAGE.rglob("*.py") if module_of(file) in WORDS - {"corral"}]
    assert len(files) > len(WORDS)
    for file in files:
        tree = ast.parse(file.read_text("utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.split(".")[0] for name in names} <= allowed, file
