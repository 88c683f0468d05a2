"""Constrained decoding: whatever the model, what comes out is in the grammar; and every right answer can come out."""

import builtins

import pytest
import torch

from fgtools.calls import parse_reply, render_calls, row_calls
from fgtools.constraint import ConstraintError, Constraints, render_grammar
from fgtools.generate import generate_replies
from fgtools.metrics import score
from fgtools.offline.samples import build_samples
from fgtools.outcomes import has_valid_arguments, score_row
from fgtools.rows import build_rows
from tests.toys import fresh_model, load_shared

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


def test_what_a_model_without_sense_writes_is_a_valid_call(tokenizer):
    model = fresh_model()
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.5)
    rows = [row for row in ROWS if row["gold"]][:12]
    free = score(rows, generate_replies(model, tokenizer, rows, max_new_tokens=60))
    held = generate_replies(model, tokenizer, rows, max_new_tokens=60, constrained=True)
    assert free.in_grammar.k < 6
    ended = [(row, parse_reply(text)) for row, text in zip(rows, held, strict=True) if text.endswith("_response>")]
    for row, reply in ended:
        tools = {one["function"]["name"]: one["function"]["parameters"] for one in row["tools"]}
        assert not reply.problems and (not reply.calls or has_valid_arguments(reply.calls, tools))


def test_a_constrained_reply_that_is_right_already_stays(model, tokenizer):
    rows = ROWS[:16]
    free, held = (generate_replies(model, tokenizer, rows, max_new_tokens=48, constrained=one) for one in (False, True))
    right = [place for place, row in enumerate(score(rows, free).rows) if row.exact_match and row.in_grammar]
    assert right and all(free[place] == held[place] for place in right)


def test_without_the_library_the_error_names_it(tokenizer, monkeypatch):
    plain = builtins.__import__

    def missing(name, *rest, **options):
        if name == "xgrammar":
            raise ImportError(name)
        return plain(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConstraintError, match=r"needs xgrammar.*pip install 'fgtools\[constrained\]'"):
        Constraints(tokenizer, 10)
