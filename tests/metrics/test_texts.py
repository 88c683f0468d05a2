"""One text in several spellings: the same for scoring, for duplicates and for what a reply does."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.metrics.ast_match import find_value_error, holds_numeric_text
from fgtools.metrics.behaviours import classify_behaviour
from fgtools.metrics.texts import normalize_request, normalize_text
from fgtools.rows.duplicates import build_key

SPELLINGS = [
    ("caf\u00e9", "cafe\u0301"),  # joined and taken apart (NFC, NFD)
    ("10 km", "10\u00a0km"),
    ("10 km", "10\u202fkm"),
    ("don't", "don\u2019t"),
    ("don't", "don\u02bct"),
    ("don't", "don\u00b4t"),
    ("don't", "don`t"),
    ("don't", "don\uff07t"),
    ('say "go"', "say \u201cgo\u201d"),
    ("ABC 12", "\uff21\uff22\uff23\u3000\uff11\uff12"),
]


@pytest.mark.parametrize(("plain", "other"), SPELLINGS)
def test_one_text_in_two_spellings_is_one_text_everywhere(plain, other):
    assert normalize_text(plain) == normalize_text(other)
    assert find_value_error(other, plain) == "" == find_value_error(plain, other)
    asked = [[{"role": "user", "content": text}] for text in (plain, other)]
    keys = [build_key({"group": "", "gold": [], "tools": [], "messages": one}) for one in asked]
    assert keys[0].request == keys[1].request == normalize_request(other)


@given(st.text(max_size=50))
def test_a_normalized_text_stays_as_it_is(text):
    once = normalize_text(text)
    assert normalize_text(once) == once == unicodedata.normalize("NFKC", once)


def test_other_texts_stay_apart():
    assert find_value_error("caf\u00e9", "cafe") == find_value_error("\u00d8", "O") == "value_error:string"


UNIT = {"type": "string", "enum": ["metric", "US units", "C", "c"]}


@pytest.mark.parametrize(
    ("value", "gold", "spec", "error"),
    [
        ("metric", "metric", UNIT, ""),
        ("Metric", "metric", UNIT, "value_error:string"),
        ("US-units", "US units", UNIT, "value_error:string"),
        ("US\u00a0units", "US units", UNIT, "value_error:string"),
        ("C", "c", UNIT, "value_error:string"),
        ("Imperial", "imperial", UNIT, ""),  # the gold is no member itself: no server would take it to the letter
        ("Metric", "metric", {"enum": "metric"}, ""),
        (["a", "B"], ["a", "b"], {"items": {"enum": ["a", "b"]}}, "value_error:list/tuple"),
        ({"u": "Metric"}, {"u": "metric"}, {"properties": {"u": UNIT}}, "value_error:dict_value"),
        ("Low", "low", {"type": "string", "anyOf": [{"type": "integer"}, {"enum": ["low"]}]}, "value_error:string"),
        (2, 2, {"enum": [1, 2]}, ""),
    ],
)
def test_members_of_an_enum_are_compared_to_the_letter(value, gold, spec, error):
    assert find_value_error(value, gold, spec) == error


@pytest.mark.parametrize(
    "text", ["5", "-5", "+1.5", "1,000", "2024-01-31", "31/1/24", "12:30", "2024-01-31T10:00:00Z", "40.7, -74.0", "5%"]
)
def test_numbers_and_dates_that_stand_as_text_are_known(text):
    assert holds_numeric_text(text) and holds_numeric_text({"a": [text]})
    assert not holds_numeric_text(text, {"enum": [text]})


@pytest.mark.parametrize("value", ["", "-", "room 5", "5 km", "Tuesday", 5, None, True, ["a"], {"5": "a"}, "1" * 41])
def test_other_values_are_not(value):
    assert not holds_numeric_text(value)


def test_of_such_text_the_rule_forgives_the_sign():
    assert find_value_error("-5", "5") == "" and find_value_error(-5, 5) == "value_error:others"


@pytest.mark.parametrize("mark", ["'", "\u2019", "\u2018", "\u02bc", "`", "\u00b4", "\uff07", "\u2032", ""])
def test_a_refusal_is_known_with_every_apostrophe(mark):
    for text in ("I don't have a tool for that.", "I can't do this.", "That isn't supported.", "I couldn't find one."):
        assert classify_behaviour(text.replace("'", mark)) == "cannot_answer", text


@pytest.mark.parametrize(
    "text",
    ["I'm afraid that is beyond what I do.", "My apologies.", "It is not currently possible.", "I could not find it."],
)
def test_refusals_in_other_words(text):
    assert classify_behaviour(text) == "cannot_answer"
