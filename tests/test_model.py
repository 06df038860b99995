"""What a manifest amounts to: which template is in use, what the model can do, what broken layers do."""

import asyncio
import shutil
from pathlib import Path

import pytest

from corral import names
from corral.errors import CorralError, ModelNotFound, NotFound
from corral.models import assemble
from corral.models.config import ModelConfig, encode_config
from corral.models.model import GoTemplate, Model, Models
from corral.store import Layer, MediaType, Store, encode_manifest
from tests.tiny_models import tiny_llama

PLAIN_JINJA = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
TOOL_JINJA = PLAIN_JINJA + "{% if tools %}{{ tools }}{% endif %}{{ m.tool_calls }}{% if m.role == 'tool' %}{% endif %}"
THINKING_JINJA = PLAIN_JINJA + "{{ tools }}<think></think>"
GO = "{{ range .Messages }}{{ .Role }}: {{ .Content }}\n{{ end }}"
GO_TOOLS = (
    "{{ .Tools }}{{ range .Messages }}{{ .Role }}{{ range .ToolCalls }}{{ . }}{{ end }}"
    '{{ if eq .Role "tool" }}{{ .Content }}{{ end }}{{ end }}'
)
GO_TOOLS_ONE_WAY = "{{ .Tools }}{{ range .Messages }}{{ .Role }}: {{ .Content }}{{ end }}"


def make(folder: Path, *, jinja: str | None, go: str | None, setting: GoTemplate = "", **config: str) -> Model:
    file = folder / "tiny.gguf"
    tiny_llama(file, chat_template=jinja)
    store = Store(folder / "models")
    made = assemble.assemble({"tiny.gguf": file}, store)
    kept = [layer for layer in made.layers if layer.media_type == MediaType.MODEL]
    if go is not None:
        kept.append(added(store, MediaType.TEMPLATE, go.encode()))
    fields = {name: getattr(made.config, name) for name in made.config.__struct_fields__} | config
    raw = encode_config(ModelConfig(**fields))
    store.write_manifest(names.parse("m"), encode_manifest(added(store, MediaType.CONFIG, raw), tuple(kept)))
    return asyncio.run(Models(store, setting).load(names.parse("m")))


def added(store: Store, media_type: MediaType, data: bytes) -> Layer:
    digest, size, _ = store.add_bytes(data)
    return Layer(media_type, digest, size)


@pytest.mark.parametrize(
    ("jinja", "go", "setting", "native"),
    [
        (None, GO, "", False),
        (None, None, "", False),
        (PLAIN_JINJA, None, "", True),
        (PLAIN_JINJA, GO, "", False),
        (TOOL_JINJA, GO, "", True),
        (TOOL_JINJA, GO, "on", False),
        (PLAIN_JINJA, GO, "off", True),
        (None, GO, "off", False),
        (TOOL_JINJA, GO_TOOLS, "", False),
        (TOOL_JINJA, GO_TOOLS_ONE_WAY, "", True),
        (THINKING_JINJA, GO_TOOLS_ONE_WAY, "", True),
        (THINKING_JINJA, GO_TOOLS, "", False),
        (THINKING_JINJA + TOOL_JINJA, GO_TOOLS, "", True),
    ],
    ids=[
        "go alone",
        "no template at all",
        "jinja alone",
        "both can do the same",
        "jinja can do more",
        "go is always wanted",
        "go is never wanted",
        "go is never wanted, but there is no other",
        "both have the full round trip of tools",
        "jinja alone has the full round trip of tools",
        "jinja can do more, neither has the full round trip of tools",
        "jinja can do more, but go alone has the full round trip of tools",
        "jinja can do more, both have the full round trip of tools",
    ],
)
def test_the_template_in_use(
    tmp_path: Path, jinja: str | None, go: str | None, setting: GoTemplate, native: bool
) -> None:
    assert make(tmp_path, jinja=jinja, go=go, setting=setting).native is native


def test_a_model_without_any_template_gets_the_bare_prompt(tmp_path: Path) -> None:
    model = make(tmp_path, jinja=None, go=None)
    assert model.shown_template == "{{ .Prompt }}"


def test_a_renderer_in_the_config_prefers_the_models_own_template(tmp_path: Path) -> None:
    assert make(tmp_path, jinja=PLAIN_JINJA, go=GO, renderer="qwen3-coder").native


@pytest.mark.parametrize("setting", ["", "off", "on"])
@pytest.mark.parametrize(
    ("go", "config"),
    [
        ("<|start|>{{ .Prompt }}<|end|>", {"model_family": "gptoss"}),
        ("<|start|>{{ .Prompt }}<|end|>", {"model_family": "gpt-oss"}),
        (GO, {"parser": "harmony"}),
    ],
)
def test_a_template_whose_answers_have_a_parser_is_used_whatever_the_other_can(
    tmp_path: Path, go: str, config: dict[str, str], setting: GoTemplate
) -> None:
    model = make(tmp_path, jinja=TOOL_JINJA, go=go, setting=setting, **config)
    assert (model.native, model.output_format) == (False, "harmony")


def test_capabilities_come_in_the_order_of_discovery(tmp_path: Path) -> None:
    assert make(tmp_path, jinja=TOOL_JINJA, go=None).capabilities == ("tools", "completion")


@pytest.mark.parametrize(
    ("parser", "capabilities"),
    [
        ("gemma4", ("completion", "tools", "thinking")),
        ("gemma4-no-thinking", ("completion", "tools")),
        ("unknown", ("completion",)),
    ],
)
def test_capabilities_of_a_parser_come_last(tmp_path: Path, parser: str, capabilities: tuple[str, ...]) -> None:
    assert make(tmp_path, jinja="{{ messages }}", go=None, parser=parser).capabilities == capabilities
    assert make(tmp_path, jinja=None, go=GO, parser=parser).capabilities == capabilities


def test_capabilities_of_a_go_template_follow_completion(tmp_path: Path) -> None:
    assert make(tmp_path, jinja=None, go=GO_TOOLS).capabilities == ("completion", "tools")


async def test_a_model_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        await Models(Store(tmp_path)).load(names.parse("nothing"))


def test_a_model_whose_config_is_broken_is_left_out_of_the_list(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = make(tmp_path, jinja=None, go=GO)
    store = Store(tmp_path / "models")
    stored = store.manifest(names.parse("m"))
    store.blob_path(stored.manifest.config.digest).write_bytes(b"{broken")
    models = Models(store)
    assert asyncio.run(models.list()) == []
    assert str(model.name) in caplog.text


def test_the_same_manifest_is_read_once(tmp_path: Path) -> None:
    model = make(tmp_path, jinja=None, go=GO)
    models = Models(Store(tmp_path / "models"))

    async def loaded() -> list[Model]:
        return [*await asyncio.gather(models.load(model.name), models.load(model.name)), await models.load(model.name)]

    first, *others = asyncio.run(loaded())
    assert all(other is first for other in others)


def test_a_template_that_does_not_parse_is_an_error_of_that_model(tmp_path: Path) -> None:
    model = make(tmp_path, jinja=None, go="{{ .Prompt")
    with pytest.raises(CorralError, match="unclosed action"):
        _ = model.template


async def test_what_is_broken_is_an_error_of_what_needs_it_and_is_read_again_with_the_next_load(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    file = tiny_llama(tmp_path / "tiny.gguf")
    made = assemble.assemble({"tiny.gguf": file}, store)
    assemble.write_model(names.parse("m"), made, store)
    models = Models(store)
    weights = store.blob_path(made.layers[0].digest)
    weights.rename(tmp_path / "aside")
    broken = await models.load(names.parse("m"))
    assert broken.config.model_family == "llama"
    for _ in range(2):
        with pytest.raises(NotFound, match="blob"):
            _ = broken.capabilities
    (tmp_path / "aside").rename(weights)
    assert (await models.load(names.parse("m"))).capabilities == ("completion",)


def test_a_loaded_model_needs_the_disk_no_more(tmp_path: Path) -> None:
    model = make(tmp_path, jinja=TOOL_JINJA, go=GO_TOOLS)
    shutil.rmtree(tmp_path / "models")
    assert model.weights.name.startswith("sha256-")
    assert (model.native, model.output_format, model.native_format, model.bos_text) == (False, "", "", "")
    assert (model.projectors, model.adapters, model.system, model.parameters, model.messages) == ((), (), "", {}, ())
    assert "tools" in model.capabilities
    assert model.kv_bytes_per_token(2.0) == 2 * model.kv_elements_per_token > 0
