"""Norms in fp32: Gemma 3's residual stream survives fp16, which breaks it with stock norms."""

import pytest
import torch

from fgtools.models.device import Precision
from fgtools.prompts import IGNORED
from fgtools.train.loss import patch_forward, widened_norms
from tests.toys import fresh_model


@pytest.fixture
def overflowing():
    """The stand-in with post-norm gains raised until the residual stream is far beyond fp16's 65,504."""
    model = fresh_model().train()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.post_attention_layernorm.weight += 3e4
            layer.post_feedforward_layernorm.weight += 3e4
    patch_forward(model)
    return model


@pytest.fixture
def batch():
    ids = torch.randint(5, 2000, (2, 24), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :16] = IGNORED
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def measure(model, batch, precision):
    model.zero_grad()
    with precision.autocast("cpu"):
        loss = model(**batch).loss / 16
    loss.backward()
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters()])
    return loss.item(), norm.item()


FP32, FP16 = Precision("fp32", ""), Precision("fp16", "")


def test_stock_norms_overflow_in_fp16_and_widened_ones_equal_fp32(overflowing, batch):
    seen = []
    overflowing.model.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].abs().max().item()))
    loss, norm = measure(overflowing, batch, FP32)
    assert seen[0] > 2 * 65504
    stock, _ = measure(overflowing, batch, FP16)
    assert stock != stock  # not a number
    with widened_norms(overflowing) as changed:
        ours, our_norm = measure(overflowing, batch, FP16)
    assert changed == 4 * 4 + 1
    assert ours == pytest.approx(loss, rel=2e-3) and our_norm == pytest.approx(norm, rel=2e-2)
    assert measure(overflowing, batch, FP32) == (loss, norm)  # given back as they were


def test_a_model_without_such_norms_is_refused():
    with pytest.raises(ValueError, match="fp16 needs Gemma 3's RMSNorm"), widened_norms(torch.nn.Linear(2, 2)):
        pass
