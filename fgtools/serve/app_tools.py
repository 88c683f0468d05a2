"""An application's tools as the model was taught them, and the names that its calls get back.

Knows tool definitions in any notation, the names of taught tools, and the remedies that rows got; no model and no
messages. A tool is turned into a taught one by the steps that training rows went through: the same normal form, the
same names for what the call grammar or the template cannot carry, the same words for what the template hides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fgtools.calls import Problem, ToolCall, is_writable
from fgtools.files import InputError
from fgtools.rows.remedies import apply_remedies
from fgtools.schema import ParsedTools, parse_functions, parse_tool_file, parse_tools
from fgtools.schema.names import parameter_names, rename_arguments, rename_parameters, replace_tool_names
from fgtools.schema.toolfiles import SUFFIXES
from fgtools.schema.tutorial import normalize_tutorial_tools
from fgtools.serve.taught import TAUGHT_FILE, TaughtTool, TaughtTools

MAX_TAKEN = 100
"""Tools that are taken from a model's folder when none are named: more make a prompt longer than any training row."""


class AmbiguousToolError(InputError):
    """Two tools would have the same name for the model; the message names both."""


@dataclass(frozen=True)
class AppTools:
    """An application's tools, as it declares them and as the model sees them.

    Attributes:
        declared: Function schemas in normal form, under the application's own names.
        shown: The same tools as the model was taught them.
        renamed: {"tools": {new: old}, "parameters": {tool, by its new name: {new: old}}}.
        untaught: The application's names of tools that no training row declared; () where the training is not known.
        notes: What an application should know. Kinds: no_taught_tools (the folder does not say what was taught),
            untaught_tool, changed_tool (taught under this name, with another declaration), several_schemas (taught in
            several forms), more_tools (more at once than any training row had), and those of ParsedTools for
            definitions that were left out.
    """

    declared: tuple[Mapping[str, Any], ...]
    shown: tuple[Mapping[str, Any], ...]
    renamed: Mapping[str, Any]
    untaught: tuple[str, ...]
    notes: tuple[Problem, ...]

    @property
    def new_names(self) -> dict[str, str]:
        """The model's name of every tool that has another one, by the application's name."""
        return {old: new for new, old in self.renamed["tools"].items()}


def prepare_tools(tools: Any, taught: TaughtTools) -> AppTools:
    """Turn an application's tools into taught ones.

    Args:
        tools: Whatever `normalize_tools` takes, such as Python functions, schemas or an MCP server's list; the path of
            a file that `load_tools` reads; a list of names of taught tools; None for all taught tools.
        taught: What the training showed.

    Returns:
        The AppTools.

    Raises:
        InputError: There are no tools, two have one name, a name is not that of a taught tool, or None is given and
            the folder holds none, or more than MAX_TAKEN.
        AmbiguousToolError: Two tools would have the same name for the model.
        SchemaError: The tools cannot be read.
    """
    parsed = _parse(tools, taught)
    declared = parsed.tools
    names = [tool["function"]["name"] for tool in declared]
    conflicts = [problem.detail for problem in parsed.problems if problem.kind == "conflicting_tool"]
    if conflicts:
        raise AmbiguousToolError(f"tools must have different names, but two are called {conflicts[0]!r}: rename one")
    if not declared:
        said = "; ".join(f"{problem.kind}: {problem.detail}" for problem in parsed.problems[:3])
        raise InputError(f"there must be at least one tool, got none{f' ({said})' if said else ''}: give tools")
    native = taught.call_style == "native"
    new_names = _choose_names(names, taught) if native else {}
    row: dict[str, Any] = {"messages": [], "gold": [], "tools": [_with_name(one, new_names) for one in declared]}
    row, _ = apply_remedies(row, taught.coverage)
    renamed = {
        "tools": {new: old for old, new in new_names.items()},
        "parameters": row.get("renamed", {}).get("parameters", {}),
    }
    untaught, notes = _compare(names, row["tools"], taught)
    unread = [Problem(problem.kind, problem.detail) for problem in parsed.problems]
    return AppTools(tuple(declared), tuple(row["tools"]), renamed, untaught, (*unread, *notes))


def _parse(tools: Any, taught: TaughtTools) -> ParsedTools:
    """Return an application's tools in the normal form of the recipe."""
    if tools is None:
        return _take_all(taught)
    names = {name for one in taught.tools for name in (one.name, one.taught_name)}
    if _is_list_of_names(tools, names):
        unknown = [name for name in tools if name not in names]
        if unknown:
            close = get_close_matches(unknown[0], names, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else "give its schema"
            raise InputError(f"tools must be names of taught tools, but none is called {unknown[0]!r}: {hint}")
        return ParsedTools(tuple(_restore_tool(_find_forms(name, taught)[0]) for name in dict.fromkeys(tools)), ())
    if isinstance(tools, Path) or _is_path(tools):
        parsed = parse_tool_file(tools)
    elif callable(tools) or (isinstance(tools, (list, tuple)) and any(map(callable, tools))):
        parsed = parse_functions([tools] if callable(tools) else tools)
    elif taught.call_style == "tutorial" and _is_list_of_bare(tools):
        return ParsedTools(tuple(normalize_tutorial_tools(tools)), ())
    else:
        parsed = parse_tools(tools)
    if taught.call_style == "native":
        return parsed
    return parsed._replace(tools=tuple(normalize_tutorial_tools([tool["function"] for tool in parsed.tools])))


def _is_list_of_names(tools: Any, names: set[str]) -> bool:
    """Return whether tools are given by their taught names; a list of texts that holds a definition is none."""
    if not isinstance(tools, (list, tuple)) or not tools or not all(isinstance(one, str) for one in tools):
        return False
    return any(one in names for one in tools) or all(one.replace("_", "").replace(".", "").isalnum() for one in tools)


def _is_path(tools: Any) -> bool:
    return isinstance(tools, str) and Path(tools).suffix.lower() in SUFFIXES and not set(tools) & set("{[(\n")


def _is_list_of_bare(tools: Any) -> bool:
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            return False
    return isinstance(tools, list) and all(
        isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in tools
    )


def _take_all(taught: TaughtTools) -> ParsedTools:
    first = {one.name: one for one in reversed(taught.tools)}  # of one name, the form of most rows
    if not first:
        raise InputError(f"tools must be given, since the model's folder holds no {TAUGHT_FILE} with any: pass tools=")
    if len(first) > MAX_TAKEN:
        raise InputError(
            f"the training showed {len(first):,} tools, of which at most {MAX_TAKEN} fit a prompt: pass those of the "
            f"application, or the names of some, such as tools={sorted(first)[:2]}"
        )
    return ParsedTools(
        tuple(_restore_tool(one) for one in sorted(first.values(), key=lambda one: (one.place, one.name))), ()
    )


def _restore_tool(taught: TaughtTool) -> dict[str, Any]:
    """Return a taught tool under its author's names; words that were added to descriptions stay."""
    function = taught.tool["function"]
    parameters = rename_parameters(function.get("parameters") or {}, taught.parameters)
    return {**taught.tool, "function": {**function, "name": taught.name, "parameters": parameters}}


def _find_forms(name: str, taught: TaughtTools) -> list[TaughtTool]:
    """Return the taught forms of a tool by its author's name, or else by its taught name; that of most rows first."""
    found = [one for one in taught.tools if one.name == name] or [
        one for one in taught.tools if one.taught_name == name
    ]
    return sorted(found, key=lambda one: -one.shown)


def _choose_names(names: Sequence[str], taught: TaughtTools) -> dict[str, str]:
    """Return the model's name of every tool whose own name the call grammar cannot carry, as training chose it."""
    taken = {name: name for name in names if is_writable(name)}
    chosen: dict[str, str] = {}
    unknown = []
    for name in names:
        if is_writable(name):
            continue
        known = list(dict.fromkeys(one.taught_name for one in _find_forms(name, taught) if one.name == name))
        free = [one for one in known if one not in taken]
        if known and not free:
            raise AmbiguousToolError(
                f"the model knows {name!r} as {known[0]!r}, but so it knows {taken[known[0]]!r}: rename one of the "
                "two, or give them to two callers"
            )
        if known:
            chosen[name] = free[0]
            taken[free[0]] = name
        else:
            unknown.append(name)
    replaced = replace_tool_names([*taken, *unknown])
    return chosen | {old: new for new, old in replaced.items()}


def _with_name(tool: Mapping[str, Any], new_names: Mapping[str, str]) -> Mapping[str, Any]:
    function = tool["function"]
    name = function["name"]
    return {**tool, "function": {**function, "name": new_names[name]}} if name in new_names else tool


def _compare(
    names: Sequence[str], shown: Sequence[Mapping[str, Any]], taught: TaughtTools
) -> tuple[tuple[str, ...], list[Problem]]:
    """Return the names of untaught tools, and notes on what differs from the training."""
    if not taught.tools:
        text = f"the folder holds no {TAUGHT_FILE}: tools are taught as given, if the training declared them so"
        return (), [Problem("no_taught_tools", text)]
    untaught, notes = [], []
    for name, tool in zip(names, shown, strict=True):
        forms = [one for one in taught.tools if one.taught_name == tool["function"]["name"]]
        if not forms:
            untaught.append(name)
            notes.append(Problem("untaught_tool", f"{name}: no training row declared it"))
            continue
        if not any(one.tool == tool for one in forms):
            notes.append(Problem("changed_tool", f"{name}: {_describe_change(tool, forms[0].tool)}"))
        if len(forms) > 1:
            same = sum(one.shown for one in forms if one.tool == tool)
            rows = sum(one.shown for one in forms)
            notes.append(
                Problem("several_schemas", f"{name}: taught in {len(forms)} forms, this one in {same} of {rows} rows")
            )
    if len(shown) > taught.most_tools:
        text = f"{len(shown)} tools at once, where a training row had {taught.most_tools} at most"
        notes.append(Problem("more_tools", text))
    return tuple(untaught), notes


def _describe_change(tool: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    now, then = (parameter_names(one["function"].get("parameters")) for one in (tool, before))
    if now == then:
        return "its description, or the type or words of a parameter, differ from those it was taught with"
    parts = [("has no longer", then - now), ("has gained", now - then)]
    said = [f"{words} {', '.join(sorted(found))}" for words, found in parts if found]
    return f"since it was taught, it {' and '.join(said)}"[:200]


def restore_calls(
    calls: Iterable[ToolCall], renamed: Mapping[str, Any], parameters: Mapping[str, Mapping[str, Any]]
) -> list[ToolCall]:
    """Restore the original names in calls that a model made.

    Args:
        calls: The calls.
        renamed: A row's `renamed`: {"tools": {new: old}, "parameters": {tool, by its new name: {new: old}}}.
        parameters: Parameters schemas by tool name: as the model saw them, or as the author declared them; the tool's
            name may be the new or the old one.

    Returns:
        The calls as the author's own tools take them, in the same order.

    Raises:
        InputError: Parameters of a called tool were renamed, and its schema is not given, or is that of another tool.
    """
    restored = []
    for call in calls:
        name = renamed.get("tools", {}).get(call.name, call.name)
        arguments = call.arguments
        if new_to_old := renamed.get("parameters", {}).get(call.name, {}):
            schema = _find_shown(call.name, parameters.get(call.name, parameters.get(name)), new_to_old)
            arguments = rename_arguments(arguments, schema, new_to_old)
        restored.append(ToolCall(name, arguments))
    return restored


def _find_shown(name: str, schema: Any, new_to_old: Mapping[str, str]) -> Mapping[str, Any]:
    """Return a tool's schema under the names that the model saw, whichever names it is given with."""
    given = parameter_names(schema)
    if given >= set(new_to_old):
        return schema
    if given >= set(new_to_old.values()) and not given & set(new_to_old):
        return rename_parameters(schema, {old: new for new, old in new_to_old.items()})
    raise InputError(
        f"the schema of {name!r} must declare {', '.join(new_to_old)}, or by their authors' names "
        f"{', '.join(new_to_old.values())}, got {', '.join(sorted(given)) or 'none'}: pass the tools of the call's row"
    )


def list_parameters(tools: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the parameters schemas of function schemas by tool name."""
    return {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
