"""A hostile template ends in an error: no hang, no large memory, no way to anything but the values it was given."""

import asyncio
import subprocess
import sys
import textwrap
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral import template
from corral.errors import TemplateError
from corral.inference.prompt import template_writer
from corral.messages import Message, Tool, ToolCall
from tests.conftest import RANDOM_CASES

DOUBLING = "".join(
    f'{{{{ define "t{level}" }}}}{{{{ template "t{level + 1}" }}}}{{{{ template "t{level + 1}" }}}}{{{{ end }}}}'
    for level in range(60)
)

HOSTILE = {
    "an endless loop": "{{ range 1000000000000 }}{{ end }}",
    "an endless loop that writes": "{{ range 1000000000000 }}" + "x" * 1000 + "{{ end }}",
    "loops inside loops": "{{ range 9999 }}" * 20 + "{{ end }}" * 20,
    "a loop over long straight code": "{{ range 1000000000 }}" + "{{ if and 1 1 0 }}{{ end }}" * 5000 + "{{ end }}",
    "a loop over one long condition": "{{ range 1000000000 }}{{ if and" + " 1" * 50_000 + " }}{{ end }}{{ end }}",
    "templates that call two each": DOUBLING + '{{ define "t60" }}{{ end }}{{ template "t0" }}',
    "a template that calls itself": '{{ define "t" }}{{ template "t" . }}{{ end }}{{ template "t" . }}',
    "a wide number": '{{ printf "%1000000000d" 1 }}',
    "a wide number from an argument": '{{ printf "%*d" 1000000000 1 }}',
    "a number with many digits": '{{ printf "%.1000000000f" 1.0 }}',
    "a number with many hex digits": '{{ printf "%.1000000000U" 1 }}',
    "a width beyond integers": '{{ printf "%' + "9" * 5000 + 'd" 1 }}',
    "an indexed width": '{{ printf "%[1]*[2]d" 1000000000 7 }}',
    "an indexed precision": '{{ printf "%.[1]*[2]d" 1000000000 7 }}',
    "a wide number nobody prints": '{{ $x := printf "%1000000000d" 1 }}',
    "a long format": "{{ printf `" + "%d" * 5000 + "` }}",
    "many wide numbers": "{{ range 100000 }}{{ $x := printf `" + "%999d" * 800 + "` }}{{ end }}",
    "doubling text": '{{ $x := "aaaaaaaa" }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}',
    "growing text": '{{ $x := "aaaaaaaa" }}{{ range 1000000 }}{{ $x = print $x "aaaaaaaaaaaaaaaa" }}{{ end }}',
    "escaping text over and over": "{{ $x := `\\` }}{{ range 100 }}{{ $x = js $x }}{{ end }}",
    "writing all of the conversation again and again": "{{ range 1000000 }}{{ $.Messages }}{{ end }}",
    "encoding it again and again": "{{ range 1000000 }}{{ $x := json $.Messages }}{{ end }}",
    "cutting it again and again": "{{ range 1000000 }}{{ $x := slice (json $.Messages) 1 }}{{ end }}",
    "a number that is nearly octal": "{{ " + "0" * 40 + "9 }}",
    "a signed one": "{{ -" + "0" * 40 + "9 }}",
    "a complex one": "{{ 1+" + "0" * 40 + "9i }}",
    "two short ones": "{{ 00000000000001+00000000000001+x }}",
    "one after what looks like a comment": "{{ . /* }}{{ " + "0" * 40 + "9 }} */",
    "one after a quote in a comment": "{{/* ' */}}{{ " + "0" * 40 + "9 }}{{/* ' */}}",
    "one after a closing in a constant": "{{ `}}` " + "0" * 40 + "9 }}",
    "a comment without end": "a}} {{/* x",
    "one with underscores": "{{ 0_0" + "_0" * 40 + "9 }}",
    "a number of many digits": "{{ " + "1" * 10_000 + " }}",
    "a float of many digits": "{{ 1e" + "9" * 400 + " }}",
    "parentheses without end": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    "branches without end": "{{ if 1 }}" * 10_000 + "{{ end }}" * 10_000,
    "alternatives without end": "{{ if 0 }}" + "{{ else if 0 }}" * 10_000 + "{{ end }}",
    "definitions inside definitions": '{{ define "a" }}' * 5000,
    "more text than anybody writes": "{{ .Prompt }}" + "x" * 300_000,
    "a character that is none": '{{ printf "%c" 99999999999 }}',
    "half a character": "{{ '\ud800' }}",
    "what Python objects have": "{{ range .Messages }}{{ .Content.__class__ }}{{ end }}",
    "a method of a text": "{{ range .Messages }}{{ .Content.upper }}{{ end }}",
    "calling a value": "{{ range .Messages }}{{ call .Content }}{{ end }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_in_an_error(name: str) -> None:
    messages = [Message.of("user", "x" * 100), Message.of("assistant", "y", tool_calls=(ToolCall(name="f"),))]
    with pytest.raises(TemplateError):
        template.parse(HOSTILE[name]).render(messages, tools=[Tool(name="f")])


async def test_others_go_on_while_a_template_runs() -> None:
    """The loop turns many times until a hostile template has come to its end."""
    write = template_writer(template.parse(HOSTILE["an endless loop"]), (), None)
    writing = asyncio.ensure_future(write([Message.of("user", "x")]))
    turns = 0
    while not writing.done():
        await asyncio.sleep(0)
        turns += 1
    assert isinstance(writing.exception(), TemplateError)
    assert turns > 10


def test_hostile_templates_stay_small() -> None:
    """All of them one after the other in a process that may have 400 MB of address space more than it starts with."""
    program = """
        import resource, sys
        from corral import template
        from corral.errors import TemplateError
        from corral.messages import Message
        from tests.test_template_hostile import HOSTILE

        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 400 * 2**20, size + 400 * 2**20))
        for text in HOSTILE.values():
            try:
                template.parse(text).render([Message.of("user", "x" * 100)])
            except TemplateError:
                pass
        print("done")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.parametrize("name", ["__class__", "__dict__", "__init__", "keys", "items", "get", "plain", "__slots__"])
def test_values_have_no_fields_but_their_own(name: str) -> None:
    parsed = template.parse(f"{{{{ range .Messages }}}}{{{{ .{name} }}}}{{{{ end }}}}{{{{ .{name} }}}}{{{{ .Tools }}}}")
    assert parsed.render([Message.of("user", "U")]) == "<no value><no value>[]"


def test_a_long_conversation_is_no_attack() -> None:
    parsed = template.parse(
        "{{ $asked := 0 }}{{ range $i, $m := .Messages }}{{ if eq .Role `user` }}{{ $asked = $i }}{{ end }}{{ end }}"
        "{{ range $i, $m := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        "{{ if eq .Role `user` }}<u>{{ .Content }}{{ else }}<a>{{ .Content }}{{ end }}{{ if $last }}!{{ end }}{{ end }}"
    )
    messages = [Message.of("user" if number % 2 == 0 else "assistant", "word " * 400) for number in range(3000)]
    assert len(parsed.render(messages)) == 3000 * (400 * 5 + 3) + 1


def test_long_numbers_outside_the_language_are_no_attack() -> None:
    digits = "0" * 40 + "9"
    text = f"{digits}{{{{/* {digits} */}}}}{{{{ `{digits}` }}}}{{{{ .Prompt }}}}"
    assert template.parse(text).render([Message.of("user", "U")]) == f"{digits}{digits}U"


def test_a_long_text_is_no_attack() -> None:
    text = "<&>" * 2_000_000
    parsed = template.parse("{{ range .Messages }}{{ .Content }}{{ json .Content | len }}{{ end }}")
    assert parsed.render([Message.of("user", text)]) == text + str(2_000_000 * 18 + 2)


BLOCKS = [
    "{{ if .A }}",
    "{{ else }}",
    "{{ end }}",
    "{{ range 3 }}",
    "{{ with .Tools }}",
    "{{ break }}",
    "{{ continue }}",
]
NAMED = ['{{ define "t" }}', '{{ template "t" . }}', '{{ block "b" . }}', "{{ range $i, $m := .Messages }}"]
VARIABLES = ["{{ $x := 1 }}", "{{ $x = print $x . }}", "{{ $x }}", "{{ .Content }}", "{{ .Response }}", "{{ nil }}"]
CALLS = ["{{ . | json }}", "{{ index .Messages 0 }}", '{{ printf "%v %q %5d" . $x 3 }}', "{{ slice .Content 1 }}"]
TERMS = ["{{ (index .Messages 0).Role }}", "{{ and .A (or .B 1) }}", "{{ eq . 1 }}"]
TEXTS = ["text", "\n", "'", '"', "{{", "}}", "{{- /* c */ -}}"]
ACTIONS = st.sampled_from([*BLOCKS, *NAMED, *VARIABLES, *CALLS, *TERMS, *TEXTS])


@settings(max_examples=RANDOM_CASES or 1500)
@given(st.lists(ACTIONS, max_size=12).map("".join) | st.text(max_size=60).map("{{{{ {} }}}}".format))
def test_any_template_renders_or_ends_in_an_error(text: str) -> None:
    messages = [Message.of("system", "S"), Message.of("user", "U"), Message.of("assistant", "A", thinking="T")]
    with suppress(TemplateError):
        parsed = template.parse(text)
        assert isinstance(parsed.render(messages, tools=[Tool(name="f")]), str)
        assert isinstance(parsed.render_suffix("a", "b"), str)
