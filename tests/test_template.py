"""A model's Go template: rendered for conversations, prompts and gaps, and asked what it supports."""

import pytest

from corral import template
from corral.errors import TemplateError
from corral.messages import Message, Picture, Text, Think, Tool, ToolCall

CONVERSATION = [
    Message.of("system", "S"),
    Message.of("user", "U1"),
    Message.of("assistant", "A1"),
    Message.of("user", "U2"),
]
EXCHANGES = "{{ if .System }}[S]{{ .System }} {{ end }}[U]{{ .Prompt }} [A]{{ .Response }}[E]"


def test_a_template_over_messages_is_run_once() -> None:
    parsed = template.parse("{{ range .Messages }}<{{ .Role }}>{{ .Content }}</>{{ end }}<assistant>")
    assert parsed.uses_messages
    assert parsed.render(CONVERSATION) == "<system>S</><user>U1</><assistant>A1</><user>U2</><assistant>"


def test_the_older_form_is_run_once_an_exchange_and_left_open_at_the_response() -> None:
    assert template.parse(EXCHANGES).render(CONVERSATION) == "[S]S [U]U1 [A]A1[E][U]U2 [A]"


def test_a_trailing_assistant_message_is_continued() -> None:
    messages = [*CONVERSATION, Message.of("assistant", "Sure,")]
    assert template.parse(EXCHANGES).render(messages) == "[S]S [U]U1 [A]A1[E][U]U2 [A]Sure,"


def test_a_template_with_neither_messages_nor_response_gets_the_response_at_its_end() -> None:
    parsed = template.parse("[U]{{ .Prompt }} [A]")
    assert parsed.render(CONVERSATION) == "[U]U1 [A]A1[U]U2 [A]"
    assert parsed.text == "[U]{{ .Prompt }} [A]"


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{ .Prompt }}{{ if .Response }}[{{ .Response }}]{{ else }}-{{ end }}.", "U1[A1].U2"),
        ("{{ if .Prompt }}{{ .Prompt }}>{{ .Response }}<{{ else }}x{{ end }}.", "U1>A1<.U2>"),
        ("{{ if .System }}{{ .System }}{{ else }}{{ .Response }}|{{ end }}{{ .Prompt }}", "SU1"),
        ("{{ .Prompt }}{{ with .Response }}!{{ . }}{{ end }}.", "U1!A1.U2."),
        ('{{ .Prompt }}{{ printf "%s;" .Response }}.', "U1A1;.U2;"),
    ],
)
def test_what_follows_the_first_printed_response_is_cut_also_in_branches(text: str, rendered: str) -> None:
    assert template.parse(text).render(CONVERSATION) == rendered


def test_a_system_message_begins_a_new_exchange() -> None:
    messages = [Message.of("user", "U1"), Message.of("system", "S"), Message.of("user", "U2")]
    assert template.parse(EXCHANGES).render(messages) == "[U]U1 [A][E][S]S [U]U2 [A]"


def test_results_of_tools_are_not_part_of_exchanges() -> None:
    messages = [Message.of("user", "U1"), Message.of("tool", "T"), Message.of("assistant", "A1")]
    assert template.parse(EXCHANGES).render(messages) == "[U]U1 [A]A1"


def test_neighbours_of_one_role_are_joined_by_a_blank_line_except_results_of_tools() -> None:
    roles = ["system", "system", "user", "user", "tool", "tool", "assistant"]
    messages = [Message.of(role, str(number)) for number, role in enumerate(roles)]
    parsed = template.parse("{{ .System }}|{{ range .Messages }}{{ .Role }}={{ .Content }};{{ end }}")
    assert parsed.render(messages) == "0\n\n1|system=0\n\n1;user=2\n\n3;tool=4;tool=5;assistant=6;"


def test_the_system_text_is_every_system_message() -> None:
    messages = [Message.of("system", "A"), Message.of("user", "U"), Message.of("system", "B")]
    assert template.parse("{{ .System }}{{ range .Messages }}{{ end }}").render(messages) == "A\n\nB"


def test_only_the_text_of_a_joined_message_is_kept() -> None:
    call = ToolCall(name="clock")
    messages = [
        Message.of("assistant", "A", thinking="T"),
        Message.of("assistant", "B", tool_calls=(call,), thinking="X"),
    ]
    parsed = template.parse("{{ range .Messages }}{{ .Thinking }}{{ .Content }}{{ len .ToolCalls }}{{ end }}")
    assert parsed.render(messages) == "TA\n\nB0"


@pytest.mark.parametrize(
    ("think", "rendered"),
    [(None, "false,,false"), (False, "false,,true"), (True, "true,medium,true"), ("low", "true,low,true")],
)
def test_a_template_learns_whether_and_how_hard_to_think(think: Think, rendered: str) -> None:
    tail = "{{ .Think }},{{ .ThinkLevel }},{{ .IsThinkSet }}"
    assert template.parse(tail + "{{ range .Messages }}{{ end }}").render([], think=think) == rendered
    assert template.parse(tail).render([], think=think) == rendered
    assert template.parse(tail + "{{ .Suffix }}").render_suffix("a", "b", think=think) == rendered + "b"


def test_prompt_and_suffix_are_rendered_alone() -> None:
    text = "{{ if .Suffix }}{{ .Prompt }}_{{ .Suffix }}{{ .Response }}{{ .System }}{{ else }}{{ .Prompt }}{{ end }}"
    parsed = template.parse(text)
    assert parsed.capabilities == ("insert",)
    assert parsed.render_suffix("a", "b") == "a_b<no value>"


def test_a_message_has_the_fields_templates_know() -> None:
    call = ToolCall(name="get", arguments={"b": 1, "a": "<"}, index=2, id="call_1")
    messages = [
        Message.of("assistant", "C", thinking="T", tool_calls=(call,), media=(Picture(b"x"), Picture(b"y"))),
        Message.of("tool", "R", tool_name="get", tool_call_id="call_1"),
    ]
    text = (
        "{{ range .Messages }}{{ .Role }}|{{ .Content }}|{{ .Thinking }}|{{ len .Images }}|{{ .ToolName }}|"
        "{{ .ToolCallID }}{{ range .ToolCalls }}|{{ .ID }}|{{ .Function.Index }}|{{ .Function.Name }}|"
        "{{ .Function.Arguments }}{{ range $k, $v := .Function.Arguments }}|{{ $k }}:{{ $v }}{{ end }}{{ end }}\n"
        "{{ end }}"
    )
    assert template.parse(text).render(messages) == (
        'assistant|C|T|2|||call_1|2|get|{"a":"\\u003c","b":1}|a:<|b:1\ntool|R||0|get|call_1\n'
    )


TOOL = Tool(
    name="get",
    description="Gets <it>",
    parameters={
        "type": "object",
        "$defs": {"z": 1, "a": {}},
        "required": ["b"],
        "additionalProperties": False,
        "properties": {
            "b": {"type": "string", "enum": ["x", 1.0, None], "default": "x"},
            "a": {"description": "D", "type": ["integer", "null"], "items": {"y": 1, "x": 2}},
            "c": {"anyOf": [{"type": "string"}, {"type": "array"}]},
            "d": {"type": "object", "properties": {"k": {"type": "boolean"}}, "required": ["k"]},
        },
    },
)
TOOL_JSON = (
    '{"type":"function","function":{"name":"get","description":"Gets \\u003cit\\u003e","parameters":{"type":"object",'
    '"$defs":{"a":{},"z":1},"required":["b"],"properties":{'
    '"a":{"type":["integer","null"],"items":{"x":2,"y":1},"description":"D"},'
    '"b":{"type":"string","enum":["x",1,null]},'
    '"c":{"anyOf":[{"type":"string"},{"type":"array"}]},'
    '"d":{"type":"object","properties":{"k":{"type":"boolean"}},"required":["k"]}}}}}'
)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{ .Tools }}", f"[{TOOL_JSON}]"),
        ("{{ json .Tools }}", f"[{TOOL_JSON}]"),
        ("{{ range .Tools }}{{ . }}{{ end }}", TOOL_JSON),
        ('{{ range .Tools }}{{ printf "%s|%v" . .Function.Name }}{{ end }}', TOOL_JSON + "|get"),
        ("{{ range .Tools }}{{ .Function }}{{ end }}", TOOL_JSON[len('{"type":"function","function":') : -1]),
        (
            "{{ range .Tools }}{{ json .Function.Parameters.Properties.b }}{{ end }}",
            '{"type":"string","enum":["x",1,null]}',
        ),
        ("{{ with index .Tools 0 }}{{ .Type }} {{ .Function.Description }}{{ end }}", "function Gets <it>"),
        (
            "{{ range $n, $p := (index .Tools 0).Function.Parameters.Properties }}{{ $n }}:{{ $p.Type }} {{ end }}",
            "a:[integer null] b:string c:[] d:object ",
        ),
        (
            "{{ range (index .Tools 0).Function.Parameters.Properties }}{{ toTypeScriptType . }}; {{ end }}",
            "number | null; string; string | any[]; Record<string, any>; ",
        ),
        (
            "{{ with (index .Tools 0).Function.Parameters }}{{ .Type }}{{ .Required }}{{ .Defs }}{{ end }}",
            "object[b]map[a:map[] z:1]",
        ),
    ],
)
def test_tools_print_as_json_in_gos_order(text: str, rendered: str) -> None:
    parsed = template.parse(text + "{{ range .Messages }}{{ end }}")
    assert "tools" in parsed.variables or "tools" not in text
    assert parsed.render([], tools=[TOOL]) == rendered


def test_a_tool_without_parameters_prints_empty_ones() -> None:
    parsed = template.parse("{{ .Tools }}{{ range .Messages }}{{ end }}")
    assert parsed.render([], tools=[Tool(name="clock", parameters={"type": "object"})]) == (
        '[{"type":"function","function":{"name":"clock","description":"","parameters":'
        '{"type":"object","properties":{}}}}]'
    )
    assert parsed.render([]) == "[]"


@pytest.mark.parametrize(
    ("text", "capabilities", "tags"),
    [
        ("{{ .Prompt }}", (), None),
        ("{{ .Prompt }}{{ .Suffix }}", ("insert",), None),
        ("{{ if .Tools }}{{ end }}{{ $.suffix }}", ("tools", "insert"), None),
        (
            "{{ range .Messages }}{{ if .Thinking }}\n<think>{{ .Thinking }}</think>\n{{ end }}{{ end }}",
            ("thinking",),
            ("<think>", "</think>"),
        ),
        (
            "{{ range $i, $m := $.Messages }}{{ if and .Thinking $i }}[T] {{ .Thinking }} [/T]{{ end }}{{ end }}",
            ("thinking",),
            ("[T]", "[/T]"),
        ),
        ("{{ range .Messages }}{{ range .ToolCalls }}<a>{{ .Thinking }}</a>{{ end }}{{ end }}", (), None),
        ("{{ range .Messages }}{{ .Thinking }}</think>{{ end }}", (), None),
        ("<think>{{ .Thinking }}</think>{{ range .Messages }}{{ end }}", (), None),
        (
            "{{ range .Messages }}<a>{{ .Thinking }}</a>{{ end }}{{ range .Messages }}<b>{{ .Thinking }}</b>{{ end }}",
            ("thinking",),
            ("<b>", "</b>"),
        ),
    ],
)
def test_capabilities_are_read_off_the_template(
    text: str, capabilities: tuple[str, ...], tags: tuple[str, str] | None
) -> None:
    parsed = template.parse(text)
    assert (parsed.capabilities, parsed.think_tags) == (capabilities, tags)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("{{ .Prompt }}", "{"),
        ('{{ range .Messages }}{{ if .ToolCalls }}<tool_call>\n{"name"{{ end }}{{ end }}', "<tool_call>"),
        ("{{ if .ToolCalls }}  {{ range .ToolCalls }}[CALLS] [{x{{ end }}{{ end }}", "[CALLS] ["),
        ("{{ if and .Role (len .ToolCalls) }}{{ .Content }}<x>{{ end }}", "{"),
        ('{{ with .Messages }}{{ else }}{{ if .ToolCalls }}{"a"{{ else }}<x>{{ end }}{{ end }}', "{"),
        ("{{ if .ToolCalls }}<a>{{ end }}{{ if .ToolCalls }}<b>{{ end }}", "<a>"),
    ],
)
def test_the_tag_before_a_tool_call_is_read_off_the_template(text: str, tag: str) -> None:
    assert template.parse(text).tool_tag == tag


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ('{{ .Tools }}{{ .ToolCalls }}{{ if eq .Role "tool" }}{{ end }}', True),
        ("{{ .Tools }}{{ .ToolCalls }}<tool_response>", True),
        ("{{ .Tools }}{{ .ToolCalls }}[TOOL_RESULTS]", True),
        ("{{ .Tools }}{{ .ToolCalls }}", False),
        ("{{ .Tools }}<tool_response>", False),
        ("{{ .ToolCalls }}<tool_response>", False),
    ],
)
def test_a_round_trip_of_tools_needs_tools_calls_and_results(text: str, has: bool) -> None:
    assert template.parse(text).has_tool_round_trip is has


@pytest.mark.parametrize(
    ("text", "capabilities", "has_round_trip"),
    [
        ("{{ messages }}", (), False),
        ("{% if tools %}{% endif %}", ("tools",), False),
        ("{{ message.tool_calls }}{% if message['role'] == 'tool' %}", ("tools",), True),
        ('{{ message.tool_calls }}{% if message.role == "tool" %}', ("tools",), True),
        ("{% if assistant_tool_call %}<tool_response>", ("tools",), True),
        ("{{ tools }}{{ message.tool_calls }}ipython", ("tools",), True),
        ("{{ tools }}ipython", ("tools",), False),
        ("<think></think>", ("thinking",), False),
        ("{{ content.split('</think>')[-1] }}", ("thinking",), False),
        ("{{ content.split('</think>')[-1] }}{{ reasoning_content }}", (), False),
        ("{{ content.split('</think>')[-1] }}<SPECIAL_12>", (), False),
        ("{{ tools }}<think></think>", ("tools", "thinking"), False),
    ],
)
def test_what_a_jinja_template_supports_shows_in_its_text(
    text: str, capabilities: tuple[str, ...], has_round_trip: bool
) -> None:
    assert template.jinja_capabilities(text) == capabilities
    assert template.jinja_has_tool_round_trip(text) is has_round_trip


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("{{ '<tool_call>\\n' }}", "<tool_call>"),
        ("{{ '[TOOL_CALLS] [' }}", "[TOOL_CALLS]"),
        ("{{ '<|tool_call_start|>' }}", "<|tool_call_start|>"),
        ("{{ message.tool_calls }}", ""),
    ],
)
def test_the_tag_before_a_tool_call_is_found_in_a_jinja_template(text: str, tag: str) -> None:
    assert template.jinja_tool_tag(text) == tag


def test_images_are_numbered_over_all_messages_where_their_places_are() -> None:
    messages = [
        Message.of("user", "a [img] b", media=(Picture(b"0"), Picture(b"1"))),
        Message.of("user", "[img] no picture"),
        Message.of("user", "[img][img][img]", media=(Picture(b"2"), Picture(b"3"))),
        Message.of("user", "no place", media=(Picture(b"4"),)),
    ]
    numbered = template.number_images(messages)
    assert [part.data for message in numbered for part in message.media] == [b"0", b"1", b"2", b"3", b"4"]
    assert [message.text for message in numbered] == [
        "[img-1]a [img-0] b",
        "[img] no picture",
        "[img-2][img-3][img]",
        "[img-4]no place",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{{ .Prompt", "template: :1: unclosed action"),
        ("\n\n{{ foo }}", 'template: :3: function "foo" not defined'),
        ("{{ $x }}", 'template: :1: undefined variable "$x"'),
        ("{{ end }}", "template: :1: unexpected {{end}}"),
        ("{{ if .A }}", "template: :1: unexpected EOF"),
        ("{{ if }}{{ end }}", "template: :1: missing value for command"),
        ("{{ break }}", "template: :1: break outside range"),
    ],
)
def test_a_broken_template_is_refused_in_gos_words(text: str, sentence: str) -> None:
    with pytest.raises(TemplateError) as caught:
        template.parse(text)
    assert str(caught.value) == sentence


def test_parts_between_words_keep_their_places() -> None:
    message = Message(
        role="user",
        content=(Text("first "), Picture(b"a"), Text(" then "), Picture(b"b"), Text(", what differs?")),
    )
    (numbered,) = template.number_images([message])
    assert numbered.text == "first [img-0] then [img-1], what differs?"
