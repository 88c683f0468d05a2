"""A short version of the fuzz: mutated rows of every shape, and real ones where they are."""

import random

import pytest

from fgtools.rows.formats import SHAPES
from tests.fuzz import check_rows, mutated
from tests.rows.test_formats import ROWS
from tests.toys import GOLDEN, load_cases, load_shared


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
@pytest.mark.parametrize("real", [True, False], ids=["real", "made up"])
def test_every_mutated_row_is_accounted_for(recipe, real):
    draw = random.Random(7)
    rows = load_shared("data/dev.jsonl") if real else list(ROWS.values())
    funnel = check_rows([mutated(draw.choice(rows), draw) for _ in range(500)], recipe)
    assert funnel["kept"] > 60 and len(funnel) > 5


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_every_mutated_row_of_a_public_layout_is_accounted_for(recipe):
    draw = random.Random(3)
    rows = [case["row"] for case in load_cases(GOLDEN / "shapes.jsonl")]
    assert len(check_rows([mutated(draw.choice(rows), draw) for _ in range(1000)], recipe)) > 5


@pytest.mark.parametrize("shape", SHAPES)
def test_a_forced_shape_takes_any_row(shape):
    draw = random.Random(11)
    check_rows([mutated(draw.choice(list(ROWS.values())), draw) for _ in range(150)], "native", shape)
