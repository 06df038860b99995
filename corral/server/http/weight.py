"""How much memory requests take beside their text: `[],[],` takes twenty times its bytes once it is values.

Knows no route and no budget.
"""

CONTAINER_BYTES = 256
"""What a list or an object takes, with the value that is made of it."""

ITEM_BYTES = 64
"""What an item of a list or a member of an object takes, beside its text."""


def weight(data: bytes) -> int:
    """Bytes that the values of a JSON text may take, beside its own.

    Brackets and commas in texts are counted, too: to tell them apart would take longer than reading them, and no text
    that a model can read has enough of them to matter.
    """
    return CONTAINER_BYTES * (data.count(b"[") + data.count(b"{")) + ITEM_BYTES * data.count(b",")


VECTOR_BYTES = 16 << 10
"""What the vector of a text takes until it is sent, of a few hundred numbers."""
