"""The benchmark of number formats and the estimate of a T4: they run, and docs/training.md shows what they wrote."""

import json

import pytest
import torch

from benchmarks import estimate
from benchmarks.estimate import render_estimate
from benchmarks.precision import render_results, render_steps
from benchmarks.tensor_cores import TensorCores
from fgtools.offline import CHECKPOINT
from tests.test_benchmarks import ROOT, last_object
from tests.toys import small_rows


def test_fp16_products_on_a_cpu_are_those_of_tensor_cores():
    one, other = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).half(), torch.ones(64, 4).half()
    with TensorCores():
        product, beyond = one @ other, (one * 500) @ (other * 500)
    assert product.dtype == torch.float16 and torch.equal(product, (one.double() @ other.double()).half())
    assert beyond.isinf().any()  # a sum beyond 65,504


def test_precision_compares_formats_on_any_model_and_rows(tmp_path):
    rows, kept = tmp_path / "rows.jsonl", tmp_path / "precision.json"
    rows.write_text("".join(json.dumps(row) + "\n" for row in small_rows(60, 4)))
    words = ("--model", str(CHECKPOINT), "--name", "toy", "--rows", str(rows), "--longest", "1000", "--out", str(kept))
    sizes = ("--count", "2", "--steps", "2", "--gradient-rows", "2", "--reply-rows", "2", "--device", "cpu")
    result = last_object("benchmarks.precision", *words, *sizes)
    assert json.loads(kept.read_text()) == {"toy": result}
    assert abs(result["losses"]["ways"]["fp16"]["difference"]) < 5e-3
    plain, scaled, bf16 = (result["gradients"]["ways"][way] for way in ("fp16, no scaler", "fp16, scaled", "bf16"))
    assert scaled["embedding"]["underflowed"] < plain["embedding"]["underflowed"]
    assert scaled["body"]["distance"] < bf16["body"]["distance"]
    losses = [one["losses"] for one in result["steps"]["ways"].values()]
    assert len(losses) == 4 and all(one == pytest.approx(losses[0], abs=0.1) for one in losses)
    assert result["replies"]["n_rows"] == 2


def test_fused_kernels_and_a_second_gpu_shorten_an_estimated_step():
    layer = json.loads((ROOT / "results" / "estimate.json").read_text())["layer"]
    counted = estimate.count_layer()
    assert counted["plain"] == pytest.approx(
        layer["plain"], rel=0.2
    )  # other versions of torch divide the work otherwise
    assert counted["fused"] < 0.5 * counted["plain"]
    ways = estimate.estimate_training(counted, 3000, 2)
    trainings = [
        ways[f"{kernels} kernels, {count} x T4"]["training"] for kernels in ("plain", "fused") for count in (1, 2)
    ]
    assert trainings[0] > trainings[1] and trainings[2] > trainings[3] and trainings[1] > trainings[3]
    half = estimate.estimate_training(counted, 1500, 2)["plain kernels, 1 x T4"]["training"]
    assert half == pytest.approx(trainings[0] / 2, rel=0.1)


def test_the_training_page_shows_the_tables_of_formats_and_of_the_estimate():
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / "results" / "precision.json").read_text())
    assert render_results(results) in page and render_steps(results["base"]["steps"]) in page
    assert all(abs(one["losses"]["ways"]["fp16"]["difference"]) < 5e-3 for one in results.values())
    replies = results["tuned"]["replies"]
    assert f"Of {replies['n_rows']} rows, *tuned* gave {replies['same_reply']} the same reply as in fp32" in page
    assert render_estimate(json.loads((ROOT / "results" / "estimate.json").read_text())) in page
