"""Runtime options: defaults, layers, types and bounds (spec api §6)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import options
from corral.errors import BadRequest, InvalidOption
from corral.options import MAX_STOP_TEXT, MAX_STOP_WORDS, Options, merge


def test_defaults() -> None:
    assert merge() == Options(
        num_keep=4,
        seed=-1,
        num_predict=-1,
        top_k=40,
        top_p=0.9,
        min_p=0.0,
        typical_p=1.0,
        repeat_last_n=64,
        temperature=0.8,
        repeat_penalty=1.0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        stop=(),
        num_ctx=None,
        num_batch=None,
        num_gpu=-1,
        main_gpu=None,
        use_mmap=None,
        num_thread=0,
        draft_num_predict=None,
    )


def test_later_layers_win_and_null_says_nothing() -> None:
    stored: dict[str, Any] = {"temperature": 0.1, "stop": ["a", "b"], "num_ctx": 1024}
    given_now = {"temperature": 2, "stop": None, "seed": 7, "num_ctx": None}
    merged = merge(stored, given_now)
    assert (merged.temperature, merged.stop, merged.seed, merged.num_ctx) == (2.0, ("a", "b"), 7, 1024)


def test_options_of_old_clients_are_ignored() -> None:
    old = dict.fromkeys(("mirostat", "tfs_z", "low_vram", "numa", "f16_kv", "vocab_only", "use_mlock", "nonsense"), 1)
    assert merge(old) == Options()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("num_ctx", "2048", 'option "num_ctx" must be of type integer'),
        ("num_ctx", True, 'option "num_ctx" must be of type integer'),
        ("num_ctx", [1], 'option "num_ctx" must be of type integer'),
        ("num_ctx", {}, 'option "num_ctx" must be of type integer'),
        ("temperature", "hot", 'option "temperature" must be of type float32'),
        ("temperature", False, 'option "temperature" must be of type float32'),
        ("use_mmap", 1, 'option "use_mmap" must be of type boolean'),
        ("use_mmap", "true", 'option "use_mmap" must be of type boolean'),
        ("stop", "a", 'option "stop" must be of type array'),
        ("stop", {"a": 1}, 'option "stop" must be of type array'),
        ("stop", ["a", 1], 'option "stop" must be of an array of strings'),
        ("stop", [None], 'option "stop" must be of an array of strings'),
    ],
)
def test_a_wrong_type_is_refused_by_name(name: str, value: object, sentence: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        merge({name: value})
    assert (str(caught.value), caught.value.name) == (sentence, name)


def test_a_wrong_type_names_the_option_and_what_was_expected() -> None:
    with pytest.raises(InvalidOption) as caught:
        merge({"num_ctx": "2048"})
    assert (caught.value.name, caught.value.expected) == ("num_ctx", "type integer")


@pytest.mark.parametrize(("given_value", "read"), [(1.9, 1), (-1.9, -1), (2.0, 2), (0.0, 0), (-0.5, 0), (3, 3)])
def test_a_fraction_is_cut_off_for_an_integer(given_value: float, read: int) -> None:
    assert merge({"num_ctx": given_value}).num_ctx == read


INTEGERS = [name for name, kind in options.KINDS.items() if kind == "int"]
FLOATS = [name for name, kind in options.KINDS.items() if kind == "float"]


@pytest.mark.parametrize("name", INTEGERS)
def test_any_number_of_64_bits_is_an_integer_and_no_larger_one(name: str) -> None:
    for value in (-(2**63), -1, 0, 2**31, 2**63 - 1):
        assert getattr(merge({name: value}), name) == value
    for wrong in (2**63, -(2**63) - 1, 1e19, 10**400, float("nan"), float("inf"), float("-inf")):
        with pytest.raises(BadRequest, match=f'^option "{name}" is out of range$'):
            merge({name: wrong})


@pytest.mark.parametrize("name", FLOATS)
def test_a_float_must_be_finite_in_single_precision(name: str) -> None:
    for value in (-3.4e38, -1, 0, 1e-45, 0.1, 3.4e38):
        assert getattr(merge({name: value}), name) == value
    for value in (3.5e38, -1e300, 10**400, float("nan"), float("inf"), float("-inf")):
        with pytest.raises(BadRequest, match=f'^option "{name}" is out of range$'):
            merge({name: value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*options.KINDS]), JSON))
def test_any_json_is_read_or_refused(given_options: dict[str, Any]) -> None:
    try:
        merged = merge(given_options)
    except BadRequest:
        return
    assert all(isinstance(getattr(merged, name), int | None) for name in INTEGERS)


def test_stop_words_are_few_since_the_engine_looks_for_each_after_each_token() -> None:
    most = ["a"] * MAX_STOP_WORDS
    assert merge({"stop": most}).stop == tuple(most)
    for words in ([*most, "a"], ["a" * (MAX_STOP_TEXT + 1)]):
        with pytest.raises(BadRequest, match=rf'^option "stop" has {len(words)} words, at most 256 of 16384 char'):
            merge({"stop": words})
