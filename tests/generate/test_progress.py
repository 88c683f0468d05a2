"""The bar tells the truth: what it says is left is about what is left, from the first prompts on."""

import random

import pytest

from fgtools.generate import progress
from fgtools.generate.progress import Progress


class Machine:
    """A machine that takes a second for each unit of work, as the engine does it, and what the bar says meanwhile."""

    def __init__(self, n_rows, prompt, replies, budget, costs, at_once=64, early=4):
        self.now, self.seen = 0.0, []
        self.token, self.step, self.row = costs
        self.work = Progress(n_rows, budget, 2.7, clock=lambda: self.now)
        waiting = n_rows
        while waiting:
            batch = min(at_once, waiting)
            self.work.plan(waiting * prompt, waiting - batch, batch)
            self.answer([replies(number) for number in range(waiting - batch, waiting)], prompt, early)
            waiting, early = waiting - batch, 0
        self.work.close()

    def answer(self, lengths, prompt, early):
        written = {}
        for number in range(len(lengths)):
            self.now += prompt * self.token
            self.work.read(prompt, 1)
            self.look()
            if number + 1 == early and early < len(lengths):
                written = dict.fromkeys(range(early), 1)
                while len(written) == early:
                    self.write(written, lengths)
        written |= {number: 1 for number in range(len(lengths)) if number >= early or number in written}
        while written:
            self.write(written, lengths)

    def write(self, written, lengths):
        self.now += self.step + self.row * len(written)
        ended = [number for number in written if written[number] + 1 >= lengths[number]]
        rows = len(written)
        for number in written:
            written[number] += 1
        for number in ended:
            del written[number]
        self.work.wrote(1, rows, list(written.values()), [lengths[number] for number in ended])
        self.look()

    def look(self):
        self.seen.append((self.now, self.work.seconds_left()))


def usual_replies(number):
    return random.Random(number).randint(12, 60)


CORE = (0.003, 0.09, 0.008)
"""Seconds a token read, a step and a row of it: about what FunctionGemma's shape takes on one CPU core."""

SMALL, GPU = (2e-5, 1e-3, 4e-5), (4e-6, 0.025, 1e-5)
"""A small model, and a device on which a step costs the same for any number of rows; both made up."""


@pytest.mark.parametrize(
    ("n_rows", "prompt", "costs"),
    [
        (40, 300, CORE),
        (300, 300, CORE),
        (12, 500, CORE),
        (300, 120, SMALL),
        (300, 500, GPU),
    ],
)
def test_what_is_left_is_about_what_is_left_from_the_first_prompts_on(batch_run, n_rows, prompt, costs):
    machine = Machine(n_rows, prompt, usual_replies, 80, costs)
    told = [(now, now + left) for now, left in machine.seen if now > 0.05 * machine.now]
    wrong = [whole / machine.now - 1 for _, whole in told]
    assert min(wrong) > -0.3 and max(wrong) < 0.4, (min(wrong), max(wrong))
    late = [whole / machine.now - 1 for now, whole in told if now > 0.6 * machine.now]
    assert min(late) > -0.25 and max(late) < 0.25, (min(late), max(late))
    assert machine.seen[-1][1] == 0


def test_replies_that_take_their_whole_budget_are_learned_about(batch_run):
    machine = Machine(200, 300, lambda number: 80, 80, CORE)
    late = [(now + left) / machine.now - 1 for now, left in machine.seen if now > 0.5 * machine.now]
    assert min(late) > -0.2 and max(late) < 0.2, (min(late), max(late))


def test_nobody_watching_is_told_once_when_it_takes_long(batch_run, capsys):
    Machine(12, 200, usual_replies, 80, CORE)
    assert capsys.readouterr().out == ""
    machine = Machine(300, 300, usual_replies, 80, CORE)
    said = capsys.readouterr().out
    assert said.startswith("replies: the first after 6 s, all 300 in about ") and said.count("\n") == 1
    minutes = int(said.split()[-2])
    assert abs(minutes - machine.now / 60) < 0.4 * machine.now / 60


def test_other_processes_than_the_first_say_nothing(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    Machine(300, 300, usual_replies, 80, CORE)
    assert capsys.readouterr().out == ""


def test_the_bar_shows_rows_and_the_time_that_is_left(monkeypatch, capsys):
    monkeypatch.setattr(progress, "is_watched", lambda: True)
    machine = Machine(40, 300, usual_replies, 80, CORE)
    assert machine.work.bar.n == machine.work.bar.total == 100
    said = capsys.readouterr()
    assert "replies 0/40" in said.err and "replies 40/40 100%" in said.err and said.out == ""
