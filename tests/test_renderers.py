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


PARSERS = {
    "deepseek3.1": "deepseek3",
    "olmo3.1": "olmo3",
    "olmo3-32b-think": "olmo3-think",
    **dict.fromkeys(("gemma4-small", "gemma4-large"), "gemma4"),
}
"""Parsers of models whose renderer has another name."""
ODD = ToolCall(name="weather", arguments={"city": 'St. "John\'s"', "days": [1, True, None, {"a": "b\n<c>"}]})


@pytest.mark.parametrize("renderer", sorted(renderers.names()))
def test_what_is_written_of_an_answer_is_read_by_the_parser(renderer: str) -> None:
    """Thoughts, text and calls, of any values, that a template writes back are found as if the model wrote them."""
    family = PARSERS.get(renderer, renderer)
    can = parsers.capabilities(family)
    tool = Tool("weather", "", {"properties": {"city": {"type": "string"}, "days": {"type": "array"}}})
    calls = (ODD, CALL) if "tools" in can else ()
    question, answer = Message.of("user", "U"), Message.of("assistant", "Wait.", thinking="Hm", tool_calls=calls)
    text = written(renderer, [question, answer], (tool,) if calls else (), think=True)
    before = "Hm" if "thinking" in can and renderer != "cogito" else {"lfm2": "assistant\n"}.get(renderer, "Wait.")
    prompt, _, said = text.partition(before)
    said = f"{before}{said}".removeprefix("assistant\n")
    parser = parsers.build(family=family, tools=(tool,), prompt=prompt)
    chunks = [*parser.feed(said), *parser.flush()]
    found = [call for chunk in chunks for call in chunk.tool_calls]
    assert [(call.name, call.arguments) for call in found] == [(call.name, call.arguments) for call in calls]
    assert "Wait." in "".join(chunk.content for chunk in chunks)
    assert "tools" in template.parse(renderers.text_for(renderer, has_chatml=False) or "").capabilities or not calls


QUESTION = [Message.of("system", "S"), Message.of("user", "U")]
ASKED = [*QUESTION, Message.of("assistant", thinking="T", tool_calls=(CALL,)), Message.of("tool", "11 C")]
WRITTEN = {
    # what follows the system text, tools included: the question, a call, its result, what the model goes on from
    "deepseek3.1": (
        "<｜User｜>U<｜Assistant｜><think>T</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>"
        '{"city":"Oslo"}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>'
        "<｜tool▁output▁begin｜>11 C<｜tool▁output▁end｜>"
    ),
    "cogito": (
        "<｜User｜>U<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        '{"city":"Oslo"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>'
        "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>11 C<｜tool▁output▁end｜><｜tool▁outputs▁end｜><｜Assistant｜>"
    ),
    "glm-4.7": (
        "<|user|>U<|assistant|><think>T</think><tool_call>weather<arg_key>city</arg_key><arg_value>Oslo</arg_value>"
        "</tool_call><|observation|><tool_response>11 C</tool_response><|assistant|><think>"
    ),
    "glm-ocr": (
        "<|user|>\nU<|assistant|>\n\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n"
        "</tool_call><|observation|>\n<tool_response>\n11 C\n</tool_response><|assistant|>\n"
    ),
    "laguna": (
        "<user>\nU\n</user>\n<assistant>\n<think>\nT\n</think>\n<tool_call>weather\n<arg_key>city</arg_key>\n"
        "<arg_value>Oslo</arg_value>\n</tool_call>\n</assistant>\n<tool_response>\n11 C\n</tool_response>\n"
        "<assistant>\n</think>"
    ),
    "poolside-v1": (
        "<user>U</user>\n<assistant><think>T</think><tool_call>weather<arg_key>city</arg_key>"
        "<arg_value>Oslo</arg_value></tool_call></assistant>\n<tool_response>11 C</tool_response>\n<assistant></think>"
    ),
    "lfm2": (
        '<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n<|tool_call_start|>[weather(city="Oslo")]'
        "<|tool_call_end|><|im_end|>\n<|im_start|>tool\n<|tool_response_start|>11 C<|tool_response_end|><|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "olmo3": (
        '<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n<function_calls>weather(city="Oslo")</function_calls>'
        "<|im_end|>\n<|im_start|>environment\n11 C<|im_end|>\n<|im_start|>assistant\n"
    ),
    "cohere": (
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>U<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
        "<|START_THINKING|>T<|END_THINKING|><|START_ACTION|>[\n"
        '    {"tool_call_id": "0", "tool_name": "weather", "parameters": {"city":"Oslo"}}\n]<|END_ACTION|>'
        "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|START_TOOL_RESULT|>[\n"
        '    {"tool_call_id": "0", "results": {"0": {"content": "11 C"}}, "is_error": null}\n]<|END_TOOL_RESULT|>'
        "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|>"
    ),
    "glimmer": (
        "<|start|>user<|message|>U<|eot|><|start|>assistant to=self<|message|>T<|eom|><|start|>assistant to=weather"
        '<|message|><atem:function_calls>\n<atem:invoke name="weather">\n<atem:parameter name="city">Oslo'
        "</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eot|><|start|>tool weather<|message|>"
        '<tool_output name="weather">\n11 C\n</tool_output><|eot|><|start|>assistant'
    ),
    "gemma4-small": (
        "<|turn>user\nU<turn|>\n<|turn>model\n<|channel>thought\nT<channel|>"
        '<|tool_call>call:weather{city:<|"|>Oslo<|"|>}<tool_call|>'
        '<|tool_response>response:weather{value:<|"|>11 C<|"|>}<tool_response|>'
    ),
    "functiongemma": (
        "<start_of_turn>user\nU<end_of_turn>\n<start_of_turn>model\n"
        "<start_function_call>call:weather{city:<escape>Oslo<escape>}<end_function_call>"
        "<start_function_response>response:weather{value:<escape>11 C<escape>}<end_function_response>"
    ),
}


@pytest.mark.parametrize("renderer", WRITTEN)
def test_a_question_a_call_and_its_result_are_written_as_the_family_does(renderer: str) -> None:
    text = written(renderer, ASKED, (TOOL,))
    assert text.endswith(WRITTEN[renderer])
    head = text.removesuffix(WRITTEN[renderer])
    assert all(said in head for said in ("S", "weather", "Says the weather", "city", "Where"))


def test_the_notation_of_gemma_declares_tools_with_all_that_their_schema_says() -> None:
    schema = {
        "type": "object",
        "required": ["near"],
        "properties": {
            "days": {"type": "array", "items": {"type": "integer"}},
            "near": {"type": "object", "properties": {"sea": {"type": "boolean"}}, "required": ["sea"]},
            "unit": {"type": "string", "enum": ["C", "F"], "description": "Of degrees"},
        },
    }
    assert (
        '<|turn>system\n<|think|>\n<|tool>declaration:weather{description:<|"|>D<|"|>,parameters:{properties:{'
        'days:{items:{type:<|"|>INTEGER<|"|>},type:<|"|>ARRAY<|"|>},'
        'near:{properties:{sea:{type:<|"|>BOOLEAN<|"|>}},required:[<|"|>sea<|"|>],type:<|"|>OBJECT<|"|>},'
        'unit:{description:<|"|>Of degrees<|"|>,enum:[<|"|>C<|"|>,<|"|>F<|"|>],type:<|"|>STRING<|"|>}},'
        'required:[<|"|>near<|"|>],type:<|"|>OBJECT<|"|>}}<tool|><turn|>\n'
    ) in written("gemma4-small", [Message.of("user", "U")], (Tool("weather", "D", schema),), think=True)


def test_thoughts_are_begun_where_they_are_wanted() -> None:
    ends = {
        "deepseek3.1": ("</think>", "<think>"),
        "laguna": ("</think>", "<think>"),
        "cogito": ("<｜Assistant｜>", "<think>\n"),
        "gemma4-small": ("<|turn>model\n", "<|turn>model\n"),
        "gemma4-large": ("<|channel>thought\n<channel|>", "<|turn>model\n"),
        "cohere": ("<|END_THINKING|>", "<|START_THINKING|>"),
    }
    for renderer, (without, with_thoughts) in ends.items():
        assert written(renderer, QUESTION, think=False).endswith(without)
        assert written(renderer, QUESTION, think=True).endswith(with_thoughts)
    assert "Reasoning strength: low." in written("glimmer", QUESTION, think="low")


def test_gemma_is_large_by_its_name_or_its_size() -> None:
    assert renderers.resolved("gemma4", model="gemma4:26b", parameters=1) == "gemma4-large"
    assert renderers.resolved("gemma4", model="mine", parameters=12_000_000_000) == "gemma4-large"
    assert renderers.resolved("gemma4", model="gemma4:e4b", parameters=8_000_000_000) == "gemma4-small"
    assert renderers.resolved("glm-4.7", model="31b", parameters=1) == "glm-4.7"


def test_a_gemma_that_names_its_renderer_is_written_as_its_size_is(tmp_path: Path) -> None:
    model = make(tmp_path, jinja=None, go="{{ .Prompt }}", renderer="gemma4", parser="gemma4")
    assert model.shown_template == renderers.text_for("gemma4-small", has_chatml=False)


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
    assert (renderers.text_for("of-tomorrow", has_chatml=True) or "").endswith("<|im_start|>assistant\n")
    assert renderers.text_for("of-tomorrow", has_chatml=False) is None
