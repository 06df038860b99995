"""A checkpoint's tokenizer as GGUF keys: `read` finds its format. Knows no tensor and tokenises nothing.

`sentencepiece`, `byte_level`, `metaspace`, `unigram` and `wordpiece` each read one kind of vocabulary; `special` finds
what begins and ends a text, `chat` the templates of conversations; `vocabulary` has what all of them fill in.
Source: spec cli §18; the keys are those of llama.cpp's GGUF files.
"""

from collections.abc import Mapping
from pathlib import Path

from corral.convert.tokenizers import byte_level, chat, metaspace, sentencepiece, special, unigram, wordpiece
from corral.convert.tokenizers.files import Folder
from corral.convert.tokenizers.vocabulary import Vocabulary
from corral.errors import ModelFileError
from corral.messages import Json

__all__ = ["read"]


def read(files: Mapping[str, Path], config: Mapping[str, Json], vocab_size: int) -> dict[str, bytes]:
    """Every `tokenizer.*` key of a model, as `gguf.writer.layout` takes them.

    `files`: the checkpoint's, by their names in its folder; `config`: its `config.json`; `vocab_size`: tokens the
    model has embeddings for, to which the vocabulary is filled up. `ModelFileError` says what is wrong with a file.
    """
    folder = Folder(files, config)
    vocabulary = _vocabulary(folder).filled(vocab_size)
    return {**vocabulary.fields(), **special.fields(folder, vocabulary), **chat.fields(folder)}


def _vocabulary(folder: Folder) -> Vocabulary:
    if folder.has_sentencepiece:
        return sentencepiece.read(folder)
    if folder.tokenizer is None:
        if "vocab.txt" in folder.files:
            return wordpiece.read_lines(folder)
        raise ModelFileError("unknown tokenizer format")
    kind = folder.model.get("type")
    if kind == "WordPiece" or (kind is None and "max_input_chars_per_word" in folder.model):
        return wordpiece.read(folder)
    if kind == "Unigram":
        return unigram.read(folder)
    if kind not in ("BPE", None) or "merges" not in folder.model:
        raise ModelFileError("unknown tokenizer format")
    return byte_level.read(folder) if byte_level.is_byte_level(folder) else metaspace.read(folder)
