"""The parser of Go templates: constants of all forms, trim markers, scopes, and what is refused with which sentence.

Every expectation but the limits was compared with Go's text/template; reasons are Go's where Go's are plain.
"""

import pytest

from corral.errors import TemplateError
from corral.template import syntax
from corral.template.execute import Budget, execute
from corral.template.parser import MAX_NESTING, MAX_SOURCE


def rendered(text: str) -> str:
    return execute(syntax.parse(text), {"text": "T", "map": {"a": {"b": "deep"}}, "list": ["x", "y"]}, Budget())


@pytest.mark.parametrize(
    ("constant", "printed"),
    [
        ("0", "0"),
        ("-12", "-12"),
        ("+7", "7"),
        ("1_000", "1000"),
        ("0x1F", "31"),
        ("0X_ff", "255"),
        ("0b101", "5"),
        ("0o17", "15"),
        ("017", "15"),
        ("0_7", "7"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("1e3", "1000"),
        ("1E-2", "0.01"),
        ("1_0.5", "10.5"),
        ("0x1p4", "16"),
        ("0x.8p1", "1"),
        ("1e22", "1e+22"),
        ("'a'", "97"),
        (r"'\n'", "10"),
        (r"'\''", "39"),
        (r"'\x41'", "65"),
        ("'ä'", "228"),
        ("true", "true"),
        ('"a\\tb"', "a\tb"),
        (r'"\u00e4\U0001f600\x41\101"', "ä😀AA"),
        (r'"\xc3\xa4\xff"', "ä\ufffd"),
        ("`raw\\n\r`", "raw\\n"),
    ],
)
def test_constants_have_all_of_gos_forms(constant: str, printed: str) -> None:
    assert rendered(f"{{{{{constant}}}}}") == printed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a \n{{- /* c */ -}}\n b", "ab"),
        ("a {{-  .text  -}} b", "aTb"),
        ("a {{.text -}}\n{{- .text}} b", "a TT b"),
        ("{{-3}}", "-3"),
        ("}} {{`}}`}}", "}} }}"),
        ("{{.map.a.b}}{{(.map).a.b}}{{$.map.a.b}}{{$x := .map}}{{$x.a.b}}", "deep" * 4),
        ("{{with $x := .map}}{{$x.a.b}}{{else}}{{$x}}{{end}}", "deep"),
        ("{{if $x := .missing}}1{{else if $y := .text}}{{$x}}{{$y}}{{end}}", "<no value>T"),
        ("{{range $i, $v := .list}}{{$i}}{{$v}}{{else}}none{{end}}", "0x1y"),
        ("{{.text |}}", "T"),
        ("{{\n.text\n| \nprint 1\n}}", "1T"),
        ("{{($x := .text)}}{{$x}}", "TT"),
        ('{{define "a"}}first{{end}}{{define "a"}} {{end}}{{template "a"}}', "first"),
        ('{{define "a"}} {{end}}{{define "a"}}second{{end}}{{template "a"}}', "second"),
        ('{{block "b" .map}}{{.a.b}}{{end}}', "deep"),
        ("{{range .list}}{{break}}{{else}}{{end}}{{range 0}}{{else}}e{{end}}", "e"),
    ],
)
def test_texts_blocks_and_chains_are_read_as_go_reads_them(text: str, expected: str) -> None:
    assert rendered(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\n{{ `a` 'bc' }}", ":2: malformed character constant: 'bc'"),
        ("{{ '' }}", ":1: malformed character constant: ''"),
        (r'{{ "\q" }}', ":1: invalid syntax of a quoted string"),
        (r'{{ "\ud800" }}', ":1: invalid syntax of a quoted string"),
        ('{{ "a\n" }}', ":1: unterminated quoted string"),
        ("{{ `a }}", ":1: unterminated raw quoted string"),
        ("{{ 'a }}", ":1: unterminated character constant"),
        ("{{ 1_ }}", ':1: bad number syntax: "1_"'),
        ("{{ 089 }}", ':1: bad number syntax: "089"'),
        ("{{ 3x }}", ':1: bad number syntax: "3x"'),
        ("{{ - }}", ':1: bad number syntax: "-"'),
        ("{{ 9223372036854775808 }}", ':1: integer overflow: "9223372036854775808"'),
        ("{{ 1e400 }}", ':1: number out of range: "1e400"'),
        ("{{/* x }}", ":1: unclosed comment"),
        ("{{/* x */ }}", ":1: comment ends before closing delimiter"),
        ("{{ (1 }}", ":1: unclosed left paren"),
        ("{{ 1) }}", ":1: unexpected right paren"),
        ("{{ ! }}", ':1: unexpected "!" in action'),
        ("{{ $x:1 }}", ":1: expected :="),
        ("{{ .a$b }}", ":1: bad character U+0024"),
        ("{{ $x=1 }}", ":1: bad character U+003D"),
        ("{{ 1.a }}", ':1: bad number syntax: "1.a"'),
        ('{{ "a".b }}', ':1: unexpected ".b" after a constant or dot'),
        ("{{ print(1) }}", ':1: unexpected "(" in operand'),
        ("{{ | 1 }}", ':1: unexpected "|" in command'),
        ("{{ 1 | 2 }}", ":1: non executable command in pipeline stage 2"),
        ("{{}}", ":1: missing value for command"),
        ("{{ $x := }}", ":1: missing value for command"),
        ("{{ print () }}", ":1: missing value for command"),
        ("{{ $a, $b := .list }}", ":1: too many declarations in command"),
        ("{{range $a, $b, $c := .list}}{{end}}", ":1: too many declarations in range"),
        ("{{ if 1 }}{{ $x := 1 }}{{ end }}\n{{ $x }}", ':2: undefined variable "$x"'),
        ('{{ $x := 1 }}{{ define "t" }}{{ $x }}{{ end }}', ':1: undefined variable "$x"'),
        ("{{ if 1 }}{{ else }}{{ else }}{{ end }}", ":1: expected end; found {{else}}"),
        ("{{ range 3 }}{{ else if 1 }}{{ end }}", ':1: unexpected "if" in else'),
        ("{{ range 3 }}{{ end }}{{ continue }}", ":1: continue outside range"),
        ("{{ range 3 }}{{ break 1 }}{{ end }}", ':1: unexpected "1" in {{break}}'),
        ("{{ end 1 }}", ":1: unexpected {{end}}"),
        ("{{ template x }}", ':1: unexpected "x" in template clause'),
        ("{{ block `b` }}{{ end }}", ":1: missing value for command"),
        ("{{ if 1 }}{{ define `d` }}{{ end }}{{ end }}", ":1: unexpected {{define}} within a block"),
        ("{{ define `d` }}1{{ end }}{{ define `d` }}2{{ end }}", ':1: multiple definition of template "d"'),
        ("{{ (" + "(" * MAX_NESTING + "1" + ")" * (MAX_NESTING + 1) + " }}", ":1: nested too deeply"),
        ("{{if 1}}" * (MAX_NESTING + 1) + "{{end}}" * (MAX_NESTING + 1), ":1: nested too deeply"),
        ("{{if 1}}" + "{{else if 1}}" * MAX_NESTING + "{{end}}", ":1: nested too deeply"),
        ("x" * (MAX_SOURCE + 1), f":1: longer than {MAX_SOURCE} characters"),
    ],
)
def test_what_go_refuses_is_refused_with_line_and_reason(text: str, sentence: str) -> None:
    with pytest.raises(TemplateError) as caught:
        syntax.parse(text)
    assert str(caught.value) == f"template: {sentence}"


def test_the_budget_allows_what_is_within_it() -> None:
    assert rendered("{{if 1}}" * MAX_NESTING + "x" + "{{end}}" * MAX_NESTING) == "x"
    assert rendered("{{" + "(" * MAX_NESTING + "1" + ")" * MAX_NESTING + "}}") == "1"


@pytest.mark.parametrize(
    ("call", "printed"),
    [
        (
            '"%d|%+d|% d|%05d|%-5d|%x|%X|%o|%O|%b|%c|%q|%U" 42 42 42 42 42 42 42 8 8 5 65 65 8364',
            "42|+42| 42|00042|42   |2a|2A|10|0o10|101|A|'A'|U+20AC",
        ),
        ('"%#x %#o %#b %#q %#U" 255 8 5 65 65', "0xff 010 0b101 'A' U+0041 'A'"),
        ('"%.3d|%8.3d|%.0d|%x" 7 7 0 -255', "007|     007||-ff"),
        (
            '"%v %g %e %.2f %8.1f %+.1f %G" 1e21 1e-7 1.5 1.005 2.25 2.0 1e-10',
            "1e+21 1e-07 1.500000e+00 1.00      2.2 +2.0 1E-10",
        ),
        (
            '"%s|%5s|%-5s|%.2s|%q|%+q|%x|% X|%#q" "äb" "a" "a" "abc" "a\\n" "ä" "hi" "hi" "`"',
            'äb|    a|a    |ab|"a\\n"|"\\u00e4"|6869|68 69|"`"',
        ),
        ('"%t %v %5t" true false true', "true false  true"),
        ('"%T %T %T %T %T" 1 1.5 "a" true nil', "int float64 string bool <nil>"),
        ('"%v %d" nil nil', "<nil> %!d(<nil>)"),
        ('"%d %s" "a" 1', "%!d(string=a) %!s(int=1)"),
        ('"%d"', "%!d(MISSING)"),
        ('"%" 1', "%!(NOVERB)%!(EXTRA int=1)"),
        ('"a" 1 "b"', "a%!(EXTRA int=1, string=b)"),
        ('"%[2]d %[1]d %[3]d" 1 2', "2 1 %!d(BADINDEX)"),
        ('"%*d|%-*d|%.*f" 4 7 4 7 1 2.25', "   7|7   |2.2"),
        ('"%*d" "x" 1', "%!(BADWIDTH)1"),
        ('"100%%"', "100%"),
    ],
)
def test_printf_prints_as_gos(call: str, printed: str) -> None:
    assert rendered(f"{{{{ printf {call} }}}}") == printed
