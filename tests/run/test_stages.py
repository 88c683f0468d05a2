"""The table of stages: every input has an earlier maker, and the notebooks' first cells say what the table says."""

import re

import nbformat
import pytest

from fgtools.run.stages import STAGES, find_maker
from tests.normal_form import NOTEBOOKS


def test_every_stage_reads_only_what_an_earlier_one_writes():
    for stage, files in STAGES.items():
        for name in files.reads:
            assert "" < find_maker(name) < stage, (stage, name)
            assert name in STAGES[find_maker(name)].writes, f"{name} must always be there for {stage}"
        for name in (*files.may_read, *files.checks):
            assert "" < find_maker(name) < stage, (stage, name)


def test_the_maker_is_the_first_stage_that_writes_a_file():
    assert find_maker("figures") == "02_data"
    assert find_maker("scores.base.unseen.json") == "03_baseline"
    assert find_maker("model") == "04_train"
    assert find_maker("notes.txt") == ""


@pytest.mark.parametrize("stage", STAGES)
def test_a_notebook_says_what_the_table_says(stage):
    title = nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4).cells[0].source
    reads, writes = re.search(r"\*\*Reads\*\*(.*)\*\*Writes\*\*(.*)", title, re.DOTALL).groups()
    files = STAGES[stage]
    for said, always, sometimes in ((reads, files.reads, files.may_read), (writes, files.writes, files.may_write)):
        named = {name.rstrip("/") for name in re.findall(r"`([^`]+)`", said)}
        assert set(always) - {"figures"} <= named <= {*always, *sometimes}
