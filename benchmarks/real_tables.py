"""What the trials on real weights gave, as results/real.json holds it, and the tables and figures made of it.

Knows a run folder, the trials' files and how a table looks; trains nothing. Every table is made from the JSON alone, so
that a test can hold the pages against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from fgtools.calls import render_calls, row_calls
from fgtools.files import DataFileError, read_json, read_jsonl
from fgtools.metrics import Scores, Share, compare, score
from fgtools.metrics.intervals import parse_design
from fgtools.metrics.protocol import Protocol, score_protocol
from fgtools.report.figures import AFTER, BEFORE, MUTED
from fgtools.run.folder import RunFolder

MEASURES = {
    "in_grammar": "replied in the grammar",
    "right_tool_calls": "right tool(s), rows with a call",
    "right_names": "right argument names",
    "ast_match": "**AST match**",
    "missed_calls": "missed calls, rows with a call",
    "false_calls": "false calls, rows without one",
}
PROTOCOL = {
    "tool_accuracy": "tool accuracy, the tutorial's",
    "cer": "TC-CER, gold in the tutorial's notation",
    "cer_native": "CER, gold in FunctionGemma's grammar",
    "cer_content": "CER of the call's content, notation alike",
    "ast_match": "AST match",
}
SIDES = {"eval": "held-out rows", "unseen": "rows of tools kept apart"}

STEPS = {
    (False, False): "row by row",
    (True, False): "600 tokens at once",
    (True, True): "600 tokens at once, their common beginning read once",
}
"""The ways of computing a step by whether rows are read together, and whether behind one common beginning."""


def pick(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the measures of saved scores that the tables show."""
    return {name: scores[name] for name in MEASURES}


def read_trial(out: Path, name: str) -> dict[str, Any] | None:
    """Return what a trial gave, with the measures of each side in place of its rows; None where it was not run."""
    try:
        saved = read_json(out / f"{name}.json")
    except DataFileError:
        return None
    kept = {key: value for key, value in saved.items() if key != "asked"}
    return {**kept, "sides": {side: pick(scores) for side, scores in saved["sides"].items()}}


def summarize_run(run: RunFolder) -> dict[str, Any]:
    """Return what a run on real weights showed: its numbers, times, and each side before and after."""
    train, sides = run.read_json("train.json"), {}
    for side, suffix in (("eval", ""), ("unseen", ".unseen")):
        before, after = (Scores.from_dict(run.read_json(f"scores.{name}{suffix}.json")) for name in ("base", "tuned"))
        comparison = compare(before, after)
        change = comparison.change("ast_match")
        sides[side] = {
            "before": pick(before.to_dict()),
            "after": pick(after.to_dict()),
            "verdict": comparison.verdict,
            "ast_difference": [change.difference, change.low, change.high, change.p],
            "comparison": comparison.to_dict(),
        }
    names = ("n_train", "n_eval", "steps", "saved_step", "tokens", "label_tokens", "seconds", "precision")
    arguments = {name: train["arguments"][name] for name in ("learning_rate", "num_train_epochs")}
    rows = train["arguments"]["per_device_train_batch_size"] * train["arguments"]["gradient_accumulation_steps"]
    curve = [
        {"step": one["step"], "loss": one["eval_loss"], "rows_right": one["eval_exact_match"]}
        for one in train["history"]
        if "eval_loss" in one
    ]
    times = {}
    for file in sorted((run.root / "notebooks").glob("*.ipynb")):
        times[file.stem] = round(read_json(file)["metadata"]["papermill"]["duration"])
    return {
        **{name: train[name] for name in names},
        **arguments,
        "rows_a_step": rows,
        "curve": curve,
        "stages": times,
    } | {"sides": sides}


def compare_recipes(run: RunFolder, out: Path, native: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the tutorial's figures of four models' replies to the same rows with a call, taken apart.

    Args:
        run: The run, for its replies before and after.
        out: Folder of the trials.
        native: The trial of the native recipe with the tutorial's rows and steps.
        rows: The rows.
    """
    asked = [row for row in rows if row["gold"]]
    files = {
        "before": run.find("replies.base.jsonl"),
        "tutorial": out / "tutorial.eval.jsonl",
        "native": out / f"{native}.eval.jsonl",
        "run": run.find("replies.tuned.jsonl"),
    }
    models, found = {}, {}
    for name, file in files.items():
        by_id = {one["row_id"]: one["reply"] for one in read_jsonl(file)}
        style = "tutorial" if name == "tutorial" else "native"
        texts = [by_id[row["row_id"]] for row in asked]
        models[name] = _describe(score_protocol(asked, texts, style))
        found[name] = score(asked, texts, style)
    models["gold"] = _describe(score_protocol(asked, [render_calls(row_calls(row), "native") for row in asked]))
    pairs = zip(found["native"].rows, found["tutorial"].rows, strict=True)
    tutorial = Scores(tuple(replace(one, ast_match=other.ast_match) for one, other in pairs))  # alone means the same
    change = compare(tutorial, found["native"]).change("ast_match")
    return {"n": len(asked), "models": models, "difference": [change.difference, change.low, change.high, change.p]}


def _describe(protocol: Protocol) -> dict[str, Any]:
    return {name: str(getattr(protocol, name)) for name in PROTOCOL} | {"rate": protocol.cer.rate}


def show(share: Mapping[str, Any]) -> str:
    """Return a saved share as k/n with its interval."""
    return str(_share(share))


def render_run(result: Mapping[str, Any]) -> str:
    """Return the table of a run, before and after on both sides, in Markdown."""
    lines = ["| | before | after |", "|---|---|---|"]
    for side, label in SIDES.items():
        values = result["run"]["sides"][side]
        lines.append(f"| *{label}* | | |")
        for name, measure in MEASURES.items():
            if values["before"][name]["n"]:
                lines.append(f"| {measure} | {show(values['before'][name])} | {show(values['after'][name])} |")
    return "\n".join(lines)


def render_recipes(result: Mapping[str, Any]) -> str:
    """Return the tutorial's figures by model, in Markdown; the gold itself stands last."""
    labels = {
        "before": "before",
        "tutorial": "tutorial recipe",
        "native": "native recipe",
        "run": "native, the whole run",
        "gold": "the gold itself",
    }
    models = result["recipes"]["models"]
    lines = [f"| | {' | '.join(labels.values())} |", "|---" * (len(labels) + 1) + "|"]
    lines += [f"| {label} | {' | '.join(models[one][name] for one in labels)} |" for name, label in PROTOCOL.items()]
    return "\n".join(lines)


def render_grid(result: Mapping[str, Any]) -> str:
    """Return the grid's AST matches by learning rate and passes, in Markdown, with the last held-out loss."""
    cells = {(one["learning_rate"], one["epochs"]): one for one in result["grid"]}
    rates, passes = (sorted({key[at] for key in cells}) for at in (0, 1))
    lines = ["| passes | " + " | ".join(f"{rate:g}" for rate in rates) + " |", "|---" * (len(rates) + 1) + "|"]
    for number in passes:
        found = [cells.get((rate, number)) for rate in rates]
        shown = [f"{_count(one['sides']['eval'])}, loss {one['losses'][-1][1]:.2f}" if one else "-" for one in found]
        lines.append(f"| {number:g} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def render_trials(trials: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> str:
    """Return trials with their numbers, times and measures, a line each, in Markdown."""
    lines = ["| | rows | passes x steps | minutes | right tool(s) | AST match | false calls |", "|---" * 7 + "|"]
    for one, label in zip(trials, labels, strict=True):
        cells = ["-", "-", "-"]
        if "steps" in one:
            cells = [f"{one['n_rows']}", f"{one['epochs']:g} x {one['steps'] / one['epochs']:.0f}"]
            cells.append(f"{one['training_seconds'] / 60:.1f}")
        scores = one["sides"]["eval"]
        cells += [show(scores[name]) for name in ("right_tool_calls", "ast_match", "false_calls")]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def render_steps(result: Mapping[str, Any]) -> str:
    """Return the seconds of one optimizer step by rows and way of computing it, in Markdown."""
    lines = ["| 16 rows, one step | fp32 | bf16 |", "|---" * 3 + "|"]
    for rows, measured in result["steps"].items():
        seconds = {(one["at_once"] > 1, one["shared"] > 0, one["precision"]): one["seconds"] for one in measured}
        for (batched, shared), label in STEPS.items():
            found = [seconds.get((batched, shared, precision)) for precision in ("fp32", "bf16")]
            if None not in found:
                lines.append(f"| {rows}, {label} | {found[0]:.1f} s | {found[1]:.1f} s |")
    return "\n".join(lines)


def _count(measures: Mapping[str, Any]) -> str:
    return f"{measures['ast_match']['k']}/{measures['ast_match']['n']}"


def plot_own_rows(result: Mapping[str, Any], axes: Axes) -> Axes:
    """Draw what rows of own tools buy: three measures by the number of training rows, with their intervals."""
    points = [(0, result["own"]["0"]), *((one["n_rows"], one) for one in result["own"]["trials"])]
    shown = {"right_tool_calls": (MUTED, "o"), "ast_match": (AFTER, "o"), "false_calls": (BEFORE, "s")}
    for offset, (name, (colour, marker)) in enumerate(shown.items()):
        shares = [_share(one["sides"]["eval"][name]) for _, one in points]
        places = [at + 0.06 * (offset - 1) for at in range(len(points))]
        rates = [100 * share.rate for share in shares]
        axes.plot(places, rates, color=colour, marker=marker, label=MEASURES[name].strip("*"))
        for place, share in zip(places, shares, strict=True):
            axes.plot([place] * 2, [100 * end for end in share.interval], color=colour, linewidth=1, alpha=0.6)
    axes.set_xticks(range(len(points)), [f"{n}" for n, _ in points])
    axes.set(xlabel="training rows of own tools", ylabel="% of evaluation rows", ylim=(0, 102))
    axes.legend(frameon=False, fontsize=8)
    return axes


def _share(saved: Mapping[str, Any]) -> Share:
    return Share(saved["k"], saved["n"], parse_design(saved))
