"""Replies: the same one by one and in a batch, stopped at the stop ids, never sampled."""

import gc
import itertools
import random
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GenerationConfig

from fgtools.calls.tokens import STOP_TOKENS
from fgtools.generate import batches, generate_replies
from fgtools.generate import replies as generate
from fgtools.generate.batches import group_prompts
from fgtools.generate.choice import most_likely_tokens
from fgtools.generate.decoding import Decoder
from fgtools.generate.kv_cache import KVCache, common_prefix_length, read_group
from fgtools.generate.replies import GenerationError
from fgtools.models import attention
from fgtools.offline.samples import build_samples
from fgtools.prompts.encode import encode_prompt
from fgtools.rows import build_rows
from tests.toys import fresh_model

ROWS = build_rows(build_samples(60, 9)).rows[:12]


@pytest.fixture(scope="module")
def whole(model, tokenizer):
    """The replies to ROWS where nothing is in the way, of 24 tokens at most."""
    return generate_replies(model, tokenizer, ROWS, max_new_tokens=24)


def reply_alone(model, tokenizer, row, max_new_tokens):
    """The tutorial's loop: one row, no padding, greedy."""
    ids = torch.tensor([encode_prompt(row, tokenizer)])
    config = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=[1, 50, 106], pad_token_id=0)
    with torch.inference_mode():
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return tokenizer.decode(output[0, ids.shape[1] :])


def test_batches_of_any_size_equal_one_row_at_a_time(model, tokenizer):
    alone = [reply_alone(model, tokenizer, row, 24) for row in ROWS]
    assert len({len(encode_prompt(row, tokenizer)) for row in ROWS}) > 6
    for batch_size in (1, 5, 64):
        assert generate_replies(model, tokenizer, ROWS, max_new_tokens=24, batch_size=batch_size) == alone


def test_cudnns_attention_is_off_for_every_token_and_on_again_afterwards(model, tokenizer, monkeypatch):
    monkeypatch.setattr(attention, "detect_capability", lambda device: (9, 0))
    seen = []
    watch = model.model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()))
    generate_replies(model, tokenizer, ROWS[:2], max_new_tokens=4)
    watch.remove()
    assert len(seen) > 4 and not any(seen) and torch.backends.cuda.cudnn_sdp_enabled()


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


def test_a_prompt_that_fills_the_context_is_named_before_any_is_read(tokenizer):
    model, longest = fresh_model(), max(ROWS, key=lambda row: len(encode_prompt(row, tokenizer)))
    length = len(encode_prompt(longest, tokenizer))
    model.config.max_position_embeddings = length
    with pytest.raises(
        GenerationError, match=rf"{length} tokens, .* 1 of 12 rows do not, such as '{longest['row_id']}'"
    ):
        generate_replies(model, tokenizer, ROWS, max_new_tokens=4, on_reply=lambda *_: pytest.fail("a reply came"))


def test_a_reply_ends_where_the_context_does(tokenizer, capsys):
    model, rows = fresh_model(), ROWS[:2]
    free = generate_replies(model, tokenizer, rows, max_new_tokens=9)
    model.config.max_position_embeddings = max(len(encode_prompt(row, tokenizer)) for row in rows) + 3
    cut = generate_replies(model, tokenizer, rows, max_new_tokens=9)
    assert all(long.startswith(short) for long, short in zip(free, cut, strict=True)) and free != cut
    assert "replies have fewer than 9 tokens: the context ends at" in capsys.readouterr().out


def test_the_model_is_left_in_the_mode_it_was_in(model, tokenizer):
    model.train()
    generate_replies(model, tokenizer, ROWS[:1], max_new_tokens=2)
    assert model.training
    model.eval()


def test_no_rows_give_no_replies_and_bad_numbers_are_named(model, tokenizer):
    assert generate_replies(model, tokenizer, [], max_new_tokens=4) == []
    with pytest.raises(ValueError, match="must be at least 1 and BATCH_SIZE at least 0, got 0 and 0"):
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
        cache = KVCache(model, len(prompts), max(map(len, prompts)) + budget)
        states = [read_group(cache, prompts, group) for group in groups]
        decoder = Decoder(cache, prompts, stops, [budget] * len(prompts))
        ended = decoder.begin(range(len(prompts)), torch.cat(states))
        while decoder.open:
            ended += decoder.step()
    assert sorted(place for place, *_ in ended) == list(range(len(prompts)))
    return {place: ids for place, ids, _ in ended}


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


def live_caches():
    """Count the caches in memory, without a garbage collection."""
    return sum(type(one) is KVCache for one in gc.get_objects())


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    ("kind", "message"),
    [(torch.OutOfMemoryError, "fake"), (RuntimeError, "DefaultCPUAllocator: can't allocate memory")],
)
def test_memory_that_is_short_halves_the_batch_until_it_fits(
    whole, model, tokenizer, monkeypatch, capsys, no_collector, kind, message
):
    """The fake memory holds the caches of five rows, those of finished batches included until they are freed."""
    told, plain, sizes = {}, KVCache.__init__, []
    alive = weakref.WeakKeyDictionary()

    def make(cache, inner, n_rows, n_slots):
        sizes.append(n_rows)
        plain(cache, inner, n_rows, n_slots)
        alive[cache] = n_rows
        if sum(alive.values()) > 5:
            raise kind(message)

    monkeypatch.setattr(KVCache, "__init__", make)
    replies = generate_replies(model, tokenizer, ROWS, max_new_tokens=24, on_reply=told.__setitem__)
    assert replies == whole and told == dict(enumerate(whole))
    assert sizes == [12, 6, 3, 3, 3, 3]
    said = capsys.readouterr().out
    assert "out of memory: 6 rows at once from here on" in said and "out of memory: 3 rows" in said
    monkeypatch.setattr(KVCache, "__init__", lambda *_: (_ for _ in ()).throw(kind(message)))
    with pytest.raises(
        GenerationError, match=rf"must fit the memory, but {message}: lower MAX_NEW_TOKENS \(--max-new-tokens, now 4\)"
    ):
        generate_replies(model, tokenizer, ROWS, max_new_tokens=4)


def test_a_batch_that_fails_in_its_midst_keeps_what_has_ended(whole, model, tokenizer, monkeypatch):
    told, plain, sizes = [], generate._answer_batch, []

    def short(inner, prompts, *rest):
        sizes.append(len(prompts))
        for number, ended in enumerate(plain(inner, prompts, *rest)):
            if len(prompts) > 4 and number == 2:
                raise torch.OutOfMemoryError("fake")
            yield ended

    monkeypatch.setattr(generate, "_answer_batch", short)
    replies = generate_replies(model, tokenizer, ROWS, max_new_tokens=24, on_reply=lambda place, _: told.append(place))
    assert replies == whole and sorted(told) == list(range(len(ROWS))) and sizes[:3] == [12, 6, 3]


def test_an_error_that_is_not_of_memory_is_not_tried_again(model, tokenizer, monkeypatch):
    monkeypatch.setattr(generate, "_answer_batch", lambda *_: (_ for _ in ()).throw(RuntimeError("device-side assert")))
    with pytest.raises(RuntimeError, match="device-side assert"):
        generate_replies(model, tokenizer, ROWS, max_new_tokens=4)


def test_the_memory_of_a_batch_is_free_when_the_next_begins(model, tokenizer, monkeypatch, no_collector):
    before, alive, plain = live_caches(), [], generate._answer_batch
    monkeypatch.setattr(generate, "_answer_batch", lambda *args: alive.append(live_caches()) or plain(*args))
    generate_replies(model, tokenizer, ROWS, max_new_tokens=8, batch_size=3)
    assert [*alive, live_caches()] == [before] * 5


def test_a_batch_holds_what_fits_the_memory(model, tokenizer, monkeypatch):
    whole = generate_replies(model, tokenizer, ROWS, max_new_tokens=16)
    sizes, plain = [], generate._answer_batch
    monkeypatch.setattr(
        generate,
        "_answer_batch",
        lambda inner, prompts, *rest: sizes.append(len(prompts)) or plain(inner, prompts, *rest),
    )
    lengths = sorted(len(encode_prompt(row, tokenizer)) for row in ROWS)
    fits_three = 2 * 6 * 32 * 4 * 3 * (lengths[-1] + 16)  # bytes of the stand-in's keys and values, the longest rows
    monkeypatch.setattr(batches, "CPU_CACHE_BYTES", fits_three)
    assert generate_replies(model, tokenizer, ROWS, max_new_tokens=16) == whole
    assert sum(sizes) == len(ROWS) and min(sizes[:-1]) >= 3 and 1 < len(sizes) <= 4
    sizes.clear()
    monkeypatch.setattr(batches, "CPU_CACHE_BYTES", fits_three - 1)
    longest = [row for row in ROWS if len(encode_prompt(row, tokenizer)) == lengths[-1]][:1] * 6
    generate_replies(model, tokenizer, longest, max_new_tokens=16)
    assert sizes == [2, 2, 2]
    sizes.clear()
    generate_replies(model, tokenizer, ROWS[:5], max_new_tokens=2, batch_size=2)
    assert sizes == [2, 2, 1]


def test_what_prompts_share_is_read_once(model, tokenizer, monkeypatch):
    """The work itself: the tokens that go through the model, for rows that come in any order."""
    read, plain = [], KVCache.read
    monkeypatch.setattr(KVCache, "read", lambda cache, ids, *rest: read.append(ids.numel()) or plain(cache, ids, *rest))
    rows = []
    for number in range(3):
        for row in ROWS[:3]:
            asked = {"role": "user", "content": f"{number} {row['messages'][-1]['content']}"}
            rows.append({**row, "messages": [*row["messages"][:-1], asked]})
    generate_replies(model, tokenizer, rows, max_new_tokens=1)
    prompts = sorted(encode_prompt(row, tokenizer) for row in rows)
    shared = sum(common_prefix_length(one, other) for one, other in itertools.pairwise(prompts))
    assert sum(read) == sum(map(len, prompts)) - shared and shared > 0.3 * sum(map(len, prompts))


def test_every_stop_token_ends_a_reply(model, tokenizer, monkeypatch):
    passed = []
    monkeypatch.setattr(
        generate, "_answer_batch", lambda *args: passed.append(list(args[3].stops)) or iter([(0, [5], [-0.5])])
    )
    generate_replies(model, tokenizer, ROWS[:1], max_new_tokens=4)
    assert passed == [[1, 50, 106]]


@pytest.mark.parametrize("batch_size", [1, 64])
def test_eager_attention_gives_the_same_replies_and_others_are_refused(tokenizer, batch_size):
    sdpa, eager = fresh_model(), fresh_model()
    eager.set_attn_implementation("eager")
    wanted = generate_replies(sdpa, tokenizer, ROWS, max_new_tokens=24)
    assert generate_replies(eager, tokenizer, ROWS, max_new_tokens=24, batch_size=batch_size) == wanted
    eager.config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="must be one of sdpa, eager to answer rows together, got 'flex_attention'"):
        generate_replies(eager, tokenizer, ROWS[:1], max_new_tokens=4)


@pytest.mark.parametrize("length", [22, 23, 24, 25, 26, 60])
def test_a_window_ends_where_the_models_ends(random_model, length):
    """Hidden states, not tokens: a key too many or too few changes them always, the most likely token now and then."""
    draw = random.Random(length)
    for _ in range(3):
        prompt = [2, *(draw.randrange(3, 300) for _ in range(length))]
        with torch.inference_mode():
            wanted = random_model.model(torch.tensor([prompt])).last_hidden_state[0, -1]
            alone = read_group(KVCache(random_model, 1, length + 1), [prompt], [0])[0]
            cache = KVCache(random_model, 1, length + 1)
            read_group(cache, [prompt[:-1]], [0])
            last = cache.write(torch.tensor([prompt[-1:]]), torch.tensor([[length]]), length + 1)[0]
        assert torch.allclose(alone, wanted, atol=1e-4) and torch.allclose(last, wanted, atol=1e-4)


def test_a_row_that_moves_takes_its_tokens_along(random_model):
    draw = random.Random(5)
    prompts = [[2, *(draw.randrange(3, 300) for _ in range(length))] for length in (5, 12, 30)]
    with torch.inference_mode():
        cache = KVCache(random_model, 3, 32)
        for number in range(3):
            read_group(cache, prompts, [number])
        assert cache.keep_rows([1, 2]) == [2, 1]
        states = cache.write(torch.tensor([[7], [7]]), torch.tensor([[31], [13]]), 32)
        for state, prompt in zip(states, (prompts[2], prompts[1]), strict=True):
            wanted = random_model.model(torch.tensor([[*prompt, 7]])).last_hidden_state[0, -1]
            assert torch.allclose(state, wanted, atol=1e-4)


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
    tokens, likely = most_likely_tokens(head, states)
    logits = states @ head.weight.T
    assert tokens == [int((head.weight @ state).argmax()) for state in states]
    assert torch.allclose(torch.tensor(likely), logits.log_softmax(-1).amax(-1), atol=1e-5)


def test_an_adapter_on_the_head_is_not_left_out():
    class Adapted(torch.nn.Linear):
        def forward(self, states):
            return super().forward(states).flip(-1)

    head, states = Adapted(8, 50, bias=False), torch.randn(12, 8)
    assert most_likely_tokens(head, states)[0] == head(states).argmax(-1).tolist()


def test_a_pass_is_filled_up_to_its_tokens_and_no_further():
    prompts = [[7] * 10, [7] * 10, [7] * 10]
    assert group_prompts(prompts, 20) == [[0, 1], [2]]
    assert group_prompts(prompts, 19) == [[0], [1], [2]]
    assert group_prompts([[7] * 10, [8] * 10], 100) == [[0, 1]]  # nothing shared, but alike in length
    assert group_prompts([[7] * 10, [8] * 5], 100) == [[0], [1]]
