"""When speculation pays, as a table; and what a model is loaded with. With the real engine: `test_real_speculation`."""

from pathlib import Path

import pytest

from corral import names
from corral.config import Config
from corral.machine.memory import GIB, Memory
from corral.models.model import Models
from corral.options import Options
from corral.serving.spec import NGRAM_DRAFT, runner_spec
from corral.serving.speculation import ENOUGH, MEMORY, PAUSE, UNPAID, Record, Speculation, after, break_even, pays
from corral.store import Store
from tests.conftest import add_model
from tests.tiny_models import tiny_llama

AFTER = {
    # name: record, drafted, accepted → record
    "nothing drafted": (Record(5, 3), 0, 0, Record(5, 3)),
    "too little to judge by": (Record(), 100, 0, Record(100, 0)),
    "enough, and most accepted": (Record(200, 100), 100, 90, Record(300, 190)),
    "enough, and few accepted": (Record(200, 20), 100, 10, Record(failed_at=7.0)),
    "just enough, and none": (Record(), ENOUGH, 0, Record(failed_at=7.0)),
    "tried again, and it pays": (Record(0, 0, 1.0), ENOUGH, ENOUGH, Record(ENOUGH, ENOUGH, 1.0)),
    "tried again, in vain": (Record(0, 0, 1.0), ENOUGH, 0, Record(failed_at=7.0)),
    "older answers count for less": (Record(MEMORY, 3000), 100, 100, Record(2098, 1550)),
}


@pytest.mark.parametrize(("before", "drafted", "accepted", "expected"), AFTER.values(), ids=AFTER)
def test_what_is_known_after_an_answer(before: Record, drafted: int, accepted: int, expected: Record) -> None:
    assert after(before, drafted, accepted, 7.0) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [(Record(), True), (Record(ENOUGH, 200), True), (Record(failed_at=0.0), False), (Record(failed_at=-PAUSE), True)],
)
def test_it_is_off_for_a_while_after_it_did_not_pay(record: Record, expected: bool) -> None:
    assert pays(record, 0.0) is expected


def test_each_model_has_a_record_of_its_own() -> None:
    speculation = Speculation(clock=lambda: 0.0)
    speculation.add("a", ENOUGH, 0)
    speculation.add("b", ENOUGH, ENOUGH)
    assert (speculation.pays("a"), speculation.pays("b"), speculation.pays("c")) == (False, True, True)


def test_it_is_off_for_a_while_where_log_probabilities_are_wanted() -> None:
    now = [0.0]
    speculation = Speculation(clock=lambda: now[0])
    speculation.pause("a")
    assert (speculation.pays("a"), speculation.pays("b")) == (False, True)
    now[0] = PAUSE
    assert speculation.pays("a")


SPECS: dict[str, tuple[dict[str, object], Options, dict[str, bool], int]] = {
    # name: settings, options, the rest → tokens drafted at once
    "by itself": ({}, Options(), {}, NGRAM_DRAFT),
    "switched off": ({"speculation": False}, Options(), {}, 0),
    "did not pay": ({}, Options(), {"drafting_pays": False}, 0),
    "not wanted": ({}, Options(draft_num_predict=0), {}, 0),
    "wanted": ({"speculation": False}, Options(draft_num_predict=4), {"drafting_pays": False}, 4),
    "for log probabilities": ({}, Options(draft_num_predict=4), {"logprobs": True}, 0),
    "for vectors": ({}, Options(), {"embed": True}, 0),
}


@pytest.mark.parametrize(("settings", "options", "rest", "expected"), SPECS.values(), ids=SPECS)
async def test_what_is_drafted_is_decided_with_the_load(
    tmp_path: Path, settings: dict[str, object], options: Options, rest: dict[str, bool], expected: int
) -> None:
    add_model(tmp_path / "models", "tiny", tiny_llama(tmp_path / "tiny.gguf"))
    model = await Models(Store(tmp_path / "models")).load(names.parse("tiny"))

    memory = Memory(total=16 * GIB, available=12 * GIB)
    assert runner_spec(model, options, Config(**settings), memory, **rest).ngram_draft == expected  # type: ignore[arg-type]


def test_a_model_that_drafts_has_to_be_right_more_often_the_larger_it_is() -> None:
    for cost, accepted, pays_still in ((0.0, 150, True), (0.1, 150, True), (0.5, 150, False), (0.5, 240, True)):
        speculation = Speculation(lambda: 0.0)
        speculation.drafts_cost("weights", cost)
        speculation.add("weights", 256, accepted)
        assert speculation.pays("weights") is pays_still, (cost, accepted)
    assert break_even(3.0) == UNPAID
