"""What a tensor's shape has to be. `ModelFileError` names the tensor, what it has and what it should have."""

from typing import NoReturn

from corral.errors import ModelFileError
from corral.gguf.file import Tensor


def expect(tensor: Tensor, *, row: int | None = None, rows: int | None = None, elements: int | None = None) -> None:
    """Raises unless the tensor has rows of that length, so many of them, or so many elements."""
    if elements is not None and tensor.elements != elements:
        refuse(tensor, f"{elements} elements")
    if row is not None and (not tensor.shape or tensor.shape[0] != row):
        refuse(tensor, f"rows of {row} elements")
    if rows is not None and (len(tensor.shape) < 2 or tensor.shape[1] != rows):
        refuse(tensor, f"{rows} rows")


def expect_shape(tensor: Tensor, *shape: int) -> None:
    """Raises unless the tensor has that shape; 0 is any size, and last dimensions of 1 may be left out."""
    found = [*tensor.shape, *[1] * (len(shape) - len(tensor.shape))]
    if len(found) != len(shape) or any(size not in (0, have) for size, have in zip(shape, found, strict=True)):
        refuse(tensor, str(["any" if size == 0 else size for size in shape]).replace("'", ""))


def refuse(tensor: Tensor, wanted: str) -> NoReturn:
    raise ModelFileError(f'tensor "{tensor.name}" has the shape {list(tensor.shape)} instead of {wanted}')
