"""The benchmarks run, end with one JSON object, and compare equal things."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def last_object(*arguments):
    command = [sys.executable, "-m", *arguments]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    return json.loads(outcome.stdout.splitlines()[-1])


def test_data_compares_equal_ids():
    nowhere = ("--data", "nowhere.jsonl", "--tokenizer", "nowhere")  # so the offline sample and the stand-in's
    result = last_object("benchmarks.data", *nowhere, "--rows", "300", "--repeats", "1")
    assert result["identical"] is True and result["rows"] == 300
    ratios = result["ratio_by_recipe"]
    assert result["ratio"] == min(ratios.values()) > 0.5  # 1.4 and 2.6 on a quiet machine; one repeat of a second each


def test_a_step_of_ours_is_faster_and_its_gradients_are_equal():
    result = last_object("benchmarks.train", "--shape", "small", "--rows", "4", "--repeats", "1")
    assert result["shape"] == "small" and set(result["gradient_difference"]) == {"trl pairs", "ours"}
    assert max(result["gradient_difference"].values()) < 1e-5
    assert result["ratio"] == result["ways"]["tutorial"]["ours_over_this"] > 1.3  # about 2.7 on a quiet machine


def test_replies_of_ours_come_faster_and_are_those_of_the_loop(tmp_path):
    kept = tmp_path / "evaluate.json"
    options = ("--shape", "standin", "--rows", "9", "--repeats", "1", "--worst-case", "--out", str(kept))
    result = last_object("benchmarks.evaluate", *options)
    assert result["identical"] is True and set(result["kinds"]) == {"shared", "unshared"}
    assert all(one["distinct_reply_tokens"] > 50 for one in result["kinds"].values())
    assert min(result["ratio"], result["ratio_unshared"]) > 1.5  # 3 to 6 on a quiet machine
    assert 0 < result["scoring_10000_seconds"] < 15  # about 1 on a quiet machine
    assert json.loads(kept.read_text()) == {"standin": result}
