"""What the pages show, run on a tuned stand-in whose tools have a parameter that the template hides."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fgtools import load_caller
from fgtools.__main__ import main
from fgtools.files import InputError
from fgtools.metrics import GeneratedReply
from fgtools.rows import load_rows
from fgtools.serve import load_taught_tools
from fgtools.serve.usage import USAGE, choose_example, render_usage
from tests.serve.conftest import EXAMPLES

ROOT = Path(__file__).parents[2]
REQUEST = "set an alarm every day at 07:15"


def test_the_lines_of_the_pages_call_a_tool_under_the_applications_names(tuned, capsys):
    program = render_usage(str(tuned), ["set_alarm", "set_light", "list_alarms"], REQUEST)
    assert len([line for line in program.splitlines() if line]) <= 15
    exec(compile(program, "usage", "exec"), {})
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "set_alarm {'time': '07:15', 'type': 'daily'}"
    assert out[-1].split()[0] in ("text", "call", "calls", "broken", "invalid", "empty")


def test_readme_page_and_notebook_show_these_lines():
    example = render_usage("runs/mine/model", ["set_alarm", "set_light"], "wake me at 07:15 every day")
    for page in (ROOT / "README.md", ROOT / "docs" / "serving.md"):
        assert f"```python\n{example}```" in page.read_text(encoding="utf-8"), page.name
    cells = json.loads((ROOT / "notebooks" / "06_publish.ipynb").read_text(encoding="utf-8"))["cells"]
    assert USAGE.rstrip("\n") in ["".join(cell["source"]).partition("\n\n")[2] for cell in cells]


def check_loop(said):
    called, answered = said.splitlines()
    assert re.match(r"set_(alarm|light)\(\{.*\}\) -> \{.*\}$", called) and answered.startswith("text: The ")


def test_the_loop_runs_real_functions_to_the_last_words(tuned, monkeypatch, capsys):
    command = [sys.executable, "loop.py", str(tuned), REQUEST]
    job = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=False)
    assert job.returncode == 0, job.stdout + job.stderr
    check_loop(job.stdout)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import loop

    assert loop.main(str(tuned), "set the light in the office to 60")
    check_loop(capsys.readouterr().out)


def test_every_held_out_call_comes_back_as_the_functions_take_it(tuned):
    rows = [row for row in load_rows(tuned.parent / "rows.eval.jsonl") if row["gold"]]
    caller = load_caller(tuned, quiet=True)
    answers = caller.call_many([row["messages"][-1]["content"] for row in rows])
    right = 0
    for row, answer in zip(rows, answers, strict=True):
        gold = {"type" if name == "type_" else name: value for name, value in row["gold"][0]["arguments"].items()}
        right += [(one.name, one.arguments) for one in answer.calls] == [(row["gold"][0]["name"], gold)]
    assert right >= len(rows) - 2  # a few replies may differ between processors


def test_the_loop_stops_where_a_model_calls_without_end(monkeypatch, tuned, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import loop

    always = "<start_function_call>call:set_light{level:1,room:<escape>a<escape>}<end_function_call><end_of_turn>"
    answering = "fgtools.generate.generate_with_confidence"
    monkeypatch.setattr(answering, lambda model, tokenizer, rows, **_: [GeneratedReply(always)])
    assert loop.main(str(tuned), "go") is False
    out = capsys.readouterr().out
    assert out.count("set_light") == loop.MOST_STEPS and "the model calls on" in out


def test_the_command_prints_prompt_reply_calls_and_validity(tuned, capsys):
    assert main(["call", "--model", str(tuned), REQUEST, "--timing"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("prompt: <bos>") and "type_:<escape>daily" in out
    assert 'call: set_alarm {"time": "07:15", "type": "daily"}' in out and "validity: ✓" in out
    assert re.search(r"libraries \d+\.\d s, model \d+\.\d s, reply \d+\.\d s", err)


def test_the_command_prints_one_object_and_says_what_was_not_taught(tuned, tmp_path, capsys):
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps([{"name": "fly", "parameters": {"to": {"type": "string"}}}]))
    main(["call", "--model", str(tuned), "fly to rome", "--tools", str(tools), "--json", "--constrain"])
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["untaught"] == ["fly"] and "untaught_tool: fly" in err
    assert {"request", "kind", "calls", "rejected", "problems", "prompt", "reply"} <= set(told)


def test_a_reply_that_cannot_be_carried_out_is_status_1(tuned, capsys):
    words = ["call", "--model", str(tuned), REQUEST, "--max-new-tokens", "6", "--tools", "set_alarm", "set_light"]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert "validity: ✗ unclosed" in out and "error: the reply cannot be carried out: unclosed_" in err
    assert main(["call", "--model", str(tuned), " "]) == 1
    assert "a request must be there" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["call", "--model", str(tuned)])
    assert caught.value.code == 2


def test_an_example_is_a_plain_request_for_taught_tools(tuned):
    rows, taught = load_rows(tuned.parent / "rows.eval.jsonl"), load_taught_tools(tuned)
    example = choose_example(rows, taught)
    assert set(example.tools) == {"set_alarm", "set_light", "list_alarms"} and example.request
    strange = {**rows[0], "tools": [{"function": {"name": "fly"}}]}
    other = choose_example([strange], taught)
    assert len(other.tools) == 3 and other.request == strange["messages"][1]["content"]
    with pytest.raises(InputError, match=r"must hold tools\.json"):
        choose_example(rows, None)
