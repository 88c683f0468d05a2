"""Rows that begin alike, packed behind one beginning: the same loss and gradients as row by row."""

import pytest
import torch

from fgtools.offline.samples import build_samples
from fgtools.prompts import IGNORED, encode_rows
from fgtools.rows import build_rows
from fgtools.train.plan import MicroBatches
from fgtools.train.prefix import (
    count_padded,
    cut_rows,
    describe_shared,
    measure_shared,
    pack_rows,
    split_shared,
    take_rows,
)
from tests.toys import tiny_model, toy_arguments
from tests.train.test_trainer import make_trainer

pytestmark = pytest.mark.usefixtures("batch_run")


def row(ids, n_labels=1):
    return {"input_ids": ids, "labels": [IGNORED] * (len(ids) - n_labels) + ids[len(ids) - n_labels :]}


@pytest.fixture(scope="module")
def encoded(tokenizer):
    """Rows of one tool list, as an application's own rows have it."""
    rows = build_rows(build_samples(60, 11)).rows
    tools = rows[0]["tools"]
    ours = [{**one, "tools": tools, "gold": []} for one in rows[:9]]
    return encode_rows(ours, tokenizer).encoded


def measure(rows):
    return measure_shared([one["input_ids"] for one in rows], [one["labels"] for one in rows])


def test_the_common_beginning_ends_before_the_first_label_and_must_be_worth_it():
    assert measure([row([1, 2, 3, 4, 5, 6]), row([1, 2, 3, 9, 5, 7])]) == 3
    assert measure([row([1, 2, 3, 4]), row([1, 2, 3, 4])]) == 2  # the fourth is a label, the third foretells it
    assert measure([row([1, 2, 3, 4], 3), row([1, 2, 3, 4], 1)]) == 0
    assert measure([row([1, 5, 6, 7, 8]), row([1, 9, 9, 9, 9])]) == 0  # one token of ten
    assert measure([row([1, 2, 3])]) == measure([]) == 0
    assert measure([row([1, 2]), row([1, 2, 3])]) == 0
    assert measure([row([1, 2, 3, 4], 0), row([1, 2, 3, 4], 0)]) == 3


def test_every_row_is_in_one_micro_batch_within_the_budget():
    assert split_shared([10, 12, 11], 8, 14) == [[1], [2, 0]]
    for budget in (1, 15, 20, 10**9):
        batches = split_shared([10, 12, 11, 9, 9], 8, budget)
        assert sorted(at for one in batches for at in one) == [0, 1, 2, 3, 4]
        assert all(len(one) == 1 or 8 + sum([2, 4, 3, 1, 1][at] for at in one) <= budget for one in batches)
    assert len(split_shared([1000] * 8, 900, 10**9)) == 1 and len(split_shared([1000] * 24, 900, 10**9)) == 3
    assert cut_rows([3, 3], 0, 6) == [[0, 1]]
    assert count_padded([3, 5], [[1, 0]], 0) == 10 and count_padded([3, 5], [[1, 0]], 2) == 8


def test_a_packed_row_sees_the_beginning_and_itself():
    ids = torch.tensor([[1, 2, 3, 4, 0], [1, 2, 5, 6, 7]])
    packed = pack_rows(ids, (ids > 0).long(), 2, window=3)
    assert packed.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 2, 3, 4]] and packed.offsets.tolist() == [0, 2]
    full, sliding = (packed.masks[f"{kind}_attention"][0, 0].int().tolist() for kind in ("full", "sliding"))
    assert full[3] == [1, 1, 1, 1, 0, 0, 0] and full[6] == [1, 1, 0, 0, 1, 1, 1] and full[1] == [1, 1, 0, 0, 0, 0, 0]
    assert sliding[6] == [0, 0, 0, 0, 1, 1, 1] and sliding[4] == [1, 1, 0, 0, 1, 0, 0]
    part = take_rows({"input_ids": ids, "shared": 2}, [0], 4)
    assert part["input_ids"].tolist() == [[1, 2, 3, 4]] and part["shared"] == 0


def step(trainer, rows, packs):
    trainer.packs = packs
    trainer.create_optimizer()
    trainer.model.zero_grad()
    inputs = trainer._prepare_inputs(trainer._collate(rows))
    loss = trainer.training_step(trainer.model, inputs).item()
    return loss, {name: weight.grad.clone() for name, weight in trainer.model.named_parameters()}, inputs["shared"]


@pytest.mark.parametrize("window", [0, 40])  # of the model's own, or one that is shorter than the beginning
@pytest.mark.parametrize(("tokens", "checkpointing"), [(300, False), (10**6, False), (10**6, True)])
def test_loss_and_gradients_are_those_of_the_rows_one_by_one(
    window, tokens, checkpointing, tokenizer, encoded, tmp_path
):
    columns = [{"input_ids": one.input_ids, "labels": one.labels} for one in encoded]
    found = []
    for packs in (True, False):
        trainer = make_trainer(tokenizer, encoded, tmp_path, micro_batches=MicroBatches(tokens, checkpointing, ""))
        trainer.model.config.sliding_window = window or trainer.model.config.sliding_window
        for layer in trainer.model.model.layers:
            layer.self_attn.sliding_window = trainer.model.config.sliding_window if layer.self_attn.is_sliding else None
        found.append((*step(trainer, columns, packs), trainer.evaluate()))
    (loss, gradients, shared, evaluated), (wanted_loss, wanted, none, plain) = found
    assert shared > 60 and none == 0
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    assert evaluated["eval_loss"] == pytest.approx(plain["eval_loss"], rel=1e-5)
    assert evaluated["eval_exact_match"] == plain["eval_exact_match"]
    for name, gradient in gradients.items():  # sums in another order: as between engines in test_trainer
        assert (gradient - wanted[name]).abs().max() <= 1e-4 * wanted[name].abs().max(), name


def test_what_is_read_once_is_said_and_only_then(tokenizer, encoded, tmp_path, capsys):
    make_trainer(tokenizer, encoded, tmp_path)
    said = next(line for line in capsys.readouterr().out.splitlines() if "read once" in line)
    columns = [{"input_ids": one.input_ids, "labels": one.labels} for one in encoded]
    assert said + "\n" == describe_shared(measure(columns), [len(one["input_ids"]) for one in columns])
    assert f"the same {measure(columns)} of" in said and describe_shared(0, [3, 3]) == ""


def test_another_attention_is_not_packed(tokenizer, encoded, tmp_path):
    model = tiny_model()
    model.set_attn_implementation("eager")
    from fgtools.train.trainer import build_trainer

    arguments = toy_arguments(n_rows=9, epochs=1)
    arguments.output_dir = str(tmp_path)
    assert not build_trainer(model, tokenizer, encoded, encoded, arguments).packs
