"""The tutorial's side of calls: its predictions, and its argument that is JSON text."""

import pytest

from fgtools.calls import END_CALL, ESCAPE, MAX_DEPTH, START_CALL, ToolCall, parse_reply, parse_tutorial_prediction
from tests.toys import load_shared

CALL = f"{START_CALL}call:f{{a:1}}{END_CALL}"


def test_tutorial_reads_predictions_as_the_vectors_say():
    for case in load_shared("vectors/tutorial_predictions.jsonl"):
        prediction = parse_tutorial_prediction(case["text"])
        assert (prediction.name, prediction.block) == (case["name"], case["block"])


def nested(depth):
    return '{"a":' + "[" * depth + "]" * depth + "}"


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        (f"args:{ESCAPE}{{}}{ESCAPE}", []),
        (f"args:{ESCAPE}{{}}{ESCAPE},b:1", ["args_not_json"]),
        (f"args:{ESCAPE}[]{ESCAPE}", ["args_not_json"]),
        ("args:{}", ["args_not_json"]),
        *(
            (f'args:{ESCAPE}{{"a":{one}}}{ESCAPE}', ["args_not_json"])
            for one in ("NaN", "-Infinity", "1e999", "9" * 5000)
        ),
        (f'args:{ESCAPE}{{"a":1,"a":2,"b":{{"c":1,"c":2}}}}{ESCAPE}', ["duplicate_key", "duplicate_key"]),
        (f"args:{ESCAPE}{nested(MAX_DEPTH)}{ESCAPE}", []),
        (f"args:{ESCAPE}{nested(MAX_DEPTH + 1)}{ESCAPE}", ["too_deep"]),
        (f"args:{ESCAPE}{nested(50_000)}{ESCAPE}", ["too_deep"]),
    ],
)
def test_the_tutorials_arguments_have_the_limits_of_the_native_ones(arguments, kinds):
    reply = parse_reply(f"{START_CALL}call:f{{{arguments}}}{END_CALL}{CALL}", "tutorial")
    assert [problem.kind for problem in reply.problems] == [*kinds, "args_not_json"]  # the second call is native
    assert len(reply.calls) == (1 if kinds == ["too_deep"] else 2)


def test_the_last_of_equal_keys_is_read_in_both_notations():
    assert parse_reply(f"{START_CALL}call:f{{a:1,a:2}}{END_CALL}").calls == (ToolCall("f", {"a": 2}),)
    text = f'{START_CALL}call:f{{args:{ESCAPE}{{"a":1,"a":2}}{ESCAPE}}}{END_CALL}'
    assert parse_reply(text, "tutorial").calls == (ToolCall("f", {"a": 2}),)
