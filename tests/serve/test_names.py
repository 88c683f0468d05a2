"""Names that were replaced are put back into calls, exactly."""

from fgtools.calls import ToolCall
from fgtools.serve import restore_calls

PARAMETERS = {
    "find": {
        "properties": {
            "type_": {"type": "string"},
            "rows": {"items": {"properties": {"type_": {"type": "string"}, "size": {"type": "integer"}}}},
        }
    }
}
RENAMED = {"tools": {"find": "find {it}"}, "parameters": {"find": {"type_": "type"}}}


def test_tools_and_parameters_get_their_own_names_at_every_level():
    calls = [ToolCall("find", {"type_": "a", "rows": [{"type_": "b", "size": 1}], "free": {"type_": 2}})]
    wanted = ToolCall("find {it}", {"type": "a", "rows": [{"type": "b", "size": 1}], "free": {"type_": 2}})
    assert restore_calls(calls, RENAMED, PARAMETERS) == [wanted]
    assert calls[0].arguments["type_"] == "a"


def test_what_was_not_renamed_stays_in_its_order():
    calls = [ToolCall("other", {"type_": 1}), ToolCall("find", {}), ToolCall("unknown", {})]
    assert restore_calls(calls, {}, {}) == calls
    assert [call.name for call in restore_calls(calls, RENAMED, PARAMETERS)] == ["other", "find {it}", "unknown"]
