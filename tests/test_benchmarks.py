"""The benchmarks run, end with one JSON object, and compare equal things."""

import contextlib
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers.utils.logging import enable_progress_bar, is_progress_bar_enabled

from benchmarks import evaluate
from benchmarks.evaluate import load_random_model, measure_way, render_ways, summarize_ways
from benchmarks.generations import WAYS, draw_prompts, run_continuous
from benchmarks.gpu import measure_evaluation, run_part
from benchmarks.limits import Stopwatch, TimeLimit
from benchmarks.profile import classify_kernel, render_profile, subtract_profiles, summarize_trace
from benchmarks.records import TRAINING_AIMS, compare_aims, write_section
from benchmarks.shapes import SHAPES, find_vocabulary
from benchmarks.whole import compare_ways, read_aims, render_whole

ROOT = Path(__file__).parents[1]
TINY = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "vocab_size": find_vocabulary("standin")}
"""A shape with the stand-in's vocabulary that costs less than the stand-in's own."""


def last_object(module, *arguments):
    """Run a benchmark as `python -m` would, in this process, and return the object of its last line.

    Its seconds are those of the processor, so that other work on the machine does not change a ratio.
    """
    threads, shows_bars = torch.get_num_threads(), is_progress_bar_enabled()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as shown:
        for name in ("FGTOOLS_BATCH", "HF_HUB_OFFLINE"):
            patch.setenv(name, "1")
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", [module, *map(str, arguments)])
        patch.setattr(time, "perf_counter", time.process_time)
        patch.setitem(SHAPES, "tiny", TINY)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "'benchmarks.*' found in sys.modules", RuntimeWarning)
                runpy.run_module(module, run_name="__main__", alter_sys=True)
        finally:
            torch.set_num_threads(threads)
            if shows_bars:
                enable_progress_bar()
    lines = shown.getvalue().splitlines()
    return json.loads(lines[-1]) if lines[-1].startswith("{") else lines


def test_data_compares_equal_ids():
    nowhere = ("--data", "nowhere.jsonl", "--tokenizer", "nowhere")  # so the offline sample and the stand-in's
    result = last_object("benchmarks.data", *nowhere, "--rows", "300", "--repeats", "1")
    assert result["identical"] is True and result["rows"] == 300
    ratios = result["ratio_by_recipe"]
    assert result["ratio"] == min(ratios.values()) > 0.5  # 1.4 and 2.6; one repeat of a second each


def test_a_step_of_ours_is_faster_and_its_gradients_are_equal():
    result = last_object("benchmarks.train", "--shape", "small", "--rows", "1", "--repeats", "1")
    assert result["shape"] == "small" and set(result["gradient_difference"]) == {"trl pairs", "ours"}
    assert max(result["gradient_difference"].values()) < 1e-5
    assert result["ratio"] == result["ways"]["tutorial"]["ours_over_this"] > 1.3  # about 2.7


def test_replies_of_ours_come_faster_and_are_those_of_the_loop(tmp_path):
    kept = tmp_path / "evaluate.json"
    options = ("--shape", "tiny", "--rows", "6", "--repeats", "1", "--worst-case", "--out", str(kept))
    options += ("--ways", "ours", "loop")
    result = last_object("benchmarks.evaluate", *options)
    assert result["identical"] is True and set(result["kinds"]) == {"shared", "unshared"}
    assert all(one["distinct_reply_tokens"] > 20 for one in result["kinds"].values())
    assert min(result["ratio"], result["ratio_unshared"]) > 1.5  # 3 to 6
    assert 0 < result["scoring_10000_seconds"] < 150  # about 1
    assert json.loads(kept.read_text()) == {"tiny": result}


def test_all_that_a_gpu_is_asked_runs_in_one_process_and_writes_as_it_goes(tmp_path):
    out = tmp_path / "out"
    sizes = "--rows 8 --eval-rows 2 --epoch-of 8 --answered 3 --steps 1".split()
    sizes += "--train-limit 3600 --evaluate-limit 3600 --total 36000".split()  # a busy machine is slow
    nowhere = ["--data", tmp_path / "rows.jsonl", "--tokenizer", tmp_path / "tokenizer"]
    last_object("benchmarks.gpu", out, *nowhere, "--shape", "tiny", "--device", "cpu", *sizes)
    assert {"gpu.json", "evaluate.log", "whole.log", "profile.log"} <= {path.name for path in out.iterdir()}
    result = json.loads((out / "gpu.json").read_text())
    assert result["machine"]["torch"] and str(tmp_path) not in (out / "gpu.json").read_text()
    assert set(result["whole"]["ways"]) == {"ours", "trl", "trl alone", "tutorial"}
    assert all(one["steps"] == 1 and one["held_out_loss"] > 0 for one in result["whole"]["ways"].values())
    assert result["whole"]["ways"]["ours"]["evaluation_seconds"] > 0 < result["whole"]["ways"]["trl"]["saving_seconds"]
    assert result["whole"]["ways"]["trl alone"]["evaluation_seconds"] == 0
    assert set(result["whole"]["ratios"]) == {"trl", "trl alone", "tutorial"}
    assert all(one["last_pass"] > 0 for one in result["whole"]["steady"].values())
    for kind in result["evaluate"]["kinds"].values():
        assert set(kind["ways"]) == {"ours", "batched", "loop", "continuous"}
        assert all(one["same_as_loop"] == one["compared"] == 3 for one in kind["ways"].values())
    assert "aten::mm" in result["profile"]["training"]["operators"]
    assert len(result["aims"]) == 8 and result["aims"][4]["met"] is None  # 8 rows say nothing of 13,000
    assert render_whole(result["whole"]) in (out / "whole.log").read_text()
    assert render_ways(result["evaluate"]).count("3/3") == 8


def test_the_script_asks_a_gpu_with_what_was_packed(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho $*\n")
    python.chmod(0o755)
    command = [ROOT / "benchmarks" / "gpu.sh", "run", tmp_path, tmp_path / "out", "--shape", "standin"]
    environment = {**os.environ, "PYTHON": str(python)}
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    packed = f"--data {tmp_path}/rows.jsonl --tokenizer {tmp_path}/tokenizer"
    assert f"-u -m benchmarks.gpu {tmp_path}/out {packed} --shape standin\n" in outcome.stdout
    assert outcome.returncode == 0 and "ended with 0 after" in outcome.stdout


def test_a_script_called_wrongly_says_how_it_is_called():
    outcome = subprocess.run([ROOT / "benchmarks" / "gpu.sh", "pack"], capture_output=True, text=True, check=False)
    assert outcome.returncode == 2 and "benchmarks/gpu.sh pack FOLDER" in outcome.stderr


def test_a_time_limit_ends_what_holds_back_every_exception():
    def never_ends():
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue

    with TimeLimit(0.1) as within:
        never_ends()
    assert within.over and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with TimeLimit(3600) as within:
        pass
    assert not within.over and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_outer_time_limit_ends_the_outer_body_and_an_inner_one_its_own_alone():
    begun = []
    with TimeLimit(3) as outer:
        for number in range(3):
            begun.append(number)
            with TimeLimit(0.01 if number == 0 else 3600) as inner:
                time.sleep(60)
            assert inner.over and number == 0
    assert outer.over and begun == [0, 1]


def test_a_stopwatch_counts_a_call_within_a_call_once(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("benchmarks.limits.time", SimpleNamespace(perf_counter=lambda: clock.now))

    class Parent:
        def save(self):
            clock.now += 2

        def train(self):
            self.save()
            clock.now += 3

    class Child(Parent):
        def save(self):
            super().save()

    watch = Stopwatch()
    with watch.watch({"training": [(Child, "train")], "saving": [(Child, "save")]}):
        Child().train()
        Child().save()
    assert watch.seconds == {"training": 5, "saving": 2}
    assert vars(Child)["save"].__name__ == "save" and "train" not in vars(Child)


def answer_some(n_rows, then):
    def way(model, prompts, budgets, on_reply):
        for number in range(n_rows):
            on_reply(number, [number])
        then()

    return way


def test_a_way_that_runs_out_of_time_or_fails_is_told_with_what_it_did():
    model = SimpleNamespace(device=SimpleNamespace(type="cpu"))
    late = measure_way(answer_some(2, lambda: time.sleep(600)), model, [[1]] * 3, [1] * 3, 1)
    assert late["over"] and late["rows"] == 2 and late["first_reply_seconds"] < 1 <= late["seconds"] < 600
    broken = measure_way(answer_some(1, lambda: 1 / 0), model, [[1]], [1], 3600)
    assert broken["failed"].startswith("ZeroDivisionError") and "over" not in broken
    whole = measure_way(answer_some(3, lambda: None), model, [[1]] * 3, [1] * 3, 3600)
    figures = summarize_ways({"ours": [whole], "loop": [late], "batched": [broken]})
    assert figures["loop"]["rows"] == 2 and figures["loop"]["compared"] == 2 and figures["ours"]["same_as_loop"] == 2
    assert figures["loop"]["rows_per_second"] == pytest.approx(2 / late["seconds"], abs=0.01)
    assert figures["loop"]["ours_over_this"] > 1 and "ours_over_this" not in figures["batched"]
    table = render_ways({"rows": 3, "kinds": {"shared": {"ways": figures}}})
    assert f"over {figures['loop']['seconds']:.0f}, 2 of 3 answered" in table and "failed: ZeroDivisionError" in table


def test_continuous_batching_is_really_ended():
    model = load_random_model("standin", "cpu", "fp32")
    prompts, budgets = draw_prompts(3, model.config.vocab_size, shared=True)
    before = threading.active_count()
    take = measure_way(run_continuous, model, prompts, [4000] * 3, 4)
    assert "over" in take and take["rows"] == 0, take
    assert threading.active_count() == before
    assert "over" not in measure_way(WAYS["ours"], model, prompts, budgets, 3600)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("matrix products", "nvjet_tst_256x128_64x4_1x2_h_bz_coopA_NNT"),
        ("matrix products", "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1"),
        (
            "matrix products",
            "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_64x64_32x6_tn>",
        ),
        ("matrix products", "turing_fp16_s1688gemm_fp16_128x128_ldg8_f2f_tn"),
        ("matrix products", "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>"),
        ("attention", "void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<Flash_bwd_kernel_traits<256>>"),
        ("attention", "fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::AttentionKernel<cutlass::>)"),
        ("attention", "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1_kernel0_0"),
        (
            "copies and casts",
            "void at::native::vectorized_elementwise_kernel<4, at::native::bfloat16_copy_kernel_cuda"
            "(at::TensorIteratorBase&)::{lambda(float)#1}, std::array<char*, 2ul> >",
        ),
        ("copies and casts", "Memcpy DtoD (Device -> Device)"),
        ("copies and casts", "Memset (Device)"),
        (
            "element-wise",
            "void at::native::vectorized_elementwise_kernel<4, at::native::BinaryFunctor<float, float, float, "
            "at::native::binary_internal::MulFunctor<float> >, std::array<char*, 3ul> >",
        ),
        (
            "element-wise",
            "void at::native::elementwise_kernel<128, 2, at::native::gpu_kernel_impl_nocast<at::native::CUDAFunctor_add"
            "<float> >(at::TensorIteratorBase&, at::native::CUDAFunctor_add<float> const&)::{lambda(int)#1}>",
        ),
        (
            "reductions",
            "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::MeanOps<float, float, "
            "float, float>, unsigned int, float, 4, 4> >",
        ),
        (
            "optimizer",
            "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<at::native::(anonymous namespace)::"
            "FusedOptimizerTensorListMetadata<4>, at::native::(anonymous namespace)::FusedAdamMathFunctor<float, 4>>",
        ),
        ("norms, gates and positions in one kernel", "_rms_norm_forward_kernel"),
        ("norms, gates and positions in one kernel", "_geglu_tanh_backward_kernel"),
        ("other", "a_kernel_of_next_year"),
    ],
)
def test_kernels_are_told_by_their_names(kind, name):
    assert classify_kernel(name) == kind


def test_a_trace_is_summed_by_kind_and_time_without_annotations():
    events = [
        {"cat": "kernel", "name": "nvjet_tst_64x64", "ts": 0.0, "dur": 4000.0},
        {"cat": "kernel", "name": "void at::native::vectorized_elementwise_kernel<4>", "ts": 3000.0, "dur": 2000.0},
        {"cat": "gpu_memcpy", "name": "Memcpy HtoD (Pageable -> Device)", "ts": 9000.0, "dur": 1000.0},
        {"cat": "gpu_user_annotation", "name": "Optimizer.step#AdamW.step", "ts": 0.0, "dur": 10000.0},
        {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 0.0, "dur": 5.0},
        {"cat": "cuda_driver", "name": "cuLaunchKernelEx", "ts": 1.0, "dur": 5.0},
        {"cat": "cuda_runtime", "name": "cudaGraphLaunch", "ts": 1.0, "dur": 5.0},
        {"cat": "cuda_runtime", "name": "cudaMemcpyAsync", "ts": 1.0, "dur": 5.0},
        {"cat": "cuda_runtime", "name": "cudaStreamSynchronize", "ts": 1.0, "dur": 5.0},
        {"cat": "cpu_op", "name": "aten::mm", "ts": 1.0, "dur": 5.0},
        {"ph": "M", "name": "process_name"},
    ]
    summary = summarize_trace(events, 2)
    assert summary["kinds"] == {"matrix products": 2.0, "element-wise": 1.0, "copies and casts": 0.5}
    assert summary["busy_ms"] == 3.0  # the first two overlap
    assert summary["kernels"] == 2 and summary["launches"] == 2
    long = {**summarize_trace(events, 1), "wall_ms": 20.0}
    short = {**summarize_trace(events[:1] + events[4:5], 1), "wall_ms": 8.0}
    decoding = subtract_profiles(long, short, 4)
    assert decoding["kinds"] == {"matrix products": 0.0, "element-wise": 0.5, "copies and casts": 0.25}
    assert decoding["wall_ms"] == 3.0 and decoding["launches"] == 0.75
    training = {"tokens_a_step": 10, "wall_ms": 12.0, **summary}
    table = render_profile({"training": training, "decoding": decoding})
    assert "| matrix products | 2.00 | 0.00 |" in table and "| 25% | 17% |" in table


def test_an_aim_that_a_lower_bound_does_not_show_is_not_known():
    ended, cut_off = {"ratio": 2.5, "at_least": False}, {"ratio": 4.0, "at_least": True}
    measured = read_aims({"ratios": {"trl": ended, "trl alone": cut_off, "tutorial": cut_off}})
    assert measured["whole_over_trl"] == 2.5 and measured["whole_over_trl_alone"] == 4.0
    assert measured["whole_over_tutorial"] is None and measured["epoch_seconds"] is None
    aims = {aim["name"]: aim["met"] for aim in compare_aims(TRAINING_AIMS, {**measured, "epoch_seconds": 90.0})}
    assert aims["whole_over_trl"] is False and aims["whole_over_trl_alone"] is True
    assert aims["whole_over_tutorial"] is None and aims["epoch_seconds"] is True
    assert compare_aims(TRAINING_AIMS, {"epoch_seconds": 90.5})[4]["met"] is False


def test_a_whole_training_that_was_ended_or_failed_stands_in_the_table():
    figures = {"steps_per_second": 1.0, "evaluation_seconds": 0.0, "saving_seconds": 0.0, "peak_gib": 1.0}
    ended = {**figures, "seconds": 10.0, "tokens_per_second": 5, "held_out_loss": 1.0}
    cut_off = {**figures, "seconds": 50.0, "over": True, "estimated_seconds": 100, "held_out_loss": None}
    ways = {"ours": ended, "trl": cut_off, "tutorial": {"failed": "OutOfMemoryError: no", "seconds": 1.0}}
    ratios = compare_ways(ways)
    assert ratios == {"trl": {"ratio": 5.0, "at_least": True}}
    table = render_whole({"ways": ways, "ratios": ratios})
    assert "| over 50, about 100 s by its steps |" in table and "over 5.00x" in table and "failed: OutOf" in table
    assert compare_ways({"ours": cut_off, "trl": ended}) == {}


def test_a_part_that_fails_or_runs_out_of_time_leaves_the_next_one_its_turn(tmp_path, capsys):
    assert run_part("first", lambda: 1 / 0, tmp_path, 3600) is None
    assert run_part("second", lambda: time.sleep(600), tmp_path, 0.1) is None
    assert run_part("third", lambda: 3, tmp_path, 3600) == 3
    assert "first: failed: ZeroDivisionError" in (tmp_path / "first.log").read_text()
    assert "second: over 0 s" in capsys.readouterr().out


def test_a_results_file_keeps_its_other_sections(tmp_path):
    file = tmp_path / "gpu.json"
    write_section(file, "machine", {"device": "CPU"})
    write_section(file, "whole", {"rows": 1})
    write_section(file, "whole", {"rows": 2})
    assert json.loads(file.read_text()) == {"machine": {"device": "CPU"}, "whole": {"rows": 2}}


def test_on_a_gpu_few_rows_are_also_answered_in_fp32(tmp_path, monkeypatch):
    asked = []

    def compare_kinds(options, keep):
        keep({"rows": options.rows})
        asked.append(options)
        return {"rows": options.rows}

    monkeypatch.setattr(evaluate, "compare_kinds", compare_kinds)
    options = SimpleNamespace(shape="full", device="cuda", answered=300, evaluate_limit=15)
    assert measure_evaluation(options, tmp_path / "gpu.json") == {"rows": 300}
    assert [(one.dtype, one.rows, len(one.ways), one.limit) for one in asked] == [
        ("auto", 300, 4, 15.0),
        ("fp32", 8, 2, 15.0),
    ]
    assert set(json.loads((tmp_path / "gpu.json").read_text())) == {"evaluate", "evaluate in fp32"}
