"""Reading answers: whatever the cuts between pieces, the chunks add up to the same, and no text gets lost."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral import parsers
from corral.messages import Message, Tool, ToolCall
from corral.parsers.base import OutputParser
from corral.parsers.families import harmony as harmony_family
from corral.parsers.rescue import RescueParser
from tests.conftest import RANDOM_CASES

WEATHER = Tool(
    name="get_weather",
    description="The weather of a city",
    parameters={
        "type": "object",
        "required": ["city"],
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "units": {"type": "string", "enum": ["C", "F"]},
        },
    },
)
RANGE = Tool(name="get_weather_range", parameters={"type": "object", "properties": {"from": {"type": "string"}}})
CLOCK = Tool(name="clock", parameters={"type": "object", "properties": {}})
TOOLS = (WEATHER, RANGE, CLOCK)
THINK = ("<think>", "</think>")


@dataclass(frozen=True)
class Answer:
    """What the chunks of an answer add up to."""

    content: str = ""
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    warnings: tuple[str, ...] = ()


def read(parser: OutputParser, pieces: Iterable[str]) -> Answer:
    chunks = [chunk for piece in pieces for chunk in parser.feed(piece)]
    chunks += parser.flush()
    return Answer(
        "".join(chunk.content for chunk in chunks),
        "".join(chunk.thinking for chunk in chunks),
        tuple(call for chunk in chunks for call in chunk.tool_calls),
        tuple(parser.warnings),
    )


def call(name: str, index: int = 0, /, **arguments: object) -> ToolCall:
    return ToolCall(name=name, arguments=arguments, index=index)


def thinking() -> OutputParser:
    return parsers.build(think_tags=THINK)


def inside_thinking() -> OutputParser:
    return parsers.build(think_tags=THINK, prompt="<|im_start|>assistant\n<think>\n")


def tagged() -> OutputParser:
    return parsers.build(tool_tag="<tool_call>", tools=TOOLS)


def bare() -> OutputParser:
    return parsers.build(tool_tag="{", tools=TOOLS)


def mistral() -> OutputParser:
    return parsers.build(tool_tag="[TOOL_CALLS] [", tools=TOOLS)


def untagged() -> OutputParser:
    return parsers.build(tools=TOOLS)


def thinking_and_tools() -> OutputParser:
    return parsers.build(think_tags=THINK, tool_tag="<tool_call>", tools=TOOLS)


def harmony() -> OutputParser:
    return parsers.build(family="harmony", tools=TOOLS, prompt="<|start|>user<|message|>U<|end|><|start|>assistant")


def harmony_in_final() -> OutputParser:
    prompt = "<|start|>assistant<|channel|>final<|message|>"
    return parsers.build(family="harmony", tools=TOOLS, prompt=prompt)


def gemma4() -> OutputParser:
    return parsers.build(family="gemma4", tools=TOOLS, prompt="<|turn>user\nU<turn|>\n<|turn>model\n")


def gemma4_in_thought() -> OutputParser:
    return parsers.build(family="gemma4", tools=TOOLS, prompt="<|turn>model\n<|channel>thought\n")


def qwen3_coder() -> OutputParser:
    return parsers.build(family="qwen3-coder", tools=TOOLS)


def qwen35() -> OutputParser:
    return parsers.build(family="qwen3.5", tools=TOOLS, prompt="<|im_start|>assistant\n<think>\n")


def xml_call(name: str, **values: str) -> str:
    """As Qwen 3 Coder writes it."""
    parameters = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>"


OSLO = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
UNPARSED = ("tool_call_unparsed",)
RESCUED = ("tool_calls_rescued",)

EXAMPLES: list[tuple[str, Callable[[], OutputParser], str, Answer]] = [
    # thoughts between tags
    ("thought and content", thinking, "<think>\n\nHmm </think>\n\nHi", Answer("Hi", "Hmm ")),
    ("white space before the thought", thinking, "  <think>a</think> b", Answer("b", "a")),
    ("no thought", thinking, "  Hi <think>x</think>", Answer("  Hi <think>x</think>")),
    ("only the first thought counts", thinking, "<think>a</think>b<think>c</think>", Answer("b<think>c</think>", "a")),
    ("a thought without end", thinking, "<think>a <b> </thin", Answer("", "a <b> </thin")),
    ("a tag that breaks off", thinking, " <thi", Answer(" <thi")),
    ("an empty thought", thinking, "<think>\n\n</think>\n\nHi", Answer("Hi")),
    ("a thought begun by the prompt", inside_thinking, "Hmm</think>\nHi", Answer("Hi", "Hmm")),
    ("and begun again", inside_thinking, "\n<think>\nHmm</think>\nHi", Answer("Hi", "Hmm")),
    ("a begun thought without end", inside_thinking, "Hm <thi", Answer("", "Hm <thi")),
    ("begun, then nothing but a part of the tag", inside_thinking, "<th", Answer("", "<th")),
    # calls after a tag
    (
        "a call after text",
        tagged,
        f"Let me check <tool_call>{OSLO}</tool_call>",
        Answer("Let me check ", "", (call("get_weather", city="Oslo"),)),
    ),
    (
        "two calls",
        tagged,
        f'<tool_call>\n{OSLO}\n</tool_call>\n<tool_call>\n{{"name": "clock", "arguments": {{}}}}\n</tool_call>\n',
        Answer("", "", (call("get_weather", city="Oslo"), call("clock", 1))),
    ),
    (
        "text after a call",
        tagged,
        f"<tool_call>{OSLO}</tool_call>\n\nOne moment, a < b.",
        Answer("One moment, a < b.", "", (call("get_weather", city="Oslo"),)),
    ),
    (
        "text between calls",
        tagged,
        f"A<tool_call>{OSLO}</tool_call> and <tool_call>{OSLO}</tool_call>🙂",
        Answer("A and 🙂", "", (call("get_weather", city="Oslo"), call("get_weather", 1, city="Oslo"))),
    ),
    (
        "the longer of two names",
        tagged,
        '<tool_call>{"name":"get_weather_range","parameters":{"from":"x"}}',
        Answer("", "", (ToolCall(name="get_weather_range", arguments={"from": "x"}),)),
    ),
    (
        "the name before the arguments",
        tagged,
        '<tool_call>functions.get_weather[ARGS]{"city": "a \\"}{ b"}</tool_call>',
        Answer("", "", (call("get_weather", city='a "}{ b'),)),
    ),
    (
        "arguments under the tool's name",
        tagged,
        '<tool_call>{"get_weather": {"city": "Oslo"}}</tool_call>',
        Answer("", "", (call("get_weather", city="Oslo"),)),
    ),
    (
        "arguments in a string",
        tagged,
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}</tool_call>',
        Answer("", "", (call("get_weather", city="Oslo"),)),
    ),
    (
        "the call inside a wrapper",
        tagged,
        f'<tool_call>{{"type": "function", "function": {OSLO}}}</tool_call>',
        Answer("", "", (call("get_weather", city="Oslo"),)),
    ),
    (
        "a tool's name among the arguments calls nothing",
        tagged,
        '<tool_call>{"name": "other", "arguments": {"tool": "get_weather"}}</tool_call>',
        Answer('<tool_call>{"name": "other", "arguments": {"tool": "get_weather"}}</tool_call>', warnings=UNPARSED),
    ),
    (
        "a call that breaks off is content",
        tagged,
        'So: <tool_call>{"name": "get_weather", "arguments": {"ci',
        Answer('So: <tool_call>{"name": "get_weather", "arguments": {"ci', warnings=UNPARSED),
    ),
    (
        "broken JSON is content, the next call is read",
        tagged,
        f"<tool_call>{{'name': x}}</tool_call> <tool_call>{OSLO}</tool_call>",
        Answer("<tool_call>{'name': x}</tool_call> ", "", (call("get_weather", city="Oslo"),), UNPARSED),
    ),
    (
        "a tag in prose is content",
        tagged,
        "Write <tool_call> before it; " + "then the words go on and on, " * 5 + "{x}",
        Answer("Write <tool_call> before it; " + "then the words go on and on, " * 5 + "{x}", warnings=UNPARSED),
    ),
    (
        "a cut closing tag",
        tagged,
        f"<tool_call>{OSLO}</tool_c",
        Answer("", "", (call("get_weather", city="Oslo"),)),
    ),
    (
        "one brace too many",
        tagged,
        f"<tool_call>{OSLO}}}</tool_call>",
        Answer("", "", (call("get_weather", city="Oslo"),)),
    ),
    ("a part of the tag", tagged, "a <tool_", Answer("a <tool_")),
    (
        "a list after the tag",
        mistral,
        f"[TOOL_CALLS][{OSLO}, {OSLO}]",
        Answer("", "", (call("get_weather", city="Oslo"), call("get_weather", 1, city="Oslo"))),
    ),
    ("a bare call", bare, f" {OSLO}\n", Answer("", "", (call("get_weather", city="Oslo"),))),
    (
        "bare calls in a list",
        bare,
        f"[{OSLO}, {OSLO}]",
        Answer("", "", (call("get_weather", city="Oslo"), call("get_weather", 1, city="Oslo"))),
    ),
    (
        "bare calls, then text",
        bare,
        f'{OSLO}; {{"name": "clock", "parameters": {{}}}} {{x}} that is {OSLO}',
        Answer(f"{{x}} that is {OSLO}", "", (call("get_weather", city="Oslo"), call("clock", 1))),
    ),
    ("braces after text", bare, f"The answer is {{x}} {OSLO}", Answer(f"The answer is {{x}} {OSLO}")),
    ("JSON without a call", bare, '{"a":1}, that is it', Answer('{"a":1}, that is it')),
    ("a list without a call", bare, "\n[1, 2]", Answer("\n[1, 2]")),
    (
        "a bare call without arguments that are required is none",
        bare,
        '{"name": "get_weather"}',
        Answer('{"name": "get_weather"}', warnings=UNPARSED),
    ),
    ("a bare call without arguments", bare, '{"name": "clock"}', Answer("", "", (call("clock"),))),
    (
        "bare calls without arguments",
        bare,
        '[{"name": "clock", "parameters": []}, {"function": {"name": "clock"}}, {"clock": null}]',
        Answer("", "", (call("clock"), call("clock", 1), call("clock", 2))),
    ),
    (
        "a bare call that breaks off",
        bare,
        '{"name": "clock", "arg',
        Answer('{"name": "clock", "arg', warnings=UNPARSED),
    ),
    *(
        (
            f"a call whose arguments are {nothing}",
            tagged,
            f'<tool_call>\n{{"name": "clock"{nothing}}}\n</tool_call>',
            Answer("", "", (call("clock"),)),
        )
        for nothing in ("", *(f', "arguments": {value}' for value in ("null", '""', "[]", '"null"', '" "')))
    ),
    (
        "nothing under the tool's name",
        tagged,
        '<tool_call>{"clock": null}</tool_call><tool_call>{"type": "function", "function": {"name": "clock"}}',
        Answer("", "", (call("clock"), call("clock", 1))),
    ),
    *(
        (f"no call: {text}", tagged, f"<tool_call>{text}", Answer(f"<tool_call>{text}", warnings=UNPARSED))
        for text in (
            '{"name": "get_weather"}',
            '{"name": "get_weather", "arguments": null}',
            '{"name": "clock", "city": "Oslo"}',
            '{"name": "clock", "arguments": "now"}',
            '{"name": "clock", "arguments": [1]}',
            '{"name": "clock", "arguments": 0}',
            '{"name": "clock", "arguments": false}',
            '{"name": "other", "arguments": {"name": "clock"}}',
        )
    ),
    # rescue
    *(
        (f"rescued without arguments: {text}", untagged, text, Answer("", "", (call("clock"),), RESCUED))
        for text in ('{"name": "clock"}', '```json\n{"name": "clock", "arguments": null}\n```', '[{"name": "clock"}]')
    ),
    *(
        (f"not rescued: {text}", untagged, text, Answer(text))
        for text in (
            '{"name": "get_weather"}',
            '{"name": "clock", "at": "noon"}',
            '{"clock": null}',
            '{"tool": "clock"}',
        )
    ),
    ("a bare object", untagged, f"\n{OSLO}\n", Answer("", "", (call("get_weather", city="Oslo"),), RESCUED)),
    (
        "a fenced object",
        untagged,
        f"```json\n{OSLO}\n```",
        Answer("", "", (call("get_weather", city="Oslo"),), RESCUED),
    ),
    (
        "objects in a list, fenced, with the other form of call",
        tagged,
        (
            '```\n[{"type": "function", "function": {"name": "clock", "arguments": "{}"}},\n'
            '{"name": "get_weather", "parameters": {"city": "Oslo", "days": 2, "units": "C"}}]\n```\n'
        ),
        Answer("", "", (call("clock"), call("get_weather", 1, city="Oslo", days=2, units="C")), RESCUED),
    ),
    (
        "one object after the other",
        untagged,
        f"{OSLO}\n{OSLO};{OSLO}",
        Answer("", "", tuple(call("get_weather", index, city="Oslo") for index in range(3)), RESCUED),
    ),
    ("words before", untagged, f"Sure: {OSLO}", Answer(f"Sure: {OSLO}")),
    ("words after", untagged, f"{OSLO} is the call", Answer(f"{OSLO} is the call")),
    ("an unknown tool", untagged, OSLO.replace("weather", "time"), Answer(OSLO.replace("weather", "time"))),
    ("a missing argument", untagged, OSLO.replace("city", "town"), Answer(OSLO.replace("city", "town"))),
    ("a wrong type", untagged, OSLO.replace('"Oslo"', "7"), Answer(OSLO.replace('"Oslo"', "7"))),
    (
        "a value that is not among those allowed",
        untagged,
        OSLO.replace('"Oslo"', '"Oslo", "units": "K"'),
        Answer(OSLO.replace('"Oslo"', '"Oslo", "units": "K"')),
    ),
    ("an object that also says something", untagged, OSLO[:-1] + ', "x": 1}', Answer(OSLO[:-1] + ', "x": 1}')),
    ("one call, one not", untagged, f'{OSLO}\n{{"a": 1}}', Answer(f'{OSLO}\n{{"a": 1}}')),
    ("other JSON", untagged, '{"city": "Oslo", "name": "x"}', Answer('{"city": "Oslo", "name": "x"}')),
    ("an object that breaks off", untagged, OSLO[:-3], Answer(OSLO[:-3])),
    ("a fence on one line", untagged, f"```{OSLO}```", Answer("", "", (call("get_weather", city="Oslo"),), RESCUED)),
    (
        "a fence within a fenced object",
        untagged,
        '```json\n{"name": "clock", "arguments": {"a": "```py\\nx\\n```"}}\n```',
        Answer("", "", (call("clock", a="```py\nx\n```"),), RESCUED),
    ),
    ("a fence that stays open", untagged, f"```json\n{OSLO}", Answer(f"```json\n{OSLO}")),
    ("an empty list", untagged, "[]", Answer("[]")),
    ("code", untagged, "```python\nprint({1: 2})\n```", Answer("```python\nprint({1: 2})\n```")),
    ("white space only", untagged, " \n", Answer(" \n")),
    (
        "words on both sides of a call stay two words",
        tagged,
        f"and<tool_call>{OSLO}</tool_call> so\n<tool_call>{OSLO}</tool_call>\n\ndone",
        Answer("and so\ndone", "", (call("get_weather", city="Oslo"), call("get_weather", 1, city="Oslo"))),
    ),
    # both
    (
        "thought, words, call",
        thinking_and_tools,
        f"<think>I need {OSLO}</think>\nOne moment.\n<tool_call>{OSLO}</tool_call>",
        Answer("One moment.\n", f"I need {OSLO}", (call("get_weather", city="Oslo"),)),
    ),
    (
        "thought, rescued call",
        thinking_and_tools,
        f"<think>Hm</think>\n{OSLO}",
        Answer("", "Hm", (call("get_weather", city="Oslo"),), RESCUED),
    ),
    # harmony
    (
        "analysis and final",
        harmony,
        "<|channel|>analysis<|message|>Hm < 3<|end|><|start|>assistant<|channel|>final<|message|>Hi <|b<|return|>",
        Answer("Hi <|b", "Hm < 3"),
    ),
    (
        "a preamble and two calls",
        harmony,
        (
            "<|channel|>commentary<|message|>One moment.<|end|>"
            "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
            '{"city":"Oslo"}<|call|><|start|>assistant to=functions.clock<|channel|>analysis<|message|><|call|>'
        ),
        Answer("One moment.", "", (call("get_weather", city="Oslo"), call("clock", 1))),
    ),
    (
        "a recipient in a header the prompt began",
        harmony,
        ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Oslo"}',
        Answer("", "", (call("get_weather", city="Oslo"),)),
    ),
    (
        "a call that breaks off",
        harmony,
        '<|channel|>commentary to=functions.get_weather<|message|>{"city": "Os',
        Answer('<|channel|>commentary to=functions.get_weather<|message|>{"city": "Os', warnings=UNPARSED),
    ),
    (
        "a call of a tool that was not given",
        harmony,
        "<|channel|>commentary to=functions.nope<|message|>{}<|call|>",
        Answer("<|channel|>commentary to=functions.nope<|message|>{}", warnings=UNPARSED),
    ),
    (
        "a call in the final message",
        harmony,
        f"<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>{OSLO}",
        Answer("", "Hm", (call("get_weather", city="Oslo"),), RESCUED),
    ),
    ("no framing at all", harmony, "  Hello <|x|> there", Answer("  Hello <|x|> there")),
    ("a final message begun by the prompt", harmony_in_final, "Hi<|return|>", Answer("Hi")),
    ("a header that breaks off", harmony, "<|channel|>ana", Answer()),
    ("a header that never ends", harmony, "<|channel|>final " + "x" * 300, Answer("<|channel|>final " + "x" * 300)),
    # Gemma 4
    ("Gemma thinks and answers", gemma4, "<|channel>thought\nHm m\n<channel|> Hi\n", Answer("Hi\n", "Hm m")),
    ("Gemma only answers", gemma4, " Hi <b> ", Answer(" Hi <b> ")),
    ("a thought of nothing", gemma4, "<|channel>thought\n<channel|>Hi", Answer("Hi")),
    (
        "a channel after text, and a mark too many",
        gemma4,
        "A <|channel>thought b<channel|><channel|>",
        Answer("A", "b"),
    ),
    ("a Gemma thought without end", gemma4, "<|channel>thought\na <chan", Answer("", "a <chan")),
    ("a channel without its name", gemma4, "<|channel>thou", Answer("", "thou")),
    ("a Gemma thought begun by the prompt", gemma4_in_thought, "Hm<channel|>Hi", Answer("Hi", "Hm")),
    (
        "a Gemma call",
        gemma4,
        'Wait. <|tool_call>call:get_weather{city:<|"|>Oslo, {"N"}<|"|>,days:3}<tool_call|>',
        Answer("Wait.", "", (call("get_weather", city='Oslo, {"N"}', days=3),)),
    ),
    (
        "Gemma calls with all kinds of values",
        gemma4,
        (
            '<|tool_call>call:clock{a:[1.5, <|"|><|"|>, {b:true,}],<|"|>c d<|"|>:null, e:"f"}<tool_call|>\n'
            "<|tool_call>call:clock{}<tool_call|> Done"
        ),
        Answer("Done", "", (call("clock", a=[1.5, "", {"b": True}], **{"c d": None}, e="f"), call("clock", 1))),
    ),
    ("a Gemma call that ends with the answer", gemma4, "<|tool_call>call:clock{}", Answer("", "", (call("clock"),))),
    (
        "words on both sides of a Gemma call stay two words",
        gemma4,
        "and<|tool_call>call:clock{}<tool_call|> done",
        Answer("and done", "", (call("clock"),)),
    ),
    *(
        (
            f"a Gemma call that is none: {body}",
            gemma4,
            f"A<|tool_call>{body}<tool_call|> b",
            Answer(f"A<|tool_call>{body}<tool_call|> b", "", (), UNPARSED),
        )
        for body in (
            *("call:clock", "call:gone{}", "call:clock{a}", "call:clock{a:1 b:2}", "call:clock{a:x}", "call:clock{}{}"),
            *('call:clock{a:<|"|>b}', "call:clock{a:[1}", "call:clock{a:1e999}", "call:clock{a:" + "[" * 200 + "}"),
        )
    ),
    # Qwen 3 Coder, Qwen 3.5
    ("Qwen only answers", qwen3_coder, "Hi <b> there\n", Answer("Hi <b> there\n")),
    (
        "Qwen calls after words, with values as the schema says",
        qwen3_coder,
        "Wait.\n\n" + xml_call("get_weather", city="12", days="3", units="C"),
        Answer("Wait.", "", (call("get_weather", city="12", days=3, units="C"),)),
    ),
    (
        "Qwen calls twice, with a text of several lines",
        qwen3_coder,
        xml_call("get_weather", city="a\n\nb") + "\n" + xml_call("clock"),
        Answer("", "", (call("get_weather", city="a\n\nb"), call("clock", 1))),
    ),
    (
        "Qwen leaves the outer tag out",
        qwen3_coder,
        "<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>",
        Answer("", "", (call("get_weather", city="Oslo"),)),
    ),
    (
        "a value that does not fit stays text",
        qwen3_coder,
        xml_call("get_weather", days="many", city="null"),
        Answer("", "", (call("get_weather", days="many", city=None),)),
    ),
    (
        "Qwen thinks, answers and calls",
        qwen35,
        "Hm\n</think>\n\nOne moment.\n" + xml_call("clock"),
        Answer("One moment.", "Hm\n", (call("clock"),)),
    ),
    (
        "a Qwen call that ends with the answer",
        qwen3_coder,
        "A <tool_call>\n<function=clo",
        Answer("A <tool_call>\n<function=clo", "", (), UNPARSED),
    ),
    (
        "words on both sides of a Qwen call stay two words",
        qwen3_coder,
        f" and{xml_call('clock')} then \n{xml_call('clock')}\n done\n{xml_call('clock')} \n",
        Answer(" and then \n\n done", "", tuple(call("clock", index) for index in range(3))),
    ),
    ("a Qwen call of no tool", qwen3_coder, xml_call("gone"), Answer(xml_call("gone"), "", (), UNPARSED)),
    ("words where a header should be", harmony, "<|channel|>final Hello, you", Answer("<|channel|>final Hello, you")),
]
BY_NAME = {name: (make, text, expected) for name, make, text, expected in EXAMPLES}


@pytest.mark.parametrize("name", BY_NAME)
def test_every_cut_reads_the_same(name: str) -> None:
    make, text, expected = BY_NAME[name]
    assert read(make(), [text]) == expected
    assert read(make(), list(text)) == expected
    for cut in range(len(text)):
        assert read(make(), [text[:cut], "", text[cut:]]) == expected, text[cut:]


@settings(max_examples=RANDOM_CASES or 300)
@given(st.sampled_from(sorted(BY_NAME)), st.data())
def test_any_pieces_read_the_same(name: str, data: st.DataObject) -> None:
    make, text, expected = BY_NAME[name]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(make(), pieces) == expected


TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "```", "```json", "<", "<|"]
HARMONY = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "to=functions.clock", "final", "analysis"]
JSON_PARTS = ["{", "}", "[", "]", '"', "\\", ":", ",", "name", "arguments", "get_weather", "clock", OSLO]
GEMMA = ["<|channel>", "thought", "<channel|>", "<|tool_call>", "call:clock{", "<tool_call|>", '<|"|>']
FRAGMENTS = st.sampled_from([*TAGS, *HARMONY, *GEMMA, *JSON_PARTS, "\n", " ", "word", "🙂"])
MAKERS = [thinking, inside_thinking, tagged, bare, mistral, untagged, thinking_and_tools, harmony, harmony_in_final]
MAKERS += [gemma4, gemma4_in_thought]


@settings(max_examples=RANDOM_CASES or 600)
@given(st.sampled_from(MAKERS), st.lists(FRAGMENTS, max_size=14), st.data())
def test_any_text_reads_the_same_in_any_pieces(
    make: Callable[[], OutputParser], fragments: list[str], data: st.DataObject
) -> None:
    text = "".join(fragments)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = read(make(), [text])
    assert read(make(), pieces) == whole
    assert read(make(), list(text)) == whole


@settings(max_examples=RANDOM_CASES or 400)
@given(st.sampled_from([tagged, bare, mistral, untagged, thinking_and_tools]), st.lists(FRAGMENTS, max_size=14))
def test_an_answer_without_a_call_keeps_every_word(make: Callable[[], OutputParser], fragments: list[str]) -> None:
    text = "".join(fragments)
    answer = read(make(), [text])
    if not answer.calls and "think" not in text:
        assert answer.content == text


@settings(max_examples=RANDOM_CASES or 300)
@given(st.sampled_from([tagged, bare, untagged]), st.lists(st.sampled_from(["🙂", "word", "7", OSLO]), max_size=6))
def test_words_around_calls_are_kept(make: Callable[[], OutputParser], fragments: list[str]) -> None:
    answer = read(make(), [f" {fragment} " for fragment in fragments])
    words = [fragment for fragment in fragments if fragment != OSLO]
    assert answer.content.replace(OSLO, " ").split() == words
    assert len(answer.calls) + answer.content.count(OSLO) == len(fragments) - len(words)


def steps(parser: OutputParser, pieces: list[str]) -> list[tuple[str, str, int]]:
    """Content, thinking and number of calls after each piece, and at the end."""
    seen = []
    for chunks in [*(list(parser.feed(piece)) for piece in pieces), list(parser.flush())]:
        text = "".join(chunk.content for chunk in chunks), "".join(chunk.thinking for chunk in chunks)
        seen.append((*text, sum(len(chunk.tool_calls) for chunk in chunks)))
    return seen


def test_only_what_may_still_be_a_tag_is_held_back() -> None:
    pieces = ["Let me", " check <tool", '_call>{"name":"get_weather', '","arguments":{"city":"Oslo"}}', "</tool_call>"]
    assert steps(tagged(), pieces) == [
        ("Let me", "", 0),
        (" check ", "", 0),
        ("", "", 0),
        ("", "", 1),
        ("", "", 0),
        ("", "", 0),
    ]
    assert steps(thinking(), ["  <thi", "nk>\n\nHmm </th", "ink>\n\nHi", " <think>x"]) == [
        ("", "", 0),
        ("", "Hmm ", 0),
        ("Hi", "", 0),
        (" <think>x", "", 0),
        ("", "", 0),
    ]


def test_an_answer_that_cannot_be_calls_is_not_held_back_for_rescue() -> None:
    assert steps(untagged(), ['{"city": ', '"Oslo"', "}"]) == [
        ('{"city": ', "", 0),
        ('"Oslo"', "", 0),
        ("}", "", 0),
        ("", "", 0),
    ]
    assert steps(untagged(), ["Hi ", "{"])[:2] == [("Hi ", "", 0), ("{", "", 0)]
    assert steps(untagged(), ['{"name": "', "get", "_there", '"}']) == [
        *[("", "", 0)] * 2,
        ('{"name": "get_there', "", 0),
        ('"}', "", 0),
        ("", "", 0),
    ]
    assert steps(untagged(), [OSLO, "\n", "That", " is it"]) == [
        *[("", "", 0)] * 2,
        (f"{OSLO}\nThat", "", 0),
        (" is it", "", 0),
        ("", "", 0),
    ]
    assert steps(untagged(), [f"[{OSLO}", ", {", '"temperature', '": 5}]'])[:4] == [
        *[("", "", 0)] * 3,
        (f'[{OSLO}, {{"temperature": 5}}]', "", 0),
    ]
    assert steps(untagged(), ["```json\n", OSLO, "\n```", "\n```js", f"on\n[{OSLO}]\n```"]) == [
        *[("", "", 0)] * 5,
        ("", "", 2),
    ]


class CountingText(str):
    """A text that counts the characters that are taken from it, and so does what is added to or made of it."""

    looked_at = 0

    def __radd__(self, other: str) -> "CountingText":
        return CountingText(str(other) + str(self))

    def __add__(self, other: str) -> "CountingText":
        return CountingText(str(self) + str(other))

    def __getitem__(self, place: Any) -> str:
        CountingText.looked_at += 1
        return str(self)[place]


@pytest.mark.parametrize("beginning", ["", "```json", '{"', '{"name"', OSLO + "\n", OSLO + "```"])
def test_each_character_is_looked_at_once_however_an_answer_is_cut(beginning: str) -> None:
    """White space without end, as small models write it: twice as much of it takes twice the work."""
    looked_at = []
    for count in (200, 400):
        parser = RescueParser([WEATHER])
        held = beginning + " " * count
        CountingText.looked_at = 0
        pieces = [list(parser.feed(CountingText(character))) for character in held]
        assert pieces == [[]] * len(held)
        looked_at.append(CountingText.looked_at)
    assert looked_at[1] - looked_at[0] == 200


def test_an_answer_with_nothing_to_look_for_passes_through() -> None:
    assert steps(parsers.build(), ["<think>", "", OSLO]) == [
        ("<think>", "", 0),
        ("", "", 0),
        (OSLO, "", 0),
        ("", "", 0),
    ]


HOSTILE = [
    "<tool_call>" + "{" * 50_000,
    "<tool_call>" + '{"a":' * 5_000 + "1" + "}" * 5_000,
    "<tool_call>" * 20_000,
    "```json\n" + "[" * 100_000,
    '{"name": "clock", "arguments": {"a": ' + "[" * 50_000 + "]" * 50_000 + "}}",
    '{"name": "clock", "arguments": {"a": 1e999}}',
    '{"name": "clock", "arguments": {"a": NaN}}',
    '{"name": "clock", "arguments": {"a": "\\ud800"}}',
    "`" * 50_000,
    "<think>" + "</thin" * 20_000,
    '{"name": "' + "\\" * 100_001,
    "<|tool_call>call:clock{a:" + "{b:" * 20_000,
    "<|tool_call>call:clock{" + " " * 50_000,
]


@pytest.mark.parametrize("make", [tagged, bare, untagged, thinking_and_tools, gemma4])
@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_a_hostile_answer_comes_back_as_text(make: Callable[[], OutputParser], place: int) -> None:
    text = HOSTILE[place]
    answer = read(make(), [text])
    assert not answer.calls
    assert answer.content + answer.thinking in (text, text.removeprefix("<think>"))


def test_harmony_tools_go_by_identifiers_and_come_back_by_their_names() -> None:
    tools = [Tool(name=name) for name in ("get-weather", "get.weather", "get weather", "2nd", "größe", "!?")]
    named = harmony_family.identifiers(tool.name for tool in tools)
    assert list(named.values()) == ["get_weather", "get_weather_2", "get_weather_3", "_2nd", "gre", "unnamed"]
    parser = parsers.build(family="harmony", tools=tools)
    answer = "<|channel|>commentary to=functions.get_weather_2<|message|>{}<|call|>"
    assert read(parser, [answer]).calls == (call("get.weather"),)
    parser = parsers.build(family="harmony", tools=tools)
    assert read(parser, [answer.replace("get_weather_2", "get-weather")]).calls == (call("get-weather"),)


def test_harmony_conversations_name_tools_as_the_prompt_does() -> None:
    messages = [
        Message.of("assistant", tool_calls=(ToolCall(name="get-weather", id="call_1"), ToolCall(name="gone"))),
        Message.of("tool", "R", tool_name="get-weather"),
    ]
    named, tools = harmony_family.with_identifiers(messages, [Tool(name="get-weather", description="D")])
    assert named == [
        Message.of("assistant", tool_calls=(ToolCall(name="get_weather", id="call_1"), ToolCall(name="gone"))),
        Message.of("tool", "R", tool_name="get_weather"),
    ]
    assert tools == [Tool(name="get_weather", description="D")]
