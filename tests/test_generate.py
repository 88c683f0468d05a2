"""Replies: the same one by one and in a batch, stopped at the stop ids, never sampled."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GenerationConfig

from fgtools import generate
from fgtools.calls import STOP_TOKENS
from fgtools.generate import generate_replies, group_prompts
from fgtools.offline.samples import build_samples
from fgtools.prompts import encode_prompt
from fgtools.rows import build_rows
from fgtools.slab import Slab, choose_tokens, decode_greedily, read_prompts

ROWS = build_rows(build_samples(60, 9)).rows[:12]


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
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 64"):
        generate_replies(model, tokenizer, ROWS, max_new_tokens=0)


@pytest.fixture(scope="module")
def random_model():
    """A small model of Gemma 3's kind whose replies are not trivial, with a short window."""
    torch.manual_seed(1)
    config = Gemma3TextConfig(
        num_hidden_layers=4,
        hidden_size=48,
        intermediate_size=96,
        vocab_size=300,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        layer_types=["sliding_attention", "full_attention"] * 2,
        sliding_window=24,
        initializer_range=0.3,
    )
    return Gemma3ForCausalLM(config).eval()


def decode_alone(model, prompt, stops, budget):
    config = GenerationConfig(do_sample=False, max_new_tokens=budget, eos_token_id=sorted(stops), pad_token_id=0)
    with torch.inference_mode():
        output = model.generate(input_ids=torch.tensor([prompt]), generation_config=config)
    return output[0, len(prompt) :].tolist()


def decode_together(model, prompts, stops, budget, groups):
    with torch.inference_mode():
        slab = Slab(model, len(prompts), max(map(len, prompts)) + budget)
        states = read_prompts(slab, prompts, groups)
        ended = list(decode_greedily(slab, prompts, states, stops, [budget] * len(prompts)))
    assert sorted(place for place, _ in ended) == list(range(len(prompts)))
    return dict(ended)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_prompts_in_any_groups_give_the_tokens_of_one_at_a_time(random_model, data):
    """Shared beginnings, equal prompts, one prompt that begins another, prompts longer than the window."""
    stem = data.draw(st.lists(st.integers(3, 299), min_size=1, max_size=40))
    tails = st.lists(st.integers(3, 299), max_size=30)
    cuts = data.draw(st.lists(st.tuples(st.integers(0, len(stem)), tails), min_size=1, max_size=7))
    prompts = sorted([2, *stem[:cut], *tail] for cut, tail in cuts)
    budget, stops = data.draw(st.integers(1, 12)), set(range(3, 60))
    borders = sorted(data.draw(st.sets(st.integers(1, len(prompts)), max_size=6)) | {len(prompts)})
    groups = [list(range(start, end)) for start, end in zip([0, *borders], borders, strict=False)]
    together = decode_together(random_model, prompts, stops, budget, groups)
    for place, prompt in enumerate(prompts):
        assert together[place] == decode_alone(random_model, prompt, stops, budget)


def test_prompts_of_one_pass_are_alike_and_within_its_tokens():
    shared = list(range(100))
    prompts = sorted([[*shared, *range(200, 205)], [*shared, *range(300, 390)], [7] * 30, [8] * 29, [9] * 200])
    groups = group_prompts(prompts, 1000)
    assert [[len(prompts[number]) for number in group] for group in groups] == [[105, 190], [30, 29], [200]]
    assert group_prompts(prompts, 1) == [[number] for number in range(5)]
    assert group_prompts([], 5) == []


def test_replies_are_told_as_they_end_and_memory_that_is_short_halves_the_batch(model, tokenizer, monkeypatch, capsys):
    whole = generate_replies(model, tokenizer, ROWS, max_new_tokens=32)
    told, plain, sizes = {}, generate._generate_batch, []

    def short(inner, prompts, *rest):
        sizes.append(len(prompts))
        for number, ended in enumerate(plain(inner, prompts, *rest)):
            if len(prompts) > 4 and number == 2:
                raise torch.OutOfMemoryError("fake")
            yield ended

    monkeypatch.setattr(generate, "_generate_batch", short)
    replies = generate_replies(model, tokenizer, ROWS, max_new_tokens=32, on_reply=told.__setitem__)
    assert replies == whole and told == dict(enumerate(whole))
    assert sizes[:2] == [12, 6] and "out of memory: 6 rows at once from here on" in capsys.readouterr().out

    def none(*_):
        raise torch.OutOfMemoryError("always")

    monkeypatch.setattr(generate, "_generate_batch", none)
    with pytest.raises(torch.OutOfMemoryError, match="always"):
        generate_replies(model, tokenizer, ROWS, max_new_tokens=4)


def test_a_batch_holds_what_fits_the_memory(model, tokenizer, monkeypatch):
    whole = generate_replies(model, tokenizer, ROWS, max_new_tokens=16)
    sizes, plain = [], generate._generate_batch
    monkeypatch.setattr(
        generate,
        "_generate_batch",
        lambda inner, prompts, *rest: sizes.append(len(prompts)) or plain(inner, prompts, *rest),
    )
    monkeypatch.setattr(generate, "CPU_BYTES", 2 * 4 * 32 * 4 * 1500)  # 1,500 tokens of the stand-in's keys and values
    assert generate_replies(model, tokenizer, ROWS, max_new_tokens=16) == whole
    assert len(sizes) > 1 and sum(sizes) == len(ROWS)


def test_memory_that_was_never_written_has_no_say(model, tokenizer):
    wanted = generate_replies(model, tokenizer, ROWS[:5], max_new_tokens=12)
    torch.use_deterministic_algorithms(True)  # torch then fills what is empty with not-a-number
    try:
        assert generate_replies(model, tokenizer, ROWS[:5], max_new_tokens=12) == wanted
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("rows", [1, 2, 6, 7, 12, 20, 21, 64])
def test_the_most_likely_token_does_not_depend_on_how_the_product_is_taken(rows):
    head = torch.nn.Linear(32, 500, bias=False)
    states = torch.randn(rows, 32, generator=torch.Generator().manual_seed(rows))
    assert choose_tokens(head, states) == [int((head.weight @ state).argmax()) for state in states]
