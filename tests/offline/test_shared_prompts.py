"""Requests that share a prompt: loss and gradients are those of the rows one by one."""

import random
from dataclasses import replace

import pytest
import torch

from fgtools.offline.catalogue import read_text
from fgtools.offline.curriculum import build_rows
from fgtools.offline.shared_prompts import attend_to_prompt, build_batch, encode
from fgtools.offline.standin import ALL_ATTENTION_FUNCTIONS, build_model, build_tokenizer, completion_loss


@pytest.fixture(scope="module")
def prompts():
    tokenizer, template, draw = build_tokenizer(), read_text("chat_template.jinja"), random.Random(2)
    return [encode(build_rows(draw, count=3), tokenizer, template) for _ in range(2)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    ALL_ATTENTION_FUNCTIONS.register("prompt", attend_to_prompt)
    return build_model(2700, 32, 6).double()


def test_loss_and_gradients_are_those_of_the_rows_one_by_one(model, prompts):
    model.set_attn_implementation("prompt")
    loss, *_ = completion_loss(model, build_batch(prompts))
    loss.backward()
    shared = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    model.set_attn_implementation("sdpa")
    labels = sum(label != -100 for prompt in prompts for _, row in prompt.requests for label in row)
    alone = 0.0
    for prompt in prompts:
        for ids, wanted in prompt.requests:
            whole = torch.tensor([prompt.ids + ids])
            targets = torch.tensor([-100] * len(prompt.ids) + wanted)
            logits = model(input_ids=whole).logits[0]
            one = torch.nn.functional.cross_entropy(logits[:-1], targets[1:], reduction="sum") / labels
            one.backward()
            alone += one.item()
    assert loss.item() == pytest.approx(alone, rel=1e-12)
    for name, weight in model.named_parameters():
        difference = (shared[name] - weight.grad).abs().max() / weight.grad.abs().max()
        assert difference < 1e-5, (name, difference)  # Gemma's norms compute in fp32 whatever the weights are


def test_a_request_sees_no_other_request(model, prompts):
    """Other words in one request change the states of that request alone."""
    model.set_attn_implementation("prompt")
    batch = build_batch(prompts)
    masks = dict.fromkeys(("full_attention", "sliding_attention"), batch)
    length = (batch.ids.shape[1] - batch.prompt) // batch.requests
    start = batch.prompt + length
    with torch.no_grad():
        before = model.model(input_ids=batch.ids, position_ids=batch.positions, attention_mask=masks).last_hidden_state
        batch.ids[0, start : start + 3] += 1
        after = model.model(input_ids=batch.ids, position_ids=batch.positions, attention_mask=masks).last_hidden_state
    changed = (before != after).any(-1)
    assert changed[0, start:].sum() > 0 and not changed[1].any()
    assert not changed[0, :start].any() and not changed[0, start + length :].any()


def test_the_first_token_of_an_answer_counts_as_much_as_it_is_said_to(model, prompts):
    model.set_attn_implementation("prompt")
    batch = build_batch(prompts)
    with torch.no_grad():
        weighted, plain, _ = completion_loss(model, batch, 6.0)
        first = batch.labels.clone()
        first[:, 1:][batch.labels[:, :-1] != -100] = -100
        batch_of_first = replace(batch, labels=first)
        decisions = completion_loss(model, batch_of_first)[0]
    n, requests = int((batch.labels != -100).sum()), int((first != -100).sum())
    assert requests == 6
    mean = (n * plain + 5 * requests * decisions) / (n + 5 * requests)
    assert weighted.item() == pytest.approx(mean.item(), rel=1e-9)


def test_answers_alone_carry_labels(prompts):
    tokenizer, batch = build_tokenizer(), build_batch(prompts)
    for row in range(2):
        wanted = batch.labels[row]
        text = tokenizer.decode(batch.ids[row][wanted != -100])
        assert torch.equal(batch.ids[row][wanted != -100], wanted[wanted != -100])
        assert "<start_of_turn>" not in text and ("<start_function_call>" in text or "<end_of_turn>" in text)
