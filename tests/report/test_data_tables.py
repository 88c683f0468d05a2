"""Tables of the data: counts that add up, reasons with their rows, the audit's findings first."""

import math

from fgtools.prompts import Audit, audit_rows
from fgtools.prompts.audit import Lengths
from fgtools.prompts.checks import Check
from fgtools.report.data_tables import (
    HOLDS,
    build_audit_table,
    build_coverage_table,
    build_examples_table,
    build_funnel_by_table,
    build_funnel_table,
    build_parameters_table,
    build_split_table,
)
from fgtools.rows import Splits
from fgtools.rows.remedies import Coverage
from fgtools.schema.types import JSON_TYPES
from tests.report import four_rows


def test_the_funnel_adds_up():
    table = build_funnel_table({"kept": 3, "no_call": 1})
    assert table.values.tolist() == [["kept", 3, 0.75], ["no_call", 1, 0.25], ["all", 4, 1.0]]
    assert math.isnan(build_funnel_table({"kept": 0})["share"][1])
    names = [list(build_funnel_table({"kept": 3, "no_call": 1}, n_raw).columns)[1] for n_raw in (0, 4, 2)]
    assert names == ["rows", "rows", "answers"]


def test_tables_of_data_show_counts_and_examples():
    by = build_funnel_by_table({"a": {"kept": 2, "no_call": 1}, "": {"kept": 1}}, "source")
    assert list(by.columns) == ["source", "rows", "kept", "no_call"]
    assert by.values.tolist() == [["a", 3, 2, 1], ["(none)", 1, 1, 0]]
    examples = build_examples_table({"no_call": [{"row_id": "r", "detail": "d"}]})
    assert examples.values.tolist() == [["no_call", "r", "d"]]
    coverage = Coverage(frozenset({"type"}), frozenset({("string", "default"), ("string", "format")}))
    hidden = build_coverage_table(coverage, {"default_described": 4, "parameter_renamed": 2})
    assert hidden.values.tolist() == [
        ["parameters named", "type", "2 renamed"],
        ["default", "string", "4 said in the description"],
        ["also", "format", "nothing to say in these rows"],
    ]


def test_every_parameter_of_every_tool_is_a_row():
    schema = {"properties": {"a": {"type": "string"}, "b": {"enum": [1]}, "c": True}, "required": ["b"]}
    tools = [{"function": {"name": name, "parameters": one}} for name, one in (("f", schema), ("g", {}))]
    rows = build_parameters_table(tools).astype(object).where(lambda frame: frame.notna(), None).values.tolist()
    assert rows == [["f", "a", "string", False], ["f", "b", None, True], ["f", "c", None, False]]


def test_what_is_hidden_of_every_type_is_said_in_short_and_the_commonest_remedy_first():
    hidden = {(kind, "pattern") for kind in JSON_TYPES} | {("string", "default"), ("integer", "default")}
    table = build_coverage_table(
        Coverage(frozenset(), frozenset(hidden)), {"default_described": 1, "pattern_described": 7}
    )
    assert table.values.tolist() == [
        ["parameters named", "(none)", "0 renamed"],
        ["pattern", "every type", "7 said in the description"],
        ["default", "integer, string", "1 said in the description"],
    ]


def test_the_audit_table_begins_with_what_was_found():
    checks = (
        Check("fine", "error", 0, 3, "a", "nothing to do"),
        Check("odd", "warning", 1, 3, "b", "c", ("r1",)),
        Check("bad", "error", 2, 3, "d", "e", ("r1", "r2")),
    )
    table = build_audit_table(Audit({"recipe": "native"}, checks, Lengths(1, (), 0), Coverage()))
    assert table.values.tolist() == [
        ["error", "bad", 2, 3, "d (e.g. r1, r2)", "e"],
        ["warning", "odd", 1, 3, "b (e.g. r1)", "c"],
        ["ok", "fine", 0, 3, "none of these: a", ""],
    ]


def test_what_holds_is_said_of_every_check_that_finds_nothing(tokenizer, coverage):
    checks = audit_rows({"train": four_rows.ROWS[:1], "eval": []}, tokenizer, coverage=coverage).checks
    assert {check.name for check in checks} - {"few_no_call_rows"} == set(HOLDS)  # that one is there only if it is so


def test_every_count_of_a_split_is_explained():
    split = Splits([], []).counts() | {"no_call_dropped": 0}
    funnel = {"split": split, "row_wise_split_would_leak": {"n_eval": 9, "exact": 3, "request": 2, "near": 1}}
    table = build_split_table(funnel)
    assert all(table["what they are"]) and len(table) == len(split) + 3
    assert list(table["count"])[-3:] == [3, 2, 1] and "the last 9 rows" in table["what they are"][len(split)]
