"""Values written as text: what is read, what is refused, and that only JSON values come out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.schema.literals import decode_text, parse_literal, parse_literals, parse_values, plain_value, show


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ("{'a': None, 'b': true, 'c': null}", {"a": None, "b": True, "c": None}),
        ("  [1, 2]\n", [1, 2]),
        ('{"a": "x\ny"}', {"a": "x\ny"}),
        ("{'a': (1, 2)}", {"a": (1, 2)}),
        ("-1.5", -1.5),
    ],
)
def test_json_and_python_literals_are_read(text, value):
    assert parse_literal(text) == value


@pytest.mark.parametrize(
    "text", ["", "hello", "f(1)", "{'a': x}", "__import__('os')", "[" * 9000, "\x00", "'\ud800", "{1"]
)
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match=r"neither JSON nor a Python literal|nested too deep"):
        parse_literal(text)


def test_several_objects_are_read_one_after_the_other():
    assert parse_literals('{"a": 1}\n{"b": 2}, [3]') == [{"a": 1}, {"b": 2}, [3]]
    assert parse_values('x {"a": 1}; {"b"', 1) == ([{"a": 1}], 10)


def test_objects_with_prose_between_them_are_refused():
    with pytest.raises(ValueError, match="neither JSON nor a Python literal"):
        parse_literals('{"a": 1} and {"b": 2}')


def test_text_is_decoded_twice_and_no_more():
    text = json.dumps(json.dumps(json.dumps([1])))
    assert decode_text(text) == "[1]"
    assert decode_text(json.dumps(json.dumps([1]))) == [1]
    assert decode_text(5) == 5


def test_plain_values_are_json_and_share_nothing():
    inner = [1]
    copy = plain_value({"a": (inner, {2, 1}), 3: None, True: 1.5})
    assert copy == {"a": [[1], [1, 2]], "3": None, "true": 1.5}
    copy["a"][0].append(2)
    assert inner == [1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "finite"),
        (float("-inf"), "finite"),
        (b"x", "no JSON value: bytes"),
        (10**2000, "4,000 bits"),
        ({("a",): 1}, "no JSON key: tuple"),
        (object(), "no JSON value: object"),
    ],
)
def test_what_json_cannot_write_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        plain_value([value])


def test_a_list_that_holds_itself_is_refused():
    endless: list = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested deeper than 64 levels"):
        plain_value(endless)
    assert show(endless)


def test_anything_can_be_shown():
    assert show(10**5000) == "int"
    assert len(show("x" * 1000)) == 80


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        parse_literals(text)
    except ValueError as error:
        assert str(error)
