"""How an embedding model's vectors become one, by `modules.json` of the library sentence-transformers.

Vectors come out of length 1 in any case, so a module that does that adds nothing.
"""

from gguf import PoolingType
from gguf.constants import Keys

from corral.convert.checkpoint import Checkpoint, read_json, read_json_value
from corral.convert.hyperparameters import Hyperparameters
from corral.convert.safetensors import shortened
from corral.errors import ModelFileError
from corral.gguf.types import ValueType
from corral.gguf.writer import encode

_MODULES = "modules.json"
_PASSING = ("Transformer", "Normalize")
"""Modules that are the model itself, or that change nothing here."""

_MODES = {
    "pooling_mode_mean_tokens": PoolingType.MEAN,
    "pooling_mode_cls_token": PoolingType.CLS,
    "pooling_mode_lasttoken": PoolingType.LAST,
}
_OTHER_MODES = ("pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens")
_WORDS = {"mean": PoolingType.MEAN, "cls": PoolingType.CLS, "lasttoken": PoolingType.LAST}


def fields(checkpoint: Checkpoint, architecture: str) -> dict[str, bytes]:
    """The key for what the folder asks for; none when it says nothing. `ModelFileError` for what the engine cannot."""
    found = _read(checkpoint)
    key = Keys.LLM.POOLING_TYPE.format(arch=architecture)
    return {} if found is None else {key: encode(ValueType.UINT32, found)}


def _read(checkpoint: Checkpoint) -> PoolingType | None:
    if _MODULES not in checkpoint.files:
        return None
    modules = read_json_value(checkpoint.files, _MODULES)
    if not isinstance(modules, list):
        raise ModelFileError(f'"{_MODULES}" is not a list of modules')
    found: PoolingType | None = None
    for module in modules:
        kind, path = (module.get("type"), module.get("path")) if isinstance(module, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(path, str):
            raise ModelFileError(f'"{_MODULES}" has a module without type or path')
        name = kind.rpartition(".")[2]
        if name == "Pooling":
            place = f"{shortened(path)}/config.json"
            found = _pooling(Hyperparameters(read_json(checkpoint.files, place), place))
        elif name not in _PASSING:
            raise ModelFileError(f'the module "{shortened(name)}" of "{_MODULES}" is not supported by the engine')
    return found


def _pooling(given: Hyperparameters) -> PoolingType:
    if given.has("pooling_mode"):
        mode = given.text("pooling_mode")
        if mode not in _WORDS:
            raise ModelFileError(f'pooling by "{shortened(mode)}" is not supported by the engine')
        return _WORDS[mode]
    wanted = [mode for mode in (*_MODES, *_OTHER_MODES) if given.flag(mode, False)]
    if len(wanted) != 1 or wanted[0] not in _MODES:
        named = " and ".join(f'"{mode}"' for mode in wanted) or "none"
        raise ModelFileError(f"pooling by {named} is not supported by the engine")
    return _MODES[wanted[0]]
