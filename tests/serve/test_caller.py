"""ToolCaller: the application's names and types come back, what is wrong is typed, results are put in their place."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.calls import ToolCall
from fgtools.files import InputError
from fgtools.metrics import GeneratedReply
from fgtools.offline.samples import build_samples
from fgtools.prompts import render_prompt
from fgtools.rows import build_rows
from fgtools.serve import load_caller
from fgtools.serve.app_tools import AmbiguousToolError, prepare_tools
from fgtools.serve.taught import build_taught_tools, write_taught_tools
from fgtools.serve.values import convert_values
from tests.clock import measure_time
from tests.serve.conftest import EXAMPLES
from tests.toys import MEAL_TOOLS

STOP = "<start_function_response>"


def call(text):
    return f"<start_function_call>call:{text}<end_function_call>"


MEAL = call("meal_log{dish:<escape>rice<escape>,type_:3}")
OTHER = call("meal_log{dish:<escape>tea<escape>}")


def raw(request, tools=MEAL_TOOLS, name="meal_log", **arguments):
    return {"query": request, "answers": json.dumps([{"name": name, "arguments": arguments}]), "tools": tools}


@pytest.fixture(scope="module")
def taught(coverage, tokenizer):
    raws = [raw("i ate rice", dish="rice", type=1), raw("i ate soup", dish="soup")]
    odd = [{"name": "a{b", "parameters": {"x": {"type": "integer"}}}]
    return build_taught_tools(build_rows([*raws, raw("x", odd, "a{b", x=1)], coverage=coverage).rows, tokenizer)


@pytest.fixture
def caller(monkeypatch, tokenizer, tmp_path, coverage):
    """A caller whose model says what a test gives it, row by row; `shown` are the rows it was asked."""
    folder = tmp_path / "model"
    write_taught_tools(folder, build_rows([raw("i ate rice", dish="rice", type=1)], coverage=coverage).rows, tokenizer)
    monkeypatch.setattr("fgtools.models.load.find_model", lambda name: folder)
    monkeypatch.setattr("fgtools.models.load_model", lambda *_, **options: object())
    made = load_caller(str(folder), MEAL_TOOLS, tokenizer=tokenizer)
    shown, says = [], []

    def generate(model, tokenizer, rows, **options):
        shown.extend(rows)
        return [GeneratedReply(says.pop(0)) for _ in rows]

    monkeypatch.setattr("fgtools.generate.generate_with_confidence", generate)
    return made, says, shown


def test_a_caller_shows_the_tools_as_training_did_and_gives_the_applications_names_back(caller, tokenizer, coverage):
    made, says, _ = caller
    row = build_rows([raw("i ate rice", dish="rice", type=1)], coverage=coverage).rows[0]
    assert list(made.tools) == row["tools"] and made.untaught == () and made.notes == ()
    assert made.prompt("i ate rice") == render_prompt(row["messages"], row["tools"], tokenizer)
    says.append(MEAL + STOP)
    answer = made.call("i ate rice")
    assert answer.calls == (ToolCall("meal_log", {"dish": "rice", "type": 3}),) and answer.kind == "call"
    assert answer.prompt == made.prompt("i ate rice") and answer.problems == answer.notes == ()
    assert made.parse(MEAL).calls == answer.calls


REPLIES = {
    "prose": ("I cannot do that.<end_of_turn>", "text", [], []),
    "nothing": ("<end_of_turn>", "empty", [], []),
    "half a call": ("<start_function_call>call:meal_log{dish:<escape>ri", "broken", ["unclosed_string", "cut_off"], []),
    "two calls": (MEAL + OTHER + STOP, "calls", [], []),
    "prose and a call": (f"Sure. {MEAL}{STOP}", "call", [], ["prose_with_call"]),
    "an unknown tool": (call("fly{}") + STOP, "invalid", ["unknown_tool"], []),
    "a missing argument": (call("meal_log{type_:3}") + STOP, "invalid", ["invalid_arguments"], []),
    "an invented argument": (
        call("meal_log{dish:<escape>a<escape>,x:1}") + STOP,
        "invalid",
        ["invalid_arguments"],
        [],
    ),
    "a call and half of one": (f"{MEAL}<start_function_call>call:meal", "broken", ["unclosed_call", "cut_off"], []),
    "a convertible value": (
        call("meal_log{dish:7,type_:<escape>3<escape>}") + STOP,
        "call",
        [],
        ["converted", "converted"],
    ),
    "an optional null": (
        call("meal_log{dish:<escape>a<escape>,type_:None}") + STOP,
        "call",
        [],
        ["null_left_out"],
    ),
    "a required null": (call("meal_log{dish:None}") + STOP, "invalid", ["invalid_arguments"], []),
    "a fraction": (
        call("meal_log{dish:<escape>a<escape>,type_:3.5}") + STOP,
        "invalid",
        ["invalid_arguments"],
        [],
    ),
    "marks alone": ("<escape>}<end_function_call><end_of_turn>", "broken", ["stray_token", "stray_token"], []),
}


@pytest.mark.parametrize("name", REPLIES)
def test_every_reply_has_a_kind_and_typed_problems(name, caller):
    made, says, _ = caller
    text, kind, problems, notes = REPLIES[name]
    says.append(text)
    answer = made.call("i ate rice")
    assert answer.kind == kind
    assert [one.kind for one in answer.problems] == problems and [one.kind for one in answer.notes] == notes
    assert len(answer.rejected) == (kind == "invalid") and (not answer.calls or kind != "invalid")
    parsed = made.parse(text)
    assert (parsed.calls, parsed.rejected) == (answer.calls, answer.rejected)


def test_results_are_waited_for_and_put_in_the_order_of_their_calls(caller):
    made, says, shown = caller
    says += [MEAL + OTHER + STOP, "Both are noted.<end_of_turn>"]
    answer = made.call("i ate rice and drank tea")
    first, second = answer.calls
    waiting = made.respond(second, "done")
    assert (waiting.kind, waiting.calls, len(shown)) == ("waiting", (first,), 1)
    last = made.respond(first, {"type": 5})
    assert (last.kind, last.text) == ("text", "Both are noted.")
    _, _, calling, *results = shown[1]["messages"]
    assert [one["function"]["arguments"] for one in calling["tool_calls"]] == [
        {"dish": "rice", "type_": 3},
        {"dish": "tea"},
    ]
    assert [one["content"] for one in results] == [{"type": 5}, "done"]
    assert "response:meal_log{type:5}<end_function_response>" in last.prompt
    assert last.messages[-1] == {"role": "assistant", "content": "Both are noted."}
    assert last.messages[2]["tool_calls"][0]["function"]["arguments"] == {"dish": "rice", "type": 3}


def test_a_call_is_answered_once_by_its_own_caller(caller):
    made, says, _ = caller
    says += [MEAL + STOP, MEAL + STOP]
    answer = made.call("i ate rice")
    made.respond(answer.calls[0], "ok")
    with pytest.raises(InputError, match="every call has one result"):
        made.respond(answer.calls[0], "ok")
    with pytest.raises(InputError, match="takes a call out of an Answer of this caller"):
        made.respond(ToolCall("meal_log", {}), "ok")
    with pytest.raises(InputError, match="takes a call out of an Answer of this caller"):
        made.respond(made.parse(MEAL).calls[0], "ok")


def test_a_result_that_cannot_be_shown_can_be_given_again(caller):
    made, says, _ = caller
    says += [MEAL + STOP, "ok<end_of_turn>"]
    answer = made.call("i ate rice")
    with pytest.raises(InputError, match="must be JSON"):
        made.respond(answer.calls[0], {"at": object()})
    assert made.respond(answer.calls[0], {"at": 1}).text == "ok"


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ({"a": (1, 2)}, {"a": [1, 2]}),
        ("plain", "plain"),
        ('{"a": 1}', {"a": 1}),
        ([1, "b"], '[1, "b"]'),
        (None, "null"),
        (7.5, "7.5"),
        (KeyError("x"), {"error": "KeyError: 'x'"}),
    ],
)
def test_results_are_read_as_training_rows_have_them(result, content, caller):
    made, says, shown = caller
    says += [MEAL + STOP, "ok<end_of_turn>"]
    made.respond(made.call("i ate rice").calls[0], result)
    assert shown[1]["messages"][-1] == {"role": "tool", "name": "meal_log", "content": content}


def test_many_requests_are_conversations_of_their_own(caller):
    made, says, shown = caller
    says += [MEAL + STOP, OTHER + STOP, "one<end_of_turn>", "two<end_of_turn>"]
    one, two = made.call_many(["rice", "tea"])
    assert made.respond(two.calls[0], "b").text == "one" and made.respond(one.calls[0], "a").text == "two"
    assert [row["messages"][1]["content"] for row in shown] == ["rice", "tea", "tea", "rice"]
    with pytest.raises(InputError, match="takes a list of requests"):
        made.call_many("rice")


def test_a_conversation_goes_on_and_may_be_a_providers(caller):
    made, says, shown = caller
    says += ["Hello.<end_of_turn>", MEAL + STOP]
    answer = made.call([{"role": "system", "content": "Be short."}, {"role": "user", "content": "hi"}])
    assert shown[0]["messages"][0]["content"].startswith("Be short.\nYou are a model")
    made.call([*answer.messages, {"role": "user", "content": "i ate rice"}])
    assert [one["content"] for one in shown[1]["messages"][1:]] == ["hi", "Hello.", "i ate rice"]
    function = {"name": "meal_log", "arguments": '{"dish": "rice", "type": 3}'}
    openai = [
        {"role": "user", "content": "i ate rice"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c1", "content": '{"ok": true}'},
    ]
    assert "type_:3}<end_function_call><start_function_response>response:meal_log{ok:true}" in made.prompt(openai)


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "a request must be text"),
        ([{"role": "robot", "content": "x"}], "role must be one of"),
        ([{"role": "user", "content": ["x"]}], "content must be text"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "as the last message"),
        ([{"role": "tool", "content": "x"}], "must have the tool's name"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{}]}], "a call must be"),
    ],
)
def test_messages_that_cannot_be_read_are_named(messages, told, caller):
    with pytest.raises(InputError, match=told):
        caller[0].prompt(messages)


def kinds(app):
    return [note.kind for note in app.notes]


def test_tools_are_those_of_the_folder_or_named_or_given(taught):
    everything = prepare_tools(None, taught)
    assert [tool["function"]["name"] for tool in everything.declared] == [
        "a{b",
        "meal_log",
    ]  # in the order of their rows
    assert [tool["function"]["name"] for tool in everything.shown] == ["a_b", "meal_log"]
    assert kinds(everything) == ["more_tools"]
    named = prepare_tools(["meal_log"], taught)
    assert "type" in named.declared[0]["function"]["parameters"]["properties"]
    assert named.shown == prepare_tools(json.dumps({"tools": MEAL_TOOLS}), taught).shown and kinds(named) == []
    with pytest.raises(InputError, match="none is called 'meal_lag': did you mean meal_log"):
        prepare_tools(["meal_lag", "meal_log"], taught)
    with pytest.raises(InputError, match="there must be at least one tool"):
        prepare_tools([], taught)


def test_untaught_changed_and_manifold_tools_are_said(taught, coverage, tokenizer):
    other = {"name": "fly", "parameters": {"to": {"type": "string"}}}
    app = prepare_tools([other], taught)
    assert app.untaught == ("fly",) and kinds(app) == ["untaught_tool"]
    changed = {**MEAL_TOOLS[0], "parameters": {"dish": {"type": "string"}, "size": {"type": "integer"}}}
    (note,) = prepare_tools([changed], taught).notes
    assert note.kind == "changed_tool" and note.detail.endswith("it has no longer type_ and has gained size")
    (note,) = prepare_tools([{**MEAL_TOOLS[0], "description": "Eat."}], taught).notes
    assert note.kind == "changed_tool" and "its description" in note.detail
    both = build_rows([raw("a", dish="b"), raw("c", [changed], dish="d")], coverage=coverage).rows
    (note,) = prepare_tools(MEAL_TOOLS, build_taught_tools(both, tokenizer)).notes
    assert note.kind == "several_schemas" and "taught in 2 forms, this one in 1 of 2 rows" in note.detail


def test_a_name_the_grammar_cannot_carry_is_the_one_that_training_chose(taught):
    tool = {"name": "a{b", "parameters": {"x": {"type": "integer"}}}
    app = prepare_tools([tool], taught)
    assert app.renamed["tools"] == {"a_b": "a{b"} and app.notes == ()
    with pytest.raises(AmbiguousToolError, match=r"knows 'a\{b' as 'a_b', but so it knows 'a_b'"):
        prepare_tools([{"name": "a_b"}, tool], taught)
    with pytest.raises(AmbiguousToolError, match="two are called 'a_b'"):
        prepare_tools([{"name": "a_b"}, {"name": "a_b", "description": "x"}], taught)


def test_a_folder_without_the_file_needs_tools_and_says_so(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("fgtools.models.load.find_model", lambda name: tmp_path)
    with pytest.raises(InputError, match=r"folder holds no tools\.json"):
        load_caller(tmp_path, tokenizer=tokenizer, weights=False)
    made = load_caller(tmp_path, MEAL_TOOLS, tokenizer=tokenizer, weights=False, quiet=True)
    assert [note.kind for note in made.notes] == ["no_taught_tools"] and made.untaught == ()
    assert made.parse(MEAL).calls == (ToolCall("meal_log", {"dish": "rice", "type": 3}),)
    with pytest.raises(InputError, match="loaded without weights"):
        made.call("i ate rice")


def test_too_many_tools_must_be_chosen_from(coverage, tokenizer):
    tools = [{"name": f"tool_{number}"} for number in range(101)]
    rows = build_rows([raw("a", tools, "tool_7")], coverage=coverage).rows
    many = build_taught_tools(rows, tokenizer)
    with pytest.raises(InputError, match="the training showed 101 tools, of which at most 100"):
        prepare_tools(None, many)
    assert len(prepare_tools(["tool_7", "tool_9"], many).shown) == 2


def test_a_model_of_the_tutorial_answers_in_its_own_notation(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("fgtools.models.load.find_model", lambda name: tmp_path)
    made = load_caller(tmp_path, MEAL_TOOLS, tokenizer=tokenizer, recipe="tutorial", weights=False, quiet=True)
    parsed = made.parse(call('meal_log{args:<escape>{"dish": "rice", "type": "3"}<escape>}') + "<eos>")
    assert parsed.calls == (ToolCall("meal_log", {"dish": "rice", "type": 3}),)
    assert "type_" not in str(made.tools) and [note.kind for note in parsed.notes] == ["converted"]
    wrapped = [{"type": "function", "function": MEAL_TOOLS[0]}]
    assert load_caller(
        tmp_path, wrapped, tokenizer=tokenizer, recipe="tutorial", weights=False, quiet=True
    ).tools == tuple(made.tools)


def test_the_folder_says_in_which_recipe_the_model_was_taught(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("fgtools.models.load.find_model", lambda name: tmp_path)
    write_taught_tools(tmp_path, build_rows(build_samples(60, 3), "tutorial").rows, tokenizer, "tutorial")
    made = load_caller(tmp_path, None, tokenizer=tokenizer, weights=False, quiet=True)
    assert made.taught.call_style == "tutorial" and made.tools == made.app.declared and made.untaught == ()
    assert {note.kind for note in made.notes} <= {"several_schemas", "more_tools"}


def test_functions_are_read_as_the_file_they_stand_in(taught):
    import sys

    sys.path.insert(0, str(EXAMPLES))
    try:
        import home_tools
    finally:
        sys.path.remove(str(EXAMPLES))
    functions = [home_tools.set_alarm, home_tools.set_light, home_tools.list_alarms]
    given, read = prepare_tools(functions, taught), prepare_tools(str(EXAMPLES / "home_tools.py"), taught)
    assert given.declared == read.declared and "default" in str(given.declared)
    mixed = prepare_tools([MEAL_TOOLS[0], home_tools.set_light], taught).declared
    assert mixed[1] == read.declared[1] and mixed[0]["function"]["name"] == "meal_log"


def test_a_function_without_a_file_is_read_from_what_is_known_of_it(taught):
    code = 'def fly(to: str = "x") -> str:\n    """Fly.\n\n    Args:\n        to: Where.\n    """'
    made = {}
    exec(code, made)
    (tool,) = prepare_tools(made["fly"], taught).declared
    assert tool["function"]["name"] == "fly" and tool["function"]["parameters"]["required"] == []


def test_a_model_in_memory_needs_its_tokenizer(model, tokenizer):
    made = load_caller(model, MEAL_TOOLS, tokenizer=tokenizer, quiet=True, max_new_tokens=8)
    assert made.model is model and made.call("note that i ate rice").reply
    with pytest.raises(InputError, match="a loaded model needs its tokenizer"):
        load_caller(model, MEAL_TOOLS)


@given(st.integers(0, len(MEAL + OTHER)), st.text(max_size=6))
def test_no_text_is_too_odd_to_be_parsed(place, more):
    text = (MEAL + OTHER)[:place] + more
    parsed = PARSER.parse(text)
    assert parsed.kind in ("call", "calls", "text", "empty", "invalid", "broken")


class _Lazy:
    """A caller without weights, made when a property first needs it."""

    def parse(self, text):
        from fgtools.models import load_tokenizer
        from fgtools.serve.caller import ToolCaller

        if not hasattr(self, "made"):
            tokenizer = load_tokenizer("standin")
            known = build_taught_tools((), tokenizer)
            self.made = ToolCaller(None, tokenizer, known, prepare_tools(MEAL_TOOLS, known), 8)
        return self.made.parse(text)


PARSER = _Lazy()


def test_hostile_repetition_takes_linear_time():
    def seconds(times):
        with measure_time() as took:
            for text in ("<start_function_call>call:meal_log{dish:[", MEAL, "<escape>", "{" * 50):
                PARSER.parse(text * times)
        return took.seconds

    seconds(50)
    assert seconds(2000) < 8 * max(seconds(500), 0.05)


VALUES = [
    (5.0, "integer", 5),
    (5.5, "integer", 5.5),
    (1e300, "integer", 1e300),
    ("5", "integer", 5),
    ("05", "integer", "05"),
    ("-7", "number", -7),
    ("2.50", "number", 2.5),
    ("1e5", "number", "1e5"),
    ("١", "integer", "١"),
    ("true", "boolean", True),
    ("yes", "boolean", "yes"),
    (1, "boolean", 1),
    (7, "string", "7"),
    (7.5, "string", 7.5),
    (True, "string", True),
    (None, "string", None),
]


@pytest.mark.parametrize(("value", "kind", "wanted"), VALUES)
def test_only_conversions_without_loss_are_made_and_told(value, kind, wanted):
    got, told = convert_values({"a": [value]}, {"properties": {"a": {"items": {"type": kind}}}})
    assert got == {"a": [wanted]} and type(got["a"][0]) is type(wanted)
    assert told == ([] if type(value) is type(wanted) else [f"a.0: {value!r} became {wanted!r}"])


def test_alternatives_and_undeclared_values_stay():
    schema = {"properties": {"a": {"anyOf": [{"type": "integer"}], "type": "integer"}}}
    assert convert_values({"a": "5", "b": "6"}, schema) == ({"a": "5", "b": "6"}, [])
