"""Parameters: read by the type that the notebook declares, or refused with name, type and value."""

import nbformat
import pytest

from fgtools.run.parameters import ParameterError, assign_parameters, list_parameters, parse_value


def write_notebook(folder, stage, parameters):
    cell = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(notebook, folder / f"{stage}.ipynb")


@pytest.fixture
def folder(tmp_path):
    write_notebook(tmp_path, "01", 'NAME: str = ""  # a\nN: int = 1  # b\nSHARE: float = 0.5  # c')
    write_notebook(tmp_path, "02", "N: float = 1.0  # b\nON: bool = False  # d\nSHOWN: list = [1]  # e")
    return tmp_path


def test_the_declared_types_are_found(folder):
    assert list_parameters(folder / "01.ipynb") == {"NAME": "str", "N": "int", "SHARE": "float"}
    assert list_parameters(folder / "02.ipynb") == {"N": "float", "ON": "bool", "SHOWN": "list"}


def test_each_stage_gets_the_parameters_it_declares_in_its_own_types(folder):
    given = {"NAME": "1e10", "N": "3", "ON": "False", "SHOWN": "[2]"}
    assigned = assign_parameters(("01", "02"), given, folder)
    assert assigned == {"01": {"NAME": "1e10", "N": 3}, "02": {"N": 3.0, "ON": False, "SHOWN": [2]}}
    assert type(assigned["01"]["N"]) is int and type(assigned["02"]["N"]) is float


def test_an_unknown_parameter_is_named_with_those_that_there_are(folder):
    with pytest.raises(ParameterError, match="'M' is not a parameter of 01, 02: they take N, NAME, ON, SHARE, SHOWN"):
        assign_parameters(("01", "02"), {"M": "1"}, folder)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        *(("bool", word, True) for word in ("true", "True", "TRUE", "1", "yes", True)),
        *(("bool", word, False) for word in ("false", "False", "0", "no", "No", False)),
        *(("str", word, word) for word in ("1e10", "20240101", "true", "null", "", "[1]", '"a"')),
        ("str", 20240101, "20240101"),
        *(("int", word, -3) for word in ("-3", " -3 ", -3)),
        *(("float", word, 1000.0) for word in ("1e3", "1000", 1000, 1000.0)),
        *(("list", word, [15, 25]) for word in ("[15, 25]", [15, 25])),
    ],
)
def test_a_value_has_the_declared_type(kind, text, value):
    parsed = parse_value("X", text, kind)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(("bool", word) for word in ("maybe", "", "2", "None", 3)),
        *(("int", word) for word in ("1e3", "3.0", "three", "", "true", True, None, 3.5)),
        *(("float", word) for word in ("inf", "-inf", "nan", "1e999", "half", "", True, None)),
        *(("list", word) for word in ("15, 25", "15", "{}", "[15", "[" * 100_000, 15)),
        *(("dict", word) for word in ("{}",)),
    ],
)
def test_what_does_not_fit_is_refused_with_name_type_and_value(kind, text):
    with pytest.raises(ParameterError) as caught:
        parse_value("N_TOTAL", text, kind)
    message = str(caught.value)
    expected = {"bool": "True or False", "int": "a whole number", "float": "a finite number", "list": "a list as JSON"}
    assert (
        message.startswith(f"N_TOTAL must be {expected.get(kind, f'of type {kind}, which')}") and ", got '" in message
    )
