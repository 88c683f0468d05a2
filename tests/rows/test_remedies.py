"""Remedies: what a template hides is said or renamed, nothing is lost, and doing it twice changes nothing."""

import copy

from fgtools.calls import row_calls
from fgtools.prompts import probe_template, render_prompt
from fgtools.prompts.template import find_hidden_names
from fgtools.rows import build_rows
from fgtools.rows.remedies import Coverage, apply_remedies
from fgtools.serve import restore_calls

TOOLS = [
    {
        "name": "search",
        "description": "Finds things.",
        "parameters": {
            "type": "object",
            "properties": {
                "type": {"type": "string", "description": "What kind."},
                "limit": {"type": "integer", "description": "How many.", "default": 5, "minimum": 1, "maximum": 50},
                "size": {"type": "integer", "enum": [1, 2]},
                "unit": {"type": "string", "enum": ["c", "f"], "default": "c", "description": "The default is c."},
                "when": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
            },
            "required": ["type"],
        },
    }
]


def one_row(arguments):
    call = {"from": "gpt", "value": f'<tool_call>{{"name": "search", "arguments": {arguments}}}</tool_call>'}
    raw = {"conversations": [{"from": "human", "value": "Find."}, call], "tools": TOOLS}
    return build_rows([raw]).rows[0]


def test_the_probe_finds_what_the_official_template_drops(coverage):
    """Source: FunctionGemma's template; parameters of these names vanish, and of all enums strings' alone are shown."""
    assert coverage.hidden_names == {"description", "nullable", "properties", "required", "type"}
    kinds = {kind for kind, word in coverage.hidden_facts if word == "enum"}
    assert kinds == {"integer", "number", "boolean", "array", "object", "null"}
    assert {kind for kind, word in coverage.hidden_facts if word == "default"} == kinds | {"string"}
    assert not any(word == "description" for _, word in coverage.hidden_facts)


def test_a_template_that_shows_everything_hides_nothing(tokenizer):
    honest = copy.deepcopy(tokenizer)
    honest.chat_template = (
        "{{ bos_token }}{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}type default enum"
    )
    assert probe_template(honest) == Coverage(frozenset(), frozenset())
    honest.chat_template = honest.chat_template.replace("tool | tojson", "tool['function']['name']")
    assert find_hidden_names(["anything"], honest) == {"anything"}


def test_hidden_facts_are_said_and_hidden_names_replaced(coverage):
    row = one_row('{"type": "book", "limit": 3}')
    before = copy.deepcopy(row)
    mended, applied = apply_remedies(row, coverage)
    properties = mended["tools"][0]["function"]["parameters"]["properties"]
    assert {name: spec.get("description") for name, spec in properties.items()} == {
        "type_": "What kind.",
        "limit": "How many. (default 5; at least 1; at most 50)",
        "size": "(one of 1, 2)",
        "unit": "The default is c.",  # it says so itself
        "when": "(string or integer; may be null)",
    }
    assert properties["limit"]["default"] == 5 and properties["size"]["enum"] == [1, 2]  # scoring goes by these
    assert mended["tools"][0]["function"]["parameters"]["required"] == ["type_"]
    assert mended["gold"] == [{"name": "search", "arguments": {"type_": "book", "limit": 3}}]
    assert applied["parameter_renamed"] == 1 and applied["default_described"] == 1
    assert row == before


def test_the_authors_names_come_back(coverage):
    row = one_row('{"type": "book"}')
    mended, _ = apply_remedies(row, coverage)
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in mended["tools"]}
    assert restore_calls(row_calls(mended), mended["renamed"], schemas) == list(row_calls(row))


def test_doing_it_twice_changes_nothing(coverage):
    mended, _ = apply_remedies(one_row('{"type": "book"}'), coverage)
    assert apply_remedies(mended, coverage) == (mended, {})


def test_afterwards_the_prompt_shows_every_argument_of_the_gold(coverage, tokenizer):
    row = one_row('{"type": "book", "limit": 3}')
    assert "type_:" not in render_prompt(row["messages"], row["tools"], tokenizer)
    mended, _ = apply_remedies(row, coverage)
    text = render_prompt(mended["messages"], mended["tools"], tokenizer)
    assert all(f"{name}:{{" in text for name in mended["gold"][0]["arguments"])


def test_nothing_hidden_leaves_the_row_itself():
    row = one_row('{"type": "book"}')
    assert apply_remedies(row, Coverage())[0] is row


def test_the_calls_of_earlier_turns_get_the_new_names_too(coverage):
    row = one_row('{"type": "book"}')
    call = {"type": "function", "function": {"name": "search", "arguments": {"type": "map", "limit": 3}}}
    other = {"type": "function", "function": {"name": "other", "arguments": {"type": "map"}}}
    result = {"role": "tool", "name": "search", "content": {"type": "map"}}
    row["messages"] = [*row["messages"], {"role": "assistant", "content": "", "tool_calls": [call, other]}, result]
    before = copy.deepcopy(row)
    mended, _ = apply_remedies(row, coverage)
    *_, calling, last = mended["messages"]
    assert [one["function"]["arguments"] for one in calling["tool_calls"]] == [
        {"type_": "map", "limit": 3},
        {"type": "map"},
    ]
    assert (last, row) == (result, before)
