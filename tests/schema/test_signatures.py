"""Python signatures and calls as text: read without being run, and refused with a message where they are none."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.schema import SchemaError, normalize_tools, parse_tools
from fgtools.schema.signatures import is_signature, parse_python_calls, parse_signature

WEATHER = '''
def get_weather(city: str, days: int = 3, *, unit: Literal["c", "f"] = "c", when=now()) -> dict:
    """Gives the weather.

    Args:
        city (str): The city,
            by name.
        days: How many: 1 to 7.

    Returns:
        dict: The weather.
    """
'''


def test_a_signature_with_a_docstring_is_a_definition():
    assert parse_signature(WEATHER) == {
        "name": "get_weather",
        "description": "Gives the weather.",
        "parameters": {
            "city": {"type": "str", "description": "The city, by name."},
            "days": {"type": "int", "description": "How many: 1 to 7.", "default": 3},
            "unit": {"enum": ["c", "f"], "default": "c"},
            "when": {"type": "Any", "optional": True},
        },
        "required": ["city"],
    }


@pytest.mark.parametrize(
    ("text", "names", "required"),
    [
        ("f(a: int, b='x', **more) -> None", ["a", "b"], ["a"]),
        ("def f(self, a): ...", ["a"], ["a"]),
        ("@tool\nasync def f(a: Optional[int] = None): pass", ["a"], []),
        ("def f():", [], []),
    ],
)
def test_other_ways_to_write_one(text, names, required):
    assert is_signature(text)
    found = parse_signature(text)
    assert (found["name"], list(found["parameters"]), found["required"]) == ("f", names, required)


def test_tools_may_be_signatures():
    tools = normalize_tools([WEATHER, "add(a: int, b: int)"])
    assert [tool["function"]["name"] for tool in tools] == ["get_weather", "add"]
    parameters = tools[0]["function"]["parameters"]
    assert parameters["required"] == ["city"] and parameters["properties"]["unit"]["enum"] == ["c", "f"]
    assert parameters["properties"]["days"] == {"type": "integer", "description": "How many: 1 to 7.", "default": 3}
    assert normalize_tools(WEATHER + "\ndef add(a: int, b: int): ...") == tools
    assert {change.kind for change in parse_tools([WEATHER]).changes} >= {"signature_read", "type_word"}


def test_tools_may_be_python_functions():
    def get_weather(city: str, days: int = 3) -> dict:
        """Gives the weather.

        Args:
            city: The city.
            days: How many.
        """

    tool = normalize_tools([get_weather])[0]["function"]
    assert (tool["name"], tool["description"]) == ("get_weather", "Gives the weather.")
    assert tool["parameters"]["properties"]["city"] == {"type": "string", "description": "The city."}
    assert tool["parameters"]["required"] == ["city"]


def test_a_function_without_a_docstring_is_named():
    def bare(city: str) -> dict: ...

    with pytest.raises(SchemaError, match="the function bare must have type hints and a docstring"):
        normalize_tools([bare])


@pytest.mark.parametrize("text", ["", "x", "f(", "def f(a", "def 1(a):", "f(a b)", "[1, 2]"])
def test_what_is_no_signature_is_refused(text):
    with pytest.raises(ValueError, match="no Python signature"):
        parse_signature(text)


def test_calls_are_read_with_names_of_any_kind():
    text = """[Market Trends API(trend_type="A, (b", country='us'), Bob's tool(), g.h(a=[1, {"b": true}], c=None)]"""
    assert parse_python_calls(text) == [
        {"name": "Market Trends API", "arguments": {"trend_type": "A, (b", "country": "us"}},
        {"name": "Bob's tool", "arguments": {}},
        {"name": "g.h", "arguments": {"a": [1, {"b": True}], "c": None}},
    ]
    assert parse_python_calls("f(a='it\\'s')") == [{"name": "f", "arguments": {"a": "it's"}}]
    assert parse_python_calls("[]") == []


@pytest.mark.parametrize(
    "text", ["[1, 2]", "[f(1)]", "[f(a=)]", "[f(a=b)]", "hello (world)", "[f(a=1]", "f(a='x)", "f"]
)
def test_what_is_no_call_is_refused(text):
    with pytest.raises(ValueError, match=r"no call|an argument must be|brackets|literal"):
        parse_python_calls(text)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text() | st.integers() | st.booleans()))
def test_a_call_reads_back_what_repr_writes(arguments):
    text = f"[f({', '.join(f'{name}={value!r}' for name, value in arguments.items())})]"
    assert parse_python_calls(text) == [{"name": "f", "arguments": arguments}]


@given(st.text(alphabet="fg(a=1,'\"[]{}) \\:", max_size=30))
def test_any_text_is_read_or_refused(text):
    for read in (parse_signature, parse_python_calls):
        with contextlib.suppress(ValueError):
            read(text)


def test_a_type_word_in_a_sentence_is_counted():
    reading = parse_tools([{"name": "f", "parameters": {"days": "Integer. How many days."}}])
    assert ("type_word", "Integer. How many days. -> integer") in [(one.kind, one.detail) for one in reading.changes]
