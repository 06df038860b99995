"""Derived files in the real engine: the same tokens, probabilities and pictures as the twin in the engine's layout."""

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.derived_files import CopyingBlocks, derive
from tests.forms import tone
from tests.published_models import FAMILIES, Twins
from tests.test_tiny_models import Ask, Load, load, picture

__all__ = ["load"]

SHARED = CopyingBlocks("clone", "ranges")


def said(ask: Ask, twins: Twins, prompt: str = "Hello the world") -> list[Any]:
    """Tokens and log probabilities, of a text, and where there are encoders of two pictures and two sounds; vectors."""
    if twins.embeds:
        return [ask("/embedding", {"content": text}) for text in (prompt, "Why is the sky blue?")]
    prompts: list[Any] = [prompt]
    if twins.projector is not None:
        marked = f"Look at {ask('/props')['media_marker']} and"
        prompts += [
            {"prompt_string": marked, "multimodal_data": [picture(*colours)]}
            for colours in (("red", "green"), ("blue", "white"))
        ]
        if ask("/props")["modalities"]["audio"]:
            sounds = (base64.b64encode(tone(pitch)).decode() for pitch in (440, 2500))
            prompts += [{"prompt_string": marked, "multimodal_data": [sound]} for sound in sounds]
    return [_answered(ask, one) for one in prompts]


def _answered(ask: Ask, prompt: Any) -> list[Any]:
    wanted = {"prompt": prompt, "n_predict": 8, "temperature": 0, "n_probs": 5, "return_tokens": True}
    answer = ask("/completion", wanted | {"cache_prompt": False})
    assert answer["tokens_predicted"] == 8
    probabilities = [
        [(one["id"], one["logprob"]) for one in token["top_logprobs"]] for token in answer["completion_probabilities"]
    ]
    return [answer["tokens"], probabilities]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_derived_model_says_what_its_twin_says(name: str, tmp_path: Path, load: Load) -> None:
    twins = FAMILIES[name](tmp_path)
    files = {} if twins.projector is None else {"projector": twins.projector}
    expected = said(load(twins.model, embedding=twins.embeds, **files), twins)
    made = derive(twins.published_projector or twins.published, tmp_path / "made", SHARED)
    text = tmp_path / "made" / made.text if made.text else twins.model
    files = {"projector": tmp_path / "made" / made.projector} if made.projector else {}
    assert said(load(text, embedding=twins.embeds, **files), twins) == expected
    if twins.projector is not None:
        assert expected[1] != expected[2]
        assert expected[3:4] != expected[4:5] or len(expected) == 3
