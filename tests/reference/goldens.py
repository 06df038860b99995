"""What is asked of the models in `models.py`, and where the answers of the reference are kept."""

import json
from pathlib import Path
from typing import Any

from tests.reference.models import Case

FOLDER = Path(__file__).with_name("goldens")

STEPS = 6
"""Tokens that are generated, always the likeliest one."""
TOP = 12
"""Tokens whose log probabilities are kept for each of them."""
MARGIN = 0.1
"""How much likelier the likeliest token is than the next: rounding must not decide."""

SHORT = ("hello world", "you ask the system and that is", "A? 1+2=3; [x]")
LONG = "the system and you " * 12 + "hello"


def prompts(case: Case) -> list[str]:
    """What a case is asked."""
    if not case.long:
        return list(SHORT)
    return [LONG] if case.name.endswith("-long") else [*SHORT[:2], LONG]


def path(case: Case) -> Path:
    return FOLDER / f"{case.name}.json"


def load(case: Case) -> list[dict[str, Any]]:
    """For each prompt: `prompt`, its token `ids`, and `steps` of (token, its likeliest alternatives by log probability)."""
    found: list[dict[str, Any]] = json.loads(path(case).read_text())
    return found
