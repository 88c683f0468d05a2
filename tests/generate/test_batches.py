"""How many rows are answered together, on memories that a test makes up."""

from types import SimpleNamespace

import pytest
import torch

from fgtools.generate import batches, generate_replies, graphs
from fgtools.generate import replies as generate
from fgtools.generate.batches import CPU_ROWS, count_fitting, count_unread, describe_batch, measure_room
from fgtools.generate.graphs import Graphs, Steps
from fgtools.generate.kv_cache import KVCache, common_prefix_length
from fgtools.generate.replies import GenerationError
from fgtools.offline.samples import build_samples
from fgtools.rows import build_rows

ROWS = build_rows(build_samples(60, 9)).rows[:12]
SIZES = [800] * 300
"""What each of 300 rows may take: a prompt of 700 tokens and a reply of 100."""


def functiongemma(dtype):
    """Return what is read of a model of FunctionGemma's shape."""
    config = SimpleNamespace(
        num_hidden_layers=18,
        num_key_value_heads=1,
        num_attention_heads=4,
        head_dim=256,
        hidden_size=640,
        intermediate_size=2048,
        vocab_size=262_144,
    )
    return SimpleNamespace(
        config=SimpleNamespace(get_text_config=lambda: config), dtype=dtype, device=torch.device("cuda")
    )


@pytest.fixture
def memory(monkeypatch):
    """Return a function that sets the free memory of the GPU in GB; None for a CPU."""
    return lambda gb: monkeypatch.setattr(
        batches, "free_memory_bytes", lambda device: None if gb is None else int(gb * 2**30)
    )


@pytest.mark.parametrize(
    ("free", "dtype", "rows", "tokens"),
    [
        (70, torch.bfloat16, 300, 16_384),  # H100: keys and values of 300 rows take 4.1 GB, logits 0.7 GB
        (13, torch.float32, 215, 16_384),  # T4
        (2.4, torch.float32, 39, 12_216),  # a card with 4 GB
        (0.01, torch.float32, 1, 50),  # hardly anything: a row is tried all the same
    ],
)
def test_a_gpu_answers_as_many_rows_at_once_as_it_holds(memory, free, dtype, rows, tokens):
    memory(free)
    room = measure_room(functiongemma(dtype))
    count = count_fitting(SIZES, room)
    assert abs(count - rows) <= 0.02 * rows and room.pass_tokens == tokens
    taken = count * (800 * room.token_bytes + room.row_bytes)
    assert count == 1 or taken <= free * 2**30 / 2
    assert count == 300 or (count + 1) * (800 * room.token_bytes + room.row_bytes) > free * 2**30 / 2


def test_the_size_asked_for_is_the_largest(memory):
    memory(70)
    assert count_fitting(SIZES, measure_room(functiongemma(torch.bfloat16), 64)) == 64
    memory(2.4)
    assert count_fitting(SIZES, measure_room(functiongemma(torch.float32), 64)) == pytest.approx(39, abs=1)
    memory(None)
    room = measure_room(functiongemma(torch.float32))
    assert (room.rows, room.pass_tokens) == (CPU_ROWS, 1) and count_fitting([10] * 300, room) == 64
    assert count_fitting([10] * 5, room) == 5
    assert count_fitting([10] * 300, measure_room(functiongemma(torch.float32), 200)) == 200


def test_the_decision_is_told_with_its_reason(memory):
    memory(2.4)
    room = measure_room(functiongemma(torch.float32))
    assert describe_batch(12, 12, 0, room) == "batch: all 12 rows at once, they fit half of 2.4 GB free"
    assert describe_batch(39, 300, 0, room) == "batch: 39 of 300 rows at once, as many as fit half of 2.4 GB free"
    assert describe_batch(39, 300, 64, room) == "batch: 39 of 300 rows at once, as many as fit half of 2.4 GB free"
    assert describe_batch(8, 300, 8, room) == "batch: 8 of 300 rows at once, as asked for"


def test_a_batch_is_printed_once_on_a_gpu_and_not_on_a_cpu(model, tokenizer, memory, capsys):
    wanted = generate_replies(model, tokenizer, ROWS, max_new_tokens=6)
    assert "batch" not in capsys.readouterr().out
    memory(0.004)
    assert generate_replies(model, tokenizer, ROWS, max_new_tokens=6) == wanted
    said = capsys.readouterr().out
    assert said.count("batch: ") == 1 and "of 12 rows at once, as many as fit half of 0.0 GB free" in said


def test_tokens_to_read_are_counted_as_they_are_read():
    assert count_unread([]) == 0 and count_unread([[1, 2, 3]]) == 3
    assert count_unread([[1, 2, 3], [1, 2, 3], [1, 2, 4, 5], [9]]) == 3 + 1 + 2 + 1


@pytest.mark.parametrize("shared", [0, 1, 2, 31, 64, 99, 100])
def test_a_common_prefix_ends_where_the_prompts_part(shared):
    one = list(range(100))
    assert common_prefix_length(one, [*one[:shared], -1, *range(shared, 80)]) == shared
    assert common_prefix_length([*one[:shared], -1], one) == shared
    assert common_prefix_length(one, one) == 100 and common_prefix_length(one, []) == 0


@pytest.mark.parametrize("stage", ["prefill", "decode", "capture"])
def test_memory_that_is_short_at_any_stage_loses_nothing(model, tokenizer, monkeypatch, capsys, stage):
    """More than five rows do not fit; what has ended is kept, and no reply comes twice."""
    wanted, told = generate_replies(model, tokenizer, ROWS, max_new_tokens=24), []
    calls = {"n": 0}

    def fail(n_rows):
        calls["n"] += 1
        if n_rows > 5 and calls["n"] > 3:  # not at once: some work was done
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    if stage == "prefill":
        read = generate.read_group
        monkeypatch.setattr(
            generate, "read_group", lambda cache, prompts, group: fail(len(prompts)) or read(cache, prompts, group)
        )
    elif stage == "decode":
        write = KVCache.write
        monkeypatch.setattr(KVCache, "write", lambda cache, ids, *rest: fail(len(ids)) or write(cache, ids, *rest))
    else:
        monkeypatch.setattr(graphs, "PAYS_FROM", 1)
        monkeypatch.setattr(generate, "_decide_graphs", lambda device, is_constrained: Graphs())
        monkeypatch.setattr(Steps, "capture", lambda steps: calls.update(n=9) or fail(len(steps.ids)))
    replies = generate_replies(model, tokenizer, ROWS, max_new_tokens=24, on_reply=lambda place, _: told.append(place))
    said = capsys.readouterr().out
    assert replies == wanted and sorted(told) == list(range(len(ROWS)))
    if stage == "capture":  # plain steps take less: the batch goes on as it is
        assert said.count("decoding: plain steps, since no CUDA graph can be used here: CUDA out of memory") == 1
        assert "rows at once from here on" not in said
    else:
        assert said.count("out of memory: 6 rows at once from here on") == 1 and "more" not in said


def test_one_row_that_does_not_fit_is_named_by_its_length(model, tokenizer, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(KVCache, "write", fail)
    with pytest.raises(GenerationError, match=r"one row alone must fit .* with prompts of \d+ tokens"):
        generate_replies(model, tokenizer, ROWS[:3], max_new_tokens=8)
