"""Training curves that grow in a notebook while the trainer runs.

Knows the trainer's log and a notebook's display; a callback that whoever starts a training hands to the trainer.
"""

from __future__ import annotations

import sys
from typing import Any

from transformers import TrainerCallback

from fgtools.files import is_watched


class LiveCurves(TrainerCallback):
    """Draws loss, token accuracy, learning rate, speed and memory at every evaluation, in place of the last drawing."""

    def __init__(self) -> None:
        self.handle: Any = None

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw the log so far; only the first of several processes draws."""
        if state.global_step == 0 or not state.is_world_process_zero:
            return
        import matplotlib.pyplot as plt
        from IPython.display import display

        from fgtools.report.figures import plot_training

        figure = plot_training(state.log_history).figure
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
        plt.close(figure)


def build_live_callbacks() -> list[TrainerCallback]:
    """Return LiveCurves where a person watches a notebook; nothing in a terminal or where nobody watches."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    in_notebook = getattr(shell, "kernel", None) is not None  # IPython in a terminal can show no figure
    return [LiveCurves()] if in_notebook and is_watched() else []
