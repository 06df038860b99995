"""Which Jinja texts are recognised as a well-known family, and that what they become writes the same prompts."""

import re
from pathlib import Path

import jinja2
import jinja2.sandbox
import pytest

from corral import template
from corral.messages import Message
from corral.template.known import KnownTemplate, recognise
from tests.tiny_models import CHATML

JINJA = Path(__file__).parent / "goldens" / "jinja"
FAMILIES = sorted(path.stem for path in JINJA.glob("*.jinja"))
"""What follows a point in a name is one of the ways in which a family's text is written."""

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

USER = [Message.of("user", "U1")]
TURNS = [Message.of("user", "U1"), Message.of("assistant", "A1"), Message.of("user", "U2")]
SYSTEM = [Message.of("system", "S"), *TURNS]


EOS = dict.fromkeys(("starcoder2-instruct", "starcoder2-instruct.2"), "<|endoftext|>")
"""What ends an answer where that is not `</s>`."""


def recognised(jinja: str, family: str = "") -> KnownTemplate | None:
    return recognise(jinja, bos="<s>", eos=EOS.get(family, "</s>"))


def jinja_of(family: str) -> str:
    return (JINJA / f"{family}.jinja").read_text("utf-8")


def jinja_writes(family: str, messages: list[Message]) -> str:
    """The prompt as the model's own template writes it; the engine puts the first `<s>` in front by itself."""

    def refuse(reason: str) -> None:
        raise jinja2.TemplateRuntimeError(reason)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    rendered = environment.from_string(jinja_of(family)).render(
        messages=[{"role": message.role, "content": message.text} for message in messages],
        bos_token="<s>",
        eos_token=EOS.get(family, "</s>"),
        add_generation_prompt=True,
    )
    return rendered.removeprefix("<s>")


def corral_writes(family: str, messages: list[Message]) -> str:
    known = recognised(jinja_of(family), family)
    assert known is not None
    return template.parse(known.text).render(messages)


def test_the_starter_models_jinja_becomes_the_chatml_template() -> None:
    known = recognise(SMOLLM2, bos="<|im_start|>", eos="<|im_end|>")
    assert known is not None
    assert (known.name, known.stop) == ("chatml", ("<|im_start|>", "<|im_end|>"))
    assert known.text == (
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_jinja_is_recognised_by_its_name(family: str) -> None:
    known = recognised(jinja_of(family), family)
    assert known is not None
    assert known.name == family.split(".")[0]
    assert known.stop
    assert template.parse(known.text).capabilities == ()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("messages", [USER, TURNS], ids=["question", "turns"])
def test_a_known_template_writes_what_the_models_own_does(family: str, messages: list[Message]) -> None:
    assert corral_writes(family, messages) == jinja_writes(family, messages)


TAKES_NO_SYSTEM = {"mistral-instruct", "gemma-instruct", *EOS, "codellama-70b-instruct", "phi-3.2"}
"""Their own templates refuse a system message, leave it out, or only count turns wrongly when there is one."""


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - TAKES_NO_SYSTEM))
def test_a_known_template_writes_system_texts_as_the_models_own_does(family: str) -> None:
    assert corral_writes(family, SYSTEM) == jinja_writes(family, SYSTEM)


def test_the_others_put_the_system_text_where_their_model_was_taught_to_read_instructions() -> None:
    assert corral_writes("mistral-instruct", SYSTEM) == "[INST] S\n\nU1 [/INST]A1</s>[INST] U2 [/INST]"
    assert corral_writes("gemma-instruct", SYSTEM) == (
        "<start_of_turn>user\nS\n\nU1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"
        "<start_of_turn>user\nU2<end_of_turn>\n<start_of_turn>model\n"
    )
    assert corral_writes("starcoder2-instruct", SYSTEM) == (
        "S\n\n### Instruction\nU1\n\n### Response\nA1<|endoftext|>\n\n### Instruction\nU2\n\n### Response\n"
    )
    assert corral_writes("codellama-70b-instruct", SYSTEM) == (
        "Source: system\n\n S <step> Source: user\n\n U1 <step> Source: assistant\n\n A1 <step> "
        "Source: user\n\n U2 <step> Source: assistant\nDestination: user\n\n "
    )


@pytest.mark.parametrize(
    "more",
    [
        "{% if tools %}{{ tools | tojson }}{% endif %}",
        "{{ '<think>\n' }}",
        "{{ '<|image|>' }}",
        "{{ message.reasoning_content }}",
        "{{ '[AVAILABLE_OPTIONS]' }}",
        "{# " + "x" * 5000 + " #}",
    ],
)
@pytest.mark.parametrize("family", ["chatml", "llama3-instruct", "mistral-instruct", "vicuna", "gemma3-instruct"])
def test_a_template_that_does_more_than_write_turns_is_left_to_the_engine(family: str, more: str) -> None:
    assert recognised(jinja_of(family) + more) is None


@pytest.mark.parametrize(
    "text", ["", "{{ messages }}", "<|im_start|>", "{{ '[INST]' }}", "<|im_start|><|im_end|>" * 900]
)
def test_a_text_that_is_no_familys_is_left_to_the_engine(text: str) -> None:
    assert recognised(text) is None


def test_text_between_tags_is_written_too() -> None:
    known = recognised(CHATML)
    assert known is not None
    assert known.name == "chatml"
    assert recognised(CHATML.replace("<|im_end|>", "<|im_end|> ")) is None


def test_quotes_and_line_ends_may_be_written_either_way() -> None:
    text = jinja_of("granite-instruct")
    assert recognised(text.replace("'", '"').replace("\\n", "\n")) == recognised(text) is not None
    assert recognised(text.replace(" + ", " ~ ").replace("message['content']", "message.content")) == recognised(text)


OLMO2 = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token + '\n' }}{% endif %}
{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"""
"""Of the looks of zephyr, but nothing closes a question."""

MATHSTRAL = """{{ bos_token }}{% for message in messages %}{% if message["role"] == "user" %}
{{- "[INST] " + message["content"] + "[/INST]" }}{% elif message["role"] == "assistant" %}
{{- " " + message["content"] + eos_token}}{% endif %}{% endfor %}"""
"""Of the looks of mistral-instruct, but with blanks in other places."""

ALPACA_ON_ONE_LINE = """{% for message in messages %}{% if message['role'] == 'user' %}
{{- '### Instruction: ' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}
{{- '### Response: ' + message['content'] + '\n' }}{% endif %}{% endfor %}{{ '### Response: ' }}"""


@pytest.mark.parametrize("jinja", [OLMO2, MATHSTRAL, ALPACA_ON_ONE_LINE])
def test_a_familys_marks_are_not_enough(jinja: str) -> None:
    assert recognised(jinja) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_every_blank_that_is_written_counts(family: str) -> None:
    text = jinja_of(family)
    places = [match.end() - 1 for match in re.finditer(r"'(?:\\.|[^'\\])*'(?= *(?:\+|\}\}))", text)]
    changed = [
        f"{text[:place]} {text[place:]}" for place in places if "raise_exception" not in text[place - 90 : place]
    ]
    assert changed
    assert [recognised(other, family) for other in changed] == [None] * len(changed)


@pytest.mark.parametrize("family", ["zephyr", "mistral-instruct", "llama2-chat", "vicuna", "starcoder2-instruct"])
def test_a_model_that_ends_its_answers_otherwise_is_left_to_the_engine(family: str) -> None:
    assert recognised(jinja_of(family), family) is not None
    assert recognise(jinja_of(family), bos="<s>", eos="<|im_end|>") is None


def test_a_model_that_begins_its_turns_otherwise_is_left_to_the_engine() -> None:
    assert recognise(jinja_of("llama2-chat"), bos="<|begin|>", eos="</s>") is None
