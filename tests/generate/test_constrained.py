"""Constrained decoding: whatever the model, what comes out is in the grammar; and every right answer can come out."""

import builtins
import copy
import json
import random

import numpy
import pytest

from fgtools.calls import parse_reply, render_calls, row_calls
from fgtools.calls.tokens import START_RESPONSE, STOP_TOKENS
from fgtools.generate import generate_replies
from fgtools.generate.constrained import ConstraintError, Constraints, render_grammar
from fgtools.metrics import Scores, compare, has_valid_arguments, score, score_row
from fgtools.offline.samples import build_samples
from fgtools.report.tables import build_ladder_table
from fgtools.rows import build_rows
from fgtools.run.evaluation import evaluate, name_files
from fgtools.run.folder import open_run
from tests.toys import load_shared, senseless_model

ROWS = build_rows(build_samples(300, 9)).rows


@pytest.fixture(scope="module")
def constraints(tokenizer):
    return Constraints(tokenizer, len(tokenizer))


def accepts(constraints, tokenizer, tools, text):
    """Tell whether the automaton takes a reply, token by token, to its end."""
    matcher = constraints.xgrammar.GrammarMatcher(constraints.compiler.compile_grammar(render_grammar(tools)))
    ids = tokenizer.encode(text, add_special_tokens=False)
    return all(matcher.accept_token(one) for one in ids) and matcher.accept_token(constraints.stops[1])


def tool(name, properties, required=()):
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TOOLS = [
    tool("a.b-c", {"x": {"type": "string"}, "Y": {"type": "integer"}}, ["x"]),
    tool("none", {}),
    tool(
        "all",
        {
            "e": {"type": "string", "enum": ["red", 'o"k\\']},
            "n": {"type": "number", "nullable": True},
            "l": {"type": "array", "items": {"type": "string"}},
            "o": {"type": "object", "properties": {"k": {"type": "boolean"}}, "required": ["k"]},
            "u": {"type": "string", "anyOf": [{"type": "string"}, {"type": "integer"}]},
            "w:x": {"type": "string"},
            "f": {"type": "object"},
            "q": {},
        },
    ),
]


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("call:a.b-c{x:<escape>1 < 2, é日<escape>}", True),
        ("call:a.b-c{x:<escape><escape>,Y:-12}", True),
        ("call:a.b-c{Y:3}", False),  # x is required
        ("call:a.b-c{Y:3,x:<escape>a<escape>}", False),  # names are sorted
        ("call:a.b-c{x:<escape>a<escape>,Y:3.5}", False),
        ("call:a.b-c{x:<escape>a<escape>,x:<escape>a<escape>}", False),
        ("call:a.b-c{x:a}", False),
        ("call:none{}", True),
        ("call:nobody{}", False),
        ("call:all{}", True),
        ('call:all{e:<escape>o"k\\<escape>,n:None}', True),
        ("call:all{e:<escape>blue<escape>}", False),
        ("call:all{n:-1.5e-3}", True),
        ("call:all{n:<escape>1<escape>}", False),
        ("call:all{l:[<escape>a<escape>,<escape>b<escape>]}", True),
        ("call:all{l:[1]}", False),
        ("call:all{o:{k:true}}", True),
        ("call:all{o:{}}", False),
        ("call:all{u:7}", True),
        ("call:all{u:true}", False),
        ("call:all{<escape>w:x<escape>:<escape>a<escape>}", True),
        ("call:all{f:{z:[1,{y:None}]},q:[true]}", True),
    ],
)
def test_the_grammar_takes_what_the_tools_declare(constraints, tokenizer, text, taken):
    assert accepts(constraints, tokenizer, TOOLS, f"<start_function_call>{text}<end_function_call>") == taken


def test_prose_and_parallel_calls_are_taken_and_marks_in_prose_are_not(constraints, tokenizer):
    call = "<start_function_call>call:none{}<end_function_call>"
    assert accepts(constraints, tokenizer, TOOLS, "I cannot do that: 1 < 2.")
    assert accepts(constraints, tokenizer, TOOLS, "") and accepts(constraints, tokenizer, TOOLS, call * 3)
    assert not accepts(constraints, tokenizer, TOOLS, "So: " + call)
    assert not accepts(constraints, tokenizer, TOOLS, "a<escape>b") and not accepts(constraints, tokenizer, [], call)


def find_refused(constraints, tokenizer, rows):
    """Give the rows whose right answer is valid, with declared arguments alone, and cannot be written."""
    refused, asked = [], 0
    for row in rows:
        tools = {one["function"]["name"]: one["function"]["parameters"]["properties"] for one in row["tools"]}
        declared = all(set(call.arguments) <= set(tools[call.name]) for call in row_calls(row))
        if row["gold"] and declared and score_row(row, "").gold_valid:
            asked += 1
            if not accepts(constraints, tokenizer, row["tools"], render_calls(row_calls(row))):
                refused.append(row["row_id"])
    return asked, refused


def test_every_right_answer_can_be_written(constraints, tokenizer):
    asked, refused = find_refused(constraints, tokenizer, ROWS)
    assert asked > 200 and refused == []


def test_every_right_answer_of_real_rows_can_be_written(constraints, tokenizer):
    asked, refused = find_refused(constraints, tokenizer, build_rows(load_shared("data/dev.jsonl")[::25]).rows)
    assert asked > 80 and refused == []


def write_at_random(constraints, tokenizer, tools, draw, length=120):
    """Write a reply by drawing from what the automaton allows, marks more often than words; None without an end."""
    grammar = constraints.compiler.compile_grammar(render_grammar(tools))
    matcher, mask = (
        constraints.xgrammar.GrammarMatcher(grammar),
        constraints.xgrammar.allocate_token_bitmask(1, len(tokenizer)),
    )
    marks = {"<start_function_call>", "<end_function_call>", "<escape>", *"{}[],:01e<"}
    marked = {tokenizer.convert_tokens_to_ids(mark) for mark in marks} | set(constraints.stops)
    ids, start = [], tokenizer.convert_tokens_to_ids("<start_function_call>")
    while len(ids) < length:
        matcher.fill_next_token_bitmask(mask, 0)
        bits = numpy.unpackbits(mask.numpy().view(numpy.uint8), bitorder="little")[: len(tokenizer)]
        allowed = numpy.flatnonzero(bits).tolist()
        preferred = [one for one in allowed if one in marked]
        choice = preferred if preferred and draw.random() < 0.7 else allowed
        ids.append(start if not ids and draw.random() < 0.9 else draw.choice(choice))
        assert matcher.accept_token(ids[-1])
        if ids[-1] in constraints.stops:
            return constraints.decode(ids)
    return None


def test_whatever_is_allowed_is_in_the_grammar_and_fits_the_schema(constraints, tokenizer):
    draw, n_ended, n_calls = random.Random(5), 0, 0
    for row in [*ROWS[:40], {"tools": TOOLS}, {"tools": TOOLS}] * 6:
        text = write_at_random(constraints, tokenizer, row["tools"], draw)
        if text is not None:
            reply = parse_reply(text)
            tools = {one["function"]["name"]: one["function"]["parameters"] for one in row["tools"]}
            n_ended, n_calls = n_ended + 1, n_calls + len(reply.calls)
            kinds = {problem.kind for problem in reply.problems} - {"duplicate_key"}  # of keys nobody declared
            assert not kinds and has_valid_arguments(reply.calls, tools), text
    assert n_ended > 100 and n_calls > 50


def test_a_model_without_sense_writes_valid_calls(tokenizer):
    model = senseless_model(tokenizer)
    rows = [row for row in ROWS if row["gold"]][:24]
    free = score(rows, generate_replies(model, tokenizer, rows, max_new_tokens=60))
    held = generate_replies(model, tokenizer, rows, max_new_tokens=60, batch_size=8, constrained=True)
    ended = [(row, parse_reply(text)) for row, text in zip(rows, held, strict=True) if text.endswith(STOP_TOKENS)]
    assert free.in_grammar.k < 5 and len(ended) > 10 and sum(len(reply.calls) for _, reply in ended) > 5
    for row, reply in ended:
        tools = {one["function"]["name"]: one["function"]["parameters"] for one in row["tools"]}
        assert not reply.problems and has_valid_arguments(reply.calls, tools)


def test_marks_cannot_be_spelled_in_bytes_or_by_tokens_that_are_never_written(tokenizer):
    """U+E000 stands for a mark in the grammar; so no bytes and no longer token may spell it."""
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens(["<unused7>", "a\ue002", "plain7"])
    constraints = Constraints(larger, len(larger))
    taken = {}
    for token in ("<0xEE>", "<start_of_turn>", "<pad>", "<unused7>", "a\ue002", "plain7", "<0xC3>"):
        grammar = constraints.compiler.compile_grammar(render_grammar(TOOLS))
        number = larger.convert_tokens_to_ids(token)
        assert number != larger.unk_token_id
        taken[token] = constraints.xgrammar.GrammarMatcher(grammar).accept_token(number)
    assert [token for token, one in taken.items() if one] == ["plain7", "<0xC3>"]


def test_control_tokens_that_are_spelled_out_are_neutralised(constraints, tokenizer):
    control = tokenizer.encode("<end_of_turn>", add_special_tokens=False)
    spelled = [tokenizer.convert_tokens_to_ids(one) for one in "<escape>"]
    assert constraints.decode([*spelled, *control]) == "< escape><end_of_turn>"
    call = "<start_function_call>call:a.b-c{x:<escape>a  é日<escape>}<end_function_call><start_function_response>"
    assert constraints.decode(tokenizer.encode(call, add_special_tokens=False)) == call


ODD = {
    "e<escape>": {"type": "string", "enum": ["a<escape>b", "c"]},
    "t": {"type": {"a": 1}},
    "l": {"type": [["string"], "integer"]},
    "p": {"type": "object", "properties": ["a"]},
    "m": {"type": "integer", "enum": [1, "dontcare"]},
    "k": {"type": "integer", "enum": ["low", "high"]},
    "c": {"const": 3},
    "o": {"oneOf": [{"type": "boolean"}]},
    "v": {"type": ["string", "null"]},
    "X": {"type": "integer"},
    "x": {"type": "integer"},
}


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("{e< escape>:<escape>a< escape>b<escape>}", True),
        ("{t:1,v:None}", True),
        ("{l:1}", True),
        ("{p:{a:1}}", True),
        ("{m:1}", True),
        ("{m:<escape>dontcare<escape>}", False),  # of no declared type
        ("{k:<escape>low<escape>}", True),  # no value is of the declared type
        ("{k:1}", False),
        ("{c:3}", True),
        ("{c:4}", False),
        ("{o:true}", True),
        ("{o:1}", False),
        ("{v:<escape>a<escape>}", True),
        ("{v:1}", False),
        ("{X:1,x:2}", True),
        ("{n:1e99}", True),
        ("{n:1e999}", False),  # beyond what a float holds
    ],
)
def test_odd_schemas_are_read_as_far_as_they_go(constraints, tokenizer, text, taken):
    tools = [tool("odd", {**ODD, "n": {"type": "number"}})]
    tools[0]["function"]["parameters"]["required"] = "X"
    assert accepts(constraints, tokenizer, tools, f"<start_function_call>call:odd{text}<end_function_call>") == taken


def test_tools_that_cannot_be_a_grammar_are_named_before_any_reply(constraints, model, tokenizer):
    deep = {"type": "string"}
    for _ in range(400):
        deep = {"type": "array", "items": deep}
    row = {**ROWS[0], "row_id": "deep", "tools": [tool("f", {"a": deep})]}
    with pytest.raises(ConstraintError, match="the tools of row 'deep' must be writable as a grammar"):
        constraints.render_grammars([ROWS[1], row])
    with pytest.raises(ConstraintError, match="the recipe's are 'tutorial'"):
        evaluate(model, tokenizer, ROWS[:2], "tutorial", constrained=True)


def test_constrained_scores_stand_apart(model, tokenizer, tmp_path):
    free, held = (
        evaluate(model, tokenizer, ROWS[:6], "native", max_new_tokens=24, constrained=one) for one in (False, True)
    )
    assert name_files("base") == ("replies.base.jsonl", "scores.base.json")
    assert name_files("", constrained=True) == ("replies.constrained.jsonl", "scores.constrained.json")
    held.write(open_run(tmp_path), *name_files("base", constrained=True))
    saved = Scores.from_dict(json.loads((tmp_path / "scores.base.constrained.json").read_text()))
    assert saved.constrained and "constrained replies" in str(build_ladder_table(saved).columns)
    assert not free.scores.constrained and "constrained" not in str(build_ladder_table(free.scores).columns)
    assert all(parse_reply(text).problems == () or not text.endswith(STOP_TOKENS) for text in held.replies)
    with pytest.raises(ValueError, match="free replies or both of constrained ones"):
        compare(free.scores, saved)


def test_a_constrained_reply_that_is_in_the_grammar_already_stays(constraints, model, tokenizer):
    rows = ROWS[:16]
    free, held = (generate_replies(model, tokenizer, rows, max_new_tokens=48, constrained=one) for one in (False, True))
    ended = [place for place, text in enumerate(free) if text.endswith(START_RESPONSE)]
    taken = [
        place
        for place in ended
        if accepts(constraints, tokenizer, rows[place]["tools"], free[place].removesuffix(START_RESPONSE))
    ]
    assert taken and all(free[place] == held[place] for place in taken)


def test_without_the_library_the_error_names_it(tokenizer, monkeypatch):
    plain = builtins.__import__

    def missing(name, *rest, **options):
        if name == "xgrammar":
            raise ImportError(name)
        return plain(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConstraintError, match=r"needs xgrammar.*pip install 'fgtools\[constrained\]'"):
        Constraints(tokenizer, 10)
