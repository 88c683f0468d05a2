"""Decoding steps of fixed shape give what plain steps give; what cannot be captured is decoded plainly."""

import contextlib
import random
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from fgtools.generate import decoding, generate_replies, graphs
from fgtools.generate import replies as generate
from fgtools.generate.decoding import Decoder
from fgtools.generate.graphs import PAYS_FROM, STEPS, Graphs, Steps, count_slots
from fgtools.generate.kv_cache import KVCache, read_group
from fgtools.generate.replies import generate_tokens
from fgtools.offline.samples import build_samples
from fgtools.rows import build_rows

ROWS = build_rows(build_samples(60, 9)).rows[:12]


@pytest.fixture(scope="module")
def random_model():
    """A small model of Gemma 3's kind whose replies are not trivial, with a window shorter than most prompts."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 48, "intermediate_size": 96, "head_dim": 16, "query_pre_attn_scalar": 16}
    config = Gemma3TextConfig(
        **sizes,
        num_hidden_layers=4,
        vocab_size=300,
        num_attention_heads=4,
        num_key_value_heads=1,
        layer_types=["sliding_attention", "full_attention"] * 2,
        sliding_window=24,
        initializer_range=0.3,
    )
    return Gemma3ForCausalLM(config).eval()


@pytest.fixture
def uncaptured(monkeypatch):
    """Run steps of fixed shape without a GPU: what a graph would repeat is computed anew each time."""
    made = []
    monkeypatch.setattr(Steps, "capture", lambda steps: made.append((len(steps.ids), steps.n_seen)))
    monkeypatch.setattr(generate, "_decide_graphs", lambda device, is_constrained: Graphs())
    return made


def answer(model, prompts, stops, budgets, **options):
    """Return replies and log-probabilities by prompt."""
    found = {}
    generate_tokens(
        model, prompts, stops, budgets, lambda number, ids, likely: found.update({number: (ids, likely)}), **options
    )
    assert sorted(found) == list(range(len(prompts)))
    return found


def assert_same(one, other):
    for number, (ids, likely) in one.items():
        assert other[number][0] == ids
        assert torch.allclose(torch.tensor(other[number][1]), torch.tensor(likely), atol=1e-4)


@given(data=st.data())
@settings(max_examples=12)
def test_steps_of_fixed_shape_give_the_tokens_of_plain_ones(random_model, data):
    """Ragged prompts, shared beginnings, prompts beyond the window, budgets of their own, rows that end early."""
    stem = data.draw(st.lists(st.integers(3, 299), min_size=1, max_size=40))
    tails = st.lists(st.integers(3, 299), max_size=30)
    cuts = data.draw(st.lists(st.tuples(st.integers(0, len(stem)), tails), min_size=1, max_size=9))
    prompts = [[2, *stem[:cut], *tail] for cut, tail in cuts]
    budgets = [data.draw(st.integers(1, 60)) for _ in prompts]
    stops = set(range(3, data.draw(st.integers(4, 30))))
    plain = answer(random_model, prompts, stops, budgets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "capture", lambda steps: None)
        patch.setattr(generate, "_decide_graphs", lambda device, is_constrained: Graphs())
        patch.setattr(graphs, "SLOTS", data.draw(st.sampled_from([8, 32, 128])))
        patch.setattr(graphs, "HEADROOM", data.draw(st.sampled_from([STEPS, 32])))
        assert_same(plain, answer(random_model, prompts, stops, budgets, batch_size=data.draw(st.integers(1, 9))))


def test_shapes_are_few_and_a_batch_is_made_smaller_when_half_has_ended(random_model, uncaptured, capsys):
    draw = random.Random(3)
    prompts = [[2, *(draw.randrange(3, 300) for _ in range(length))] for length in (30, 50, 70, 90, 95, 99, 100, 100)]
    budgets = [20, 20, 20, 20, 60, 60, 100, 100]
    plain = {}
    for number, (prompt, budget) in enumerate(zip(prompts, budgets, strict=True)):
        plain |= {number: answer(random_model, [prompt], (), [budget])[0]}
    uncaptured.clear()
    assert_same(plain, answer(random_model, prompts, (), budgets))
    assert [rows for rows, _ in uncaptured] == sorted((rows for rows, _ in uncaptured), reverse=True)
    assert {rows for rows, _ in uncaptured} == {8, 4, 2} and len(uncaptured) <= 5
    assert all(seen % graphs.SLOTS == 0 or seen == 201 for _, seen in uncaptured)  # all slots: 101 and 100 tokens
    assert capsys.readouterr().out.count("decoding: CUDA graphs; the first differs from plain steps by") == 10 - 1


def test_slots_are_multiples_with_room_and_never_more_than_there_are():
    assert [count_slots(longest, 1000) for longest in (1, 96, 97, 224, 225, 990)] == [128, 128, 256, 256, 384, 1000]


def test_a_row_can_join_while_others_are_in_the_midst_of_their_replies(random_model):
    draw = random.Random(5)
    prompts = sorted([2, *(draw.randrange(3, 300) for _ in range(length))] for length in (5, 30, 12, 40, 33))
    budgets, ended = [3, 9, 12, 4, 8], []
    with torch.inference_mode():
        cache = KVCache(random_model, 5, 41 + 12)
        decoder = Decoder(cache, prompts, (), budgets)
        ended += decoder.begin([0, 1], torch.cat([read_group(cache, prompts, [number]) for number in (0, 1)]))
        while not ended:
            ended += decoder.step()
        ended += decoder.begin(
            [2, 3, 4], torch.cat([read_group(cache, prompts, [2]), read_group(cache, prompts, [3, 4])])
        )
        while decoder.open:
            ended += decoder.step()
    assert_same(
        {number: answer(random_model, [prompts[number]], (), [budgets[number]])[0] for number in range(5)},
        {number: (ids, likely) for number, ids, likely in ended},
    )


def test_the_first_replies_come_early_where_reading_takes_long(model, tokenizer, monkeypatch):
    wanted = generate_replies(model, tokenizer, ROWS, max_new_tokens=24)
    monkeypatch.setattr(generate, "EARLY_SECONDS", -1.0)
    events, plain = [], generate.read_group
    monkeypatch.setattr(generate, "read_group", lambda *args: events.append("read") or plain(*args))
    told = lambda number, reply: events.append("reply")  # noqa: E731
    assert generate_replies(model, tokenizer, ROWS, max_new_tokens=24, on_reply=told) == wanted
    assert events[:5] == ["read"] * 4 + ["reply"] and events.count("read") == events.count("reply") == len(ROWS)
    others = events.index("read", 4)
    assert set(events[others : others + 8]) == {"read"} and others < 8  # some of the first four go on beside the others


@pytest.mark.parametrize("n_rows", [1, 3, 4])
def test_few_rows_are_read_before_any_is_answered(model, tokenizer, monkeypatch, n_rows):
    wanted = generate_replies(model, tokenizer, ROWS[:n_rows], max_new_tokens=8)
    monkeypatch.setattr(generate, "EARLY_SECONDS", -1.0)
    assert generate_replies(model, tokenizer, ROWS[:n_rows], max_new_tokens=8) == wanted


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "CUDA out of memory"),
        (RuntimeError("not permitted"), "not permi"),
    ],
)
def test_what_cannot_be_captured_is_decoded_plainly(random_model, uncaptured, monkeypatch, capsys, error, reason):
    """Also the second graph: nothing is lost, nothing is answered twice, and the reason is printed once."""
    prompts, budgets = [[2, *range(number, 40 + 7 * number)] for number in range(3, 9)], [30, 30, 30, 50, 90, 90]
    plain = answer(random_model, prompts, (), budgets, batch_size=1)
    for works in (0, 1):
        uncaptured.clear()

        def capture(steps, works=works):
            uncaptured.append(len(steps.ids))
            if len(uncaptured) > works:
                raise error

        monkeypatch.setattr(Steps, "capture", capture)
        capsys.readouterr()
        assert_same(plain, answer(random_model, prompts, (), budgets))
        said = capsys.readouterr().out
        assert said.count("no CUDA graph can be used here: " + reason) == 1 and len(uncaptured) == works + 1


@pytest.mark.parametrize("wrong", ["token", "position", "slot"])
def test_a_graph_that_computes_something_else_is_found_and_not_used(
    random_model, uncaptured, monkeypatch, capsys, wrong
):
    prompts, budgets = [[2, *range(number, 40 + 7 * number)] for number in range(3, 9)], [30] * 6
    plain = answer(random_model, prompts, (), budgets, batch_size=1)
    step = Steps.step

    def broken(steps):
        step(steps)
        if wrong == "token":
            steps.ids.fill_(7)
        elif wrong == "position":
            steps.positions.sub_(1)
        else:
            for layer in steps.cache.layers:
                layer.stored[0][:, :, 40:].zero_()

    monkeypatch.setattr(Steps, "step", broken)
    assert_same(plain, answer(random_model, prompts, (), budgets)) if wrong != "slot" else answer(
        random_model, prompts, (), budgets
    )
    assert "decoding: plain steps, since no CUDA graph can be used here: it differs" in capsys.readouterr().out


def test_the_decision_is_printed_with_its_reason(random_model, monkeypatch, capsys):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert generate._decide_graphs(cpu, is_constrained=False) is None
    assert generate._decide_graphs(gpu, is_constrained=False).is_on
    assert not generate._decide_graphs(gpu, is_constrained=True).is_on
    assert "decoding: plain steps, since a grammar chooses every token" in capsys.readouterr().out
    monkeypatch.setattr(generate, "_decide_graphs", lambda device, is_constrained: Graphs())
    answer(random_model, [[2, 5], [2, 7, 9]], (), [PAYS_FROM, PAYS_FROM - 1])
    assert f"pays from {PAYS_FROM} tokens on and at most {PAYS_FROM - 1} follow" in capsys.readouterr().out


def test_a_choice_of_tokens_is_made_at_every_step(random_model, uncaptured, monkeypatch):
    chosen = []

    def choose(rows, logits):
        chosen.append(len(rows))
        return logits.argsort(-1)[:, -2].tolist()

    found = answer(random_model, [[2, 5], [2, 7, 9]], (), [30, 30], choices=lambda batch: choose)
    assert chosen == [2] * 30 and uncaptured == [] and len(found) == 2


def test_looks_at_the_tokens_are_few(random_model, uncaptured, monkeypatch):
    runs, plain = [], Steps.run
    monkeypatch.setattr(Steps, "run", lambda steps, *count: runs.append(1) or plain(steps, *count))
    answer(random_model, [[2, 5], [2, 7, 9]], (), [41, 41])
    assert len(runs) == 40 // STEPS + 1 and decoding.STEPS == STEPS  # one more for the check


class FakeStream:
    def wait_stream(self, other):
        pass


def test_a_capture_warms_up_elsewhere_and_leaves_what_steps_read_as_it_was(random_model, monkeypatch):
    """The order of torch's calls, with made-up streams and a graph that repeats the step it saw."""
    calls = []

    @contextlib.contextmanager
    def enter(name):
        calls.append(name)
        yield

    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, FakeStream)
    monkeypatch.setattr(torch.cuda, "device", lambda device: enter("device"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: enter("warm-up"))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **_: enter("capture"))
    step = Steps.step
    monkeypatch.setattr(Steps, "step", lambda steps: calls.append("step") or step(steps))
    replayed = SimpleNamespace(replay=lambda: calls.append("replay") or step(steps))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: replayed)
    prompts = [[2, 5, 9], [2, 7]]
    with torch.inference_mode():
        cache = KVCache(random_model, 2, 40)
        for number in (0, 1):
            read_group(cache, prompts, [number])
        steps = Steps(cache, [11, 12], [3, 2], 40)
        wanted = Steps(cache, [11, 12], [3, 2], 40).run()
        calls.clear()
        steps.capture()
        assert calls == ["device", "warm-up", "step", "capture", "step"] and steps.graph is replayed
        steps._restore(torch.tensor([[11], [12]]), torch.tensor([[3], [2]]))  # a real capture computes nothing
        assert steps.run() == wanted and calls[5:] == ["replay"] * STEPS
