"""The tutorial's gold call, weaknesses included: what the vectors say, in cases of our own."""

import pytest

from fgtools.calls import ToolCall
from fgtools.gold.tutorial import TutorialError, extract_tutorial_gold
from tests.toys import call_turn, conversation

F, G = (call_turn(f'{{"name": "{name}", "arguments": {{}}}}') for name in "fg")


def gold(task: str, *values: str) -> tuple[ToolCall, int] | None:
    return extract_tutorial_gold({"task": task, "conversations": conversation(*values)})


def test_an_empty_user_turn_matches_any_task():
    assert gold("q", "", "hi", "q", F) is None


def test_without_a_match_the_last_user_turn_is_taken():
    assert gold("z", "a", F, "b", G) == (ToolCall("g", {}), 2)


def test_an_unreadable_turn_is_passed_over_until_the_next_user_turn():
    turns = [*conversation("q", "<tool_call>{'a'}</tool_call>"), {"from": "gpt", "value": G}]
    assert extract_tutorial_gold({"task": "", "conversations": turns}) == (ToolCall("g", {}), 0)
    assert gold("q", "q", "?", "r", G) is None


def test_only_the_first_block_of_a_turn_is_looked_at():
    assert gold("", "q", '<tool_call>{"x": 1}</tool_call>' + G) is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "conversations must be a list"),
        ({"conversations": ["q"]}, "conversations must be a list of mappings"),
        ({"conversations": conversation("q"), "task": ["q"]}, "task must be text, got list"),
        ({"conversations": [{"from": "human", "value": 5}], "task": "q"}, "value must be text, got int"),
    ],
)
def test_where_the_tutorial_raises_an_error_says_why(row, message):
    with pytest.raises(TutorialError, match=message):
        extract_tutorial_gold(row)
