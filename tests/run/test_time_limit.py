"""How long a training may take: a parameter, or what is left of a Kaggle session."""

import pytest

from fgtools.files import InputError
from fgtools.run import time_limit
from fgtools.run.time_limit import build_time_callbacks, measure_session, plan_time


@pytest.fixture
def kaggle(monkeypatch):
    """A Kaggle session that is eleven hours old."""
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setattr(time_limit, "measure_session", lambda: 11 * 3600.0)


def test_elsewhere_there_is_no_limit_unless_one_is_given(monkeypatch, capsys):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    assert plan_time(0) is None and build_time_callbacks(0) == [] and capsys.readouterr().out == ""
    assert plan_time(1.5) == (5400, "1.5 h, as TIME_LIMIT says")
    with pytest.raises(InputError, match="TIME_LIMIT must be a number of hours"):
        plan_time(-1)


def test_on_kaggle_it_is_what_is_left_of_the_session(kaggle, monkeypatch, capsys):
    assert plan_time(0) == (3600, "1.0 h are left of the 12 h of a Kaggle session")
    (stop,) = build_time_callbacks(0)
    assert (round(stop.deadline - stop.began), stop.reserve) == (3600, 360)
    told = "time: 1.0 h are left of the 12 h of a Kaggle session; 6 min of them are kept to choose and save the model"
    assert capsys.readouterr().out.startswith(told)
    assert plan_time(2)[0] == 7200  # who asks for more gets it
    (stop,) = build_time_callbacks(0, share=3)
    assert round(stop.deadline - stop.began) == 1200
    (stop,) = build_time_callbacks(9)
    assert stop.reserve == 600
    monkeypatch.setattr(time_limit, "measure_session", lambda: 13 * 3600.0)
    assert plan_time(0)[0] == 1
    monkeypatch.setattr(time_limit, "measure_session", lambda: None)
    assert plan_time(0) == (43_200, "12 h of a Kaggle session; how much of it has gone is not known")


def test_the_age_of_a_session_is_that_of_its_first_process():
    age = measure_session()
    assert age is None or age > 0
