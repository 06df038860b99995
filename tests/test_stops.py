"""Stop words in an answer that comes in pieces: what is certain is said at once, and nothing is lost."""

import itertools

import pytest

from corral.engine.stops import StopWords

CASES: list[tuple[str, tuple[str, ...], str, str]] = [
    ("one two three", ("two",), "one ", "two"),
    ("one two three", ("three", "two"), "one ", "two"),
    ("one two", ("four",), "one two", ""),
    ("one tw", ("two",), "one tw", ""),
    ("aab", ("ab",), "a", "ab"),
    ("abcdef", ("abcdx", "bc"), "a", "bc"),
    ("abcd", ("abc", "ab"), "", "ab"),
    ("ends here\n\n", ("\n\n\n",), "ends here\n\n", ""),
    ("今天天气", ("天气",), "今天", "天气"),
    ("今天天", ("天气",), "今天天", ""),
    ("two two two two", (" two four",), "two two two two", ""),
    ("", ("x",), "", ""),
]


@pytest.mark.parametrize(("text", "words", "said", "word"), CASES)
def test_an_answer_is_said_up_to_the_first_stop_word(text: str, words: tuple[str, ...], said: str, word: str) -> None:
    stops = StopWords(words)
    found = "".join([*[stops.feed(letter) for letter in text if not stops.word], stops.flush()])
    assert (found, stops.word) == (said, word)


@pytest.mark.parametrize(("text", "words", "said", "word"), CASES)
def test_what_is_said_does_not_depend_on_where_pieces_end(
    text: str, words: tuple[str, ...], said: str, word: str
) -> None:
    for cut in itertools.product((0, 1), repeat=min(len(text), 10)):
        pieces, begin = [], 0
        for place, is_cut in enumerate(cut):
            if is_cut:
                pieces.append(text[begin:place])
                begin = place
        stops = StopWords(words)
        found = ""
        for piece in [*pieces, text[begin:]]:
            if not stops.word:
                found += stops.feed(piece)
        found += stops.flush()
        assert (found, bool(stops.word)) == (said, bool(word))


def test_only_what_may_become_a_stop_word_is_kept_back() -> None:
    stops = StopWords(("stop here",))
    assert [stops.feed(piece) for piece in ("say st", "op", " there", " sto")] == ["say ", "", "stop there", " "]
    assert stops.flush() == "sto"
