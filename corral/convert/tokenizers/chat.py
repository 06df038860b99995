"""The Jinja templates of conversations that a checkpoint brings. Renders nothing."""

import logging
import re

from corral.convert.tokenizers.files import MAX_TEMPLATE, Folder, as_text
from corral.errors import ModelFileError
from corral.gguf.types import ValueType
from corral.gguf.writer import encode, encode_array
from corral.messages import Json

log = logging.getLogger(__name__)


def fields(folder: Folder) -> dict[str, bytes]:
    """`tokenizer.chat_template`, and one key more for each template that has a name of its own."""
    templates = _templates(folder)
    found = {}
    for name, text in templates.items():
        if len(text.encode()) > MAX_TEMPLATE:
            raise ModelFileError(f'the chat template "{name}" is larger than {MAX_TEMPLATE >> 20} MB')
        key = "tokenizer.chat_template" if name == _DEFAULT else f"tokenizer.chat_template.{name}"
        found[key] = encode(ValueType.STRING, text)
    names = [name for name in templates if name != _DEFAULT]
    if names:
        found["tokenizer.chat_templates"] = encode_array(ValueType.STRING, names)
    return found


_DEFAULT = "default"
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_FOLDER = "additional_chat_templates/"


def _templates(folder: Folder) -> dict[str, str]:
    """The templates by their names. A file of its own comes first, as it is the newest of three habits."""
    found = _listed(folder.chat_template.get("chat_template"), "chat_template.json")
    found |= _listed(folder.settings.get("chat_template"), "tokenizer_config.json")
    if "chat_template.jinja" in folder.files:
        found[_DEFAULT] = folder.text("chat_template.jinja")
    for name in sorted(folder.files):
        if name.startswith(_FOLDER) and name.endswith(".jinja"):
            found[name.removeprefix(_FOLDER).removesuffix(".jinja")] = folder.text(name)
    for name in [name for name in found if not _NAME.fullmatch(name)]:
        log.warning('the chat template "%s" is left out: such a name has no key', name[:80])
        del found[name]
    return found


def _listed(value: Json, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, str):
        return {_DEFAULT: as_text(value, f"{where}: chat_template")}
    entries = value if isinstance(value, list) else []
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ModelFileError(f"{where}: chat_template is neither text nor a list of templates")
    return {
        as_text(entry.get("name"), f"{where}: chat_template"): as_text(entry.get("template"), f"{where}: chat_template")
        for entry in entries
    }
