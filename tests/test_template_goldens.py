"""Go templates of well-known families, rendered for the usual conversations and compared with golden prompts.

The prompts under goldens/prompts are the formats the models were published with, checked by hand; a template may
change its text, never its prompts. Templates that come with the package are taken from there.
"""

import re
from datetime import date
from pathlib import Path

import pytest

import corral
from corral import template
from corral.messages import Message, Think, Tool, ToolCall

GOLDENS = Path(__file__).parent / "goldens"
PACKAGED = Path(corral.__file__).parent / "template" / "known"

WEATHER = Tool(
    name="get_weather",
    description="The weather of a city & its suburbs",
    parameters={
        "type": "object",
        "required": ["city"],
        "properties": {
            "units": {"enum": ["C", "F"], "type": "string"},
            "city": {"description": "The city's name", "type": "string"},
            "days": {"type": "integer"},
        },
    },
)
CLOCK = Tool(name="clock", description="The time", parameters={"type": "object", "properties": {}})

QUESTION = Message.of("user", "What is the weather in Oslo?")
CALL = ToolCall(name="get_weather", arguments={"units": "C", "city": "Oslo <N>", "days": 2})
RESULT = [
    QUESTION,
    Message.of("assistant", thinking="I should look.", tool_calls=(CALL,)),
    Message.of("tool", "12 degrees & rain", tool_name="get_weather"),
]

CONVERSATIONS: dict[str, tuple[list[Message], tuple[Tool, ...], Think]] = {
    "user": ([Message.of("user", "Why is the sky blue?")], (), None),
    "turns": (
        [
            Message.of("user", "Why is the sky blue?"),
            Message.of("assistant", "It scatters light."),
            Message.of("user", "How?"),
        ],
        (),
        None,
    ),
    "system": ([Message.of("system", "Be brief."), Message.of("user", "Why is the sky blue?")], (), None),
    "tools": ([Message.of("system", "Be brief."), QUESTION], (WEATHER, CLOCK), None),
    "tool-result": (RESULT, (WEATHER,), None),
    "no-thinking": ([QUESTION], (), False),
    "two-results": (
        [*RESULT, Message.of("tool", "10:30", tool_name="clock"), Message.of("user", "So?")],
        (WEATHER,),
        "high",
    ),
}
TURNS = ("user", "turns", "system")
TOOLS = (*TURNS, "tools", "tool-result")

FAMILIES = {
    "chatml": TURNS,
    "llama2-chat": TURNS,
    "llama3-instruct": TURNS,
    "gemma-instruct": TURNS,
    "gemma3-instruct": TURNS,
    "phi-3": TURNS,
    "vicuna": TURNS,
    "command-r": TURNS,
    "zephyr": TURNS,
    "codellama": TURNS,
    "llama3.1": TOOLS,
    "mistral": TOOLS,
    "qwen2.5": (*TOOLS, "two-results"),
    "qwen3": (*TOOLS, "two-results", "no-thinking"),
    "gpt-oss": (*TOOLS, "two-results"),
}


def template_of(family: str) -> template.Template:
    packaged = PACKAGED / f"{family}.gotmpl"
    path = packaged if packaged.exists() else GOLDENS / "templates" / f"{family}.gotmpl"
    return template.parse(path.read_bytes().decode())


def golden(family: str, name: str) -> str:
    return (GOLDENS / "prompts" / family / f"{name}.txt").read_bytes().decode()


@pytest.mark.parametrize(("family", "name"), [(family, name) for family, names in FAMILIES.items() for name in names])
def test_a_family_gets_what_its_format_says(family: str, name: str) -> None:
    messages, tools, think = CONVERSATIONS[name]
    rendered = template_of(family).render(messages, tools=tools, think=think)
    assert re.sub(r"(?<=Current date: )\d{4}-\d\d-\d\d", "2026-08-01", rendered) == golden(family, name)


def test_codellama_fills_in_the_middle() -> None:
    rendered = template_of("codellama").render_suffix("def f(x):\n", "\n    return y")
    assert rendered == "<PRE> def f(x):\n <SUF>\n    return y <MID>"


@pytest.mark.parametrize(
    ("family", "capabilities", "tool_tag", "think_tags"),
    [
        ("chatml", (), "{", None),
        ("codellama", ("insert",), "{", None),
        ("llama3.1", ("tools",), "{", None),
        ("mistral", ("tools",), "[TOOL_CALLS] [", None),
        ("qwen2.5", ("tools",), "<tool_call>", None),
        ("qwen3", ("tools", "thinking"), "<tool_call>", ("<think>", "</think>")),
    ],
)
def test_what_a_family_can_do_is_read_off_its_template(
    family: str, capabilities: tuple[str, ...], tool_tag: str, think_tags: tuple[str, str] | None
) -> None:
    parsed = template_of(family)
    assert (parsed.capabilities, parsed.tool_tag, parsed.think_tags) == (capabilities, tool_tag, think_tags)
    assert parsed.has_tool_round_trip == ("tools" in capabilities)


def test_every_golden_prompt_is_compared() -> None:
    found = {(path.parent.name, path.stem) for path in (GOLDENS / "prompts").glob("*/*.txt")}
    assert found == {(family, name) for family, names in FAMILIES.items() for name in names}


def test_the_current_date_is_todays() -> None:
    before = date.today()
    printed = date.fromisoformat(template.parse("{{ currentDate }}{{ .Prompt }}").render([]))
    assert before <= printed <= date.today()
