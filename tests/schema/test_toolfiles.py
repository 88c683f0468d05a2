"""Files of tools: Python that is read and not run, JSON in every form, OpenAPI documents; and what each error says."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.files import FgtoolsError
from fgtools.schema import SchemaError, load_tools, parse_tool_file
from fgtools.schema.docstrings import parse_docstring
from fgtools.schema.toolfiles import parse_functions

SOURCE = '''
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Annotated, Literal, NewType, Optional, TypedDict
from pydantic import BaseModel, Field

raise RuntimeError("this file must not be run")


class Day(str, Enum):
    MON = "mon"
    TUE = "tue"


class Level(StrEnum):
    LOW = auto()
    HIGH = auto()


Mode = Literal["fast", "slow"]
UNIT = "celsius"
Name = NewType("Name", str)


class Point(TypedDict, total=False):
    """A point."""

    x: float
    y: float


@dataclass
class Item:
    """An item.

    Attributes:
        name: What it is called.
    """

    name: str
    count: int = 1
    tags: list[str] = field(default_factory=list)


class Base(BaseModel):
    id: int = Field(..., description="The id.", ge=1)


class Order(Base):
    items: list[Item]
    note: Optional[str] = None
    parent: "Order | None" = None


def set_alarm(
    time: str, days: list[Day] | None = None, *, mode: Mode = "fast", label: Annotated[str, "What to show."] = ""
) -> bool:
    """Set an alarm.

    Parameters
    ----------
    time : str
        When, such as "7:00",
        or later.
    days : list of Day, optional
        On which days.

    Returns
    -------
    bool
        Whether it worked.
    """


async def weather(city: Name, unit: str = UNIT, level: Level = Level.LOW, at: Point | None = None):
    """Tell the weather.

    :param city: The city.
    :param str unit: The unit,
        as a word.
    :type level: Level
    :returns: Text.
    """


def place_order(order: Order, when=now(), *rest, **more):
    """Place an order.

    Args:
        order (Order): The order.
    """


def _private(a): ...


class Service:
    def method(self, a: int): ...
'''

OPENAPI = {
    "openapi": "3.0.0",
    "paths": {
        "/pets/{petId}": {
            "parameters": [
                {"name": "petId", "in": "path", "required": True, "schema": {"type": "integer"}},
                {"$ref": "#/components/parameters/Trace"},
            ],
            "get": {"operationId": "getPet", "summary": "Get a pet."},
            "put": {
                "description": "Change a pet.",
                "parameters": [
                    {"name": "dry", "in": "query", "schema": {"type": "boolean", "default": False}},
                    {"name": "Authorization", "in": "header", "schema": {"type": "string"}},
                    {"name": "session", "in": "cookie", "schema": {"type": "string"}},
                ],
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {
                                "allOf": [
                                    {"$ref": "#/components/schemas/Pet"},
                                    {"type": "object", "properties": {"petId": {"type": "string"}}},
                                ]
                            }
                        }
                    }
                },
            },
        },
        "/owners": {"post": {"operationId": "addOwner", "requestBody": {"$ref": "#/components/requestBodies/Owner"}}},
        "/pets": {
            "post": {
                "operationId": "getPet",
                "requestBody": {
                    "required": False,
                    "content": {
                        "text/json": {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/Pet"}}}
                    },
                },
            }
        },
    },
    "components": {
        "requestBodies": {
            "Owner": {
                "content": {
                    "multipart/form-data": {"schema": {"type": "object", "properties": {"photo": {"type": "string"}}}}
                }
            }
        },
        "parameters": {"Trace": {"name": "X-Trace", "in": "header", "schema": {"type": "string"}}},
        "schemas": {
            "Pet": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "id": {"type": "integer", "readOnly": True},
                    "name": {"type": "string"},
                    "friend": {"$ref": "#/components/schemas/Pet"},
                },
            }
        },
    },
}

SWAGGER = {
    "swagger": "2.0",
    "paths": {
        "/a/{id}": {
            "post": {
                "summary": "Do a.",
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "type": "string"},
                    {"name": "q", "in": "query", "type": "array", "items": {"type": "string"}},
                    {"in": "body", "name": "body", "required": True, "schema": {"$ref": "#/definitions/B"}},
                ],
            }
        }
    },
    "definitions": {"B": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
}

TOOL = {"name": "f", "description": "Does f.", "inputSchema": {"type": "object", "properties": {"a": {"type": "int"}}}}


def write(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def functions(path):
    return {tool["function"]["name"]: tool["function"] for tool in load_tools(path)}


def test_a_python_file_gives_its_functions_without_being_run(tmp_path):
    path = write(tmp_path, "tools.py", SOURCE)
    found = functions(path)
    assert [*found] == ["set_alarm", "weather", "place_order"]
    alarm = found["set_alarm"]["parameters"]
    assert found["set_alarm"]["description"] == "Set an alarm." and alarm["required"] == ["time"]
    assert alarm["properties"] == {
        "time": {"type": "string", "description": 'When, such as "7:00", or later.'},
        "days": {
            "type": "array",
            "description": "On which days.",
            "items": {"type": "string", "enum": ["mon", "tue"]},
            "nullable": True,
            "default": None,
        },
        "mode": {"type": "string", "enum": ["fast", "slow"], "default": "fast"},
        "label": {"type": "string", "description": "What to show.", "default": ""},
    }
    weather = found["weather"]["parameters"]["properties"]
    assert weather["unit"] == {"type": "string", "description": "The unit, as a word.", "default": "celsius"}
    assert weather["level"] == {"type": "string", "enum": ["low", "high"], "default": "low"}
    assert weather["at"]["properties"] == {"x": {"type": "number"}, "y": {"type": "number"}}
    order = found["place_order"]["parameters"]["properties"]["order"]
    assert order["required"] == ["id", "items"] and order["description"] == "The order."
    assert order["properties"]["id"] == {"type": "integer", "description": "The id.", "minimum": 1}
    item = order["properties"]["items"]["items"]
    assert item["required"] == ["name"] and item["properties"]["name"]["description"] == "What it is called."
    assert order["properties"]["parent"]["type"] == "object"
    assert found["place_order"]["parameters"]["required"] == ["order"]


def test_what_is_no_tool_in_a_python_file_is_counted(tmp_path):
    problems = parse_tool_file(write(tmp_path, "tools.PY", SOURCE + "\ndef weather(): ...")).problems
    assert {(problem.kind, problem.detail) for problem in problems} == {
        ("private_function", "_private"),
        ("method", "Service.method"),
        ("variable_arguments", "place_order: rest"),
        ("variable_arguments", "place_order: more"),
        ("replaced_function", "weather"),
    }
    only = write(tmp_path, "listed.py", "__all__ = ['b']\ndef a(x: int): ...\ndef b(x: int): ...")
    assert [*functions(only)] == ["b"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", [TOOL]),
        ("b.json", {"tools": [TOOL]}),
        ("c.json", {"jsonrpc": "2.0", "id": 1, "result": {"tools": [TOOL]}}),
        ("d.JSON", TOOL),
        ("e.jsonl", json.dumps(TOOL) + "\n\n" + json.dumps({**TOOL, "name": "g"}) + "\n"),
        ("f.yaml", "tools:\n- name: f\n  description: Does f.\n  inputSchema: {properties: {a: {type: int}}}\n"),
        ("g.json", {"functions": [{"name": "f", "description": "Does f.", "parameters": TOOL["inputSchema"]}]}),
    ],
)
def test_tools_in_json_and_yaml(tmp_path, name, content):
    pytest.importorskip("yaml")
    found = functions(write(tmp_path, name, content))
    assert found["f"]["parameters"]["properties"] == {"a": {"type": "integer"}}
    assert found["f"]["description"] == "Does f."


def test_an_openapi_document_gives_its_operations(tmp_path):
    parsed = parse_tool_file(write(tmp_path, "api.json", OPENAPI))
    found = {tool["function"]["name"]: tool["function"] for tool in parsed.tools}
    assert {name: [*one["parameters"]["properties"]] for name, one in found.items()} == {
        "getPet": ["petId", "X-Trace"],
        "put_pets_petId": ["petId", "X-Trace", "dry", "name", "friend", "body_petId"],
        "addOwner": ["photo"],
        "getPet_2": ["body"],
    }
    assert found["getPet"]["description"] == "Get a pet." and found["getPet_2"]["description"] == "POST /pets"
    assert found["put_pets_petId"]["parameters"]["required"] == ["petId", "name"]
    assert found["getPet_2"]["parameters"]["required"] == []
    assert sorted(problem.kind for problem in parsed.problems) == [
        *("name_clash", "name_clash", "parameter_left_out", "parameter_left_out")
    ]


def test_a_swagger_document_gives_its_operations(tmp_path):
    tool = functions(write(tmp_path, "api.json", SWAGGER))["post_a_id"]
    assert tool["parameters"] == {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "q": {"type": "array", "items": {"type": "string"}},
            "x": {"type": "integer"},
        },
        "required": ["id", "x"],
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", "must end in one of"),
        ("gone.json", None, "must exist"),
        ("a.json", "{", "must be JSON, but .* correct it"),
        ("a.jsonl", '{"name": "f"}\n{"name": \n', "line 2: must be JSON"),
        ("a.py", "def f(:", "line 1: must be Python"),
        ("a.py", "x = 1", "must hold at least one tool"),
        ("a.py", "def _f(): ...", "private_function: _f"),
        ("a.json", "[]", "must hold at least one tool"),
        ("a.json", {"mcpServers": {}}, "tools/list"),
        ("a.json", [{"messages": []}], "rows of a data set"),
        ("a.json", "[" * 200_000, "nests too deep"),
        ("a.yaml", "a: [", "must be YAML"),
        ("a.json", {"openapi": "3.1.0", "paths": {f"/{n}": {"get": {}} for n in range(1_001)}}, "operations"),
        (
            "a.py",
            "\n".join(f"class C{n}:\n a: 'C{n + 1}'\n b: 'C{n + 1}'" for n in range(40)) + "\ndef f(c: C0): ...",
            "uses of a file's own types",
        ),
    ],
)
def test_an_error_names_the_file_and_the_remedy(tmp_path, name, content, message):
    path = tmp_path / name if content is None else write(tmp_path, name, content)
    with pytest.raises(FgtoolsError, match=message) as caught:
        load_tools(path)
    assert name in str(caught.value)


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(FgtoolsError, match="folder or a device"):
        load_tools(tmp_path / "a.json")


def test_yaml_that_repeats_itself_without_end_is_refused(tmp_path):
    pytest.importorskip("yaml")
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    with pytest.raises(SchemaError, match="values with their repetitions"):
        load_tools(write(tmp_path, "a.yaml", "\n".join(lines)))


@given(st.text(alphabet="Args:ParametersReturns \n-:()a,*@", max_size=80))
def test_any_docstring_is_read(text):
    parse_docstring(text)


@pytest.mark.parametrize("text", ["a" + " " * 100_000 + "x", ":param " + "a " * 50_000, "Args:\n" + "a (" * 50_000])
def test_hostile_docstrings_take_linear_time(text):
    parse_docstring(text)


@given(st.integers(0, len(SOURCE)))
def test_a_cut_file_is_read_or_refused(tmp_path_factory, end):
    path = write(tmp_path_factory.mktemp("cut"), "tools.py", SOURCE[:end])
    try:
        assert load_tools(path)
    except FgtoolsError as error:
        assert "tools.py" in str(error)


@pytest.mark.parametrize("text", ["not (Python\n" * 9, "", "x = 'y\n"])
def test_a_function_whose_file_has_changed_is_read_from_its_hints(tmp_path, text):
    path = tmp_path / "changed.py"
    path.write_text(text)
    lines = 'def f(a: int):\n    """Do.\n\n    Args:\n        a: A.\n    """\n'
    names = {}
    exec(compile(lines, str(path), "exec"), names)
    (tool,) = parse_functions([names["f"]]).tools
    assert tool["function"]["parameters"]["properties"]["a"]["type"] == "integer"
