"""The worked example of docs/own_tools.md: its blocks are written to files and its commands run, in their order."""

import csv
import json
import re
from pathlib import Path

import pytest

from fgtools.__main__ import main
from tests.toys import load_cases

PAGE = (Path(__file__).parents[1] / "docs" / "own_tools.md").read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tools.py").write_text(blocks("python")[0], encoding="utf-8")
    return tmp_path


def run_commands(block):
    for line in block.splitlines():
        assert line.startswith("python -m fgtools ")
        assert main(line.split()[3:]) == 0


def test_the_way_from_functions_to_rows(folder):
    draft, rows = blocks("sh")
    start, filled = blocks("csv")
    run_commands(draft)
    sheet = (folder / "examples.csv").read_text(encoding="utf-8")
    assert sheet.startswith(start)  # what the page shows is what the command writes
    drafted = [one["call"] for one in csv.DictReader(sheet.splitlines())]
    assert all(sum(call.startswith(name) for call in drafted) >= 6 for name in ("set_alarm", "stop_alarm", "set_light"))
    (folder / "examples.csv").write_text(filled, encoding="utf-8")
    run_commands(rows)
    funnel = json.loads((folder / "rows" / "funnel.json").read_text())
    assert funnel["funnel"] == {"kept": 19, "empty_request": 1} and funnel["problems"] == {}
    made = [row for side in ("train", "eval", "unseen") for row in load_cases(folder / "rows" / f"rows.{side}.jsonl")]
    calls = [call for row in made for call in row["gold"]]
    assert {"name": "set_alarm", "arguments": {"time": "06:30", "days": ["mon", "sat"]}} in calls
    assert sorted({len(row["gold"]) for row in made}) == [0, 1, 2]


def test_the_readme_and_the_page_name_the_same_commands():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert "docs/own_tools.md" in readme and "python -m fgtools draft --tools tools.py --out examples.csv" in readme
