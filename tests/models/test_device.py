"""Devices: the compute capability decides dtype and precision, every decision has a reason, and memory is counted."""

import pytest
import torch

from fgtools.models import device
from fgtools.models.device import (
    DTYPES,
    Precision,
    choose_cpu_precision,
    choose_device_and_dtype,
    choose_precision,
    detect_capability,
    free_memory_bytes,
    weights_precision,
)


@pytest.mark.parametrize(
    ("capability", "device", "dtype", "reason"),
    [
        (None, "cpu", torch.float32, "no GPU is visible, and a CPU is exact in fp32"),
        ((7, 5), "cuda:0", torch.float32, "none for bf16, and Gemma 3's residual stream overflows fp16"),
        ((6, 0), "cuda:0", torch.float32, "sm_60 has no tensor cores and no bf16"),
        ((8, 0), "cuda:0", torch.bfloat16, "sm_80 computes in bf16"),
        ((9, 0), "cuda:0", torch.bfloat16, "sm_90 computes in bf16"),
    ],
)
def test_the_compute_capability_decides_the_dtype_and_the_reason_is_given(capability, device, dtype, reason):
    decision = choose_device_and_dtype(capability)
    assert (decision.device, decision.dtype) == (device, dtype) and reason in decision.reason


def test_each_process_has_its_own_gpu(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device_and_dtype((9, 0)).device == "cuda:1" and choose_device_and_dtype(None).device == "cpu"


@pytest.mark.parametrize(
    ("capability", "name", "reason"),
    [
        (None, "fp32", "no GPU is visible, and a CPU is exact in fp32"),
        ((6, 1), "fp32", "no tensor cores"),
        ((7, 0), "fp16", "none for bf16; weights and residual stream stay in fp32"),
        ((7, 5), "fp16", "sm_75 has tensor cores for fp16 and none for bf16"),
        ((8, 0), "bf16", "sm_80 computes in bf16, over fp32 weights"),
        ((9, 0), "bf16", "sm_90 computes in bf16"),
        ((12, 0), "bf16", "sm_120 computes in bf16"),
    ],
)
def test_the_compute_capability_decides_the_precision(capability, name, reason):
    chosen = choose_precision(capability)
    assert chosen.name == name and reason in chosen.reason


def test_a_precision_asked_for_overrules_and_an_unknown_one_is_refused():
    assert choose_precision((9, 0), "fp32") == Precision("fp32", "asked for by name")
    with pytest.raises(ValueError, match=r"PRECISION must be 'auto' or one of .*'fp16'.*, got 'fp8'"):
        choose_precision(None, "fp8")


@pytest.mark.parametrize(
    ("known", "name", "reason"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16", "this CPU multiplies in bf16 (avx512_bf16)"),
        ({"avx512_bf16": True, "amx_bf16": True}, "bf16", "(amx_bf16); weights stay in fp32"),
        ({"avx512_f": True}, "fp32", "a CPU is exact in fp32"),
    ],
)
def test_a_cpu_trains_in_bf16_where_it_multiplies_it_in_hardware(known, name, reason, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    chosen = choose_cpu_precision()
    assert chosen.name == name and reason in chosen.reason
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # older versions of torch do not tell
    assert choose_cpu_precision().name == "fp32"


def test_every_precision_computes_in_its_dtype():
    for name, dtype in DTYPES.items():
        assert weights_precision(dtype) == name
        with Precision(name, "").autocast("cpu"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_the_capability_is_that_of_the_device(monkeypatch):
    assert detect_capability(torch.device("cpu")) is None
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device.torch.cuda, "get_device_capability", lambda one: {0: (7, 5)}.get(one, (9, 0)))
    assert detect_capability() == (7, 5)
    assert detect_capability(torch.device("cuda", 1)) == (9, 0) and detect_capability(torch.device("cpu")) is None
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)
    assert detect_capability() is None


def test_what_torch_keeps_of_earlier_batches_counts_as_free(monkeypatch):
    figures = {"memory_reserved": 900, "memory_allocated": 300, "mem_get_info": (100, 2000)}
    for name, figure in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, figure=figure: figure)
    assert free_memory_bytes(torch.device("cuda")) == 100 + 600
    assert free_memory_bytes(torch.device("cpu")) is None
