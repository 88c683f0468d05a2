"""The loss at labelled positions: equal to the model's own, and gone without a trace."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from fgtools.prompts import IGNORED
from fgtools.train.loss import patch_forward, restore_forward
from tests.toys import tiny_model


@pytest.fixture
def model():
    return tiny_model().train()


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 2000, (4, 60), generator=draw)
    mask, labels = torch.ones_like(ids), ids.clone()
    labels[:, :45] = IGNORED
    ids[1, 40:], mask[1, 40:] = 0, 0
    labels[1] = IGNORED
    labels[1, 30:40] = ids[1, 30:40]
    labels[3] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def gradients(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def own_loss(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    return cross_entropy(
        logits[:, :-1].float().flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )


@pytest.mark.parametrize("in_place", [False, True])
def test_loss_and_every_gradient_equal_the_models_own(model, batch, in_place):
    loss = own_loss(model, batch)
    wanted = gradients(model, loss)
    patch_forward(model, in_place)
    sums = model(**batch)
    assert sums.loss.item() == pytest.approx(loss.item(), rel=1e-6)
    for name, gradient in gradients(model, sums.loss).items():
        largest = wanted[name].abs().max()
        assert (gradient - wanted[name]).abs().max() <= 1e-5 * largest, name


def test_in_place_gradients_add_up_and_take_a_factor(model, batch):
    model.double()  # so that rounding does not hide a wrong factor
    wanted = gradients(model, 3.0 * own_loss(model, batch))
    patch_forward(model, in_place=True)
    model.zero_grad(set_to_none=True)
    model(**batch).loss.backward()
    (model(**batch).loss * 2.0).backward()
    for name, weight in model.named_parameters():
        assert (weight.grad - wanted[name]).abs().max() <= 1e-5 * wanted[name].abs().max(), name


def test_frozen_weights_get_no_gradient_in_place(model, batch):
    model.get_input_embeddings().weight.requires_grad_(False)
    patch_forward(model, in_place=True)
    model(**batch).loss.backward()
    assert model.get_input_embeddings().weight.grad is None


def test_labels_and_right_ones_are_counted_by_row(model, batch):
    patch_forward(model, in_place=True)
    with torch.no_grad():
        first = model(**batch)
    assert first.labels.tolist() == [15, 10, 15, 0]
    restore_forward(model)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    wanted = (logits[:, :-1].argmax(-1) == batch["labels"][:, 1:]).sum(1)
    assert first.right.tolist() == wanted.tolist()
    batch["labels"][0, 45:] = IGNORED
    batch["labels"][0, 46] = logits[0, 45].argmax()
    patch_forward(model)
    with torch.no_grad():
        assert model(**batch).right.tolist()[0] == 1


def test_a_batch_without_labels_is_a_finite_zero_with_gradients(model, batch):
    batch["labels"][:] = IGNORED
    for in_place in (False, True):
        patch_forward(model, in_place)
        loss = model(**batch).loss
        assert loss.item() == 0.0
        assert all(torch.isfinite(gradient).all() for gradient in gradients(model, loss).values())


def test_the_forward_is_given_back(model, batch):
    before = model(input_ids=batch["input_ids"]).logits
    patch_forward(model, in_place=True)
    restore_forward(model)
    assert "forward" not in model.__dict__ and torch.equal(model(input_ids=batch["input_ids"]).logits, before)
