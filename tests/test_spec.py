"""What `runner_spec` makes of a model, options and memory: how long a text to embed may be."""

from pathlib import Path

import msgspec
import pytest

from corral import names
from corral.config import Config
from corral.engine.load_options import batches
from corral.machine.gpus import Gpu
from corral.machine.memory import GIB, Memory
from corral.models.model import Model, Models
from corral.options import Options
from corral.serving.spec import runner_spec
from corral.store import Store
from tests.conftest import add_model
from tests.tiny_models import tiny_bert, tiny_llama

PLENTY = Memory(total=16 * GIB, available=12 * GIB)
LITTLE = Memory(total=4 * GIB, available=2 * GIB)
NONE = Memory(total=GIB, available=0)
"""Not even room for the least batch, which is used all the same."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("models")
    add_model(work / "models", "bert", tiny_bert(work / "bert.gguf", context_length=8192))
    add_model(work / "models", "tiny", tiny_llama(work / "tiny.gguf", context_length=8192))
    return work / "models"


async def loaded(folder: Path, name: str) -> Model:
    return await Models(Store(folder)).load(names.parse(name))


GIVEN = {"num_ctx": 8192}

LENGTHS = [
    # model, options, memory → context length, most tokens of one text
    ("bert", {}, PLENTY, 8192, 8192),
    ("bert", {}, NONE, 4096, 2048),
    ("bert", GIVEN, NONE, 8192, 2048),
    ("bert", {"num_ctx": 1000}, PLENTY, 1000, 1000),
    ("bert", {**GIVEN, "num_batch": 64}, PLENTY, 8192, 64),
    ("bert", {**GIVEN, "num_batch": 8192}, NONE, 8192, 8192),
    ("tiny", {}, PLENTY, 4096, 4096),
    ("tiny", GIVEN, PLENTY, 8192, 8192),
    ("tiny", GIVEN, LITTLE, 8192, 4096),
    ("tiny", GIVEN, NONE, 8192, 2048),
    ("bert", {}, Memory(NONE.total, NONE.available, (Gpu("0", "", 8 * GIB, 8 * GIB),)), 8192, 8192),
    ("bert", {"num_gpu": 0}, Memory(NONE.total, NONE.available, (Gpu("0", "", 8 * GIB, 8 * GIB),)), 4096, 2048),
]


@pytest.mark.parametrize(("name", "options", "memory", "context", "text"), LENGTHS)
async def test_the_longest_text_is_the_context_where_memory_has_room(
    folder: Path, name: str, options: dict[str, int], memory: Memory, context: int, text: int
) -> None:
    model = await loaded(folder, name)
    spec = runner_spec(model, msgspec.structs.replace(Options(), **options), Config(), memory, embed=True)
    assert (spec.num_ctx, batches(spec)[1]) == (context, text)


async def test_without_flash_attention_a_long_text_takes_more(folder: Path) -> None:
    model = await loaded(folder, "bert")
    memory = Memory(total=4 * GIB, available=3 * GIB // 2)
    attending, plain = (
        runner_spec(model, Options(num_ctx=8192), Config(flash_attention=value), memory, embed=True).text_batch
        for value in ("on", "off")
    )
    assert (attending, plain) == (8192, 4096)


async def test_a_request_for_an_answer_has_no_batch_of_texts(folder: Path) -> None:
    spec = runner_spec(await loaded(folder, "tiny"), Options(num_ctx=8192), Config(), PLENTY)
    assert (spec.text_batch, spec.compute_bytes, batches(spec)) == (0, 0, (1024, 1024))
