"""Rendering of conversations: the form that walks over messages, and the older one, run once an exchange."""

import pytest

from corral import template
from corral.errors import TemplateError
from corral.messages import Message

CONVERSATION = [
    Message("system", "S"),
    Message("user", "U1"),
    Message("assistant", "A1"),
    Message("user", "U2"),
]
LEGACY = "{{ if .System }}[S]{{ .System }} {{ end }}[U]{{ .Prompt }} [A]{{ .Response }}[E]"


def test_a_template_over_messages_is_run_once() -> None:
    parsed = template.parse("{{ range .Messages }}<{{ .Role }}>{{ .Content }}</>{{ end }}<assistant>")
    assert parsed.render(CONVERSATION) == "<system>S</><user>U1</><assistant>A1</><user>U2</><assistant>"


def test_the_older_form_is_run_once_an_exchange_and_left_open_at_the_response() -> None:
    assert template.parse(LEGACY).render(CONVERSATION) == "[S]S [U]U1 [A]A1[E][U]U2 [A]"


def test_a_trailing_assistant_message_is_continued() -> None:
    messages = [*CONVERSATION, Message("assistant", "Sure,")]
    assert template.parse(LEGACY).render(messages).endswith("[U]U2 [A]Sure,")


def test_a_template_with_neither_messages_nor_response_gets_the_response_at_its_end() -> None:
    assert template.parse("[U]{{ .Prompt }} [A]").render(CONVERSATION) == "[U]U1 [A]A1[U]U2 [A]"


def test_an_unclosed_action_is_named_in_gos_words() -> None:
    with pytest.raises(TemplateError) as caught:
        template.parse("{{ .Prompt")
    assert str(caught.value) == "template: :1: unclosed action"
