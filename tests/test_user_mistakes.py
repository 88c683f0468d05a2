"""Forty and more mistakes: each ends in one sentence that says what must hold, what was got and what to do."""

import re

from tests.user_mistakes import ERROR, MISTAKES, USAGE, make_mistakes


def test_every_mistake_gets_its_sentence(tmp_path):
    outcomes = list(make_mistakes(tmp_path))
    assert len(outcomes) == len({words for words, _, _ in MISTAKES}) >= 40
    wrong = [
        (one.words, one.status, one.said)
        for one, (_, status, sentence) in zip(outcomes, MISTAKES, strict=True)
        if one.status != status or sentence not in one.said
    ]
    assert wrong == []
    for one in outcomes:
        assert re.search(r"(?m)^error: ", one.said) and "Traceback" not in one.said and one.status in (ERROR, USAGE)
        assert len(one.said.splitlines()) == 2 if one.status == USAGE else one.said.count("\n") <= 12
    assert not (tmp_path / "up").exists() and (tmp_path / "a_file").read_text() == "text"
