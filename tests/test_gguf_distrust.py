"""What is checked of tensors, tokens and templates before native code sees a file, and that real models pass."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corral import gguf
from corral.errors import ModelFileError
from corral.gguf import lora
from tests import drafts
from tests.drafts import Draft, weight
from tests.gguf_bytes import ARRAY, I32, STRING, U32, ArrayOf, Header
from tests.hostile_gguf import CASES
from tests.tiny_models import CHATML, FEED_FORWARD, WIDTH, tiny_llama

OF_ONE_FILE = {
    name: case
    for name, case in CASES.items()
    if case.refusal
    and not name.startswith(
        ("a projector alone", "part 1 of", "big-endian", "no tensors", "a picture", "an empty file")
    )
    and "supplied file" not in case.refusal
}


def checked(path: Path, content: bytes) -> gguf.GGUF:
    path.write_bytes(content)
    file = gguf.read(path)
    gguf.check_new(file)
    return file


@pytest.mark.parametrize("name", OF_ONE_FILE)
def test_a_hostile_file_is_refused_by_what_is_wrong_with_it(tmp_path: Path, name: str) -> None:
    def read_all() -> None:
        read = {name: checked(tmp_path / name, content) for name, content in OF_ONE_FILE[name].files().items()}
        if "adapter.gguf" in read:
            lora.check(read["adapter.gguf"], read["model.gguf"])

    with pytest.raises(ModelFileError) as raised:
        read_all()
    assert OF_ONE_FILE[name].refusal in str(raised.value)
    assert str(raised.value).isprintable()


DRAFTS: list[Callable[[], Draft]] = [
    *(drafts.llama, drafts.bert, drafts.lora, drafts.llava_projector, drafts.gemma3, drafts.gemma3_projector),
    *(drafts.qwen2, drafts.qwen3, drafts.phi3, drafts.experts, drafts.mamba, drafts.deepseek2, drafts.nomic_bert),
]


@pytest.mark.parametrize("draft", DRAFTS, ids=lambda draft: draft.__name__)
def test_models_of_every_kind_are_accepted(tmp_path: Path, draft: Callable[[], Draft]) -> None:
    checked(tmp_path / "file", draft().encode())


def test_what_real_files_differ_in_is_accepted(tmp_path: Path) -> None:
    llama, projector = drafts.llama(), drafts.llava_projector()
    swapped = {
        f"v.blk.{layer}.ffn_{one}.{end}": projector.tensors[f"v.blk.{layer}.ffn_{other}.{end}"]
        for layer in (0, 1)
        for one, other in (("up", "down"), ("down", "up"))
        for end in ("weight", "bias")
    }
    for draft in (
        llama.without("output.weight"),  # the embeddings are the output, too
        llama.with_tensors({"rope_freqs.weight": weight(16)}),
        llama.with_tensors({"output_norm.weight": weight(WIDTH, 1)}),
        llama.with_tensors({"blk.0.attn_q.scale": weight(1)}),
        llama.with_keys(llama__feed_forward_length=(ARRAY, ArrayOf(U32, [FEED_FORWARD] * 2))),
        llama.with_keys(general__architecture=(STRING, "of tomorrow")),
        llama.with_keys(tokenizer__chat_template=(STRING, CHATML)),
        projector.with_tensors(swapped),  # as files of 2023 have them
        projector.without("v.pre_ln.weight", "v.pre_ln.bias", "v.post_ln.weight", "v.post_ln.bias"),
    ):
        checked(tmp_path / "file", draft.encode())


ZEROES = ArrayOf(U32, [8, 0, 0, 8])

REAL: dict[str, dict[str, Any]] = {
    "deepseek2": {
        "block_count": 61, "embedding_length": 7168, "attention.head_count": 128, "attention.head_count_kv": 1,
        "attention.kv_lora_rank": 512, "attention.key_length": 576, "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128, "rope.dimension_count": 64, "leading_dense_block_count": 3,
        "expert_count": 256, "expert_used_count": 8, "expert_group_count": 8,
        "expert_group_used_count": 4,
    },
    "gemma4": {
        "block_count": 35, "embedding_length": 1536, "attention.head_count": 8, "attention.head_count_kv": 1,
        "attention.key_length": 512, "attention.key_length_swa": 256, "rope.dimension_count": 512,
        "rope.dimension_count_swa": 256, "attention.shared_kv_layers": 20,
    },
    "qwen3next": {
        "block_count": 48, "embedding_length": 2048, "attention.head_count": 16, "attention.head_count_kv": 2,
        "attention.key_length": 256, "rope.dimension_count": 64, "full_attention_interval": 4, "ssm.state_size": 128,
        "expert_count": 512, "expert_used_count": 10,
    },
    "granitehybrid": {
        "block_count": 4, "embedding_length": 1536, "attention.head_count": 12,
        "attention.head_count_kv": ArrayOf(U32, [0, 0, 4, 0]), "rope.dimension_count": 0, "ssm.state_size": 128,
    },
    "lfm2": {
        "block_count": 4, "embedding_length": 2048, "attention.head_count": 32, "attention.head_count_kv": ZEROES,
        "shortconv.l_cache": 3,
    },
    "deci": {
        "block_count": 4, "embedding_length": 8192, "attention.head_count": ArrayOf(U32, [64, 0, 0, 64]),
        "attention.head_count_kv": ZEROES, "rope.dimension_count": 128,
    },
    "openelm": {
        "block_count": 3, "embedding_length": 1280, "attention.head_count": ArrayOf(U32, [12, 16, 20]),
        "attention.head_count_kv": ArrayOf(U32, [3, 4, 5]), "attention.key_length": 64, "rope.dimension_count": 64,
    },
    "falcon": {"embedding_length": 4544, "attention.head_count": 71, "attention.head_count_kv": 1},
    "phi3": {
        "embedding_length": 3072, "attention.head_count": 32, "attention.head_count_kv": 32,
        "rope.dimension_count": 96,
    },
    "gpt-oss": {
        "block_count": 24, "embedding_length": 2880, "attention.head_count": 64, "attention.head_count_kv": 8,
        "attention.key_length": 64, "attention.value_length": 64, "expert_count": 32, "expert_used_count": 4,
    },
    "gptneox": {"embedding_length": 2048, "attention.head_count": 8, "rope.dimension_count": 64},
    "chatglm": {
        "embedding_length": 4096, "attention.head_count": 32, "attention.head_count_kv": 2,
        "rope.dimension_count": 64,
    },
    "minicpm3": {
        "embedding_length": 2560, "attention.head_count": 40, "attention.head_count_kv": 40,
        "attention.key_length": 96, "rope.dimension_count": 32,
    },
    "glm4moe": {
        "block_count": 47, "embedding_length": 4096, "attention.head_count": 96, "attention.head_count_kv": 8,
        "attention.key_length": 128, "rope.dimension_count": 64, "nextn_predict_layers": 1,
        "expert_count": 128, "expert_used_count": 8,
    },
    "qwen3": {
        "embedding_length": 1024, "attention.head_count": 16, "attention.head_count_kv": 8,
        "attention.key_length": 128, "attention.value_length": 128,
    },
    "mamba2": {"embedding_length": 2560, "attention.head_count": 0, "ssm.state_size": 128, "ssm.group_count": 1},
}  # fmt: skip
"""Numbers of real models, by their architectures: those whose layers are not all alike, or not as one expects."""


@pytest.mark.parametrize("architecture", REAL)
def test_numbers_of_real_models_are_accepted(tmp_path: Path, architecture: str) -> None:
    keys: list[tuple[str, int, Any]] = [("general.architecture", STRING, architecture)]
    for name, value in REAL[architecture].items():
        keys.append((f"{architecture}.{name}", ARRAY if isinstance(value, ArrayOf) else U32, value))
    checked(tmp_path / "file", Header(keys).encode())


def test_a_template_of_a_real_model_is_accepted(tmp_path: Path) -> None:
    text = (
        "{%- set one = {'a': {'b': [1, 2]}} -%}{# {{ ((( #}"
        + "{% set x = 1 %}" * 600
        + "{% if a %}{{ '}}' ~ \"{{\" }}{% elif b %}{{ {'k': {'n': 1}}}}{% endif %}" * 600
        + "{% for m in messages %}{% set ns.x %}{{ m }}{% endset %}{% endfor %}" * 600
    )
    checked(tmp_path / "file", drafts.llama().with_keys(tokenizer__chat_template=(STRING, text)).encode())


def test_a_large_vocabulary_is_checked_within_some_memory(tmp_path: Path) -> None:
    count = 1 << 18
    tokens = ArrayOf(STRING, [f"{number:x}" for number in range(count - 1)] + ["0"])
    types = ArrayOf(I32, [1] * count)
    keys = [("tokenizer.ggml.tokens", ARRAY, tokens), ("tokenizer.ggml.token_type", ARRAY, types)]
    path = tmp_path / "file.gguf"
    path.write_bytes(Header([("general.architecture", STRING, "llama"), *keys]).encode())
    script = (
        "import resource, sys; from pathlib import Path; from corral import gguf\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    gguf.check_new(gguf.read(Path(sys.argv[1])))\n"
        "except gguf.reader.ModelFileError as error:\n"
        "    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    answer = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    sentence, grown = answer.stdout.splitlines()
    assert sentence == 'key "tokenizer.ggml.tokens" has the token "0" twice'
    assert int(grown) * 1024 < 100 << 20


@pytest.mark.parametrize(
    "text", ["", "\n", "text\n", "{{ a }}\n", "{% if a %}b{% endif %}\n\n", "{# open\n", "{# a #}\n", "{{ a", "{% a\n"]
)
def test_a_template_is_read_to_its_end_whatever_it_ends_with(tmp_path: Path, text: str) -> None:
    model = tiny_llama(tmp_path / "model.gguf", chat_template=text)
    gguf.check_new(gguf.read(model))
