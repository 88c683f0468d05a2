"""The parameters of the notebooks: which each declares, and how a text becomes a value of the declared type.

Knows the cell tagged `parameters`, where each line is `NAME: type = default  # comment`; not what a parameter does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgtools.files import FgtoolsError

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class ParameterError(FgtoolsError, ValueError):
    """A parameter is unknown, or its value is not of the declared type; the message names all three."""


def list_parameters(notebook: Path) -> dict[str, str]:
    """Return the type of each parameter that a notebook declares, by name."""
    import papermill

    return {name: one["inferred_type_name"] for name, one in papermill.inspect_notebook(str(notebook)).items()}


def assign_parameters(
    stages: Sequence[str], given: Mapping[str, Any], folder: Path
) -> dict[str, dict[str, bool | int | float | str | list[Any]]]:
    """Return for each stage the parameters that it declares, with values of the declared types.

    Args:
        stages: The stages that will run.
        given: Values by parameter name; texts, as a command line has them, are parsed.
        folder: Where the notebooks lie.

    Returns:
        Values by parameter name, by stage.

    Raises:
        ParameterError: No stage that will run declares a name, or a value does not fit its type.
    """
    declared = {stage: list_parameters(folder / f"{stage}.ipynb") for stage in stages}
    known = sorted({name for names in declared.values() for name in names})
    for name in given:
        if name not in known:
            raise ParameterError(f"{name!r} is not a parameter of {', '.join(stages)}: they take {', '.join(known)}")
    return {
        stage: {name: parse_value(name, given[name], kind) for name, kind in names.items() if name in given}
        for stage, names in declared.items()
    }


def parse_value(name: str, value: Any, kind: str) -> bool | int | float | str | list[Any]:
    """Return a parameter's value in the type that its notebook declares.

    Args:
        name: The parameter.
        value: A text of the command line; any other value is taken as its JSON text, so that 3 may be a float.
        kind: "str" (the text as it stands), "int" (digits), "float" (finite), "bool" (true, false, yes, no, 1, 0 in
            upper or lower case) or "list" (JSON).

    Returns:
        The value.

    Raises:
        ParameterError: The value does not fit the type.
    """
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        if kind == "str":
            return text
        if kind == "int":
            return int(text)
        if kind == "float" and math.isfinite(number := float(text)):
            return number
        if kind == "bool":
            return _TRUTH[text.strip().lower()]
        if kind == "list" and isinstance(items := json.loads(text), list):
            return items
    except (ValueError, KeyError, RecursionError):
        pass  # said below, for every type alike
    examples = {"int": "20", "float": "0.5", "bool": "True or False", "list": "[15, 25]"}
    raise ParameterError(f"{name} must be of type {kind}, such as {examples.get(kind, 'none')}, got {text!r}")
