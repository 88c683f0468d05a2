"""Text from outside in a card: whatever it holds, it is shown letter by letter and becomes nothing else."""

import re

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from fgtools.report.card import render_card
from fgtools.report.markup import clean_text, escape_text, render_code, render_program
from tests.report.card_facts import BASE, LICENCE, build_facts

HOSTILE = [
    "a|b | c",
    "`code` ``` ~~~",
    "\n---\nlicense: mit\n---\n",
    "<script>alert(1)</script>",
    "one\ntwo\r\n\n# three\n\n- four",
    "{{ jinja }} {% raw %} ${shell}",
    "[link](https://evil.example) ![image](https://evil.example/a.png)",
    "https://evil.example www.evil.example me@evil.example",
    "*bold* _thin_ __init__ ~~gone~~ $$x$$ \\(y\\) \\",
    "&lt;b&gt; &#124; &amp;",
    "<!-- comment --> <b onclick='x'>",
    "\u202eturned\u2066 \x00\x1b[31m \u2028line \ud800",
    ": key: [value, {a: b}] 'quote' \"double\" %tag !!python/object",
    " space around ",
    "",
    "名前 é ß 🙂",
]
MARKDOWN = MarkdownIt("gfm-like", {"linkify": False, "html": True}).enable("table")


def read_shown(markdown):
    """Return the text that a reader of rendered Markdown sees, and the kinds of its inline elements."""
    (cell,) = [one for one in MARKDOWN.parse(f"x {markdown} x") if one.type == "inline"]
    kinds = {one.type for one in cell.children}
    return "".join(one.content for one in cell.children if one.type in ("text", "text_special", "code_inline")), kinds


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_is_shown_as_it_is(text):
    shown, kinds = read_shown(escape_text(text))
    assert shown == f"x {clean_text(text)} x".rstrip() or shown == f"x {clean_text(text)} x"
    assert kinds <= {"text", "text_special"} and "\n" not in escape_text(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_code_span_is_shown_as_it_is(text):
    shown, kinds = read_shown(render_code(text))
    assert " ".join(shown.split()) == " ".join(f"x {clean_text(text)} x".split())
    assert kinds <= {"text", "text_special", "code_inline", "html_inline"}
    if "html_inline" in kinds:
        assert render_code(text).startswith("<code>") and render_code(text).count("<") == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_stays_one_cell(text):
    for cell in (escape_text(text), render_code(text)):
        tokens = MARKDOWN.parse(f"| a | b |\n| --- | --- |\n| {cell} | 1 |\n")
        assert [one.type for one in tokens].count("td_open") == 2 and tokens[-1].type == "table_close"


def test_a_program_ends_where_its_block_ends():
    program = 'request = "```"\n```\n# not a heading\n'
    (block,) = MARKDOWN.parse(render_program(program))
    assert block.type == "fence" and block.content == program


def test_a_sentence_stays_readable():
    text = "Gemma 3 270M, a base model: 4-bit (q4_k_m) weights, 50 % of huggingface_hub 2.4.0; not a/b!"
    assert escape_text(text) == text


@pytest.mark.parametrize("text", [one for one in HOSTILE if one])
def test_a_card_of_hostile_names_has_its_own_structure_and_metadata(text):
    plain = build_card("name")
    card = build_card(text)
    kinds = [[one.type for one in MARKDOWN.parse(one.split("\n---\n", 1)[1])] for one in (plain, card)]
    assert kinds[0] == kinds[1]
    outside = re.sub(r"^```+python.*?^```+$", "", card.split("\n---\n", 1)[1], flags=re.MULTILINE | re.DOTALL)
    assert "<script" not in outside and "{{" not in outside
    data = ModelCard(card).data
    assert data.license == "gemma" and data.base_model is None and data.datasets is None
    assert len(data.eval_results) == len(ModelCard(plain).data.eval_results)


def build_card(text):
    """Return a card in which every name that comes from outside is this text."""
    licence = {**LICENCE, "copies": [text]}
    base = {**BASE, "name": text, "title": text, "hub_id": text}
    facts = build_facts(base=base, licence=licence, tools={text: [0, 2]}, files={text: "ab12"})
    facts["compare"]["transitions"] = [["", "missed_call", 4]]
    facts["run"]["environment"] = {"torch": text}
    facts["funnel"] |= {
        "origin": text,
        "renamed": {"tools": {text: text}, "parameters": {text: {text: text}}},
        "by_source": {text: {"kept": 1}, "b": {"kept": 2}},
    }
    facts["data"] = {"licence": text, "languages": [text]}
    return render_card(facts, repo_id=text, usage=f"request = {text!r}\n")
