"""Answers of the families whose parser a model's configuration names: thoughts, text and calls, in any pieces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral import parsers
from corral.parsers.base import OutputParser
from tests.conftest import RANDOM_CASES
from tests.test_parsers import TOOLS, UNPARSED, Answer, call, read

OSLO = call("get_weather", city="Oslo")
LATER = call("get_weather", 1, city="New York", days=3)
BOTH = Answer("Wait.", "Hm", (OSLO, LATER))
CLOCK = (call("clock"),)
VALUES = {"a": [1.5, "x'", {"b": True, "c": None}], "d": 'e\n"f"'}

GLM_OSLO = "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Oslo</arg_value></tool_call>"
LAGUNA_LATER = (
    "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>New York</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>"
)
DEEPSEEK_OSLO = '<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Oslo"}<｜tool▁call▁end｜>'
COGITO_LATER = (
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
    '{"city": "New York", "days": 3}\n```<｜tool▁call▁end｜>'
)
COHERE_OSLO = '{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Oslo"}}'
COHERE_LATER = '{"tool_name": "get_weather", "parameters": {"city": "New York", "days": 3}}'
GLIMMER_OSLO = (
    '<atem:function_calls>\n<atem:invoke name="get_weather">\n<atem:parameter name="city">Oslo</atem:parameter>\n'
    "</atem:invoke>\n</atem:function_calls>"
)
GLIMMER_LATER = (
    '<atem:function_calls>\n<atem:invoke name="weather.get_weather">\n'
    '<atem:parameter name="city">New York</atem:parameter>\n<atem:parameter name="days">3</atem:parameter>\n'
    "</atem:invoke>\n</atem:function_calls>"
)
QWEN_OSLO = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
QWEN_LATER = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "New York", "days": 3}}\n</tool_call>'

EXAMPLES: list[tuple[str, str, str, str, Answer]] = [
    # a name, a parser, the end of the prompt, the answer, what it amounts to
    (
        "Mistral",
        "ministral",
        "[/INST]",
        (
            '[THINK]Hm[/THINK]Wait.[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]get_weather[ARGS]'
            '{"city": "New York", "days": 3}'
        ),
        BOTH,
    ),
    (
        "Mistral with ids",
        "ministral",
        "[/INST]",
        "[TOOL_CALLS]clock[CALL_ID]a1B2c3D4e[ARGS]{}",
        Answer("", "", CLOCK),
    ),
    (
        "Mistral as it was",
        "ministral",
        "[/INST]",
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Oslo"}}]',
        Answer("", "", (OSLO,)),
    ),
    (
        "an unknown tool of Mistral",
        "ministral",
        "[/INST]",
        '[TOOL_CALLS]gone[ARGS]{"a": 1}',
        Answer('[TOOL_CALLS]gone[ARGS]{"a": 1}', "", (), UNPARSED),
    ),
    ("Mistral answers", "ministral", "[/INST]", "Hi [TOOL", Answer("Hi [TOOL")),
    ("Qwen 3", "qwen3", "<think>\n", f"Hm</think>\n\nWait.{QWEN_OSLO}\n{QWEN_LATER}", BOTH),
    ("Qwen 3 VL", "qwen3-vl-instruct", "assistant\n", f"Wait. {QWEN_OSLO}", Answer("Wait. ", "", (OSLO,))),
    (
        "DeepSeek",
        "deepseek3",
        "<｜Assistant｜><think>",
        f"Hm</think>Wait.<｜tool▁calls▁begin｜>{DEEPSEEK_OSLO}{COGITO_LATER}<｜tool▁calls▁end｜>",
        BOTH,
    ),
    (
        "DeepSeek without the outer marks",
        "deepseek3",
        "</think>",
        f"{DEEPSEEK_OSLO}\n{COGITO_LATER}<｜tool▁calls▁end｜>",
        Answer("", "", (OSLO, LATER)),
    ),
    (
        "Cogito without arguments",
        "cogito",
        "<｜Assistant｜>",
        "Wait. <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>clock\n```json\n```<｜tool▁call▁end｜>",
        Answer("Wait.", "", CLOCK),
    ),
    *(
        (
            f"a call of DeepSeek that is none: {body}",
            "deepseek3",
            "</think>",
            f"A <｜tool▁calls▁begin｜>{body}<｜tool▁calls▁end｜> b",
            Answer(f"A <｜tool▁calls▁begin｜>{body}<｜tool▁calls▁end｜> b", "", (), UNPARSED),
        )
        for body in (
            "",
            "<｜tool▁call▁begin｜>clock<｜tool▁call▁end｜>",
            "<｜tool▁call▁begin｜>clock<｜tool▁sep｜>{a<｜tool▁call▁end｜>",
            "<｜tool▁call▁begin｜>gone<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
        )
    ),
    (
        "FunctionGemma",
        "functiongemma",
        "<start_of_turn>model\n",
        (
            "Wait.<start_function_call>call:get_weather{city:<escape>Oslo<escape>}<end_function_call>"
            "<start_function_call>call:get_weather{city:<escape>New York<escape>,days:3}<end_function_call>"
            "<start_function_response>"
        ),
        Answer("Wait.", "", (OSLO, LATER)),
    ),
    (
        "a call of FunctionGemma that is none",
        "functiongemma",
        "<start_of_turn>model\n",
        "<start_function_call>call:clock{a:<end_function_call>",
        Answer("<start_function_call>call:clock{a:<end_function_call>", "", (), UNPARSED),
    ),
    ("GLM", "glm-4.7", "<|assistant|><think>", f"Hm</think>Wait.\n{GLM_OSLO}{LAGUNA_LATER}", BOTH),
    (
        "GLM on both sides of a call",
        "glm-ocr",
        "<|assistant|>\n",
        f"and<tool_call>clock</tool_call> done {GLM_OSLO}",
        Answer("and done", "", (*CLOCK, call("get_weather", 1, city="Oslo"))),
    ),
    (
        "Laguna",
        "laguna",
        "<assistant>\n<think>",
        f"\nHm</think>\nWait.\n<tool_call>{QWEN_OSLO[12:-13]}</tool_call>\n{LAGUNA_LATER}\n",
        BOTH,
    ),
    *(
        (
            f"a call of GLM that is none: {body}",
            "glm-4.7",
            "</think>",
            f"<tool_call>{body}</tool_call>",
            Answer(f"<tool_call>{body}</tool_call>", "", (), UNPARSED),
        )
        for body in ("", "gone", "clock<arg_key>a</arg_key>", "clock<arg_key>a</arg_key><arg_value>b", '{"name": "x"}')
    ),
    (
        "LFM2",
        "lfm2-thinking",
        "<|im_start|>assistant\n",
        (
            "<think>Hm</think>Wait.<|tool_call_start|>"
            "[get_weather(city='Oslo'), get_weather(city=\"New York\", days=3)]<|tool_call_end|>"
        ),
        BOTH,
    ),
    (
        "LFM2 with all kinds of values",
        "lfm2",
        "<|im_start|>assistant\n",
        r"""<|tool_call_start|>[clock(a=[1.5, 'x\'', {"b": True, 'c': None},], d="e\n\"f\"")]<|tool_call_end|> Done""",
        Answer("Done", "", (call("clock", **VALUES),)),
    ),
    (
        "LFM2 with JSON",
        "lfm2",
        "<|im_start|>assistant\n",
        '<|tool_call_start|>[{"name": "get_weather", "arguments": {"city": "Oslo"}}]<|tool_call_end|>',
        Answer("", "", (OSLO,)),
    ),
    *(
        (
            f"a call of LFM2 that is none: {body}",
            "lfm2",
            "<|im_start|>assistant\n",
            f"A<|tool_call_start|>{body}<|tool_call_end|> b",
            Answer(f"A<|tool_call_start|>{body}<|tool_call_end|> b", "", (), UNPARSED),
        )
        for body in (
            *("[]", "[gone()]", "[clock]", "[clock(1)]", "[clock(a)]", "[clock(a=1 b=2)]", "[clock(a='b)]", "clock(a="),
            *("[clock(a=b)]", "[clock(a={1: 2})]", r"[clock(a='\ud800')]", "[clock(a=" + "[" * 200 + ")]", '{"a": 1}'),
            *("[clock(a=1e999)]", "[1]", '[{"name": "gone"}]', "[clock(a=open('x'))]"),
        )
    ),
    (
        "OLMo",
        "olmo3",
        "<|im_start|>assistant\n",
        'Wait.\n<function_calls>get_weather(city="Oslo")\nget_weather(city="New York", days=3)</function_calls>',
        Answer("Wait.", "", (OSLO, LATER)),
    ),
    ("OLMo thinks", "olmo3-think", "<|im_start|>assistant\n<think>", "Hm\n</think>\nHi", Answer("Hi", "Hm\n")),
    (
        "Cohere",
        "cohere",
        "<|CHATBOT_TOKEN|><|START_THINKING|>",
        (
            f"Hm<|END_THINKING|><|START_TEXT|>Wait.<|END_TEXT|><|START_ACTION|>[{COHERE_OSLO},\n{COHERE_LATER}]"
            "<|END_ACTION|>"
        ),
        BOTH,
    ),
    (
        "Cohere only answers",
        "cohere",
        "<|CHATBOT_TOKEN|>",
        "<|START_RESPONSE|>Hi <b>\n<|END_RESPONSE|>",
        Answer("Hi <b>\n"),
    ),
    *(
        (
            f"a call of Cohere that is none: {body}",
            "cohere",
            "<|END_THINKING|>",
            f"<|START_ACTION|>{body}<|END_ACTION|>",
            Answer(f"<|START_ACTION|>{body}<|END_ACTION|>", "", (), UNPARSED),
        )
        for body in (
            "",
            "[]",
            "[1]",
            '[{"tool_name": 1}]',
            '[{"tool_name": "gone"}]',
            '{"tool_name": "clock", "parameters": 1}',
        )
    ),
    (
        "Glimmer",
        "glimmer",
        "<|start|>assistant",
        (
            f" to=self<|message|>Hm<|eom|><|start|>assistant to=user<|message|>Wait.<|eom|>"
            f"<|start|>assistant to=get_weather<|message|>{GLIMMER_OSLO}<|eom|>"
            f"<|start|>assistant to=weather.get_weather<|message|>{GLIMMER_LATER}<|eot|>"
        ),
        BOTH,
    ),
    ("Glimmer in an open message", "glimmer", "<|start|>assistant to=self<|message|>", "Hm<|eot|>", Answer("", "Hm")),
    ("Glimmer without a header", "glimmer", "<|start|>assistant", "Hello, you <|b", Answer("Hello, you <|b")),
    ("one word of Glimmer", "glimmer", "<|start|>assistant", "Hello", Answer("Hello")),
    ("a header that breaks off", "glimmer", "<|start|>assistant", " to=us", Answer()),
    (
        "a call of Glimmer that is none",
        "glimmer",
        "<|start|>assistant to=clock<|message|>",
        '<atem:function_calls><atem:invoke name="clock"><atem:parameter name="a">',
        Answer('<atem:function_calls><atem:invoke name="clock"><atem:parameter name="a">', "", (), UNPARSED),
    ),
    ("nothing is read", "passthrough", "", f"<think>Hm</think> {GLM_OSLO}", Answer(f"<think>Hm</think> {GLM_OSLO}")),
]
BY_NAME = {name: (family, prompt, text, expected) for name, family, prompt, text, expected in EXAMPLES}
PROMPTS = {family: prompt for _, family, prompt, _, _ in reversed(EXAMPLES)}


def reader(family: str, prompt: str) -> OutputParser:
    return parsers.build(family=family, tools=TOOLS, prompt=prompt)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_cut_reads_the_same(name: str) -> None:
    family, prompt, text, expected = BY_NAME[name]
    assert read(reader(family, prompt), [text]) == expected
    assert read(reader(family, prompt), list(text)) == expected
    for cut in range(len(text)):
        assert read(reader(family, prompt), [text[:cut], "", text[cut:]]) == expected, text[cut:]


FRAGMENTS = [
    *("[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]", "<think>", "</think>", "<tool_call>", "</tool_call>"),
    *(
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
    ),
    *("<start_function_call>", "call:clock{", "<escape>", "<end_function_call>", "<arg_key>", "</arg_key>"),
    *("<|tool_call_start|>", "<|tool_call_end|>", "<function_calls>", "</function_calls>", "clock(", ")", "a='"),
    *("<|START_THINKING|>", "<|END_THINKING|>", "<|START_TEXT|>", "<|START_ACTION|>", "<|END_ACTION|>"),
    *(
        "<|start|>",
        "assistant",
        " to=self",
        "<|message|>",
        "<|eom|>",
        "<atem:function_calls>",
        "</atem:function_calls>",
    ),
    *("{", "}", "[", "]", '"', "\\", ":", "clock", "\n", " ", "<", "<|", "word", "🙂"),
]


@settings(max_examples=RANDOM_CASES or 400)
@given(st.sampled_from(sorted(PROMPTS)), st.lists(st.sampled_from(FRAGMENTS), max_size=14), st.data())
def test_any_text_reads_the_same_in_any_pieces(family: str, fragments: list[str], data: st.DataObject) -> None:
    text = "".join(fragments)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = read(reader(family, PROMPTS[family]), [text])
    assert read(reader(family, PROMPTS[family]), pieces) == whole
    assert read(reader(family, PROMPTS[family]), list(text)) == whole


OPENINGS = {
    "deepseek3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>clock<｜tool▁sep｜>",
    "functiongemma": "<start_function_call>call:clock",
    "glm-4.7": "<tool_call>clock",
    "lfm2": "<|tool_call_start|>[clock(a=",
    "olmo3": "<function_calls>clock(a=",
    "cohere": "<|START_ACTION|>",
    "glimmer": "<|message|><atem:function_calls>",
    "ministral": "[TOOL_CALLS]clock[ARGS]",
}


@pytest.mark.parametrize(
    "body", ["{" * 20_000, "[" * 20_000, '{"a":' * 5_000, "<arg_key>" * 5_000, "'\\" * 20_000, " " * 50_000]
)
@pytest.mark.parametrize("family", OPENINGS)
def test_a_hostile_answer_comes_back_as_text(family: str, body: str) -> None:
    text = OPENINGS[family] + body
    answer = read(parsers.build(family=family, tools=TOOLS), [text])
    assert answer.calls in ((), CLOCK)
    if not answer.calls:
        assert answer.content == text.removeprefix("<|message|>")


def test_what_a_parsers_models_can_do() -> None:
    """Spec cli §16.3; a family that is a file is found by its names."""
    found = {name: parsers.capabilities(name) for name in parsers.families()}
    both, tools = ("tools", "thinking"), ("tools",)
    without_thoughts = ("qwen3-coder", "qwen3-vl-instruct", "gemma4-no-thinking", "functiongemma", "glm-ocr", "lfm2")
    thinking = (
        *("harmony", "qwen3", "qwen3-thinking", "qwen3-vl-thinking", "qwen3.5", "qwen3.8", "ornith", "ministral"),
        *("nemotron-3-nano", "nemotron-3.5-nano", "deepseek3", "cogito", "gemma4", "glm-4.7", "lfm2-thinking"),
        *("cohere", "laguna", "poolside-v1", "glimmer"),
    )
    assert found == {
        **dict.fromkeys(thinking, both),
        **dict.fromkeys((*without_thoughts, "olmo3"), tools),
        "olmo3-think": ("thinking",),
        "passthrough": (),
    }
    assert parsers.capabilities("of-tomorrow") == ()
