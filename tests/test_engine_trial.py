"""What is said of two engines: the levels of a build, answers that differ, ratios."""

import math

from corral.builds.flags import levels
from corral.builds.trial import TOLERANCE, Speeds, Trial, difference, is_illegal, judged
from corral.errors import EngineDied, EngineError
from corral.messages import TokenLogprob


def token(text: str, logprob: float, **others: float) -> TokenLogprob:
    return TokenLogprob(text, logprob, top=tuple(TokenLogprob(one, value) for one, value in others.items()))


def test_answers_are_equal_within_tolerance() -> None:
    ours = [token("a", -0.1), token("b", -0.7, b=-0.7, c=-0.8), token("d", -1)]
    assert difference(ours, ours) == ""
    assert difference(ours, [token("a", -0.2), token("b", -0.6), token("d", -1.1)]) == ""
    assert difference(ours, [token("a", -0.1), token("c", -0.7), token("anything", -9)]) == ""
    assert difference(ours, [token("x", -0.1)]) == "it says 'x' instead of 'a'"
    assert difference(ours, [token("a", -0.1 - 2 * TOLERANCE)]) == (
        "'a' has the log probability -0.70 instead of -0.10"
    )
    assert difference(ours, [token("a", math.nan)]) != ""
    assert difference(ours, ours[:2]) == "one answer ends before the other"


def test_an_engine_wins_by_its_median() -> None:
    even, fast = Speeds(100, 50), Speeds(130, 55)
    won = judged([(even, fast)] * 3 + [(even, Speeds(10, 5))])
    assert (won.read, won.written, won.read_range, won.share, won.wins) == (1.3, 1.1, (0.1, 1.3), 0.75, True)
    assert not judged([(even, fast)] * 2 + [(even, Speeds(10, 5))]).wins, "it is luck"
    assert not judged([(even, even)]).wins
    assert not judged([(even, Speeds(200, 40))]).wins, "answers are slower by a fifth"
    assert not Trial("it says nothing", 2.0, 2.0, 1.0).wins


def test_levels_end_with_what_any_such_processor_runs() -> None:
    names = {"sse4_2", "avx", "avx2", "fma", "f16c", "bmi2"}
    wide = names | {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "amx_int8"}
    assert [level.name for level in levels(names)] == ["native", "listed"]
    found = levels(wide)
    assert [level.name for level in found] == ["native", "listed", "plain"]
    assert "GGML_AVX512=ON" in found[1].options
    assert "GGML_AVX512=OFF" in found[2].options
    assert "GGML_AVX512=OFF" in levels(names | {"avx512f"})[1].options, "one of five features is not enough"
    assert not any("AMX" in option for level in found for option in level.options)
    assert [level.options for level in levels(())] == [("GGML_NATIVE=ON",), ("GGML_NATIVE=OFF",)]


def test_an_illegal_instruction_is_recognised() -> None:
    assert is_illegal(EngineDied("llama-server process has terminated: signal: illegal instruction"))
    assert not is_illegal(EngineDied("llama-server process has terminated: exit status 1"))
    assert not is_illegal(EngineError("illegal instruction"))
