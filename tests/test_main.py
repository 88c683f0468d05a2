"""The command line: what it writes and prints, and that errors are one line and status 1."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fgtools.__main__ import _build_parser, main
from fgtools.calls import render_calls, row_calls
from fgtools.offline.samples import build_samples
from fgtools.run.folder import RunFolder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in build_samples(160, 21)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def prepared(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    assert main(["prepare", "--data", str(data), "--out", str(out), "--n-eval", "12"]) == 0
    return out


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_prepare_writes_rows_and_a_funnel_that_adds_up(data, tmp_path, capsys, recipe):
    assert main(["prepare", "--data", str(data), "--recipe", recipe, "--out", str(tmp_path), "--n-eval", "40"]) == 0
    funnel = json.loads((tmp_path / "funnel.json").read_text())
    assert sum(funnel["funnel"].values()) == 160
    assert len(read_lines(tmp_path / "rows.train.jsonl")) == funnel["split"]["train"] > 0
    assert "train:" in capsys.readouterr().out


def test_prepare_takes_every_answer_of_a_conversation(tmp_path, capsys):
    tools = [{"name": "find", "parameters": {"thing": {"type": "str"}}}]
    call = '<tool_call>{{"name": "find", "arguments": {{"thing": "{}"}}}}</tool_call>'
    pairs = [
        ("human", "Find thing {}"),
        ("gpt", call),
        ("tool", "no {}"),
        ("gpt", call),
        ("tool", "yes"),
        ("gpt", "Yes."),
    ]
    rows = [
        {"conversations": [{"from": role, "value": text.format(i)} for role, text in pairs], "tools": tools}
        for i in range(30)
    ]
    path, out = tmp_path / "rows.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["prepare", "--data", str(path), "--out", str(out), "--n-eval", "8"]
    assert main([*words, "--turns", "all"]) == 0
    assert "rows taken: 30, with 60 answers = 60 kept" in capsys.readouterr().out
    funnel = json.loads((out / "funnel.json").read_text())
    assert (funnel["turns"], funnel["rows_in"], funnel["answers"]) == ("all", 30, {"2": 30})
    assert main(words) == 0
    funnel = json.loads((out / "funnel.json").read_text())
    assert (funnel["turns"], funnel["funnel"], funnel["problems"]) == ("first", {"kept": 30}, {"later_calls": 30})
    assert main([*words, "--turns", "all", "--recipe", "tutorial"]) == 1
    assert "TURNS = 'all' needs the native recipe" in capsys.readouterr().err
    assert main(["audit", *words[1:-2], "--turns", "all", "--model", "standin"]) == 0


def test_prepare_takes_other_shapes_and_a_share_of_rows_without_a_call(tmp_path, capsys):
    rows = [{"query": f"Find thing {i}", "answers": [{"name": "find", "arguments": {"type": i}}]} for i in range(40)]
    rows += [{"query": f"Just talk about {i}", "answers": "[]"} for i in range(40)]
    tools = [{"name": "find", "description": "Finds.", "parameters": {"type": {"type": "int", "default": 3}}}]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{**row, "tools": json.dumps(tools)} for row in rows]))
    out = tmp_path / "out"
    arguments = ["prepare", "--data", str(path), "--out", str(out), "--n-eval", "8", "--no-call-share", "0.1"]
    assert main(arguments) == 0
    assert "xlam: 80" in capsys.readouterr().out
    funnel, train = json.loads((out / "funnel.json").read_text()), read_lines(out / "rows.train.jsonl")
    assert sum(not row["gold"] for row in train) <= 0.1 * len(train)
    assert funnel["renamed"] == {"tools": {}, "parameters": {"find": {"type_": "type"}}}
    assert all("type_" in call["arguments"] for row in train for call in row["gold"])
    assert main([*arguments, "--shape", "hermes"]) == 1
    assert "bad_conversation: 80" in capsys.readouterr().err


def test_audit_prints_what_it_found_and_is_silent_about_nothing(data, tmp_path, capsys):
    arguments = ["audit", "--data", str(data), "--model", "standin", "--n-eval", "12"]
    assert main([*arguments, "--out", str(tmp_path), "--max-length", "300"]) == 0
    shown = capsys.readouterr().out
    for expected in ("the template hides", "description, nullable, properties, required, type", "round_trip", "p99"):
        assert expected in shown
    written = json.loads((tmp_path / "audit.json").read_text())
    assert written["errors"] == [] and written["lengths"]["over"] > 0 and (tmp_path / "figures/lengths.png").exists()


def test_an_audit_with_errors_stops_training_unless_told_otherwise(prepared, tmp_path, capsys):
    rows = [row for row in read_lines(prepared / "rows.train.jsonl") if row["gold"]][:6]
    folder = tmp_path / "prepared"
    folder.mkdir()
    for name in ("rows.train.jsonl", "rows.eval.jsonl"):  # the same rows on both sides
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["train", "--rows", str(folder), "--model", "standin", "--profile", "offline", "--epochs", "1"]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 1
    shown = capsys.readouterr().err
    assert "training needs an audit without errors" in shown and "leaks: 6 of 6" in shown
    assert not (tmp_path / "a" / "model").exists()
    assert json.loads((tmp_path / "a" / "audit.json").read_text())["errors"] == ["leaks"]
    assert main([*arguments, "--out", str(tmp_path / "b"), "--ignore-audit"]) == 0
    assert (tmp_path / "b" / "model" / "model.safetensors").exists()


def test_train_takes_no_audit_of_another_budget(prepared, tmp_path):
    rows = [row for row in read_lines(prepared / "rows.train.jsonl") if row["gold"]][:9]
    folder, out = tmp_path / "prepared", tmp_path / "out"
    folder.mkdir()
    for name, part in (("rows.train.jsonl", rows[:6]), ("rows.eval.jsonl", rows[6:])):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    arguments = ["train", "--rows", str(folder), "--model", "standin", "--profile", "offline", "--epochs", "1"]
    arguments += ["--out", str(out), "--ignore-audit"]
    made_with = []
    for length in ("0", "0", "1500"):
        if made_with:  # a second training takes the saved audit as it is, whatever it says
            saved, rows_files = RunFolder(out).read_json("audit.json"), sorted(folder.iterdir())
            RunFolder(out).write_json("audit.json", {**saved, "seen": True}, rows_files)
        assert main([*arguments, "--max-length", length]) == 0
        saved = json.loads((out / "audit.json").read_text())
        made_with.append((saved["made_with"]["max_length"], saved["lengths"]["budget"], "seen" in saved))
    assert made_with == [(2048, 2048, False), (2048, 2048, True), (1500, 1500, False)]


def test_score_prints_json_and_nothing_else(prepared, tmp_path, capsys):
    rows = read_lines(prepared / "rows.eval.jsonl")
    replies = tmp_path / "replies.jsonl"
    lines = [{"row_id": row["row_id"], "reply": render_calls(row_calls(row))} for row in reversed(rows)]
    replies.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["score", "--rows", str(prepared / "rows.eval.jsonl"), "--replies", str(replies)]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["exact_match"]["k"] == scores["n"] == len(rows)


def test_score_runs_without_the_libraries_of_models(prepared, tmp_path):
    rows = prepared / "rows.eval.jsonl"
    replies = tmp_path / "replies.jsonl"
    replies.write_text("".join(json.dumps({"row_id": row["row_id"], "reply": ""}) + "\n" for row in read_lines(rows)))
    code = (
        "import sys; from fgtools.__main__ import main; "
        f"status = main(['score', '--rows', {str(rows)!r}, '--replies', {str(replies)!r}]); "
        "print(status, sorted({'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules)), file=sys.stderr)"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stderr.strip().endswith("0 []")


def test_evaluate_writes_replies_and_scores_that_score_reproduces(prepared, tmp_path, capsys):
    rows = prepared / "rows.eval.jsonl"
    arguments = ["evaluate", "--model", "standin", "--rows", str(rows), "--out", str(tmp_path)]
    assert main([*arguments, "--max-new-tokens", "24"]) == 0
    written = json.loads(next(tmp_path.glob("scores*.json")).read_text())
    replies = next(tmp_path.glob("replies*.jsonl"))
    assert len(read_lines(replies)) == written["n"] == len(read_lines(rows)) and written["max_new_tokens"] == 24
    capsys.readouterr()
    assert main(["score", "--rows", str(rows), "--replies", str(replies)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == written["rows"]
    assert found["coverage"]["precision"] == 0.9 and "too few for one" in found["threshold"]  # 13 rows
    added = ("coverage", "threshold", "auroc")
    assert set(found["auroc"]) == {"total", "call", "name", "lower"}
    older = [{name: line[name] for name in ("row_id", "reply")} for line in read_lines(replies)]
    replies.write_text("".join(json.dumps(line) + "\n" for line in older))
    assert main(["score", "--rows", str(rows), "--replies", str(replies), "--precision", "0.8"]) == 0
    assert json.loads(capsys.readouterr().out) == {k: v for k, v in found.items() if k not in added}


def test_train_writes_a_model_that_evaluate_takes(prepared, tmp_path):
    small = tmp_path / "prepared"
    small.mkdir()
    for name in ("rows.train.jsonl", "rows.eval.jsonl"):
        kept = [line for line in (prepared / name).read_text().splitlines() if len(line) < 2500][:8]
        (small / name).write_text("\n".join(kept) + "\n")
    out = tmp_path / "out"
    arguments = ["train", "--rows", str(small), "--model", "standin", "--out", str(out), "--epochs", "1"]
    assert main([*arguments, "--profile", "offline"]) == 0
    assert (out / "model" / "model.safetensors").exists() and json.loads((out / "train.json").read_text())["steps"] >= 1
    rows = str(small / "rows.eval.jsonl")
    assert main(["evaluate", "--model", str(out / "model"), "--rows", rows, "--out", str(tmp_path / "e")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "--data", "nowhere.jsonl", "--out", "o"], "error: DATA must be 'sample', an existing file"),
        (["evaluate", "--model", "nowhere", "--rows", "r.jsonl", "--out", "o"], "error: "),
        (["score", "--rows", "nowhere.jsonl", "--replies", "r.jsonl"], "error: the file nowhere.jsonl must exist"),
        (["run", "--out", "o", "-p", "N_TOTALS", "3"], "N_TOTALS"),
        (["run", "--out", "o", "--only", "07"], "07"),
        (["train", "--rows", "nowhere", "--model", "standin", "--out", "o"], "error: "),
    ],
)
def test_errors_are_one_message_and_status_1(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown


@pytest.mark.parametrize(
    "arguments",
    [["run", "--profile", "tpu"], ["prepare", "--recipe", "none"], ["evaluate", "--model", "standin"], ["no"]],
)
def test_wrong_usage_is_status_2(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_without_a_command_a_short_guide_is_printed(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 20 and max(map(len, shown.splitlines())) <= 120
    commands = list_commands(_build_parser())
    assert set(re.findall(r"-m fgtools ([a-z]+)", shown)) == {"run", "draft", "audit", "call"}
    assert all(re.search(rf"\b{command}\b", shown) for command in commands)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        *(
            (["--epochs", word], f"argument --epochs: must be a finite number, got '{word}'")
            for word in ("inf", "nan", "x")
        ),
        (["--epochs", "-1"], "argument --epochs: must be at least 0, got '-1'"),
        (["--learning-rate", "-0.5"], "argument --learning-rate: must be at least 0"),
        *(
            (["--batch-size", word], "--batch-size: must be a whole number of at least 1")
            for word in ("-4", "1e3", "4.5")
        ),
        (["--seed", "-1"], "argument --seed: must be a whole number of at least 0, got '-1'"),
    ],
)
def test_numbers_that_make_no_sense_are_wrong_usage(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "--rows", "r", "--model", "standin", "--out", "o", *words])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_several_processes_get_the_words_after_the_command(monkeypatch, tmp_path):
    launched = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fgtools.run.commands.launch", lambda *words: launched.append(words))
    words = ["--rows", "r", "--model", "standin", "--out", "o", "--processes", "2"]
    assert main(["--debug", "train", *words]) == 0
    assert main(["train", *words]) == 0
    assert launched == [("train", 2, words, True), ("train", 2, words, False)]


def test_a_broken_line_is_named_and_older_files_stay(prepared, tmp_path, capsys):
    (tmp_path / "bad.jsonl").write_text('{"conversations": []}\n{"conversations": [\n')
    before = (prepared / "funnel.json").read_text()
    assert main(["prepare", "--data", str(tmp_path / "bad.jsonl"), "--out", str(prepared)]) == 1
    assert "bad.jsonl, line 2" in capsys.readouterr().err
    assert (prepared / "funnel.json").read_text() == before


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def list_commands(parser):
    return parser._subparsers._group_actions[0].choices


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_names_in_the_pages_exist(page):
    text = page.read_text(encoding="utf-8")
    for command, rest in re.findall(r"-m fgtools (?:--debug )?([a-z]+)([^`\n]*)", text):
        parser = list_commands(_build_parser())[command]
        if parser._subparsers:  # the command has actions, whose name comes next
            parser = list_commands(parser)[rest.split()[0]]
        unknown = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", rest)) - set(parser._option_string_actions)
        assert not unknown, f"{command} has no {unknown}"
    for name in re.findall(r"\bfgtools(?:\.\w+)+", text):
        room, *attributes = name.split(".")[1:]
        value = importlib.import_module(f"fgtools.{room}")
        for attribute in attributes:
            value = getattr(value, attribute) if hasattr(value, attribute) else _load_file(value, attribute)


def _load_file(room, name):
    return importlib.import_module(f"{room.__name__}.{name}")


def test_commands_have_the_notebooks_defaults():
    cells = {
        stage: next(
            "".join(cell["source"])
            for cell in json.loads((ROOT / "notebooks" / f"{stage}.ipynb").read_text(encoding="utf-8"))["cells"]
            if "parameters" in cell["metadata"].get("tags", [])
        )
        for stage in ("01_setup", "04_train")
    }
    found = re.findall(r"(?m)^(\w+): \w+ = (\S+)", "\n".join(cells.values()))
    defaults = dict(found)
    prepare = _build_parser().parse_args(["prepare", "--data", "x", "--out", "y"])
    train = _build_parser().parse_args(["train", "--rows", "x", "--model", "y", "--out", "z"])
    assert prepare.seed == train.seed == int(defaults["SEED"])
    assert prepare.n_eval == int(defaults["N_EVAL"])
    assert train.processes == int(defaults["PROCESSES"])
    for name in ("EPOCHS", "LEARNING_RATE", "BATCH_SIZE", "PATIENCE", "LORA_RANK", "MAX_LENGTH"):
        assert getattr(train, name.lower()) == float(defaults[name]), name
