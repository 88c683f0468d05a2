"""Training curves: every figure of the log is drawn; while it runs, a new drawing replaces the last one."""

import types

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from fgtools.report.figures import plot_training
from fgtools.report.live import LiveCurves, build_live_callbacks
from tests.train.test_callbacks import HISTORY, state


def test_curves_hold_every_figure_of_the_log():
    axes = plot_training(HISTORY)
    drawn = {one.get_title(loc="left"): one for one in axes.figure.axes}
    assert [len(line.get_xdata()) for line in drawn["Loss"].lines] == [2, 2]
    assert [len(line.get_xdata()) for line in drawn["Labels right at first choice"].lines] == [2, 2, 2]
    assert list(drawn["Learning rate"].lines[0].get_ydata()) == [1e-4, 5e-5]
    assert list(drawn["Tokens per second"].lines[0].get_ydata()) == [900, 950]
    assert list(drawn["Peak memory, GiB"].lines[0].get_ydata()) == [2, 3]
    assert drawn["Peak memory, GiB"].get_ylim() == (0, 1.15 * 3)  # its highest value, and room above it
    assert drawn["Loss"].get_ylim()[0] > 0.5 and drawn["Learning rate"].get_ylim()[0] == 0
    plt.close(axes.figure)
    plt.close(plot_training([]).figure)


def test_live_curves_are_one_drawing_that_is_replaced(monkeypatch):
    shown, updated = [], []
    handle = types.SimpleNamespace(update=updated.append)
    monkeypatch.setattr("IPython.display.display", lambda figure, display_id: shown.append(figure) or handle)
    curves, open_before = LiveCurves(), plt.get_fignums()
    curves.on_evaluate(None, state(first=False), None)
    for step in (0, 5, 10, 15):
        curves.on_evaluate(None, state(step), None)
    assert (len(shown), len(updated)) == (1, 2) and plt.get_fignums() == open_before


def test_curves_are_drawn_where_somebody_watches_a_notebook_and_nowhere_else(monkeypatch):
    given = []
    notebook, terminal = types.SimpleNamespace(kernel=object()), types.SimpleNamespace()
    for watched, shell in ((True, notebook), (False, notebook), (True, terminal), (True, None)):
        monkeypatch.setattr("fgtools.report.live.is_watched", lambda watched=watched: watched)
        monkeypatch.setattr("IPython.get_ipython", lambda shell=shell: shell)
        given.append([type(one) for one in build_live_callbacks()])
    assert given == [[LiveCurves], [], [], []]
