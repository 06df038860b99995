"""What `show --modelfile` prints of a model makes the same model again, layer by layer, digest by digest."""

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral import modelfile
from corral.cli.create.request import texts as request_texts
from corral.messages import Message, Progress
from corral.models.create import CreateRequest, create
from corral.models.model import Model, Models
from corral.names import Digest, Name, parse, parse_digest
from corral.server.ollama import show
from corral.store import Store
from tests.tiny_models import CHATML, tiny_llama, tiny_llava, tiny_lora


async def _no_pull(name: Name) -> AsyncGenerator[Progress, None]:
    assert not name, f"{name} is not to be pulled"
    yield Progress("success")


def make(store: Store, name: str, **fields: Any) -> Model:
    models = Models(store)

    async def work() -> None:
        async with aclosing(create(CreateRequest(name=parse(name), **fields), models, _no_pull)) as steps:
            async for _ in steps:
                pass

    asyncio.run(work())
    return models.read(parse(name))


def shown(model: Model) -> str:
    return str(json.loads(show.show(model, options={}, verbose=False))["modelfile"])


def make_again(store: Store, text: str) -> Model:
    """What `create -f` makes of the text, as the command asks for it; FROM and ADAPTER name blobs of the store."""
    wanted = modelfile.contents(modelfile.parse(text))
    texts = request_texts(wanted)
    licenses, messages = texts.pop("license", ()), texts.pop("messages", ())
    return make(
        store,
        "again",
        files={path: digest_of(path) for path in wanted.sources},
        adapters={wanted.adapter: digest_of(wanted.adapter)} if wanted.adapter else {},
        licenses=tuple(licenses),
        messages=tuple(Message.of(message["role"], message["content"]) for message in messages),
        **texts,
    )


def digest_of(path: str) -> Digest:
    return parse_digest(Path(path).name)


def layers(model: Model) -> list[tuple[str, str]]:
    return [(layer.media_type, layer.digest.hex) for layer in model.layers]


TEXTS = st.one_of(
    st.sampled_from(
        ["{{ .Prompt }}", "你好，世界\r\n再见 ", '"""Doc."""\n"quoted"\n', "\u00a0", "#", "FROM x\nSYSTEM y"]
    ),
    st.text(alphabet='"\n\r ab\t', min_size=1, max_size=12),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
)
NUMBERS = st.integers(min_value=-(1 << 62), max_value=1 << 62)
FRACTIONS = st.floats(min_value=-1e30, max_value=1e30, allow_nan=False)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "stop": st.lists(TEXTS, min_size=1, max_size=3),
        "seed": NUMBERS,
        "num_predict": NUMBERS,
        "temperature": FRACTIONS,
        "top_p": st.sampled_from([0.9, 1e-05, 1.0, 0.1]),
        "use_mmap": st.booleans(),
    },
)


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_llama(tmp_path_factory.mktemp("gguf") / "tiny.gguf", chat_template=CHATML).read_bytes()


@settings(max_examples=40)
@given(
    system=st.just("") | TEXTS,
    template=st.just("") | TEXTS.map(lambda text: text.replace("{{", "").replace("}}", "") or "x"),
    licenses=st.lists(TEXTS, max_size=3),
    parameters=PARAMETERS,
    messages=st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.just("") | TEXTS), max_size=3),
    requires=st.sampled_from(["", "0.14.0"]),
)
def test_a_model_is_made_again_of_what_is_shown_of_it(
    gguf_file: bytes,
    system: str,
    template: str,
    licenses: list[str],
    parameters: dict[str, Any],
    messages: list[tuple[str, str]],
    requires: str,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "models")
        digest, _, _ = store.add_bytes(gguf_file)
        made = make(
            store,
            "made",
            files={"m.gguf": digest},
            system=system,
            template=template,
            licenses=tuple(licenses),
            parameters=parameters,
            messages=tuple(Message.of(role, text) for role, text in messages),
            requires=requires,
        )
        again = make_again(store, shown(made))
        assert sorted(layers(again)) == sorted(layers(made))
        assert again.config == made.config
        assert make_again(store, shown(again)).digest == again.digest


def test_projectors_and_adapters_are_named_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    tiny_llava(tmp_path / "m.gguf", tmp_path / "p.gguf")
    files = {name: store.add_bytes((tmp_path / name).read_bytes())[0] for name in ("m.gguf", "p.gguf")}
    adapter = {"l.gguf": store.add_bytes(tiny_lora(tmp_path / "l.gguf").read_bytes())[0]}
    made = make(store, "made", files=files, adapters=adapter)
    text = shown(made)
    again = make_again(store, text)
    assert again.digest == made.digest
    assert "\n# TEMPLATE {{ .Prompt }}\n" in text


def test_a_template_of_the_file_itself_is_shown_and_not_laid_over(tmp_path: Path) -> None:
    """Jinja is no Go template: what is shown of it must not be read as one."""
    store = Store(tmp_path / "models")
    file = tiny_llama(
        tmp_path / "m.gguf", chat_template="{%- for m in messages -%}\n{{ m['content'] }}\n{%- endfor -%}"
    )
    made = make(store, "made", files={"m.gguf": store.add_bytes(file.read_bytes())[0]})
    text = shown(made)
    assert "# TEMPLATE {%- for m in messages -%}\n# {{ m['content'] }}\n# {%- endfor -%}\n" in text
    assert make_again(store, text).digest == made.digest


def test_parameters_that_no_modelfile_may_have_are_comments(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    file = store.add_bytes(tiny_llama(tmp_path / "m.gguf").read_bytes())[0]
    parameters = {"seed": 1000000, "other": {"a": [1]}, "num_predict": 1.5, "stop": []}
    text = shown(make(store, "made", files={"m.gguf": file}, parameters=parameters))
    assert text.endswith('# PARAMETER num_predict 1.5\n# PARAMETER other {"a":[1]}\nPARAMETER seed 1000000\n')
    assert make_again(store, text).parameters == {"seed": 1000000}
