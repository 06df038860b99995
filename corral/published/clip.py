"""The projector that a family makes of its model's tower: keys under `clip.`, each of the one type the engine reads."""

from collections.abc import Sequence

from corral.gguf import GGUF, ValueType
from corral.published import values
from corral.published.draft import Draft

HALVES = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of the colours, by which most encoders of pictures were trained."""


class ClipKeys:
    """Writes the keys of one projector, which come from those of the published file."""

    def __init__(self, draft: Draft, *, uses: str = "") -> None:
        """`uses` is the activation: `gelu`, `silu`, or none for the quick form of the first."""
        self.draft = draft
        self._file: GGUF = draft.file
        draft.put("general.architecture", ValueType.STRING, "clip")
        draft.put("general.type", ValueType.STRING, "mmproj")
        if uses:
            draft.put(f"clip.use_{uses}", ValueType.BOOL, value=True)

    def sees(self, projector_type: str) -> None:
        """It has an encoder of pictures of this type."""
        self.draft.put("clip.has_vision_encoder", ValueType.BOOL, value=True)
        self.draft.put("clip.projector_type", ValueType.STRING, projector_type)

    def encodes(self, encoder: str, projector_type: str) -> None:
        """It has an encoder, `vision` or `audio`, beside which there may be another one of another type."""
        self.draft.put(f"clip.has_{encoder}_encoder", ValueType.BOOL, value=True)
        self.draft.put(f"clip.{encoder}.projector_type", ValueType.STRING, projector_type)

    def whole(self, name: str, source: str, default: int | None = None) -> None:
        """A whole number out of the published file's key `source`."""
        self.put_whole(name, values.whole(self._file, source, default))

    def put_whole(self, name: str, number: int) -> None:
        self.draft.put(f"clip.{name}", ValueType.UINT32, number)

    def real(self, name: str, source: str, default: float | None = None) -> None:
        """A number with a fraction, out of a key."""
        self.draft.put(f"clip.{name}", ValueType.FLOAT32, values.real(self._file, source, default))

    def colours(self, mean: Sequence[float], std: Sequence[float], *, source: str = "") -> None:
        """Mean and deviation of the three colours; `source` is the prefix of keys that have others."""
        for name, default in (("image_mean", list(mean)), ("image_std", list(std))):
            found = values.reals(self._file, f"{source}.{name}", 3, default) if source else default
            self.draft.put_array(f"clip.vision.{name}", ValueType.FLOAT32, found)
