"""Templates that stand in for Ollama's built-in renderers, and models that name one."""

from pathlib import Path

import pytest

from corral import parsers, template
from corral.messages import Message, Think, Tool, ToolCall
from corral.template import renderers
from tests.test_model import PLAIN_JINJA, make

TOOL = Tool(
    "weather",
    "Says the weather",
    {"type": "object", "properties": {"city": {"type": "string", "description": "Where"}}, "required": ["city"]},
)
CALL = ToolCall(name="weather", arguments={"city": "Oslo"})
TURNS = [
    Message.of("system", "S"),
    Message.of("user", "U1"),
    Message.of("assistant", "A1", thinking="T1"),
    Message.of("user", "U2"),
]
AGAIN = "<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nU2<|im_end|>\n"


def written(renderer: str, messages: list[Message], tools: tuple[Tool, ...] = (), think: Think = None) -> str:
    text = renderers.text_for(renderer, has_chatml=False)
    assert text is not None
    return template.parse(text).render(messages, tools=tools, think=think)


@pytest.mark.parametrize("renderer", ["olmo3", "lfm2", "qwen3-vl-instruct", "qwen3-coder"])
def test_turns_of_models_that_do_not_think(renderer: str) -> None:
    expected = f"<|im_start|>system\nS<|im_end|>\n{AGAIN}<|im_start|>assistant\n"
    assert written(renderer, TURNS) == expected


@pytest.mark.parametrize(
    "renderer", ["olmo3-think", "lfm2-thinking", "qwen3-vl-thinking", "qwen3.5", "nemotron-3-nano"]
)
def test_earlier_thoughts_are_left_out_and_a_new_one_is_begun(renderer: str) -> None:
    before = f"<|im_start|>system\nS<|im_end|>\n{AGAIN}<|im_start|>assistant\n"
    assert written(renderer, TURNS) == f"{before}<think>\n"
    assert written(renderer, TURNS, think=True) == f"{before}<think>\n"
    assert written(renderer, TURNS, think=False) == f"{before}<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("renderer", "call"),
    [
        ("qwen3-vl-instruct", '{"name": "weather", "arguments": {"city":"Oslo"}}'),
        ("qwen3-coder", "<function=weather>\n<parameter=city>\nOslo\n</parameter>\n</function>"),
    ],
)
def test_a_call_and_its_result_are_written_back(renderer: str, call: str) -> None:
    messages = [
        Message.of("user", "U"),
        Message.of("assistant", tool_calls=(CALL,)),
        Message.of("tool", "11 C"),
    ]
    text = written(renderer, messages, (TOOL,))
    head, _, rest = text.partition("<|im_end|>\n")
    assert head.startswith("<|im_start|>system\n# Tools\n")
    assert "weather" in head
    assert "Says the weather" in head
    assert "city" in head
    assert rest == (
        "<|im_start|>user\nU<|im_end|>\n"
        f"<|im_start|>assistant\n\n<tool_call>\n{call}\n</tool_call><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n11 C\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_thought_before_a_call_stays_until_the_next_question() -> None:
    messages = [
        Message.of("user", "U"),
        Message.of("assistant", thinking="T", tool_calls=(CALL,)),
        Message.of("tool", "11 C"),
    ]
    assert "<|im_start|>assistant\n<think>\nT\n</think>\n\n\n<tool_call>\n<function=weather>" in written(
        "qwen3.5", messages
    )


def test_turns_of_deepseek_and_glm() -> None:
    assert written("deepseek3.1", TURNS, think=False) == (
        "S<｜User｜>U1<｜Assistant｜></think>A1<｜end▁of▁sentence｜><｜User｜>U2<｜Assistant｜></think>"
    )
    assert (
        written("glm-4.7", TURNS)
        == "[gMASK]<sop><|system|>S<|user|>U1<|assistant|></think>A1<|user|>U2<|assistant|><think>"
    )


@pytest.mark.parametrize("renderer", sorted(renderers.names()))
def test_thoughts_and_calls_in_answers_are_found(renderer: str) -> None:
    """By the parser of the same name, or by the tags that the template writes."""
    parsed = template.parse(renderers.text_for(renderer, has_chatml=False) or "")
    thinks = written(renderer, TURNS).rstrip().endswith("<think>")
    assert thinks == (parsed.think_tags == ("<think>", "</think>"))
    if "tools" in parsed.capabilities and renderer not in parsers.families():
        assert parsed.tool_tag == "<tool_call>"


def test_a_renderer_without_a_template_of_the_models_own_is_stood_in_for(tmp_path: Path) -> None:
    model = make(tmp_path, jinja=None, go="{{ .Prompt }}", renderer="qwen3.5", parser="qwen3.5")
    assert model.shown_template == renderers.text_for("qwen3.5", has_chatml=False)
    assert {"tools", "thinking"} <= set(model.capabilities)


def test_a_template_that_writes_conversations_comes_before_ours(tmp_path: Path) -> None:
    own = "{{ range .Messages }}{{ .Content }}{{ end }}"
    assert make(tmp_path, jinja=None, go=own, renderer="qwen3.5").shown_template == own


def test_the_models_own_template_comes_before_all(tmp_path: Path) -> None:
    assert make(tmp_path, jinja=PLAIN_JINJA, go="{{ .Prompt }}", renderer="qwen3.5").native


def test_an_unknown_renderer_is_chatml_where_the_vocabulary_has_its_marks(tmp_path: Path) -> None:
    chatml = renderers.text_for("olmo3", has_chatml=False)
    assert renderers.text_for("of-tomorrow", has_chatml=True) == chatml
    assert renderers.text_for("of-tomorrow", has_chatml=False) is None
