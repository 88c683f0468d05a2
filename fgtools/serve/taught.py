"""Taught tools: what a training showed its model, kept beside the weights as tools.json.

Knows training rows, the names that rows replaced, and what the tokenizer's template hides; not an application's tools.
The same rows give the same file, in whatever order they come. The tools stand one a line, so that the file can be read
and compared.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgtools.files import DataFileError, read_json, sha256_of, write_text
from fgtools.profiles import DEVELOPER_TEXT, Recipe, get_recipe
from fgtools.prompts import probe_template
from fgtools.prompts.encode import longest_completion, token_budget
from fgtools.rows.remedies import Coverage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TAUGHT_FILE = "tools.json"
"""The file's name in the folder of a tuned model."""

FORMAT = 1
"""Version of the file's form; a reader refuses a newer one."""

REPLY_TOKENS = 128
"""Budget of a reply, in tokens, where there are no training rows to tell it."""


@dataclass(frozen=True)
class TaughtTool:
    """A tool as some training rows declared it.

    Attributes:
        shown: Training rows that declared it so.
        called: Those of them whose right answer calls it.
        place: Its first place among the tools of a row, from 0.
        tool: The function schema that the model saw.
        name: The name its author gave it.
        parameters: {new: old} for the parameters whose names were replaced.
    """

    shown: int
    called: int
    place: int
    tool: Mapping[str, Any]
    name: str
    parameters: Mapping[str, str]

    @property
    def taught_name(self) -> str:
        """The name under which the model knows it."""
        return str(self.tool["function"]["name"])


@dataclass(frozen=True)
class TaughtTools:
    """What a training showed its model, and how an application's tools are turned into what it would have shown.

    Attributes:
        rows: Training rows that the tools were collected from; 0: nothing is known of the training.
        most_tools: Largest number of tools that one of them declared.
        reply_tokens: Budget of a reply in tokens, from the longest right answer.
        recipe: Name of the recipe.
        call_style: Grammar of the calls, "native" or "tutorial".
        developer: Text of the developer turn: that of more than half of the rows, or else FunctionGemma's own sentence.
        coverage: What the template hides and the training showed in another way; empty where it showed tools as the
            template does.
        tools: Every tool in every form in which rows declared it, by name; of one name, the form of most rows first.
    """

    rows: int
    most_tools: int
    reply_tokens: int
    recipe: str
    call_style: str
    developer: str
    coverage: Coverage
    tools: tuple[TaughtTool, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of tools.json, but for the hashes of what it was made from."""
        hidden = self.coverage
        tools = [
            {
                "shown": one.shown,
                "called": one.called,
                "place": one.place,
                "tool": one.tool,
                **({"name": one.name} if one.name != one.taught_name else {}),
                **({"parameters": one.parameters} if one.parameters else {}),
            }
            for one in self.tools
        ]
        facts = {name: value for name, value in vars(self).items() if name not in ("coverage", "tools")}
        hides = {"hidden_names": sorted(hidden.hidden_names), "hidden_facts": sorted(map(list, hidden.hidden_facts))}
        return {"format": FORMAT, **facts, **hides, "tools": tools}


def build_taught_tools(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, recipe: str | Recipe = "native"
) -> TaughtTools:
    """Collect the tools of training rows.

    Args:
        rows: Row dicts that were trained on; none: only what recipe and tokenizer say is known.
        tokenizer: The tokenizer of the model, with its chat template.
        recipe: The recipe of the training.

    Returns:
        The TaughtTools.
    """
    recipe = get_recipe(recipe)
    forms: dict[str, str] = {}  # by what makes two forms the same: the order of a tool's parameters does not
    places: dict[str, int] = {}
    shown, called, developers = Counter[str](), Counter[str](), Counter[str]()
    for row in rows:
        renamed = row.get("renamed", {})
        golds = {call["name"] for call in row["gold"]}
        developers[row["messages"][0]["content"]] += 1
        for place, tool in enumerate(row["tools"]):
            name = tool["function"]["name"]
            old = renamed.get("tools", {}).get(name, name)
            parameters = renamed.get("parameters", {}).get(name, {})
            form = [name, tool, old, parameters]
            key, text = (json.dumps(form, ensure_ascii=False, sort_keys=is_sorted) for is_sorted in (True, False))
            forms[key] = min(text, forms.get(key, text))
            places[key] = min(place, places.get(key, place))
            shown[key] += 1
            called[key] += name in golds
    parsed = {key: json.loads(text) for key, text in forms.items()}
    order = sorted(forms, key=lambda key: (parsed[key][0], -shown[key], key))
    developer, count = developers.most_common(1)[0] if developers else (DEVELOPER_TEXT, 1)
    return TaughtTools(
        rows=len(rows),
        most_tools=max((len(row["tools"]) for row in rows), default=0),
        reply_tokens=token_budget(longest_completion(rows, tokenizer, recipe)) if rows else REPLY_TOKENS,
        recipe=recipe.name,
        call_style=recipe.call_style,
        developer=developer if 2 * count > len(rows) else DEVELOPER_TEXT,
        coverage=probe_template(tokenizer) if recipe.apply_remedies else Coverage(),
        tools=tuple(TaughtTool(shown[key], called[key], places[key], *parsed[key][1:]) for key in order),
    )


def write_taught_tools(
    folder: str | Path,
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    recipe: str | Recipe = "native",
    left_out: Collection[str] = (),
    inputs: Sequence[Path] = (),
) -> Path:
    """Write tools.json into the folder of a tuned model.

    Args:
        folder: The folder.
        rows: The rows that were given to the training.
        tokenizer: The model's tokenizer.
        recipe: The recipe of the training.
        left_out: Ids of the rows that it left out, as TrainResult has them.
        inputs: Files the rows come from; their sha256 are kept.

    Returns:
        The path of the file.
    """
    trained = [row for row in rows if row.get("row_id") not in set(left_out)] if left_out else rows
    facts = build_taught_tools(trained, tokenizer, recipe).to_dict()
    lines = [json.dumps(tool, ensure_ascii=False, allow_nan=False) for tool in facts.pop("tools")]
    facts["inputs"] = {path.name: sha256_of(path) for path in inputs}
    head = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in facts.items()]
    text = ",\n".join([*head, '"tools": [\n' + ",\n".join(lines) + "\n]"])
    return write_text(Path(folder) / TAUGHT_FILE, f"{{\n{text}\n}}\n")


def load_taught_tools(folder: str | Path) -> TaughtTools | None:
    """Read the tools.json of a model's folder.

    Args:
        folder: The folder.

    Returns:
        The TaughtTools; None where the folder has no such file, as those of models that other programs saved.

    Raises:
        DataFileError: The file is not what `write_taught_tools` writes; the message names the field.
    """
    path = Path(folder) / TAUGHT_FILE
    if not path.is_file():
        return None
    value = read_json(path)
    if value.get("format") != FORMAT:
        raise DataFileError(
            f"{path} must have format {FORMAT}, got {value.get('format')!r}: install the version of fgtools that wrote "
            "it, or train the model again"
        )
    kinds = {"rows": int, "most_tools": int, "reply_tokens": int, "recipe": str, "call_style": str, "developer": str}
    for name, kind in {**kinds, "hidden_names": list, "hidden_facts": list, "tools": list}.items():
        if not isinstance(value.get(name), kind):
            raise _malformed(path, f"{name} must be of type {kind.__name__}, got {repr(value.get(name))[:60]}")
    if value["call_style"] not in ("native", "tutorial"):
        raise _malformed(path, f"call_style must be 'native' or 'tutorial', got {value['call_style']!r}")
    if not all(isinstance(fact, list) and len(fact) == 2 for fact in value["hidden_facts"]):
        raise _malformed(path, "hidden_facts must be pairs of a type and a keyword")
    coverage = Coverage(frozenset(value["hidden_names"]), frozenset(map(tuple, value["hidden_facts"])))
    tools = tuple(_parse_tool(entry, path, number) for number, entry in enumerate(value["tools"], start=1))
    return TaughtTools(**{name: value[name] for name in kinds}, coverage=coverage, tools=tools)


def _parse_tool(entry: Any, path: Path, number: int) -> TaughtTool:
    """Return the tool of an entry of the file's list."""
    try:
        tool = entry["tool"]
        name, parameters = entry.get("name", tool["function"]["name"]), entry.get("parameters", {})
        dict(tool["function"]["parameters"] or {})
        counts = (int(entry[word]) for word in ("shown", "called", "place"))
        found = TaughtTool(*counts, tool, name, dict(parameters))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed(path, f"tool {number} lacks a part or holds a wrong one ({error!r})") from error
    if not isinstance(name, str) or not isinstance(found.tool["function"]["name"], str):
        raise _malformed(path, f"the name of tool {number} must be text, got {name!r}")
    return found


def _malformed(path: Path, what: str) -> DataFileError:
    return DataFileError(f"{path}: {what}: take the file from the model's own training, or train it again")
