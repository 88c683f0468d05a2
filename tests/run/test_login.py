"""Login: environment first, then Kaggle's Secrets, else on without; the token appears nowhere."""

import sys
import types

import pytest
from huggingface_hub.errors import HTTPError

from fgtools.run.login import log_in

TOKEN = "hf_thisMustNeverBeSeen"


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub

    for name in ("HUGGINGFACE_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "kaggle_secrets", None)
    seen = []
    monkeypatch.setattr(huggingface_hub, "login", lambda token, **options: seen.append((token, options)))
    return seen


def put_secret(monkeypatch, get_secret):
    module = types.ModuleType("kaggle_secrets")
    module.UserSecretsClient = lambda: types.SimpleNamespace(get_secret=get_secret)
    monkeypatch.setitem(sys.modules, "kaggle_secrets", module)


@pytest.mark.parametrize("name", ["HUGGINGFACE_TOKEN", "HF_TOKEN"])
def test_the_environment_goes_first(hub, monkeypatch, name, capsys):
    monkeypatch.setenv(name, f" {TOKEN}\n")
    put_secret(monkeypatch, lambda label: pytest.fail("the secrets were asked"))
    login = log_in()
    assert login.logged_in and login.message.endswith(f"the environment variable {name}")
    assert hub == [(TOKEN, {"add_to_git_credential": False})]
    assert TOKEN not in repr(login) + capsys.readouterr().out


def test_of_two_variables_the_announced_one_is_taken(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_an_old_one")
    monkeypatch.setenv("HUGGINGFACE_TOKEN", TOKEN)
    assert log_in().message.endswith("the environment variable HUGGINGFACE_TOKEN") and hub[0][0] == TOKEN


def test_then_kaggles_secrets(hub, monkeypatch):
    asked = []
    put_secret(monkeypatch, lambda label: asked.append(label) or TOKEN)
    login = log_in()
    assert login.logged_in and asked == ["HUGGINGFACE_TOKEN"] and "Kaggle's Secrets" in login.message
    assert hub[0][0] == TOKEN and TOKEN not in repr(login)


def test_without_a_token_it_goes_on_and_says_what_that_means(hub):
    login = log_in()
    assert not login.logged_in and hub == []
    assert login.message == (
        "no login: HUGGINGFACE_TOKEN is not set. Public models and data work; gated models of the hub and publishing "
        "need the secret HUGGINGFACE_TOKEN."
    )


def test_a_missing_secret_is_no_error(hub, monkeypatch):
    def missing(label):
        raise RuntimeError(f"BackendError {TOKEN}")

    put_secret(monkeypatch, missing)
    login = log_in()
    assert not login.logged_in and "gave no HUGGINGFACE_TOKEN (RuntimeError)" in login.message
    assert TOKEN not in login.message


@pytest.mark.parametrize("error", [ValueError(f"Invalid token {TOKEN}"), ConnectionError(TOKEN), HTTPError(TOKEN)])
def test_a_refused_token_is_not_shown(hub, monkeypatch, error):
    import huggingface_hub

    def refuse(token, **options):
        raise error

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub, "login", refuse)
    login = log_in()
    assert not login.logged_in and type(error).__name__ in login.message and TOKEN not in login.message
