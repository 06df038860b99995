"""LLaVA, BakLLaVA and others like them: projectors of their own file, from before projectors had named types."""

from corral.gguf import GGUF, ValueType
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family


def _recognises(file: GGUF) -> bool:
    types = (file.metadata.get("clip.projector_type"), file.metadata.get("clip.vision.projector_type"))
    return file.flag("clip.has_vision_encoder") and types == (None, None)


def _derive(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    draft.put("clip.projector_type", ValueType.STRING, "mlp")
    return Drafts(projector=draft)


FAMILY = Family(name="llava", version=1, architectures=("clip",), recognises=_recognises, derive=_derive)
