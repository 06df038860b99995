"""The prompts that a worker has read last, one a conversation: what may lie in its prompt cache beside its slots."""

from collections.abc import Sequence

Prompt = str | tuple[int, ...]

MOST = 16
"""Conversations that are remembered."""

MOST_LENGTH = 1 << 20
"""Characters or tokens of all that are remembered."""


class RecentPrompts:
    """Prompts in the order of their use. One that goes on from another takes its place."""

    def __init__(self) -> None:
        self._prompts: list[Prompt] = []

    def note(self, prompt: Prompt) -> None:
        self._prompts = [one for one in self._prompts if not _begins(prompt, one)]
        self._prompts.append(prompt)
        while len(self._prompts) > MOST or sum(map(len, self._prompts)) > MOST_LENGTH:
            del self._prompts[0]

    def latest_first(self) -> Sequence[Prompt]:
        return self._prompts[::-1]


def _begins(prompt: Prompt, beginning: Prompt) -> bool:
    """Whether a prompt begins with another."""
    if isinstance(prompt, str):
        return isinstance(beginning, str) and prompt.startswith(beginning)
    return prompt[: len(beginning)] == beginning
