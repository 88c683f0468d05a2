"""Attention: cuDNN's kernel is off while shapes vary, on the GPUs that have it, and afterwards as it was."""

import pytest
import torch

from fgtools.models import attention
from fgtools.models.attention import describe_attention, varied_shapes

GPU = torch.device("cuda")


@pytest.fixture(params=[True, False])
def before(request):
    kept = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(request.param)
    yield request.param
    torch.backends.cuda.enable_cudnn_sdp(kept)


@pytest.mark.parametrize(("capability", "may_use"), [((8, 0), True), ((9, 0), True), ((7, 5), False), (None, False)])
def test_cudnns_kernel_is_off_inside_and_as_it_was_afterwards(monkeypatch, before, capability, may_use):
    monkeypatch.setattr(attention, "detect_capability", lambda device: capability)
    with varied_shapes(GPU):
        assert torch.backends.cuda.cudnn_sdp_enabled() is (False if may_use else before)
    assert torch.backends.cuda.cudnn_sdp_enabled() is before


def test_it_is_as_it_was_after_an_error_too(monkeypatch, before):
    monkeypatch.setattr(attention, "detect_capability", lambda device: (9, 0))
    with pytest.raises(RuntimeError, match="out of memory"), varied_shapes(GPU):
        raise RuntimeError("out of memory")
    assert torch.backends.cuda.cudnn_sdp_enabled() is before


def test_a_library_that_switches_it_on_is_overruled_at_the_next_entry(monkeypatch):
    monkeypatch.setattr(attention, "detect_capability", lambda device: (9, 0))
    kept = torch.backends.cuda.cudnn_sdp_enabled()
    for _ in range(2):
        torch.backends.cuda.enable_cudnn_sdp(True)
        with varied_shapes(GPU):
            assert not torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(kept)


def test_the_decision_is_told_with_its_reason_where_there_is_one():
    assert describe_attention("sdpa", None) == "attention sdpa: what transformers chooses here"
    assert describe_attention("sdpa", (7, 5)) == "attention sdpa: what transformers chooses here"
    assert describe_attention("eager", (9, 0)) == "attention eager: what transformers chooses here"
    assert "cuDNN's kernel is off in training and generation" in describe_attention("sdpa", (9, 0))
