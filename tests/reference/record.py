"""Records what the reference implementation computes for the models in `models.py`, or checks that it still does.

    python -m venv /tmp/reference && /tmp/reference/bin/pip install torch transformers safetensors numpy gguf
    /tmp/reference/bin/python -m tests.reference.record            # writes tests/reference/goldens/
    /tmp/reference/bin/python -m tests.reference.record --check    # computes anew and compares

Needs transformers 5 and some gigabytes of disk; the ordinary tests need neither.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.reference import goldens
from tests.reference.models import CASES, VOCABULARY, Case

TOLERANCE = 1e-3
"""Between two runs of the reference."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="compare with the goldens instead of writing them")
    arguments.add_argument("cases", nargs="*", help="names of cases; all without any")
    given = arguments.parse_args()
    goldens.FOLDER.mkdir(exist_ok=True)
    for case in CASES:
        if given.cases and case.name not in given.cases:
            continue
        computed = compute(case)
        if given.check:
            compare(case, computed, goldens.load(case))
        else:
            goldens.path(case).write_text(json.dumps(computed, separators=(",", ":")) + "\n")
        print(case.name, "agrees" if given.check else "written")


def compute(case: Case) -> list[dict[str, Any]]:
    """The answers to the case's prompts."""
    with tempfile.TemporaryDirectory() as folder:
        case.write(Path(folder))
        kind = transformers.AutoModel if case.pooling else transformers.AutoModelForCausalLM
        model, about = kind.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        assert not about["missing_keys"] | about["unexpected_keys"], (case.name, about)
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"))
    respond = embedding if case.pooling else answer
    return [respond(case, model.eval(), tokenizer, prompt) for prompt in goldens.prompts(case)]


def answer(case: Case, model: Any, tokenizer: Any, prompt: str) -> dict[str, Any]:
    """One prompt's tokens and the likeliest next ones."""
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double()
    found = torch.log_softmax(logits, 0).topk(goldens.TOP)
    top = [[int(token), round(float(value), 4)] for token, value in zip(found.indices, found.values, strict=True)]
    assert 3 <= top[0][0] < VOCABULARY, f"{case.name} needs another seed: it ends at once after {prompt!r}"
    return {"prompt": prompt, "ids": ids, "top": top}


def embedding(case: Case, model: Any, tokenizer: Any, prompt: str) -> dict[str, Any]:
    """One text's tokens and its vector."""
    ids = tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        hidden = model(torch.tensor([ids])).last_hidden_state[0].double()
    pooled = hidden.mean(0) if case.pooling == "mean" else hidden[-1]
    return {"prompt": prompt, "ids": ids, "vector": [round(float(value), 5) for value in pooled / pooled.norm()]}


def compare(case: Case, computed: list[dict[str, Any]], recorded: list[dict[str, Any]]) -> None:
    for new, old in zip(computed, recorded, strict=True):
        assert new["ids"] == old["ids"], case.name
        for value, old_value in zip(numbers(new), numbers(old), strict=True):
            assert abs(value - old_value) <= TOLERANCE, (case.name, value, old_value)


def numbers(golden: dict[str, Any]) -> list[float]:
    return list(golden["vector"]) if "vector" in golden else [value for _, value in golden["top"]]


if __name__ == "__main__":
    main()
