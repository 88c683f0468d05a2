"""The README's first screen and the glossary: the picture is the script's, the figures are the table's, words exist."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_is_what_its_script_draws(theme):
    drawn = runpy.run_path(str(ROOT / "docs" / "picture.py"))["render_picture"](theme)
    assert (ROOT / "docs" / f"call-{theme}.svg").read_text(encoding="utf-8") == drawn
    assert f"docs/call-{theme}.svg" in README


def test_the_figures_of_the_first_screen_are_those_of_the_table_of_real_rows():
    first, table = README.partition("## Two commands")[0], README.partition("## What comes out, on real weights")[2]
    rows = {name: re.search(rf"(?m)^\| {name} \|(.*)$", first)[1] for name in ("before", "after")}
    for measure in (r"right tool\(s\), rows with a call", r"\*\*AST match\*\*"):
        cells = re.search(rf"(?m)^\| {measure} \| (\d+)/(\d+) .*?\| (\d+)/(\d+) ", table).groups()
        assert f"{cells[0]} of {cells[1]}" in rows["before"] and f"{cells[2]} of {cells[3]}" in rows["after"]


def test_the_two_commands_stand_on_the_first_screen():
    lines = README.splitlines()
    assert max(lines.index(line) for line in lines if line.startswith(("make run ", "make test "))) < 40


def test_a_word_of_the_glossary_is_explained_once():
    cells = [cell for cell in re.findall(r"(?m)^\| ([^|]+) \|", GLOSSARY) if cell not in ("word", "---")]
    words = [word for cell in cells for word in cell.split(", ")]
    assert len(words) == len(set(words)) >= 50
    assert {"gold", "ladder", "AST match", "TC-CER", "McNemar's test"} <= set(words)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_links_between_pages_lead_somewhere(page):
    text = re.sub(r"(?ms)^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text):
        path, _, anchor = next(filter(None, target)).partition("#")
        if "://" in path:
            continue
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page} names {path}"
        if anchor and file.suffix == ".md":
            heads = re.findall(r"(?m)^#+ (.*)$", file.read_text(encoding="utf-8"))
            assert anchor in [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads], anchor
