"""Makes files as llamafile's tools do: a program, members stored on page boundaries, and the directory at the end."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

PAGE = 4096
PROGRAM = b"MZqFpD='\n#!/bin/sh\nexit 1\n" + bytes(7000)
"""Begins as a program that runs everywhere does; the length is nothing round."""


def make_llamafile(
    path: Path, members: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED, program: bytes = PROGRAM
) -> Path:
    """Its `.gguf` members begin at multiples of `PAGE`, by an extra field in their local headers alone."""
    stream = io.BytesIO(program)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a", compression) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            if name.endswith(".gguf"):
                header = stream.tell() + 30 + len(name.encode()) + 4
                info.extra = b"\xff\xff" + (-header % PAGE).to_bytes(2, "little") + bytes(-header % PAGE)
            archive.writestr(info, data)
            info.extra = b""  # not in the directory: where the bytes begin, only the local header says
    path.write_bytes(stream.getvalue())
    return path
