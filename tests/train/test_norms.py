"""fp16 autocast with Gemma 3's own norms: near fp32 while no norm can exceed fp16, and left for fp32 where one can."""

import pytest
import torch

from fgtools.models.device import Precision
from fgtools.models.half import bound_norms, describe_large_norms
from fgtools.profiles import get_recipe
from fgtools.prompts import IGNORED, encode_rows
from fgtools.train.loss import patch_forward
from fgtools.train.plan import plan_training
from tests.toys import small_rows, tiny_model, toy_arguments

FP32, FP16 = Precision("fp32", ""), Precision("fp16", "")


def raise_gains(gain):
    """Return a small model with the gains of the norms that feed the residual stream raised; 64 numbers a token."""
    model = tiny_model(n_layers=4).train()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.post_attention_layernorm.weight += gain
            layer.post_feedforward_layernorm.weight += gain
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


def test_a_residual_stream_beyond_fp16_stays_fp32_under_autocast(batch):
    model, seen = raise_gains(7e3), []
    patch_forward(model)
    model.model.norm.register_forward_pre_hook(lambda _, given: seen.append((given[0].abs().max().item(), given[0])))
    loss, norm = measure(model, batch, FP32)
    ours, our_norm = measure(model, batch, FP16)
    assert seen[1][0] > 65504 and seen[1][1].dtype == torch.float32
    # random weights: the gradient's norm differed by 0.3 % to 2.6 % with gains from 5,000 to 7,500
    assert ours == pytest.approx(loss, rel=2e-3) and our_norm == pytest.approx(norm, rel=4e-2)
    assert describe_large_norms(model) == ""


def test_no_input_gets_more_out_of_a_norm_than_its_bound():
    model = raise_gains(7e3)
    norm = model.model.layers[0].post_feedforward_layernorm
    with torch.no_grad():
        norm.weight.fill_(6999.0)
        one = torch.zeros(1, 64)
        one[0, 5] = 123.0  # the worst input: a single number
        others = torch.randn(1000, 64) * torch.logspace(-3, 5, 1000)[:, None]
        largest = max(norm(states).abs().max().item() for states in (one, others))
    bound = bound_norms(torch.nn.ModuleDict({"post_feedforward_layernorm": norm}))["post_feedforward_layernorm"]
    assert bound == pytest.approx(8 * 7000)
    assert largest <= bound == pytest.approx(largest, rel=1e-4)


def test_a_norm_that_can_exceed_fp16_gives_no_number_under_autocast(batch):
    model = raise_gains(3e4)
    patch_forward(model)
    loss, _ = measure(model, batch, FP16)
    assert loss != loss and bound_norms(model)["post_attention_layernorm"] > 65504


@pytest.mark.parametrize(("gain", "name"), [(7e3, "fp16"), (3e4, "fp32")])
def test_the_plan_asks_the_weights(gain, name, tokenizer):
    rows = encode_rows(small_rows(40, 4), tokenizer).encoded
    plan = plan_training(toy_arguments(precision="fp16"), get_recipe("native"), raise_gains(gain), rows, 1, False)
    assert plan.precision.name == name
    told = "fp16 was left, since the weights of a post_" in plan.describe()
    assert told == (name == "fp32") and ("and fp16 ends at 65,504" in plan.describe()) == told


def test_a_model_without_such_norms_is_not_trained_in_fp16():
    assert describe_large_norms(torch.nn.Linear(2, 2)).startswith("fp16 was left, since it needs Gemma 3's norms")
