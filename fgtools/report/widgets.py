"""What a person tries by hand in a notebook: a browser over scored rows, and a playground for the model.

Knows ipywidgets, scores and answers; computes no score. A static table stands in for the widget where nobody watches
(papermill, nbval, a saved Kaggle version) or ipywidgets is missing. Every display carries that table too, for pages
that cannot run widgets.
"""

from __future__ import annotations

import html
import importlib.util
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fgtools.calls import parse_reply, render_calls, row_calls
from fgtools.calls.tokens import STOP_TOKENS
from fgtools.files import InputError, is_watched
from fgtools.metrics import Scores
from fgtools.profiles import Recipe, get_recipe
from fgtools.report.alignment import render_alignment
from fgtools.report.examples import build_inspection_table, render_message, render_plain_calls
from fgtools.report.layout import build_pairs_table, style_table
from fgtools.report.tables import RIGHT
from fgtools.schema import normalize_tools
from fgtools.serve import Answer, answer_request

if TYPE_CHECKING:
    import pandas
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VERDICTS = ("all", "right", "wrong")
"""What a browser's rows may be filtered by; with scores before training also FIXED and BROKEN."""

FIXED, BROKEN = "fixed", "broken"


def select_rows(scores: Scores, verdict: str = "all", error: str = "", before: Scores | None = None) -> list[int]:
    """Choose scored rows by what became of them.

    Args:
        scores: The scores.
        verdict: One of VERDICTS, or FIXED or BROKEN.
        error: An error code; "" for rows with any error or none.
        before: Scores before training, of the same rows in the same order; needed for FIXED and BROKEN.

    Returns:
        Indices, in order.

    Raises:
        ValueError: The verdict is unknown, or needs scores before training.
    """
    known = VERDICTS if before is None else (*VERDICTS, FIXED, BROKEN)
    if verdict not in known:
        raise InputError(f"the verdict must be one of {', '.join(known)}, got {verdict!r}")
    old = scores.rows if before is None else before.rows
    keeps = {
        "all": lambda was, now: True,
        "right": lambda was, now: now,
        "wrong": lambda was, now: not now,
        FIXED: lambda was, now: now and not was,
        BROKEN: lambda was, now: was and not now,
    }[verdict]
    pairs = zip(old, scores.rows, strict=True)
    return [
        index
        for index, (was, now) in enumerate(pairs)
        if keeps(was.ast_match, now.ast_match) and (not error or error == now.error)
    ]


def _build_bundle(table: pandas.DataFrame, build: Callable[[], Any]) -> dict[str, Any]:
    """Return the forms of a display by MIME type: a table, and the widget that `build` returns where it can be used."""
    styled = style_table(table)
    bundle = {"text/plain": repr(styled), "text/html": styled._repr_html_()}
    if is_watched() and importlib.util.find_spec("ipywidgets") is not None:
        view = {"version_major": 2, "version_minor": 0, "model_id": build().model_id}
        bundle["application/vnd.jupyter.widget-view+json"] = view
    return bundle


class RowBrowser:
    """Scored rows, one at a time: filtered by verdict and error class, predicted and gold character by character."""

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        replies: Sequence[str],
        scores: Scores,
        recipe: str | Recipe = "native",
        *,
        before: Scores | None = None,
        first: Sequence[int] = (0,),
    ) -> None:
        """Keep what is shown.

        Args:
            rows: Row dicts.
            replies: One reply a row.
            scores: Their scores, in the same order.
            recipe: How the model was trained.
            before: Scores before training, for the filters FIXED and BROKEN.
            first: The rows of the static table; the first of them is shown first.
        """
        if not len(rows) == len(replies) == len(scores.rows):
            counts = f"{len(rows)} rows, {len(replies)} replies and {len(scores.rows)} scores"
            raise InputError(f"every row must have a reply and a score, got {counts}: pass those of one evaluation")
        names = [[row.row_id for row in one.rows] for one in (scores, before or scores)]
        if names[0] != names[1] or names[0] != [str(row["row_id"]) for row in rows]:
            raise InputError(
                "rows and scores, those before too, must be of the same rows in the same order: score again"
            )
        self.rows, self.replies, self.scores, self.before = rows, replies, scores, before
        self.style = get_recipe(recipe).call_style
        self.first = [index for index in first if 0 <= index < len(rows)]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        table = build_inspection_table(self.rows, self.replies, self.first, style=self.style)
        return _build_bundle(table, self.build)

    def render_row(self, index: int) -> str:
        """Return one row as HTML: request, tools, calls, reply and gold side by side; all of its text is escaped."""
        row, score, reply = self.rows[index], self.scores.rows[index], self.replies[index]
        tools = [tool["function"] for tool in row["tools"]]
        said = "".join(
            f"<div><b>{html.escape(message['role'])}</b> {_escape(render_message(message))}</div>"
            for message in row["messages"]
            if message["role"] != "developer"
        )
        verdict = score.error or RIGHT
        if self.before is not None:
            verdict = f"{self.before.rows[index].error or RIGHT} → {verdict}"
        pairs = (("predicted", parse_reply(reply, self.style).calls), ("gold", row_calls(row)))
        shown = "".join(
            f"<div><b>{name}</b> <code>{_escape(render_plain_calls(calls) or '(no call)')}</code></div>"
            for name, calls in pairs
        )
        declared = json.dumps(tools, ensure_ascii=False, indent=1)
        names = ", ".join(str(tool["name"]) for tool in tools)
        gold = render_calls(row_calls(row), self.style) if row["gold"] else str(row.get("reply", ""))
        for token in STOP_TOKENS:
            reply = reply.removesuffix(token)
        return (
            f"<div><b>row {index}</b> {html.escape(str(row['row_id']))} · {html.escape(verdict)}</div>{said}"
            f"<details><summary>{len(tools)} tools: {html.escape(names)}</summary>"
            f"<pre>{html.escape(declared)}</pre></details>{shown}{render_alignment(reply, gold)}"
        )

    def build(self) -> Any:
        """Build the widget: two filters, previous and next, the row."""
        import ipywidgets

        verdicts = VERDICTS if self.before is None else (*VERDICTS, FIXED, BROKEN)
        verdict = ipywidgets.Dropdown(options=verdicts, description="verdict")
        error = ipywidgets.Dropdown(description="error")
        place = ipywidgets.BoundedIntText(value=1, min=1, description="shown", layout=ipywidgets.Layout(width="11em"))
        back, ahead = ipywidgets.Button(description="◀ previous"), ipywidgets.Button(description="next ▶")
        count, view = ipywidgets.Label(), ipywidgets.HTML()
        chosen: list[int] = []

        def show(_: Any = None) -> None:
            count.value = f"of {len(chosen)}"
            view.value = self.render_row(chosen[place.value - 1]) if chosen else "no such rows"

        def choose(_: Any = None) -> None:
            chosen[:] = select_rows(self.scores, verdict.value, error.value, self.before)
            place.max = max(1, len(chosen))
            place.value = 1
            show()

        def list_errors(_: Any = None) -> None:
            among = select_rows(self.scores, verdict.value, before=self.before)
            codes = Counter(self.scores.rows[index].error for index in among if self.scores.rows[index].error)
            error.options = [("any", ""), *((f"{code} ({n})", code) for code, n in codes.most_common())]
            choose()

        def step(by: int) -> None:
            place.value += by  # stays from 1 to place.max

        back.on_click(lambda _: step(-1))
        ahead.on_click(lambda _: step(1))
        list_errors()
        if self.first:
            place.value = self.first[0] + 1
        show()
        verdict.observe(list_errors, "value")
        error.observe(choose, "value")
        place.observe(show, "value")
        return ipywidgets.VBox([ipywidgets.HBox([verdict, error]), ipywidgets.HBox([back, place, count, ahead]), view])


class Playground:
    """A model to try by hand: type a request, edit the tools, see prompt, raw reply, parsed call and validity."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        request: str,
        tools: Any,
        recipe: str | Recipe = "native",
        *,
        max_new_tokens: int = 128,
    ) -> None:
        """Keep the model and what is asked first.

        Args:
            model: The model.
            tokenizer: Its tokenizer.
            request: The first request.
            tools: The first tools, as `answer_request` takes them.
            recipe: How the model was trained.
            max_new_tokens: Budget of a reply, in tokens.
        """
        self.model, self.tokenizer, self.request, self.tools = model, tokenizer, request, tools
        self.recipe, self.max_new_tokens = recipe, max_new_tokens

    def answer(self, request: str, tools: Any, constrained: bool = False) -> Answer:
        """Let the model answer; raises as `answer_request`."""
        how = {"max_new_tokens": self.max_new_tokens, "constrained": constrained}
        return answer_request(self.model, self.tokenizer, request, tools, self.recipe, **how)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return _build_bundle(build_answer_table(self._first), self.build)

    @cached_property
    def _first(self) -> Answer:
        return self.answer(self.request, self.tools)

    def build(self) -> Any:
        """Build the widget: request, tools, a button, the answer."""
        import ipywidgets

        wide = ipywidgets.Layout(width="98%")
        request = ipywidgets.Textarea(value=self.request, description="request", layout=wide)
        text = self.tools
        if not isinstance(text, str):  # Python functions are shown as what they declare
            text = json.dumps(normalize_tools(self.tools, self.recipe), ensure_ascii=False, indent=1)
        tall = ipywidgets.Layout(width="98%", height="14em")
        tools = ipywidgets.Textarea(value=text, description="tools", layout=tall)
        constrained = ipywidgets.Checkbox(value=False, description="write declared tools and types alone", indent=False)
        button, view = ipywidgets.Button(description="Ask", button_style="primary"), ipywidgets.HTML()

        def ask(_: Any = None) -> None:
            button.disabled = True
            try:
                view.value = _render_answer(self.answer(request.value, tools.value, constrained.value))
            except (ValueError, RuntimeError) as error:  # what people typed, or a missing xgrammar: said, not raised
                view.value = f"<pre>{html.escape(str(error))}</pre>"
            finally:
                button.disabled = False

        button.on_click(ask)
        view.value = _render_answer(self._first)
        return ipywidgets.VBox([request, tools, ipywidgets.HBox([button, constrained]), view])


def build_answer_table(answer: Answer) -> pandas.DataFrame:
    """Return an answer's parts: prompt, raw reply, parsed call(s), validity."""
    parts = {
        "prompt": answer.prompt,
        "raw reply": answer.reply,
        "parsed": render_plain_calls(answer.calls) or f"(no call) {answer.text}",
        "validity": answer.validity,
    }
    return build_pairs_table("part", "answer", parts)


def _render_answer(answer: Answer) -> str:
    """Return an answer as HTML: the prompt in a box that scrolls, the rest as a table."""
    style = "max-height:14em;overflow:auto;white-space:pre-wrap;line-height:1.3;border:1px solid #ccc;padding:4px"
    rest = style_table(build_answer_table(answer)[1:])
    return f"<b>prompt</b><pre style='{style}'>{html.escape(answer.prompt)}</pre>{rest._repr_html_()}"


def _escape(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
