"""Speculation with the real engine: the answers are those without it, whatever else a request asks for."""

from pathlib import Path
from typing import Any

import pytest

from corral.builds.trial import difference
from corral.messages import TokenLogprob
from tests.asking import metric, post
from tests.conftest import RunningServer, add_model, running_server

MODEL = "smollm2:135m"

LISTS = (
    "red orange yellow green blue indigo violet black white",
    "one two three four five six seven eight nine ten eleven",
    "Anna Bert Clara David Emma Frank Greta Hans Ida Jakob",
    "January February March April May June July August September",
    "import os\nimport sys\nimport json\nimport time\nimport math",
    "apple, pear, plum, cherry, peach, melon, grape, fig, lemon",
    "x = 1\ny = 2\nz = x + y\nprint(x)\nprint(y)\nprint(z)",
    "The cat sat on the mat and looked at the dog in the yard.",
    "<ul>\n<li>milk</li>\n<li>bread</li>\n<li>eggs</li>\n</ul>",
    "SELECT name, age FROM people WHERE age > 30 ORDER BY name;",
)
REPEATED = [f"{text}\n\n{text}\n\n{text[: len(text) // 2]}" for text in LISTS]
FREE = [
    "The capital of France is",
    "Once upon a time there was a lighthouse",
    "Water boils when",
    "A poem about snow:\n",
    "The three laws of motion are",
    "To bake bread, first",
    "Dear Sir or Madam,",
    "def fibonacci(n):\n",
    "Q: What is the largest ocean?\nA:",
    "In the year 1969",
]


@pytest.fixture(scope="module")
def answers(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Any]:
    """What the same requests give with speculation and, in a load of its own, without it.

    No conversation is kept from the one to the other: one found in the cache differs in the last digits, too.
    """
    home = tmp_path_factory.mktemp("speculation")
    add_model(home / ".ollama" / "models", MODEL, starter_gguf)
    with running_server(home, CORRAL_CACHE_BYTES="0") as server:
        return {drafts: _answers(server, drafts) for drafts in (True, False)}


def _answers(server: RunningServer, drafts: bool) -> dict[str, Any]:
    given = {} if drafts else {"draft_num_predict": 0}
    before = metric(server, "corral_drafted_tokens_total"), metric(server, "corral_accepted_tokens_total")

    def ask(prompt: str, num_predict: int = 24, body: dict[str, Any] | None = None, **options: Any) -> Any:
        options = {"temperature": 0, "num_predict": num_predict, **given, **options}
        asked = {"model": MODEL, "prompt": prompt, "raw": True, "stream": False, "options": options, **(body or {})}
        answer = post(server, "/api/generate", asked)
        assert answer.status == 200, answer.body
        return answer.json

    found = {
        "greedy": [ask(prompt)["response"] for prompt in (*REPEATED, *FREE)],
        "stop": ask("Say: " + REPEATED[1], 60, stop=["eight"]),
        "cut": [ask(f"{count}. {REPEATED[0]}", count)["eval_count"] for count in (1, 2, 7)],
        "format": ask("JSON: " + REPEATED[5], 40, {"format": {"type": "array", "items": {"type": "string"}}})[
            "response"
        ],
        "seed": [ask("Months: " + REPEATED[3], temperature=0.7, seed=3)["response"] for _ in range(2)],
        "vectors": len(post(server, "/api/embed", {"model": MODEL, "input": "hello"}).json["embeddings"][0]),
    }
    # The last, since it has the model loaded without drafts from then on.
    found["logprobs"] = ask("Names: " + REPEATED[2], body={"logprobs": True, "top_logprobs": 2})["logprobs"]
    found["drafted"] = metric(server, "corral_drafted_tokens_total") - before[0]
    found["accepted"] = metric(server, "corral_accepted_tokens_total") - before[1]
    return found


def test_greedy_answers_to_twenty_prompts_are_the_same(answers: dict[bool, Any]) -> None:
    assert answers[True]["greedy"] == answers[False]["greedy"]
    assert 0 < answers[True]["accepted"] <= answers[True]["drafted"]
    assert answers[False]["drafted"] == 0


def test_an_answer_ends_where_it_would_without(answers: dict[bool, Any]) -> None:
    """At a stop word within a draft, and at a limit that leaves no room for one."""
    stopped, plain = answers[True]["stop"], answers[False]["stop"]
    assert (stopped["response"], stopped["done_reason"]) == (plain["response"], "stop")
    assert stopped["eval_count"] == plain["eval_count"]
    assert answers[True]["cut"] == answers[False]["cut"] == [1, 2, 7]


def test_each_token_has_its_own_probability(answers: dict[bool, Any]) -> None:
    """The engine says nothing true of a drafted token's probability, so a request for them is served without drafts.

    What lies elsewhere in the cache is summed in another order, so two loads may part where two tokens are as likely;
    up to there they agree within the tolerance that engines are compared with.
    """
    ours, plain = answers[True]["logprobs"], answers[False]["logprobs"]
    assert all(len(one["top_logprobs"]) == 2 for one in (*ours, *plain))
    assert difference(*[[value_of(one) for one in each] for each in (plain, ours)]) == ""


def value_of(one: dict[str, Any]) -> TokenLogprob:
    return TokenLogprob(one["token"], one["logprob"], top=tuple(map(value_of, one.get("top_logprobs", ()))))


def test_a_format_is_kept_to(answers: dict[bool, Any]) -> None:
    assert answers[True]["format"] == answers[False]["format"]


def test_a_seed_makes_the_same_text_again_with_drafts(answers: dict[bool, Any]) -> None:
    assert len(set(answers[True]["seed"])) == 1


def test_a_model_that_generates_still_gives_vectors(answers: dict[bool, Any]) -> None:
    assert answers[True]["vectors"] == 576
