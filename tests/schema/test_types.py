"""Type spellings: every golden one, and that no text at all breaks the reader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from fgtools.schema import SchemaError, normalize_type
from fgtools.schema.types import JSON_TYPES, parse_type
from fgtools.schema.unions import widest
from tests.toys import GOLDEN, load_cases

CASES = load_cases(GOLDEN / "types.jsonl")
WORDS = [
    "int",
    "str",
    "List[",
    "Dict[",
    "]",
    ",",
    "|",
    "Optional[",
    "optional",
    " of ",
    "array",
    "[]",
    "<",
    ">",
    "(",
    "?",
]


@pytest.mark.parametrize("case", CASES, ids=[str(case["type"])[:50] for case in CASES])
def test_a_spelling_gives_its_schema(case):
    assert normalize_type(case["type"]) == case["schema"]


@pytest.mark.parametrize(
    ("text", "optional"),
    [
        ("int", None),
        ("int, optional", True),
        ("Optional[int]", True),
        ("Union[str, None]", True),
        ("str | None", True),
        ("(optional) str", True),
        ("int, default 5", True),
        ("str, required", False),
    ],
)
def test_a_type_says_whether_it_may_be_left_out(text, optional):
    assert parse_type(text).optional is optional


def test_what_was_not_understood_is_told():
    assert not parse_type("who knows").known
    assert parse_type("List[int]").known


def test_a_reading_can_be_changed_without_changing_the_next():
    parse_type("Dict[str, int]").schema["properties"]["x"] = 1
    assert parse_type("Dict[str, int]").schema["properties"] == {}


@pytest.mark.parametrize(
    ("kinds", "kind"),
    [
        (["integer", "number"], "number"),
        (["integer", "string"], "string"),
        (["boolean", "integer"], "boolean"),
        (["array", "object"], "array"),
        ([], "string"),
    ],
)
def test_a_union_is_narrowed_to_one_type(kinds, kind):
    assert widest({"type": item} for item in kinds)["type"] == kind


def test_choices_of_one_type_are_united():
    assert normalize_type("Union[Literal['a'], Literal['b']]") == {"type": "string", "enum": ["a", "b"]}


def test_endless_nesting_is_no_type():
    assert normalize_type("List[" * 300 + "int" + "]" * 300) == {"type": "array"}
    assert normalize_type("int" + "[]" * 300) == {"type": "integer"}


@given(st.text() | st.lists(st.sampled_from(WORDS), max_size=12).map("".join))
def test_any_text_gives_one_valid_type_and_twice_is_once(text):
    schema = normalize_type(text)
    Draft202012Validator.check_schema(schema)
    assert schema["type"] in JSON_TYPES
    assert normalize_type(schema) == schema


def test_a_specification_without_end_is_an_error():
    spec: dict = {"type": "object"}
    for _ in range(100):
        spec = {"type": "object", "properties": {"a": spec}}
    with pytest.raises(SchemaError, match="nest deeper than 64 levels"):
        normalize_type(spec)
