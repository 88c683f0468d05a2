"""The stand-in's pretraining: a training that was stopped ends as if it had not been."""

import pytest
import torch

from fgtools.files import InputError
from fgtools.offline import standin
from fgtools.offline.standin import STATE, Pretraining, pretrain

NUMBERS = Pretraining(steps=5, prompts_per_step=1, requests_per_prompt=2, easy_steps=0, mixed_steps=1, hidden=32)


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_a_stopped_training_ends_as_an_unbroken_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(standin, "LOG_STEPS", 2)
    monkeypatch.setattr(standin, "SAVE_STEPS", 2)
    pretrain(NUMBERS, tmp_path / "whole")
    printed = [line.rsplit(" ", 2)[0] for line in capsys.readouterr().out.splitlines()]

    class Stop(Exception):
        pass

    calls, loss = [], standin.completion_loss

    def stop_at_the_fourth(model, batch, weight):
        calls.append(batch)
        if len(calls) == 4:
            raise Stop
        return loss(model, batch, weight)

    monkeypatch.setattr(standin, "completion_loss", stop_at_the_fourth)
    with pytest.raises(Stop):
        pretrain(NUMBERS, tmp_path / "stopped")
    assert (tmp_path / "stopped" / STATE).exists()
    with pytest.raises(InputError, match=r"must be of a training with the same numbers, got \{'steps': 5\}: delete it"):
        pretrain(Pretraining(**{**vars(NUMBERS), "steps": 9}), tmp_path / "stopped")
    monkeypatch.setattr(standin, "completion_loss", loss)
    capsys.readouterr()
    pretrain(NUMBERS, tmp_path / "stopped")
    again = [line.rsplit(" ", 2)[0] for line in capsys.readouterr().out.splitlines()]
    assert again[0].startswith("going on after step 2") and again[1:] == printed[1:]
    assert not (tmp_path / "stopped" / STATE).exists()
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()
