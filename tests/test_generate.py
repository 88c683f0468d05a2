"""Replies: the same one by one and in a batch, stopped at the stop ids, never sampled."""

import pytest
import torch
from transformers import GenerationConfig

from fgtools.calls import STOP_TOKENS
from fgtools.generate import generate_replies
from fgtools.models import load_model, load_tokenizer
from fgtools.offline.samples import build_samples
from fgtools.prompts import encode_prompt
from fgtools.rows import build_rows

ROWS = build_rows(build_samples(60, 9)).rows[:12]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("standin")


@pytest.fixture(scope="module")
def model():
    return load_model("standin", device="cpu", quiet=True)


def reply_alone(model, tokenizer, row, max_new_tokens):
    """The tutorial's loop: one row, no padding, greedy."""
    ids = torch.tensor([encode_prompt(row, tokenizer)])
    config = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=[1, 50, 106], pad_token_id=0)
    with torch.inference_mode():
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return tokenizer.decode(output[0, ids.shape[1] :])


def test_batches_of_any_size_equal_one_row_at_a_time(model, tokenizer):
    alone = [reply_alone(model, tokenizer, row, 32) for row in ROWS]
    assert len({len(encode_prompt(row, tokenizer)) for row in ROWS}) > 6
    for batch_size in (1, 5, 64):
        assert generate_replies(model, tokenizer, ROWS, max_new_tokens=32, batch_size=batch_size) == alone


def test_a_reply_ends_at_its_stop_token_or_its_budget(model, tokenizer):
    replies = generate_replies(model, tokenizer, ROWS, max_new_tokens=24)
    for reply in replies:
        ids = tokenizer(reply, add_special_tokens=False)["input_ids"]
        assert "<pad>" not in reply
        assert reply.endswith(STOP_TOKENS) or len(ids) >= 20
        assert sum(reply.count(token) for token in STOP_TOKENS) <= 1
    assert any(reply.endswith("<start_function_response>") for reply in replies)


def test_a_model_that_samples_by_default_is_not_sampled(model, tokenizer):
    greedy = generate_replies(model, tokenizer, ROWS[:4], max_new_tokens=16)
    kept = model.generation_config
    try:
        model.generation_config = GenerationConfig(do_sample=True, top_k=64, top_p=0.95, temperature=5.0)
        assert generate_replies(model, tokenizer, ROWS[:4], max_new_tokens=16) == greedy
    finally:
        model.generation_config = kept


def test_the_model_is_left_in_the_mode_it_was_in(model, tokenizer):
    model.train()
    generate_replies(model, tokenizer, ROWS[:1], max_new_tokens=2)
    assert model.training
    model.eval()


def test_no_rows_give_no_replies_and_bad_numbers_are_named(model, tokenizer):
    assert generate_replies(model, tokenizer, [], max_new_tokens=4) == []
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 32"):
        generate_replies(model, tokenizer, ROWS, max_new_tokens=0)
