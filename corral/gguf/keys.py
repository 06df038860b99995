"""Keys of a GGUF file for those who check them: under which name one stands, its numbers, and how a text is quoted."""

from corral.errors import ModelFileError
from corral.gguf.file import GGUF, MAX_LAYERS, Array


def full_key(file: GGUF, key: str) -> str:
    """The key as the file has it."""
    scoped = f"{file.architecture}.{key}"
    return scoped if scoped in file.metadata else key


def numbers(file: GGUF, key: str) -> list[int]:
    """The number of a key, or those of its array; empty without it. `ModelFileError` for more than there are layers."""
    value = file.get(key)
    if isinstance(value, Array):
        if value.length > MAX_LAYERS:
            full = full_key(file, key)
            raise ModelFileError(f'key "{full}" has {value.length} elements, more than {MAX_LAYERS} layers')
        return [number for number in file.values(key) if isinstance(number, int)]
    return [value] if isinstance(value, int) else []


def quoted(text: str | bytes) -> str:
    """The beginning of a file's text as a sentence can have it."""
    beginning = text[:40].decode(errors="replace") if isinstance(text, bytes) else text[:40]
    return beginning if beginning.isprintable() else ascii(beginning)[1:-1]
