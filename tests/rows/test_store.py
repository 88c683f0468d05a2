"""Bad input to scoring: files that are none, rows that are none, replies no model should write."""

import json

import pytest

from fgtools.__main__ import main
from fgtools.calls import render_calls, row_calls
from fgtools.calls.tokens import END_CALL, ESCAPE, START_CALL
from fgtools.files import DataFileError
from fgtools.metrics import score
from fgtools.rows import load_rows
from tests.clock import measure_time
from tests.toys import small_rows

ROWS = [row for row in small_rows(200, 40) if row["gold"]][:4]
RIGHT = [render_calls(row_calls(row)) for row in ROWS]
NAME = ROWS[0]["gold"][0]["name"]


def dump(records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def without(field):
    return {key: value for key, value in ROWS[0].items() if key != field}


CALLING = {"role": "assistant", "content": ""}
DEEP = json.loads("[" * 400 + "]" * 400)
BAD_ROWS = {
    "no id": (without("row_id"), "row_id must be text, got no such field"),
    "an id that is a number": ({**ROWS[0], "row_id": 3}, "row_id must be text, got 3"),
    "no messages": (
        without("messages"),
        "messages must be a list of messages, got no such field",
    ),
    "ShareGPT": ({**ROWS[0], "messages": [{"from": "human", "value": "x"}]}, "a message must have a role and content"),
    "messages as text": ({**ROWS[0], "messages": "hello"}, "messages must be a list of messages"),
    "no tools": (without("tools"), "tools must be a list of declarations"),
    "tools as text": ({**ROWS[0], "tools": "[]"}, "tools must be a list of declarations"),
    "bare tools": ({**ROWS[0], "tools": [{"name": "x"}]}, "tools must be a list of declarations"),
    "no gold": (without("gold"), "gold must be a list of calls with name and arguments, got no such field"),
    "no gold at all": ({**ROWS[0], "gold": None}, "gold must be a list of calls"),
    "a call without a name": ({**ROWS[0], "gold": [{"nome": "x", "arguments": {}}]}, "gold must be a list of calls"),
    "arguments as text": (
        {**ROWS[0], "gold": [{"name": "x", "arguments": "{}"}]},
        "arguments of 'x' must be a mapping",
    ),
    "NaN": ({**ROWS[0], "gold": [{"name": "x", "arguments": {"a": float("nan")}}]}, "a number must be finite, got nan"),
    "a message without text": (
        {**ROWS[0], "messages": [{"role": "user", "content": None}]},
        "a message must have a role and content, both text, got",
    ),
    "a result without a name": (
        {**ROWS[0], "messages": [{"role": "tool", "content": "x"}]},
        "a tool's message must have a name and content, text or a mapping, got",
    ),
    "a result that is a list": (
        {**ROWS[0], "messages": [{"role": "tool", "name": "x", "content": []}]},
        "a tool's message must have a name and content, text or a mapping, got",
    ),
    "an earlier call whose arguments are text": (
        {**ROWS[0], "messages": [{**CALLING, "tool_calls": [{"function": {"name": "x", "arguments": "{}"}}]}]},
        "tool_calls must be a list of calls with a function's name and arguments, got",
    ),
    "earlier calls that are none": (
        {**ROWS[0], "messages": [{**CALLING, "tool_calls": ["x"]}]},
        "tool_calls must be a list of calls with a function's name and arguments, got",
    ),
    "a result without a floor": (
        {**ROWS[0], "messages": [{"role": "tool", "name": "x", "content": {"x": DEEP}}]},
        f"messages must not nest deeper than 100 levels, but those of {ROWS[0]['row_id']!r} do",
    ),
    "a gold call of no tool": (
        {**ROWS[0], "gold": [{"name": "unheard_of", "arguments": {}}]},
        f"gold must call declared tools, but {ROWS[0]['row_id']!r} calls 'unheard_of', which is none of its tools",
    ),
    "tools without a floor": (
        {**ROWS[0], "tools": [*ROWS[0]["tools"], {"function": {"name": "x", "parameters": DEEP}}]},
        f"tools must not nest deeper than 100 levels, but those of {ROWS[0]['row_id']!r} do",
    ),
    "a row twice": (ROWS[1], "row 2: a row_id must be its row's own"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_rows_of_another_kind_are_named_before_any_work(tmp_path, capsys, name):
    row, message = BAD_ROWS[name]
    path, out = tmp_path / "rows.jsonl", tmp_path / "out"
    path.write_bytes(dump([row, *ROWS[1:]]))
    (tmp_path / "replies.jsonl").write_bytes(
        dump({"row_id": one["row_id"], "reply": text} for one, text in zip(ROWS, RIGHT, strict=True))
    )
    for words in (
        ["score", "--rows", str(path), "--replies", str(tmp_path / "replies.jsonl")],
        ["evaluate", "--model", "nowhere", "--rows", str(path), "--out", str(out)],
    ):
        assert main(words) == 1
        shown = capsys.readouterr().err
        assert message in shown and "rows.jsonl, row " in shown and "fgtools prepare" in shown
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must hold at least one row, but it is empty"),
        (b"\n\n", "must hold at least one row, but it is empty"),
        (b"\xff\xfe", "must be UTF-8 text, but byte 0 is not"),
        (b"[1]\n", "line 1: must be a JSON object, got a list"),
        (
            b'{"row_id": ' + b"[" * 90_000 + b"]" * 90_000 + b"}\n",
            "line 1: must be a JSON object, but maximum rec",
        ),
        (b'{"row_id": "a", "mess', "line 1: must be a JSON object"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=r"rows\.jsonl.* " + message):
        load_rows(path)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (b'{"row_id": "x", "reply": "\xff"}', "must be UTF-8 text, but byte"),
        (b'{"row_id": "x", "reply": NaN}', "reply 4 must hold the texts row_id and reply"),
        (b'{"row_id": "x", "reply": ""}', "every row must have a reply, but 1 have none"),
    ],
)
def test_replies_that_are_none_never_shrink_n(tmp_path, capsys, last, message):
    rows, replies = tmp_path / "rows.jsonl", tmp_path / "replies.jsonl"
    rows.write_bytes(dump(ROWS))
    pairs = zip(ROWS[:-1], RIGHT, strict=False)
    replies.write_bytes(dump({"row_id": row["row_id"], "reply": text} for row, text in pairs) + last)
    assert main(["score", "--rows", str(rows), "--replies", str(replies)]) == 1
    shown = capsys.readouterr()
    assert message in shown.err and not shown.out


MILLION = 1_000_000
CALL = f"{START_CALL}call:{NAME}"
WILD = {
    "a million letters": "a" * MILLION,
    "a string without an end": f"{CALL}{{a:{ESCAPE}" + "x" * MILLION,
    "starts without an end": START_CALL * (MILLION // len(START_CALL)),
    "escapes": f"{CALL}{{" + ESCAPE * 100_000,
    "calls without number": f"{CALL}{{}}{END_CALL}" * 20_000,
    "arguments without number": f"{CALL}{{" + ",".join(f"a{i}:1" for i in range(100_000)) + f"}}{END_CALL}",
    "open braces": f"{CALL}{{a:" + "{b:" * 200_000,
    "deep objects": f"{CALL}{{a:" + "{b:" * 20_000 + "1" + "}" * 20_001 + END_CALL,
    "deep lists": f"{CALL}{{a:" + "[" * 20_000 + "]" * 20_000 + "}" + END_CALL,
    "deep JSON": f"{CALL}{{args:{ESCAPE}" + "[" * 50_000 + "]" * 50_000 + f"{ESCAPE}}}{END_CALL}",
    "NaN": f"{CALL}{{a:NaN,b:Infinity,c:1e999}}{END_CALL}",
    "NaN in JSON": f'{CALL}{{args:{ESCAPE}{{"a":NaN,"b":1e999}}{ESCAPE}}}{END_CALL}',
    "a number of ten thousand digits": f"{CALL}{{a:{'9' * 10_000}}}{END_CALL}",
    "half a character": "\ud800\udcff" + START_CALL,
    "control characters": f"\x00\x1b[31m{START_CALL}",
    "nothing": "",
}


@pytest.mark.parametrize("style", ["native", "tutorial"])
@pytest.mark.parametrize("name", WILD)
def test_a_wild_reply_is_a_failure_of_its_row_alone(name, style):
    golds = [render_calls(row_calls(row), style) for row in ROWS]
    with measure_time() as took:
        scores = score(ROWS, [WILD[name], *golds[1:]], style)
        assert len(scores.rows) == len(ROWS) and scores.ast_match.k == len(ROWS) - 1
    assert took.seconds < 20  # linear in the reply: a second at most
    assert not scores.rows[0].ast_match and scores.rows[0].error
    saved = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert type(scores).from_dict(saved) == scores


def test_rows_with_earlier_calls_and_results_are_read(tmp_path):
    call = {"type": "function", "function": {"name": NAME, "arguments": {"a": None}}}
    steps = [
        {**CALLING, "tool_calls": [call]},
        *({"role": "tool", "name": NAME, "content": content} for content in ("x", {"y": 1})),
    ]
    rows = [{**ROWS[0], "messages": [*ROWS[0]["messages"], *steps]}, *ROWS[1:]]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(dump(rows))
    assert load_rows(path) == rows
    assert score(rows, RIGHT).rows[0].prompt_characters > score(ROWS, RIGHT).rows[0].prompt_characters
