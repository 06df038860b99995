"""Which Jinja texts are recognised as a well-known family, and what they become."""

from corral.known_templates import recognise

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_the_starter_models_jinja_becomes_the_chatml_template() -> None:
    known = recognise(SMOLLM2)
    assert known is not None
    assert (known.name, known.stop) == ("chatml", ("<|im_start|>", "<|im_end|>"))
    assert known.text == (
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
    )
