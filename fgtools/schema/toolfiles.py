"""Files of tools: Python functions, JSON, JSON lines, what an MCP server lists, OpenAPI documents.

Knows files and their contents; a Python file is read, never run. What one definition says is for `tools`.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
import tokenize
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fgtools.calls import Problem
from fgtools.files import DataFileError, name_file, read_text
from fgtools.schema.annotations import Scope
from fgtools.schema.limits import SchemaError, require_at_most
from fgtools.schema.openapi import Operations, is_openapi
from fgtools.schema.signatures import describe_function
from fgtools.schema.tools import Change, ParsedTools, parse_tools

SUFFIXES = (".py", ".json", ".jsonl", ".ndjson", ".yaml", ".yml")

MAX_FILE = 20_000_000
"""Largest file of tools, in bytes; the largest published OpenAPI documents have about half of it."""

MAX_VALUES = 2_000_000
"""Most values in a file, counted wherever YAML repeats them: a short file can repeat one without end."""

_ROW_WORDS = ("messages", "conversations", "query", "request", "question")


def load_tools(path: str | Path) -> list[dict[str, Any]]:
    """Read the tools of a file.

    Args:
        path: A Python file with typed functions (not run); JSON or JSON lines with tools in any notation of
            `normalize_tools`, such as what an MCP server's tools/list returns; or an OpenAPI 3 or Swagger 2 document in
            JSON or YAML.

    Returns:
        Function schemas in normal form, in the order of the file; at least one.

    Raises:
        DataFileError: The file is missing, has another suffix, or cannot be parsed.
        SchemaError: It holds no tools, or exceeds a limit.
    """
    return list(parse_tool_file(path).tools)


def parse_tool_file(path: str | Path) -> ParsedTools:
    """Read the tools of a file as `load_tools` does, and report what was left out and what was changed.

    Args:
        path: As for `load_tools`.

    Returns:
        The tools, problems and changes. Further kinds of problems: private_function and method (no tools),
        replaced_function (a later one has its name), variable_arguments (*args, **kwargs); of an OpenAPI document
        name_clash (a name was taken, so that another stands for it) and parameter_left_out (a cookie, a read-only
        field).

    Raises:
        DataFileError: As for `load_tools`.
        SchemaError: As for `load_tools`.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataFileError(f"a file of tools must end in one of {', '.join(SUFFIXES)}, got {path}")
    if path.exists() and not path.is_file():
        raise DataFileError(f"{path} must be a file of tools, but it is a folder or a device: name the file")
    if path.is_file():
        with name_file(path, "read"):
            require_at_most(MAX_FILE, path.stat().st_size, f"bytes of the file {path}")
    text = read_text(path)
    try:
        parsed = _parse_python(text, path) if path.suffix.lower() == ".py" else _parse_values(_load(text, path))
    except SchemaError as error:
        raise type(error)(f"{path}: {error}") from error
    except RecursionError as error:
        raise SchemaError(f"{path}: nests too deep to be parsed: flatten it") from error
    if not parsed.tools:
        said = "; ".join(f"{problem.kind}: {problem.detail}" for problem in parsed.problems[:3])
        raise SchemaError(
            f"{path} must hold at least one tool, but none was found{f' ({said})' if said else ''}: a tool is a "
            "function at the top of a Python file whose name does not begin with _, a definition with a name, or an "
            "operation of an interface"
        )
    return parsed


def parse_functions(functions: Sequence[Callable[..., Any] | Mapping[str, Any]]) -> ParsedTools:
    """Read Python functions as `parse_tool_file` reads the file that they are written in.

    Defaults become part of their schemas so, which transformers' get_json_schema leaves out. A function without source
    text, such as a built-in one, is read by get_json_schema.

    Args:
        functions: Functions with type hints, which are not run; definitions among them are parsed as they are.

    Returns:
        Their tools, in order, and the problems of `parse_tools`.

    Raises:
        SchemaError: A function without source text cannot be read by get_json_schema either.
    """
    definitions: list[Any] = []
    for function in functions:
        found = _find_source(function)
        definitions.append(function if found is None else describe_function(*found))
    return parse_tools(definitions)


def _find_source(function: Any) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef, Scope] | None:
    """Return a function's node with the scope of its module, or of itself where the module has no source text."""
    inner = inspect.unwrap(function)
    module, name = inspect.getmodule(inner), getattr(inner, "__name__", "")
    for source in (module, inner):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(textwrap.dedent(inspect.getsource(source)))  # type: ignore[arg-type]
        except (OSError, TypeError, SyntaxError, ValueError, tokenize.TokenError):
            continue
        line = inner.__code__.co_firstlineno if source is module and hasattr(inner, "__code__") else 1
        for node in tree.body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name != name:
                continue
            if line in (node.lineno, *(one.lineno for one in node.decorator_list)) or source is inner:
                return node, Scope(tree)
    return None


def _load(text: str, path: Path) -> Any:
    """Return the value of a JSON, JSON-lines or YAML file."""
    if path.suffix.lower() in (".yaml", ".yml"):
        return _load_yaml(text, path)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise SchemaError("nests too deep to be parsed: flatten it") from error
    except ValueError as error:
        if not str(error).startswith("Extra data"):
            raise DataFileError(f"{path} must be JSON, but {error}: correct it") from error
    values = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DataFileError(f"{path}, line {number}: must be JSON, but {error}: correct it") from error
    return values


def _load_yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise DataFileError(f"{path}: reading YAML needs pyyaml: pip install pyyaml, or save it as JSON") from error
    try:
        value = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError) as error:
        raise DataFileError(f"{path} must be YAML, but {' '.join(str(error).split())}: correct it") from error
    waiting, count = [value], 0
    while waiting:
        one = waiting.pop()
        count += 1
        require_at_most(MAX_VALUES, count, "values with their repetitions")
        if isinstance(one, Mapping):
            waiting.extend(one.values())
        elif isinstance(one, (list, tuple)):
            waiting.extend(one)
    return value


def _parse_values(value: Any) -> ParsedTools:
    if is_openapi(value):
        found = Operations(value)
        return ParsedTools(tuple(found.tools), tuple(found.problems), tuple(Change(*one) for one in found.changes))
    if isinstance(value, Mapping) and "mcpServers" in value:
        raise SchemaError("this is a list of MCP servers, not of tools: save what a server's tools/list returns")
    rows = value if isinstance(value, list) else [value]
    if rows and isinstance(rows[0], Mapping) and any(word in rows[0] for word in _ROW_WORDS) and "name" not in rows[0]:
        raise SchemaError("this holds rows of a data set, not tools: pass it as the data, and the tools by themselves")
    return parse_tools(value)


def _parse_python(text: str, path: Path) -> ParsedTools:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of odd backslashes
            tree = ast.parse(text)
    except (SyntaxError, ValueError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise DataFileError(f"{path}{line}: must be Python, but {getattr(error, 'msg', error)}: correct it") from error
    scope, problems = Scope(tree), []
    listed = _exported_names(scope)
    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name not in listed if listed is not None else node.name.startswith("_"):
                problems.append(Problem("private_function", node.name[:80]))
                continue
            if functions.pop(node.name, None) is not None:
                problems.append(Problem("replaced_function", node.name[:80]))
            functions[node.name] = node
        elif isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))]
            problems += [Problem("method", f"{node.name}.{one.name}"[:80]) for one in methods]
    definitions = []
    for name, node in functions.items():
        extra = [argument.arg for argument in (node.args.vararg, node.args.kwarg) if argument is not None]
        problems += [Problem("variable_arguments", f"{name}: {argument}"[:80]) for argument in extra]
        definitions.append(describe_function(node, scope))
    parsed = parse_tools(definitions)
    return ParsedTools(parsed.tools, (*problems, *parsed.problems), parsed.changes)


def _exported_names(scope: Scope) -> set[str] | None:
    """Return the names in `__all__`; None where the file has none."""
    try:
        return set(ast.literal_eval(scope.values["__all__"]))
    except (KeyError, ValueError, TypeError, SyntaxError):
        return None
