"""What is asked of the models in `models.py`, and where the answers of the reference are kept."""

import json
from pathlib import Path
from typing import Any

from tests.reference.models import Case

FOLDER = Path(__file__).with_name("goldens")

TOP = 12
"""Tokens whose log probabilities are kept."""

SHORT = ("h", "hello world", "the user said", "you ask the system and that is", "A? 1+2=3; [x]")
TEXTS = ("the sky is blue", "cat", "Why?", "because the world said hello to that user " * 6)
"""What models that embed get."""
LONG = "the system and you " * 12 + "hello"


def prompts(case: Case) -> list[str]:
    """What a case is asked."""
    if case.pooling:
        return list(TEXTS)
    if not case.long:
        return list(SHORT)
    return [LONG, LONG[9:]] if case.name.endswith("-long") else [*SHORT[:3], LONG[:90], LONG]


def path(case: Case) -> Path:
    return FOLDER / f"{case.name}.json"


def load(case: Case) -> list[dict[str, Any]]:
    """For each prompt: `prompt`, its token `ids`, and `top`, the likeliest next tokens with their log probabilities, or
    `vector`, of length 1.
    """
    found: list[dict[str, Any]] = json.loads(path(case).read_text())
    return found
