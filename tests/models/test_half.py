"""fp16 products over an fp32 residual stream: near fp32 where a model wholly in fp16 breaks, checked before use."""

import json
import math

import pytest
import torch

from fgtools.generate import generate_replies, generate_with_confidence
from fgtools.generate import replies as generate
from fgtools.metrics import Confidence, GeneratedReply
from fgtools.models import half
from fgtools.models.device import Precision, choose_generation_precision
from fgtools.models.half import find_difference, fp16_products, generation_precision, products_dtype
from fgtools.offline.samples import build_samples
from fgtools.prompts.encode import encode_prompt
from fgtools.rows import build_rows
from fgtools.run import evaluation
from tests.toys import fresh_model

ROWS = build_rows(build_samples(40, 9)).rows[:8]
T4 = (7, 5)


@pytest.fixture
def prompts(tokenizer):
    return [encode_prompt(row, tokenizer) for row in ROWS[:2]]


@pytest.fixture
def on_a_t4(monkeypatch):
    """Let a model on the CPU seem to be on a T4."""
    monkeypatch.setattr(half, "detect_capability", lambda device: T4)


def raise_gains(model, gain):
    """Raise the gains of the norms that feed the residual stream."""
    with torch.no_grad():
        for layer in model.model.layers:
            layer.post_attention_layernorm.weight += gain
            layer.post_feedforward_layernorm.weight += gain
    return model


def predict(model, prompt):
    with torch.inference_mode():
        states = model.model(input_ids=torch.tensor([prompt]), use_cache=False).last_hidden_state
        return states, model.lm_head(states[:, -1]).float().log_softmax(-1)


@pytest.mark.parametrize(
    ("capability", "dtype", "name", "reason"),
    [
        (T4, torch.float32, "fp16", "sm_75 has tensor cores for fp16 and none for bf16; norms, residual stream and"),
        ((7, 0), torch.float32, "fp16", "sm_70"),
        (T4, torch.bfloat16, "bf16", ""),
        ((6, 1), torch.float32, "fp32", ""),
        ((8, 0), torch.bfloat16, "bf16", ""),
        ((9, 0), torch.float32, "fp32", ""),
        (None, torch.float32, "fp32", ""),
    ],
)
def test_capability_and_weights_decide_the_format_of_replies(capability, dtype, name, reason):
    chosen = choose_generation_precision(capability, dtype)
    assert chosen.name == name and chosen.reason.startswith(reason) and bool(chosen.reason) == bool(reason)


def test_products_are_fp16_and_the_residual_stream_is_fp32_and_all_is_given_back(prompts):
    model, seen = fresh_model(), {}
    weights = {name: weight for name, weight in model.named_parameters()}
    _, exact = predict(model, prompts[0])
    watched = [model.model.layers[2], model.model.layers[2].mlp.down_proj, model.model.embed_tokens, model.lm_head]
    hooks = [
        one.register_forward_hook(lambda module, given, out: seen.__setitem__(module, (given[0].dtype, out.dtype)))
        for one in watched
    ]
    with fp16_products(model):
        assert products_dtype(model) == torch.float16 and model.dtype == torch.float32
        states, rounded = predict(model, prompts[0])
    for hook in hooks:
        hook.remove()
    fp16, fp32 = torch.float16, torch.float32
    assert [seen[one] for one in watched] == [(fp32, fp32), (fp16, fp16), (torch.int64, fp32), (fp16, fp16)]
    assert states.dtype == fp16 and 0 < (rounded - exact).abs().max() < 0.05
    assert all(weight is weights[name] for name, weight in model.named_parameters())
    assert torch.equal(predict(model, prompts[0])[1], exact) and products_dtype(model) == fp32
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_a_residual_stream_beyond_fp16_is_no_hindrance_where_a_model_wholly_in_fp16_breaks(prompts):
    model, seen = raise_gains(fresh_model(), 7e3), []  # no norm can exceed 8 * 7e3 by itself: 64 numbers
    watch = model.model.layers[-1].register_forward_hook(lambda _, __, out: seen.append(out.abs().max().item()))
    _, exact = predict(model, prompts[0])
    with fp16_products(model):
        _, rounded = predict(model, prompts[0])
    assert seen[0] > 65504 and (rounded - exact).abs().max() < 0.05
    assert not predict(model.half(), prompts[0])[1].isfinite().all()
    watch.remove()


def test_most_replies_are_those_of_fp32(model, tokenizer):
    exact = generate_replies(model, tokenizer, ROWS, max_new_tokens=24)
    with fp16_products(model):
        rounded = generate_replies(model, tokenizer, ROWS, max_new_tokens=24)
    assert sum(one == other for one, other in zip(exact, rounded, strict=True)) >= 7


def test_fp16_is_used_on_a_t4_alone_and_only_after_the_comparison(model, prompts, on_a_t4, monkeypatch):
    with generation_precision(model, prompts) as precision:
        assert precision.name == "fp16" and "sm_75" in precision.reason
        assert products_dtype(model) == torch.float16
    assert products_dtype(model) == torch.float32
    monkeypatch.setattr(half, "detect_capability", lambda device: (9, 0))
    monkeypatch.setattr(half, "find_difference", lambda *_: pytest.fail("nothing is to be compared"))
    with generation_precision(model, prompts) as precision:
        assert precision == Precision("fp32", "") and products_dtype(model) == torch.float32


def test_a_model_that_differs_in_fp16_stays_in_fp32_and_says_why(prompts, on_a_t4):
    broken = fresh_model()
    with torch.no_grad():
        broken.model.layers[1].mlp.down_proj.weight *= 1e8  # a product beyond 65,504; the norm after it takes it back
    assert predict(broken, prompts[0])[1].isfinite().all()
    with generation_precision(broken, prompts) as precision:
        assert precision.name == "fp32" and "a log-probability differs by nan nats" in precision.reason
        assert products_dtype(broken) == torch.float32


def test_another_architecture_and_a_full_memory_leave_fp32(model, prompts, monkeypatch):
    assert find_difference(torch.nn.Sequential(torch.nn.Linear(2, 2)), prompts).startswith("the model has no input_")
    assert find_difference(model, prompts) == ""
    monkeypatch.setattr(half, "LARGEST_DIFFERENCE", 1e-6)
    assert "more than 1e-06" in find_difference(model, prompts)

    def run_out(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(half, "_predict", run_out)
    assert find_difference(model, prompts) == "the memory does not hold the weights in both formats"


@pytest.mark.parametrize("kept", [False, True])
def test_an_evaluation_on_a_t4_says_its_format_and_repeats_what_was_no_number(
    model, tokenizer, on_a_t4, kept, tmp_path, monkeypatch, capsys
):
    """The replies that fp16 gave no probabilities for are generated again in fp32."""
    formats = []

    def generate_one_broken(model, tokenizer, rows, *, on_reply=None, **options):
        dtype, taken = products_dtype(model), {}
        formats.append((dtype, len(rows)))
        plain = generate_with_confidence(
            model, tokenizer, rows, on_reply=lambda place, reply: taken.__setitem__(place, reply), **options
        )
        for place, reply in taken.items():
            lost = dtype == torch.float16 and rows[place]["row_id"] == ROWS[3]["row_id"]
            if on_reply is not None:
                on_reply(place, GeneratedReply("<pad>", Confidence(1, math.nan, math.nan)) if lost else reply)
        return plain

    monkeypatch.setattr("fgtools.generate.generate_with_confidence", generate_one_broken)
    part = tmp_path / "replies.part" if kept else None
    got = evaluation.evaluate(model, tokenizer, ROWS, "native", max_new_tokens=8, part=part)
    assert formats == [(torch.float16, 8), (torch.float32, 1)]
    assert got.generated[3] == generate_with_confidence(model, tokenizer, ROWS[3:4], max_new_tokens=8)[0]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("generation fp16: sm_75 has tensor cores for fp16")
    assert lines[1] == "1 of 8 replies were not numbers in fp16: generated again in fp32"
    if part:
        assert len([json.loads(line) for line in part.read_text().splitlines()]) == 1 + len(ROWS)


def test_replies_of_another_format_are_not_gone_on_with(model, tokenizer, on_a_t4, tmp_path, monkeypatch, capsys):
    part, sizes, plain = tmp_path / "replies.jsonl.part", [], generate.generate_tokens
    monkeypatch.setattr(generate, "generate_tokens", lambda *a, **k: sizes.append(len(a[1])) or plain(*a, **k))
    options = {"max_new_tokens": 4, "part": part}
    evaluation.evaluate(model, tokenizer, ROWS[:3], "native", **options)
    evaluation.evaluate(model, tokenizer, ROWS[:3], "native", **options)
    assert sizes == [3, 0] and "3 of 3 replies are there already" in capsys.readouterr().out
    monkeypatch.setattr(half, "find_difference", lambda *_: "fp16 differs today")
    evaluation.evaluate(model, tokenizer, ROWS[:3], "native", **options)
    assert sizes[2] == 3 and "generation fp32: fp16 products are left off, since fp16 differs today" in (
        capsys.readouterr().out
    )
