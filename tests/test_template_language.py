"""The Go template language: control flow, functions, printing, and how failures are reported."""

import re

import pytest

from corral import template
from corral.errors import TemplateError
from corral.messages import Message, ToolCall

ARGUMENTS = {
    "text": "a<b",
    "whole": 1000000,
    "part": 0.5,
    "list": [1, "x", None, True],
    "map": {"b": 1.0, "a": []},
    "empty": "",
    "nil": None,
    "tiny": 0.00001,
}


def rendered(text: str) -> str:
    """The text rendered with `ARGUMENTS` as dot, and with two messages, u1 and a1, at `$.Messages`."""
    messages = [
        Message.of("user", "u1"),
        Message.of("assistant", "a1", tool_calls=(ToolCall(name="f", arguments=ARGUMENTS),)),
    ]
    body = f"{{{{ with (index (index $.Messages 1).ToolCalls 0).Function.Arguments }}}}{text}{{{{ end }}}}"
    return template.parse(body).render(messages)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # trim markers and comments
        ("a {{- 1 -}} b", "a1b"),
        ("a{{/* x */}}b {{- /* y */ -}} c", "abc"),
        # if and with
        ("{{ if .text }}y{{ else }}n{{ end }}", "y"),
        ("{{ if .empty }}y{{ else if .part }}p{{ else }}n{{ end }}", "p"),
        ("{{ if .nil }}y{{ end }}{{ if .missing }}y{{ end }}{{ if 0 }}y{{ end }}{{ if 0.0 }}y{{ end }}", ""),
        ("{{ if .map.a }}y{{ else }}n{{ end }}{{ if .map }}y{{ end }}", "ny"),
        ("{{ with .text }}{{ . }}{{ end }}{{ with .empty }}y{{ else }}n{{ end }}", "a<bn"),
        ("{{ with .empty }}1{{ else with .text }}{{ . }}{{ end }}", "a<b"),
        ("{{ with $x := .text }}{{ $x }}{{ end }}", "a<b"),
        # range
        ("{{ range .list }}{{ . }},{{ end }}", "1,x,<no value>,true,"),
        ("{{ range $i, $v := .list }}{{ $i }}={{ $v }},{{ end }}", "0=1,1=x,2=<no value>,3=true,"),
        ("{{ range $v := .map }}{{ $v }};{{ end }}", "[];1;"),
        ("{{ range $k, $v := .map }}{{ $k }}{{ $v }};{{ end }}", "a[];b1;"),
        ("{{ range 3 }}{{ . }}{{ end }}{{ range $i := 2 }}{{ $i }}{{ end }}", "01201"),
        ("{{ range .missing }}x{{ else }}none{{ end }}", "none"),
        ("{{ range .list }}{{ if eq (print .) `x` }}{{ break }}{{ end }}{{ . }}{{ end }}", "1"),
        ("{{ range 5 }}{{ if eq . 1 3 }}{{ continue }}{{ end }}{{ . }}{{ end }}", "024"),
        ("{{ range 2 }}{{ range 3 }}{{ if . }}{{ break }}{{ end }}{{ . }}{{ end }}-{{ end }}", "0-0-"),
        ("{{ with .map }}{{ range 2 }}{{ with 7 }}{{ break }}{{ end }}{{ end }}{{ .b }}{{ end }}{{ .text }}", "1a<b"),
        ("{{ range 2 }}{{ with 7 }}{{ continue }}{{ end }}x{{ end }}{{ .text }}", "a<b"),
        # variables
        ("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}", "21"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ $x := 1 }}{{ range 2 }}{{ if true }}{{ $x := 9 }}{{ continue }}{{ end }}{{ end }}{{ $x }}", "1"),
        ("{{ $a := 0 }}{{ $b := 0 }}{{ range $a, $b = .list }}{{ end }}{{ $a }}{{ $b }}", "3true"),
        ("{{ (index $.Messages 0).Content }}{{ len $.Messages }}", "u12"),
        ("{{ eq `a` `b` `a` 1 }}{{ eq .nil nil 1 }}", "truetrue"),
        # and, or, not
        ("{{ and 1 0 2 }}{{ and 1 2 }}{{ or 0 `` 3 4 }}{{ or 0 `` }}|{{ not 0 }}{{ not .list }}", "023|truefalse"),
        ("{{ and false (index .list 99) }}{{ or true (index .list 99) }}", "falsetrue"),
        ("{{ true | and 1 }}{{ 5 | or 0 }}", "true5"),
        # comparing
        (
            "{{ eq .text `a<b` }}{{ eq 1 2 1 }}{{ ne `a` `b` }}{{ eq .missing `x` }}{{ eq .nil nil }}",
            "truetruetruefalsetrue",
        ),
        (
            "{{ lt 1 2 }}{{ le 2 2 }}{{ gt 1 2 }}{{ ge 2 2 }}{{ lt `a` `b` }}{{ lt .part 1.5 }}",
            "truetruefalsetruetruetrue",
        ),
        ("{{ eq 'a' 97 }}{{ eq 0x10 16 }}{{ eq 1_000 1000 }}", "truetruetrue"),
        # len, index, slice
        ("{{ len .list }}{{ len .map }}{{ len `äö` }}", "424"),
        ("{{ index .list 1 }}{{ index .map `b` }}{{ index .map `no` }}{{ index `ab` 1 }}", "x1<no value>98"),
        ("{{ slice .list 1 2 }}{{ slice `hello` 1 3 }}{{ slice `ab` 1 }}{{ slice `ab` }}", "[x]elbab"),
        # printing
        (
            "{{ .whole }} {{ .part }} {{ .tiny }} {{ .text }} {{ true }} {{ .nil }} {{ .missing }}",
            "1e+06 0.5 1e-05 a<b true <no value> <no value>",
        ),
        ("{{ .list }} {{ .map }}", "[1 x <nil> true] map[a:[] b:1]"),
        ("{{ print `a` `b` 1 2 `c` nil true }}", "ab1 2c<nil> true"),
        ("{{ println 1 `a` nil }}", "1 a <nil>\n"),
        (
            '{{ printf "%s-%v-%q-%5d-%-4s|%05.1f-%t-%x-%%" `a` .part `q"` 7 `b` 2.25 true 255 }}',
            'a-0.5-"q\\""-    7-b   |002.2-true-ff-%',
        ),
        ('{{ printf "%*d|%-*d|%.*f" 4 7 3 8 1 2.5 }}', "   7|8  |2.5"),
        ('{{ printf "%v %v" .map .list }}', "map[a:[] b:1] [1 x <nil> true]"),
        ('{{ printf "%s|%-5s|" (slice .list 1 2) (slice .list 1 2) }}', "[x]|[x]  |"),
        ("{{ html `<a href='x'>&\"` }}", "&lt;a href=&#39;x&#39;&gt;&amp;&#34;"),
        ("{{ js `<'\"&=\\` }}", "\\u003C\\'\\\"\\u0026\\u003D\\\\"),
        ("{{ urlquery `a b&c/ä` }}", "a+b%26c%2F%C3%A4"),
        (
            "{{ json .map }}{{ json .text }}{{ json .whole }}{{ json nil }}{{ json `\u2028` }}",
            '{"a":[],"b":1}"a\\u003cb"1000000null"\\u2028"',
        ),
        ("{{ .text | printf `%s%s` `x` | len }}", "4"),
        ('{{ 1.5e3 }} {{ 0x1F }} {{ -3 }} {{ `raw\\n` }} {{ "q\\n\\u00e4" }}', "1500 31 -3 raw\\n q\nä"),
    ],
)
def test_the_language_does_what_gos_does(text: str, expected: str) -> None:
    assert rendered(text) == expected


def test_named_templates_have_their_own_dot_and_variables() -> None:
    parsed = template.parse(
        '{{ define "turn" }}<{{ .Role }}>{{ $x := .Content }}{{ $x }}{{ end }}'
        '{{ $x := 1 }}{{ range .Messages }}{{ template "turn" . }}{{ end }}{{ $x }}'
        '{{ block "end" .System }}[{{ . }}]{{ end }}{{ template "nothing" }}{{ define "nothing" }}{{ . }}{{ end }}'
    )
    assert parsed.render([Message.of("system", "S"), Message.of("user", "U")]) == "<system>S<user>U1[S]<no value>"


def test_dates_are_those_of_today_and_yesterday() -> None:
    text = template.parse("{{ currentDate }} {{ currentDate `2006` }} {{ yesterdayDate }}{{ .Prompt }}").render([])
    assert re.fullmatch(r"(\d{4}-\d\d-\d\d) \1 \d{4}-\d\d-\d\d", text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ab\n{{ .Prompt.x }}", ':2:3: executing "" at <.Prompt.x>: can\'t evaluate field x in type string'),
        ("{{ index `a` 3 }}", ':1:3: executing "" at <index>: error calling index: index out of range: 3'),
        ("{{ eq 1 `a` }}", ':1:3: executing "" at <eq>: error calling eq: incompatible types for comparison'),
        ("{{ lt true false }}", ':1:3: executing "" at <lt>: error calling lt: invalid type for comparison'),
        ("{{ len 3 }}", ':1:3: executing "" at <len>: error calling len: len of type int'),
        ("{{ not }}", ':1:3: executing "" at <not>: error calling not: wrong number or type of arguments'),
        ("{{ call 1 }}", ':1:3: executing "" at <call>: function "call" is not allowed here'),
        ("{{ nil }}", ':1:3: executing "" at <nil>: nil is not a command'),
        ("{{ .Prompt 1 }}", ':1:3: executing "" at <.Prompt 1>: can\'t give argument to non-function'),
        ('{{ template "x" }}', ':1:0: executing "" at <{{ template "x" }}>: template "x" not defined'),
        ("{{ range .Prompt }}{{ end }}", ':1:9: executing "" at <.Prompt>: range can\'t iterate over string'),
        ("{{ slice `abc` 2 1 }}", ':1:3: executing "" at <slice>: error calling slice: invalid slice index: 2 > 1'),
    ],
)
def test_a_failure_says_where_and_why(text: str, sentence: str) -> None:
    with pytest.raises(TemplateError) as caught:
        template.parse(text).render([Message.of("user", "U")])
    assert str(caught.value) == f"template: {sentence}"
