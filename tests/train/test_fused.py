"""Fused kernels: the mathematics of the plain ones, and left off with a reason wherever they cannot be trusted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers.models.gemma3 import modeling_gemma3

from fgtools.train import fused
from fgtools.train.fused import TOLERANCES, describe_difference, fused_kernels
from tests.toys import tiny_model

GPU = torch.device("cuda")

INTERPRETED = """
import torch, triton, triton.language as tl
from liger_kernel.ops import geglu, rms_norm

@triton.jit
def tanh(x):
    return 2 / (1 + tl.exp(-2 * x)) - 1

@triton.jit
def rsqrt(x):
    return 1 / tl.sqrt(x)

class Scalar(float):
    def to(self, dtype):
        return self

geglu.tanh, rms_norm.rsqrt = tanh, rsqrt  # a GPU's own functions, which the interpreter does not have
forward, backward = rms_norm.rms_norm_forward, rms_norm.rms_norm_backward
rms_norm.rms_norm_forward = lambda x, w, eps, offset, *rest: forward(x, w, Scalar(eps), Scalar(offset), *rest)
rms_norm.rms_norm_backward = lambda dy, x, w, r, offset, *rest, **more: backward(
    dy, x, w, r, Scalar(offset), *rest, **more
)

from fgtools.train.fused import fuse
from tests.toys import tiny_model

model = tiny_model().train()
ids = torch.arange(10, 18).view(2, 4)
mask = torch.ones_like(ids)
mask[1, 3:] = 0

def run():
    model.zero_grad()
    loss = model(input_ids=ids, attention_mask=mask, labels=ids).loss
    loss.backward()
    return loss.item(), [weight.grad.clone() for weight in model.parameters()]

plain = run()
undo = fuse(model)
got = run()
undo()
again = run()
assert abs(got[0] - plain[0]) < 1e-5 * plain[0] and again[0] == plain[0], (plain[0], got[0], again[0])
largest = max(float((a - b).abs().max()) for a, b in zip(plain[1], got[1]))
assert 0 < largest < 1e-5, largest  # above 0: other kernels have computed
"""


def test_loss_and_every_gradient_are_those_of_the_plain_kernels():
    pytest.importorskip("liger_kernel")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    code = [sys.executable, "-W", "ignore", "-c", INTERPRETED]
    done = subprocess.run(code, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_cpu_keeps_its_kernels_without_a_word():
    with fused_kernels(tiny_model(), torch.device("cpu"), "fp32", lambda: pytest.fail("nothing to measure")) as line:
        assert line == ""


@pytest.fixture
def pretended(monkeypatch):
    """A library of version 0.1 whose fusing is recorded and does nothing else."""
    done = []
    monkeypatch.setattr(fused.importlib.metadata, "version", lambda name: "0.1")
    monkeypatch.setattr(fused, "fuse", lambda model: done.append("fused") or (lambda: done.append("undone")))
    return done


def test_without_the_library_it_is_said_what_to_install(monkeypatch):
    def missing(name):
        raise fused.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(fused.importlib.metadata, "version", missing)
    with fused_kernels(tiny_model(), GPU, "bf16", lambda: (1.0, 1.0)) as line:
        assert line.startswith("plain kernels: liger-kernel is not installed (pip install 'fgtools[gpu]')")


def test_what_computes_the_same_stays_until_the_end(pretended):
    with fused_kernels(tiny_model(), GPU, "bf16", iter([(2.0, 3.0), (2.001, 3.01)]).__next__) as line:
        assert line == "fused kernels of liger-kernel 0.1: loss of one batch 2.0010, plain 2.0000"
        assert pretended == ["fused"]
    assert pretended == ["fused", "undone"]


@pytest.mark.parametrize("second", [(2.1, 3.0), (2.0, 3.2), (float("nan"), 3.0), (2.0, float("inf"))])
def test_what_computes_something_else_is_left_off(pretended, second):
    with fused_kernels(tiny_model(), GPU, "bf16", iter([(2.0, 3.0), second]).__next__) as line:
        assert line.startswith("plain kernels: those of liger-kernel 0.1 are left off (their ")
        assert pretended == ["fused", "undone"]


def test_what_fails_is_left_off_and_the_training_goes_on(pretended):
    answers = iter([(2.0, 3.0)])
    with fused_kernels(tiny_model(), GPU, "fp16", lambda: next(answers)) as line:
        assert line == "plain kernels: those of liger-kernel 0.1 are left off (StopIteration: )"
        assert pretended == ["fused", "undone"]


def test_a_library_of_another_make_changes_nothing(monkeypatch):
    monkeypatch.setattr(fused.importlib.metadata, "version", lambda name: "9.9")
    monkeypatch.setitem(sys.modules, "liger_kernel.ops.rope", None)  # a version that no longer has it
    plain, model = modeling_gemma3.apply_rotary_pos_emb, tiny_model()
    with fused_kernels(model, GPU, "bf16", lambda: (1.0, 1.0)) as line:
        assert line.startswith("plain kernels: those of liger-kernel 9.9 are left off (ModuleNotFoundError")
    assert modeling_gemma3.apply_rotary_pos_emb is plain
    assert not any("forward" in vars(module) for module in model.modules())


def test_the_tolerance_is_a_share_of_the_plain_ones():
    assert describe_difference((2.0, 1.0), (2.0, 1.0), 0.0) == ""
    assert describe_difference((200.0, 1.0), (203.0, 1.0), TOLERANCES["bf16"]) == ""
    assert describe_difference((2.0, 1.0), (2.1, 1.0), TOLERANCES["bf16"]) == "their loss of one batch is 2.1, plain 2"
    assert describe_difference((2.0, 1.0), (2.0, 1.1), 0.01) == "their gradient norm of one batch is 1.1, plain 1"
