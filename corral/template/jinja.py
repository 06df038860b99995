"""What a Jinja chat template supports, as far as its text shows it (spec cli §14.1, §14.5). Never runs it."""

import re


def jinja_capabilities(text: str) -> tuple[str, ...]:
    """`tools` and `thinking`, in this order, as far as the template mentions them."""
    found = []
    if "tools" in text or "tool_call" in text:
        found.append("tools")
    if _thinks(text):
        found.append("thinking")
    return tuple(found)


def jinja_think_tags(text: str) -> tuple[str, str] | None:
    """The tags around a model's thoughts, where its template shows both."""
    tags = ("<think>", "</think>")
    return tags if all(tag in text for tag in tags) else None


def jinja_tool_tag(text: str) -> str:
    """What it writes before a tool call, where that is a tag of one of the usual kinds; else empty."""
    found = _TOOL_TAG.search(text)
    return found[0] if found else ""


def jinja_is_harmony(text: str) -> bool:
    """Whether it writes turns as messages with channels, as gpt-oss does."""
    return all(mark in text for mark in ("<|start|>", "<|channel|>", "<|message|>", "<|end|>"))


_TOOL_TAG = re.compile(
    r"<tool_calls?>|\[TOOL_CALLS\]|<\|tool_calls?\|>|<\|tool_call_start\|>|<\|python_tag\|>|<\|START_ACTION\|>"
)


def _thinks(text: str) -> bool:
    if "<think>" in text and "</think>" in text:
        return True
    splits = re.search(r"""\.split\(\s*(['"])</think>\1""", text) is not None
    return splits and "reasoning_content" not in text and "<SPECIAL_12>" not in text


def jinja_has_tool_round_trip(text: str) -> bool:
    """Whether it writes calls of tools and their results back into the conversation."""
    if "tools" not in text and "tool_call" not in text:
        return False
    writes_calls = "tool_calls" in text or "assistant_tool_call" in text
    return writes_calls and _TOOL_RESULT.search(text) is not None


_TOOL_RESULT = re.compile(
    r"""tool_response|tool_results|ipython|(?:role|\[['"]role['"]\])\s*==\s*['"]tool['"]|['"]tool['"]\s*==\s*[\w.]*role"""
)
