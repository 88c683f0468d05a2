"""The parameters of the notebooks: which each declares, and how a text becomes a value of the declared type.

Knows the cell tagged `parameters`, where each line is `NAME: type = default  # comment`; not what a parameter does.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgtools.files import FgtoolsError
from fgtools.profiles import ENGINES, OVER_LENGTH, PRECISIONS, PROFILES, RECIPES, TURNS

_KINDS = {
    "int": "a whole number, such as 20",
    "float": "a finite number, such as 0.5",
    "bool": "True or False",
    "list": "a list as JSON, such as [15, 25]",
}
"""What a value of a type must be, for people."""

_LEAST = {
    "N_EVAL": 1,
    **dict.fromkeys(("SEED", "N_TOTAL", "SHOW", "EPOCHS", "LEARNING_RATE", "BATCH_SIZE", "MAX_LENGTH", "PATIENCE"), 0),
    **dict.fromkeys(("LORA_RANK", "PROCESSES", "TIME_LIMIT", "MAX_NEW_TOKENS", "TUTORIAL_ROWS"), 0),
}
"""The least value of a parameter that is a number."""

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "PROFILE": ("auto", *PROFILES),
    "RECIPE": tuple(RECIPES),
    "TURNS": ("", *TURNS),
    "OVER_LENGTH": ("", *OVER_LENGTH),
    "PRECISION": ("auto", *PRECISIONS),
    "ENGINE": ("", *ENGINES),
    "TARGET": ("hub", "kaggle"),
}
"""The values of a parameter that is one of several words; "" stands for a default."""

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class ParameterError(FgtoolsError, ValueError):
    """A parameter is unknown, or its value is not of the declared type; the message names all three."""


def list_parameters(notebook: Path) -> dict[str, str]:
    """Return the type of each parameter that a notebook declares, by name."""
    import papermill

    return {name: one["inferred_type_name"] for name, one in papermill.inspect_notebook(str(notebook)).items()}


def list_all_parameters() -> set[str]:
    """Return the names of all parameters of the six notebooks."""
    from fgtools.run.notebooks import NOTEBOOKS

    return {name for path in sorted(NOTEBOOKS.glob("*.ipynb")) for name in list_parameters(path)}


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
        ParameterError: No stage that will run declares a name, or a value does not fit its type or is out of range.
    """
    declared = {stage: list_parameters(folder / f"{stage}.ipynb") for stage in stages}
    known = sorted({name for names in declared.values() for name in names})
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name.upper(), known, 1)
            meant = f"did you mean {near[0]}? They" if near else "they"
            raise ParameterError(f"{name!r} is not a parameter of {', '.join(stages)}: {meant} take {', '.join(known)}")
    assigned = {
        stage: {name: parse_value(name, given[name], kind) for name, kind in names.items() if name in given}
        for stage, names in declared.items()
    }
    for name, value in (pair for values in assigned.values() for pair in values.items()):
        require_range(name, value)
    return assigned


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
    raise ParameterError(f"{name} must be {_KINDS.get(kind, f'of type {kind}, which cannot be given')}, got {text!r}")


def require_range(name: str, value: Any) -> None:
    """Raise ParameterError for a value that no notebook can use: a number out of range, or an unknown choice."""
    least = _LEAST.get(name)
    if least is not None and not isinstance(value, str) and value < least:
        raise ParameterError(f"{name} must be at least {least}, got {value}")
    choices = _CHOICES.get(name)
    if choices and value not in choices:
        shown = ", ".join(repr(one) for one in choices if one)
        raise ParameterError(f"{name} must be one of {shown}, got {value!r}")
    if name == "TARGET_PRECISION" and not 0 < value <= 1:
        raise ParameterError(f"{name} must be a share above 0 and at most 1, such as 0.9, got {value}")
    if name == "NO_CALL_SHARE" and value > 1:
        raise ParameterError(f"{name} must be a share of at most 1, such as 0.3 for 30 %, got {value}")
