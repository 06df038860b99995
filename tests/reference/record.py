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
"""Between two runs of the reference, in log probability."""


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
        model, about = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        assert not about["missing_keys"] and not about["unexpected_keys"], (case.name, about)
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"))
    return [answer(case, model.eval(), tokenizer, prompt) for prompt in goldens.prompts(case)]


def answer(case: Case, model: Any, tokenizer: Any, prompt: str) -> dict[str, Any]:
    """One prompt's tokens and the likeliest continuation."""
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tokens, steps = list(ids), []
    for _ in range(goldens.STEPS):
        with torch.no_grad():
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].double()
        found = torch.log_softmax(logits, 0).topk(goldens.TOP)
        top = [[int(token), round(float(value), 4)] for token, value in zip(found.indices, found.values, strict=True)]
        token, margin = top[0][0], top[0][1] - top[1][1]
        assert 3 <= token < VOCABULARY and margin >= goldens.MARGIN, f"{case.name} needs another seed: {token}, {margin}"
        tokens.append(token)
        steps.append([token, top])
    return {"prompt": prompt, "ids": ids, "steps": steps}


def compare(case: Case, computed: list[dict[str, Any]], recorded: list[dict[str, Any]]) -> None:
    for new, old in zip(computed, recorded, strict=True):
        assert new["ids"] == old["ids"], case.name
        for (token, top), (old_token, old_top) in zip(new["steps"], old["steps"], strict=True):
            assert token == old_token, case.name
            for (_, value), (_, old_value) in zip(top, old_top, strict=True):
                assert abs(value - old_value) <= TOLERANCE, (case.name, value, old_value)


if __name__ == "__main__":
    main()
