"""How a table is shown: whole, escaped, the same at every time, in a terminal, a notebook and a Markdown file."""

import html
import re

import pandas
from IPython.core.formatters import format_display_data

from fgtools.report.layout import (
    LONGEST_PIECE,
    build_pairs_table,
    render_markdown_table,
    render_table,
    style_table,
    wrap_text,
)

TABLE = pandas.DataFrame({"name": ["a|b", "<x>"], "rate": [0.25, float("nan")], "text": ["1", "two\nlines"]})


def test_a_table_is_text_in_a_terminal():
    assert render_table(TABLE) == (
        "name  rate   text\n----  -----  -----\na|b   0.250  1\n----  -----  -----\n"
        "<x>          two\n             lines"
    )
    assert render_table(TABLE[:1]) == "name  rate   text\n----  -----  ----\na|b   0.250  1"
    assert render_table(TABLE[:0]) == "name  rate  text\n----  ----  ----"


def test_long_cells_are_wrapped_and_nothing_is_left_out():
    frame = pandas.DataFrame({"a": ["word " * 40], **{f"column {number}": [number] for number in range(30)}})
    lines = render_table(frame, width=30).splitlines()
    assert max(len(line.partition("  ")[0]) for line in lines) <= 30 and len(lines) > 5
    assert render_table(frame).count("word") == 40 and "column 29" in lines[0]
    many = pandas.DataFrame({"a": range(500)})
    assert len(render_table(many).splitlines()) == len(repr(style_table(many)).splitlines()) == 502


def test_markdown_escapes_what_it_would_read():
    frame = pandas.DataFrame({"a": ["a|b", "two\nlines", "<escape>x<escape>"], "share": [0.5, 1.0, float("nan")]})
    assert render_markdown_table(frame).splitlines() == [
        "| a | share |",
        "| --- | --- |",
        "| a\\|b | 50.0% |",
        "| two<br>lines | 100.0% |",
        "| &lt;escape&gt;x&lt;escape&gt; |  |",
    ]


def test_numbers_are_written_by_their_column():
    frame = pandas.DataFrame({"difference": [75.0, -0.0123, 0.0], "p": [0.25, 1e-310, 0.00012], "other": [1.5, 2, 3]})
    rows = [line.split() for line in render_table(frame).splitlines()[2:]]
    assert rows == [["+75", "0.25", "1.5"], ["-0.0123", "<", "1e-300", "2.0"], ["+0", "0.00012", "3.0"]]


def test_a_notebook_shows_a_whole_table_that_runs_nothing():
    evil = pandas.DataFrame({"<script>": ["<script>alert(1)</script>\n" + "x" * 500]})
    shown, _ = format_display_data(style_table(evil))
    assert set(shown) == {"text/plain", "text/html"}
    assert "<script" not in shown["text/html"]
    assert "script&gt;<br>" in shown["text/html"] and "x" * 500 in shown["text/html"].replace("<wbr>", "")
    assert shown["text/plain"] == render_table(evil)


def test_the_same_table_is_always_the_same_html_and_another_one_has_another_id():
    again, other = TABLE.copy(), TABLE.assign(text="other")
    shown = style_table(TABLE)._repr_html_()
    assert shown == style_table(TABLE)._repr_html_() == style_table(again)._repr_html_()
    ids = [re.search(r'<table id="(\w+)"', style_table(one)._repr_html_())[1] for one in (TABLE, other)]
    assert ids[0] != ids[1]
    assert "row_heading" not in shown and "text-align: left" in shown


def test_no_piece_of_a_table_is_too_long_to_be_wrapped_and_nothing_is_lost():
    word = "multiple_function_checker:wrong_count<escape>athens<escape>" + "good" * 30
    shown = style_table(pandas.DataFrame({"a_long_name_of_a_column": [word, "two words"]}))._repr_html_()
    cells = re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", shown, re.DOTALL)
    assert [html.unescape(cell.replace("<wbr>", "")) for cell in cells] == [
        "a_long_name_of_a_column",
        word,
        "two words",
    ]
    pieces = [html.unescape(piece) for cell in cells for piece in re.split(r"<wbr>|\s", cell)]
    assert max(map(len, pieces)) == LONGEST_PIECE and "function_" in pieces
    assert "max-width: 1000px" in shown


def test_sentences_are_wrapped_between_words_and_lines_stay_lines():
    text = "word " * 50 + "\nsecond"
    lines = wrap_text(text, 40).splitlines()
    assert max(map(len, lines)) <= 40 and lines[-1] == "second" and " ".join(lines[:-1]) == ("word " * 50).strip()
    assert wrap_text("") == "" and wrap_text("x" * 60, 40) == "x" * 60


def test_an_interval_stays_on_its_line():
    shown = style_table(pandas.DataFrame({"a": ["15/70 = 21.4% [13.4, 32.4]"]}))._repr_html_()
    assert '15/70 = 21.4% <span style="white-space: nowrap">[13.4, 32.4]</span></td>' in shown


def test_only_columns_of_short_cells_are_not_wrapped():
    shown = style_table(
        pandas.DataFrame({"a": ["short"], "b": ["longer than a piece of text"], "c": [1]})
    )._repr_html_()
    assert re.findall(r"td\.(col\d) \{\s*white-space: nowrap", shown) == ["col0", "col2"]


def test_a_table_in_a_terminal_is_as_wide_as_the_terminal():
    frame = pandas.DataFrame({"a": ["word " * 30], "b": ["other " * 20], "c": ["1"]})
    for total in (100, 60, 40):
        lines = render_table(frame, total=total).splitlines()
        assert max(map(len, lines)) <= total
        assert sum(line.count("word") + line.count("other") for line in lines) == 50
    assert render_table(frame) == render_table(frame, total=1000)


def test_shares_are_bars_from_nothing_to_all():
    shown = style_table(pandas.DataFrame({"share": [0.25, 1.0]}))._repr_html_()
    assert "22.5%, transparent 22.5%" in shown and "90.0%, transparent 90.0%" in shown  # of 90 % of the cell's width
    over = style_table(pandas.DataFrame({"rate": [0.5, 2.0, float("nan")]}))._repr_html_()
    assert "22.5%, transparent 22.5%" in over
    assert "linear-gradient" not in style_table(pandas.DataFrame({"rate": [float("nan")]}))._repr_html_()


def test_the_measure_that_decides_is_bold():
    shown = style_table(pandas.DataFrame({"measure": ["known tool", "AST match"], "rate": [1.0, 0.5]}))._repr_html_()
    bold = re.findall(r"([^{}]*)\{[^{}]*font-weight: bold", shown)
    assert [cell.strip().partition("_row")[2] for cell in bold] == ["1_col0", "1_col1"]


def test_a_styled_table_keeps_its_frame_and_leaves_it_as_it_was():
    before = TABLE.copy()
    assert style_table(TABLE).data.equals(before) and TABLE.equals(before)


def test_pairs_stay_values():
    table = build_pairs_table("number", "value", {"epochs": 2, "rate": 0.5, "best": True, "engine": None})
    assert list(table["value"]) == [2, 0.5, True, None]
    assert render_table(table).splitlines()[2:] == [
        "epochs  2",
        "rate    0.5",
        "best    True",
        "engine  None",
    ]
