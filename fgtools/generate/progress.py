"""How far an evaluation is and how long the rest takes: a bar for people, one line where nobody watches.

Knows counts of tokens, rows and seconds; not models or texts. Rows are no measure: all prompts of a batch are read
before its replies end, so that the first row comes late and the last ones together. What is left is estimated from what
was measured so far: the seconds of reading a token of a prompt, and of a decoding step with some number of rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from tqdm.auto import tqdm

from fgtools.files import is_watched

LONG = 60.0
"""Seconds from which on a run that nobody watches is told how long it will take."""

USUAL_SHARE, LONGEST_SHARE = 0.35, 0.7
"""Usual and longest replies as shares of their budget, until replies have ended: a budget is a quarter more than the
longest gold, rounded up."""

BAR_SECONDS = 0.2
"""Seconds between two pictures of the bar."""

GUESSES = 4
"""Replies of usual length that are mixed into the mean of those that have ended: the first ones to end are short."""

RECENT = 0.1
"""Weight of the last decoding steps in the mean of what a step takes."""

STEP_TOKENS = 32
"""A decoding step costs as much as reading this many tokens, before one was measured: it goes through all weights."""


def announce(text: str) -> None:
    """Print a decision or a time; of several processes, the first one alone does."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


class Progress:
    """Work done and to do, with the time it took and will take."""

    def __init__(
        self, n_rows: int, budget: int, row_cost: float, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Begin, and show a bar where a person watches.

        Args:
            n_rows: Rows to answer.
            budget: Tokens a reply may take.
            row_cost: What a row of a decoding step costs more than reading a token of a prompt, as a factor: a step
                also goes through the head.
            clock: Returns seconds.
        """
        self.n_rows, self.budget, self.row_cost, self.clock = n_rows, budget, row_cost, clock
        self.began = self.last = self.shown = clock()
        self.unread = self.n_read = 0
        self.waiting, self.rows_at_once = n_rows, max(1, n_rows)
        self.lengths: list[int] = []
        self.current: list[int] = []
        self.n_steps = 0
        self.read_seconds = 0.0  # of all tokens read
        self.step_seconds = 0.0  # of one step, without what each row adds
        self.bar = tqdm(
            total=100.0,
            desc=f"replies 0/{n_rows}",
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left",
            disable=not is_watched() or n_rows == 0,
        )
        self.is_told = not self.bar.disable

    def plan(self, unread: int, waiting: int, rows_at_once: int) -> None:
        """Set what there is to do, at the start of a batch.

        Args:
            unread: Tokens of prompts to be read, those of the batch included.
            waiting: Rows of later batches.
            rows_at_once: Rows of a batch.
        """
        self.unread, self.waiting, self.rows_at_once, self.current = unread, waiting, rows_at_once, []
        self.last = self.clock()

    def read(self, tokens: int, rows: int) -> None:
        """Count tokens of prompts that were read, and the rows whose prompts they end."""
        self.read_seconds += self._lap()
        self.n_read += tokens
        self.unread -= tokens
        self.current += [0] * rows
        self._show()

    def wrote(self, steps: int, rows: int, lengths: Sequence[int], ended: Sequence[int]) -> None:
        """Count decoding steps.

        Args:
            steps: Steps since the last call; 0 for first tokens, which take no step.
            rows: Rows that each of them computed.
            lengths: Tokens so far of the replies that go on.
            ended: Tokens of the replies that have ended in these steps.
        """
        taken = self._lap()
        if steps:
            base = max(0.0, taken / steps - rows * self._row_seconds())
            self.n_steps += 1
            self.step_seconds += max(RECENT, 1 / self.n_steps) * (base - self.step_seconds)
        waiting = [0] * (len(self.current) - len(lengths) - len(ended))
        self.current = [*lengths, *waiting]
        self.lengths += ended
        self._show()
        if ended and not self.is_told:
            self._tell()

    def _lap(self) -> float:
        now = self.clock()
        taken, self.last = now - self.last, now
        return taken

    def seconds_to_read(self) -> float:
        """Return how long reading all prompts that are left takes; 0 before one was read."""
        return self.unread * self._token_seconds()

    def seconds_left(self) -> float:
        """Return how long the rest takes; 0 before a prompt was read."""
        usual, longest = self._reply_lengths()
        unread_rows = max(0, self.n_rows - len(self.lengths) - len(self.current) - self.waiting)
        lengths = [*self.current, *[0] * unread_rows]
        # a reply about as long as usual is expected to go on for a part of that
        ends = [min(self.budget, usual if one < 0.8 * usual else one + usual / 4) for one in lengths]
        tokens = self.waiting * usual + sum(ends) - sum(lengths)
        steps = -(-self.waiting // self.rows_at_once) * longest
        if lengths:
            steps += min(self.budget, max(longest, *ends)) - min(lengths)
        return self.seconds_to_read() + steps * self._base_seconds() + tokens * self._row_seconds()

    def _reply_lengths(self) -> tuple[float, float]:
        """Return how long a usual reply and the longest of a batch are expected to be, in tokens."""
        guess = USUAL_SHARE * self.budget
        usual = (GUESSES * guess + sum(self.lengths)) / (GUESSES + len(self.lengths))
        longest = max(self.lengths, default=0)
        if len(self.lengths) < 0.9 * self.rows_at_once:  # the longest replies of a batch end last
            longest = max(longest, LONGEST_SHARE * self.budget)
        return usual, longest

    def _token_seconds(self) -> float:
        return self.read_seconds / self.n_read if self.n_read else 0.0

    def _row_seconds(self) -> float:
        """Return what one more row adds to a decoding step."""
        return self.row_cost * self._token_seconds()

    def _base_seconds(self) -> float:
        """Return what a decoding step takes whatever its rows."""
        return self.step_seconds if self.n_steps else STEP_TOKENS * self._token_seconds()

    def _show(self) -> None:
        """Move the bar to the share of the time that has passed, so that what it says is left is what is left."""
        now = self.clock()
        if self.bar.disable or now - self.shown < BAR_SECONDS:
            return
        self.shown, passed = now, now - self.began
        self.bar.set_description_str(f"replies {len(self.lengths)}/{self.n_rows}", refresh=False)
        self.bar.n = 100 * passed / (passed + self.seconds_left())
        self.bar.refresh()

    def _tell(self) -> None:
        """Print when the first reply came and when the last one is expected, where that takes long."""
        self.is_told = True
        passed = self.clock() - self.began
        whole = passed + self.seconds_left()
        if whole > LONG:
            announce(f"replies: the first after {passed:.0f} s, all {self.n_rows} in about {whole / 60:.0f} min")

    def close(self) -> None:
        """End the bar, which stays."""
        if len(self.lengths) == self.n_rows:
            self.bar.set_description_str(f"replies {self.n_rows}/{self.n_rows}", refresh=False)
            self.bar.n = self.bar.total
        self.bar.close()
