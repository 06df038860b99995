"""The grammar of Modelfiles: worked examples, errors, and that every text that is written is read back."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import modelfile
from corral.errors import InvalidModelfile
from corral.modelfile import Command, Contents, contents, decode, parse, quote, write
from corral.modelfile.values import HELD_OPEN

COMMANDS = (
    'command must be one of "from", "license", "template", "system", "adapter", "draft", "renderer", "parser", '
    '"parameter", "message", or "requires"'
)
ROLES = 'message role must be one of "system", "user", or "assistant"'


def only(text: str) -> Command:
    (command,) = parse(text).commands
    return command


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("from tiny", "tiny"),
        ("FROM tiny # note", "tiny # note"),
        ("FROM \t tiny \t ", "tiny"),
        ("\n\n# FROM other\n  From tiny\n", "tiny"),
        ("FROM \n", ""),
        ("FROM ", ""),
        ("FROM 模型", "模型"),
        ("FROM tiny\u00a0\n", "tiny"),
        ('FROM ""', ""),
        ('FROM """"""', ""),
        ("FROM 'tiny'", "'tiny'"),
        ("FROM a\\nb", "a\\nb"),
        ('FROM "a" b\nc"', 'a" b\nc'),
        ('FROM """a""" b\nc"""', 'a""" b\nc'),
        ('FROM """"a""""', '"a"'),
        ('FROM "  blank  "', "  blank  "),
        ('FROM """\r\na\r\n"""\r\n', "\r\na\r\n"),
    ],
)
def test_a_value_is_bare_or_quoted(text: str, value: str) -> None:
    assert parse(text).commands[0] == Command("from", "", value, text[: text.lower().rindex("from ")].count("\n") + 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('SYSTEM "a\nb"', {"system": "a\nb"}),
        ('SYSTEM "say "hi" now"', {"system": 'say "hi" now'}),
        ('SYSTEM """\nx\n"""', {"system": "\nx\n"}),
        ("SYSTEM one\nsystem two", {"system": "two"}),
        ("TEMPLATE {{ .Prompt }}\nADAPTER a\nADAPTER b", {"template": "{{ .Prompt }}", "adapter": "b"}),
        ("DRAFT d\nRENDERER r\nPARSER p", {"draft": "d", "renderer": "r", "parser": "p"}),
        ('LICENSE MIT\nLICENSE """Two\nlines"""', {"licenses": ("MIT", "Two\nlines")}),
        ('PARAMETER stop "<|end|>"\nPARAMETER stop a b', {"parameters": {"stop": ["<|end|>", "a b"]}}),
        ("PARAMETER num_ctx 5\nPARAMETER num_ctx -7", {"parameters": {"num_ctx": -7}}),
        ("PARAMETER seed 1e+06", {"parameters": {"seed": 1000000}}),
        ("PARAMETER temperature .5\nPARAMETER top_p 1e-3", {"parameters": {"temperature": 0.5, "top_p": 0.001}}),
        ("PARAMETER use_mmap f", {"parameters": {"use_mmap": False}}),
        ("PARAMETER mirostat 1\nPARAMETER low_vram x", {"deprecated": ("mirostat", "low_vram")}),
        ("MESSAGE user hello: there\nMESSAGE assistant ", {"messages": (("user", "hello: there"), ("assistant", ""))}),
        ("REQUIRES v0.14.0", {"requires": "0.14.0"}),
        ("REQUIRES 1.2", {"requires": "1.2"}),
        ("REQUIRES 1.2.3-rc.1+build.5", {"requires": "1.2.3-rc.1+build.5"}),
    ],
)
def test_commands_are_laid_together(text: str, expected: dict[str, object]) -> None:
    assert contents(parse(f"FROM x\n{text}")) == Contents(("x",), **{"parameters": {}, **expected})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "sentence", "line"),
    [
        ("", "no FROM line", 0),
        ("SYSTEM x", "no FROM line", 0),
        ("# FROM x", "no FROM line", 0),
        ("FROM", "unexpected EOF\na command needs a value\nline 1: FROM", 1),
        ("FROM\n", f"(line 2): {COMMANDS}\n  FROM", 1),
        ("FROM x\n\nBADWORD x", f"(line 3): {COMMANDS}\n  BADWORD x", 3),
        ("FROM x\r\nBADWORD x", f"(line 3): {COMMANDS}\n  BADWORD x", 3),
        ("FROM x\nFROM1 x", f"(line 2): {COMMANDS}\n  FROM1 x", 2),
        ("FROM x\n1FROM x", f"(line 2): {COMMANDS}\n  1FROM x", 2),
        ("FROM x\nÜBEL x", f"(line 2): {COMMANDS}\n  ÜBEL x", 2),
        ("FROM x\nMESSAGE bot hi", f"(line 2): {ROLES}\n  MESSAGE bot hi", 2),
        ("FROM x\nMESSAGE User hi", f"(line 2): {ROLES}\n  MESSAGE User hi", 2),
        ("FROM x\nMESSAGE  user hi", f"(line 2): {ROLES}\n  MESSAGE  user hi", 2),
        ("FROM x\nMESSAGE us1er hi", "unexpected EOF: us\nline 2: MESSAGE us1er hi", 2),
        ("FROM x\nMESSAGE user", "unexpected EOF\na command needs a value\nline 2: MESSAGE user", 2),
        ("FROM x\nPARAMETER stop\n", "unexpected EOF: stop\nline 2: PARAMETER stop", 2),
        ("FROM x\nPARAMETER num-ctx 1", "unexpected EOF: num\nline 2: PARAMETER num-ctx 1", 2),
        (
            'FROM x\nTEMPLATE """{{ .Prompt }}\n\n',
            'unexpected EOF\na quote is not closed\nline 2: TEMPLATE """{{ .Prompt }}',
            2,
        ),
        ('FROM x\nSYSTEM "a" b', 'unexpected EOF\na quote is not closed\nline 2: SYSTEM "a" b', 2),
        ('FROM x\nSYSTEM """""', 'unexpected EOF\na quote is not closed\nline 2: SYSTEM """""', 2),
        (f"FROM x\n{'y' * 200} z", f"(line 2): {COMMANDS}\n  {'y' * 120}…", 2),
    ],
)
def test_what_breaks_the_grammar_is_shown_with_its_line(text: str, sentence: str, line: int) -> None:
    with pytest.raises(InvalidModelfile) as caught:
        parse(text)
    assert (str(caught.value), caught.value.line) == (sentence, line)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("PARAMETER foo 1", "unknown parameter 'foo'"),
        ("PARAMETER Num_ctx 1", "unknown parameter 'Num_ctx'"),
        ("PARAMETER  num_ctx 1", "unknown parameter ''"),
        ("PARAMETER num_ctx 1.5", "invalid int value [1.5]"),
        ("PARAMETER num_ctx big", "invalid int value [big]"),
        ("PARAMETER num_ctx 9223372036854775808", "invalid int value [9223372036854775808]"),
        ("PARAMETER num_ctx 1_000", "invalid int value [1_000]"),
        ("PARAMETER num_ctx ٣", "invalid int value [٣]"),
        ("PARAMETER temperature hot", "invalid float value [hot]"),
        ("PARAMETER temperature nan", "invalid float value [nan]"),
        ("PARAMETER temperature 1e39", "invalid float value [1e39]"),
        ("PARAMETER temperature 1e99999", "invalid float value [1e99999]"),
        ("PARAMETER use_mmap yes", "invalid bool value [yes]"),
        ("REQUIRES latest", "requires must be a valid semver (e.g. 0.14.0)"),
        ("REQUIRES 01.2.3", "requires must be a valid semver (e.g. 0.14.0)"),
    ],
)
def test_a_value_that_cannot_be_read_is_shown_with_its_line(command: str, sentence: str) -> None:
    with pytest.raises(InvalidModelfile) as caught:
        contents(parse(f"FROM x\n\n{command}\n"))
    assert (str(caught.value), caught.value.line) == (f"{sentence}\nline 3: {command}", 3)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfFROM x", "FROM x"),
        (b"\xff\xfeF\0R\0O\0M\0 \0x\0", "FROM x"),
        (b"\xfe\xff\0F\0R\0O\0M\0 \0x", "FROM x"),
        (b"FROM \xff", "FROM \ufffd"),
        ("FROM 模".encode(), "FROM 模"),
    ],
)
def test_bytes_are_text_in_either_unicode_form(data: bytes, text: str) -> None:
    assert decode(data) == text


# Writing


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("", ""),
        ("plain", "plain"),
        ('say "x"', 'say "x"'),
        ("# no comment", "# no comment"),
        ("two\nlines", '"two\nlines"'),
        (" User:", '" User:"'),
        ('"q"\n', '""""q"\n"""'),
        ('"both" ends', '""both" ends"'),
        ('""', '""""""""'),
        ('"""', '"""""""""'),
        ("\ttab", '"\ttab"'),
        ("carriage\rreturn", '"carriage\rreturn"'),
        ("\u00a0", '"\u00a0"'),
        ('a """doc"""\nb', f'"""a """doc"""{HELD_OPEN}\nb"""'),
        ('a"""\t\r\nb', f'"""a"""{HELD_OPEN}\t\r\nb"""'),
        (f'a"""{HELD_OPEN}\nb"\n', f'"""a"""{HELD_OPEN}{HELD_OPEN}\nb"\n"""'),
    ],
)
def test_a_value_is_written_in_the_quotes_it_needs(value: str, written: str) -> None:
    assert quote(value) == written
    assert only(f"FROM {written}\n").value == value


TEXTS = st.one_of(
    st.text(alphabet='"\n\r a#\t\u00a0\u200b' + HELD_OPEN, max_size=24),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40),
    st.lists(
        st.sampled_from(['"', '"""', "\n", "\r\n", " ", "\t", HELD_OPEN, "你好，世界", "{{ .Prompt }}", "FROM x", "\0"])
    ).map("".join),
)


@given(st.lists(st.tuples(st.sampled_from(["SYSTEM", "TEMPLATE", "LICENSE", "PARAMETER stop", "MESSAGE user"]), TEXTS)))
def test_every_text_is_read_back_as_it_was_written(commands: list[tuple[str, str]]) -> None:
    read = parse("FROM x\n" + write(commands)).commands[1:]
    assert [(f"{one.name.upper()} {one.argument}".strip(), one.value) for one in read] == commands


@given(st.text(alphabet='"\n\r a#\t', max_size=24))
def test_what_other_programs_can_read_is_written_so_that_they_do(value: str) -> None:
    written = quote(value)
    if HELD_OPEN not in written:
        assert list(reference(f"FROM {written}\n")) == [("from", value)]


@given(
    st.lists(
        st.sampled_from(
            [
                *("FROM", "from ", "SYSTEM ", "MESSAGE ", "user ", "PARAMETER ", "stop ", "#", " ", "\t", "\n", "\r"),
                *('"', '"""', "x", "1", "_", "é"),
            ]
        )
    ).map("".join)
)
def test_any_text_means_the_same_as_the_rules_say_one_character_at_a_time(text: str) -> None:
    """Errors included; `reference` is another reading of spec cli §7."""
    try:
        expected: list[tuple[str, str]] | str = list(reference(text))
    except InvalidModelfile as error:
        expected = str(error)
    try:
        found: list[tuple[str, str]] | str = [(one.name, one.value) for one in parse(text).commands]
    except InvalidModelfile as error:
        found = str(error).split("\n")[0]
    assert found == expected


def reference(text: str) -> Iterator[tuple[str, str]]:
    """The commands by the state machine of the specification, which takes the text rune by rune."""
    state, buffer, name, line = "nothing", "", "", 1
    has_from = False
    for rune in text:
        line += rune in "\n\r"
        match state:
            case "nothing" if rune == "#":
                state = "comment"
            case "nothing" if rune not in " \t\n\r":
                state, buffer = "word", rune
            case "comment" if rune in "\n\r":
                state = "nothing"
            case "word" if rune.isascii() and rune.isalpha():
                buffer += rune
            case "word":
                name = buffer.lower()
                if rune not in " \t" or f'"{name}"' not in COMMANDS:
                    raise InvalidModelfile(f"(line {line}): {COMMANDS}")
                state, buffer = {"parameter": "parameter", "message": "role"}.get(name, "value"), ""
            case "parameter" | "role":
                if rune.isascii() and (rune.isalpha() or (state == "parameter" and (rune.isdigit() or rune == "_"))):
                    buffer += rune
                    continue
                if rune not in " \t":
                    raise InvalidModelfile(f"unexpected EOF: {buffer}")
                if state == "role" and f'"{buffer}"' not in ROLES:
                    raise InvalidModelfile(f"(line {line}): {ROLES}")
                state, buffer = "value", ""
            case "value":
                value = complete(buffer.strip())
                if rune in "\n\r" and value is not None:
                    has_from |= name == "from"
                    yield name, value
                    state = "nothing"
                else:
                    buffer += rune
    if state == "value" and (value := complete(buffer.strip())) is not None:
        has_from |= name == "from"
        yield name, value
    elif state not in ("nothing", "comment"):
        raise InvalidModelfile("unexpected EOF")
    if not has_from:
        raise InvalidModelfile("no FROM line")


def complete(value: str) -> str | None:
    for quotes in ('"""', '"'):
        if value.startswith(quotes):
            is_closed = value.endswith(quotes) and len(value) >= 2 * len(quotes)
            return value[len(quotes) : -len(quotes)] if is_closed else None
    return value


def test_what_cannot_be_read_back_is_a_comment() -> None:
    text = write(
        [("FROM", "x"), ("PARAMETER other", '{"a":\n[1]}'), ("PARAMETER num_ctx", "1.5"), ("MESSAGE tool", "1")]
    )
    assert text == 'FROM x\n# PARAMETER other {"a":\n# [1]}\n# PARAMETER num_ctx 1.5\n# MESSAGE tool 1\n'
    assert len(parse(text).commands) == 1


# Hostile texts


@pytest.mark.parametrize(
    "piece",
    ["\n", '"', '"""', '"\n', '"""\n', f'"""{HELD_OPEN}', " ", "FROM x\n", "#", "a", "\r\n \t", "\0", "FROM"],
)
@pytest.mark.parametrize("head", ["", 'FROM "', 'FROM """', 'FROM x\nSYSTEM """a'])
def test_a_long_text_is_read_in_one_pass(head: str, piece: str) -> None:
    """Four million characters: were they gone over again for each line or quote, this would take days."""
    with suppress(InvalidModelfile):
        parse(head + piece * (4_000_000 // len(piece)))


def test_texts_and_commands_without_end_are_refused() -> None:
    with pytest.raises(InvalidModelfile, match="the Modelfile is longer than 16 million characters"):
        parse("x" * (modelfile.MAX_CHARACTERS + 1))
    with pytest.raises(InvalidModelfile, match="more than 65536 commands"):
        parse("FROM x\n" * 65537)
