"""Login: environment, Kaggle's Secrets, Colab's secrets, a stored login; the token is used, and appears nowhere."""

import os
import sys
import types

import pytest
from huggingface_hub.errors import HTTPError

from fgtools.__main__ import main
from fgtools.files import InputError, write_jsonl
from fgtools.offline import CHECKPOINT
from fgtools.run.login import find_token, log_in, log_in_for
from tests.hub_server import READ_ONLY, SILENT, HubServer, Repository

TOKEN, OTHER, READER = "hf_thisMustNeverBeSeen", "hf_anOldOne", "hf_mayReadOnly"
NAMES = ("HUGGINGFACE_TOKEN", "HF_TOKEN", "FGTOOLS_TOKEN_SOURCE", "FGTOOLS_BATCH")


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    for name in NAMES:
        monkeypatch.setenv(name, "")  # what log_in sets is undone after the test
        monkeypatch.delenv(name)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "kaggle_secrets", None)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with HubServer({TOKEN: "you", OTHER: "somebody", READER: f"you {READ_ONLY}"}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def put_kaggle(monkeypatch, secrets):
    """Kaggle's client, which raises for a secret that is not there."""

    def get_secret(label):
        if label not in secrets:
            raise RuntimeError(f"No user secrets exist for {label}, but {TOKEN}")
        return secrets[label]

    module = types.ModuleType("kaggle_secrets")
    module.UserSecretsClient = lambda: types.SimpleNamespace(get_secret=get_secret)
    monkeypatch.setitem(sys.modules, "kaggle_secrets", module)


def put_colab(monkeypatch, secrets):
    """Colab's userdata, in a kernel of Colab."""

    class SecretNotFoundError(Exception):
        pass

    def get(key):
        if key not in secrets:
            raise SecretNotFoundError(TOKEN)
        return secrets[key]

    google, colab = types.ModuleType("google"), types.ModuleType("google.colab")
    colab.userdata = types.SimpleNamespace(get=get)
    google.colab = colab
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", colab)


@pytest.mark.parametrize("name", ["HUGGINGFACE_TOKEN", "HF_TOKEN"])
def test_the_environment_goes_first_and_the_token_is_used(hub, monkeypatch, name, capsys):
    monkeypatch.setenv(name, f" {TOKEN}\n")
    put_kaggle(monkeypatch, {"HF_TOKEN": OTHER})
    login = log_in()
    assert login.logged_in and login.user == "you"
    assert login.message == f"logged in to the Hugging Face hub as 'you' with the token from the environment ({name})"
    assert os.environ["HF_TOKEN"].strip() == TOKEN and find_token().value == TOKEN
    assert TOKEN not in repr(login) + repr(find_token()) + capsys.readouterr().out


def test_of_two_variables_the_announced_one_is_used_and_the_other_is_told(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", OTHER)
    monkeypatch.setenv("HUGGINGFACE_TOKEN", TOKEN)
    login = log_in()
    assert login.user == "you" and os.environ["HF_TOKEN"] == TOKEN
    assert login.message.endswith("(HUGGINGFACE_TOKEN); HF_TOKEN holds another token, which is not used")
    assert "HF_TOKEN holds" not in log_in().message


@pytest.mark.parametrize("name", ["HUGGINGFACE_TOKEN", "HF_TOKEN"])
@pytest.mark.parametrize(("put", "place"), [(put_kaggle, "Kaggle's Secrets"), (put_colab, "Colab's secrets")])
def test_then_the_secrets_of_kaggle_and_colab_under_both_names(hub, monkeypatch, put, place, name):
    put(monkeypatch, {name: TOKEN})
    login = log_in()
    assert login.logged_in and login.message.endswith(f"the token from {place} ({name})")
    assert os.environ["HF_TOKEN"] == TOKEN


def test_a_secret_that_is_renewed_is_found_again(hub, monkeypatch):
    put_kaggle(monkeypatch, {"HF_TOKEN": OTHER})
    assert log_in().user == "somebody"
    put_kaggle(monkeypatch, {"HF_TOKEN": TOKEN})
    assert log_in().user == "you" and os.environ["HF_TOKEN"] == TOKEN
    monkeypatch.setitem(sys.modules, "kaggle_secrets", None)  # as in a process that was started since
    assert find_token().source == "Kaggle's Secrets (HF_TOKEN)"
    monkeypatch.setenv("HF_TOKEN", OTHER)  # somebody sets another one by hand
    assert find_token().source == "the environment (HF_TOKEN)"


def test_colab_is_not_asked_in_a_batch_where_it_never_answers(hub, monkeypatch):
    put_colab(monkeypatch, {"HF_TOKEN": TOKEN})
    monkeypatch.setenv("FGTOOLS_BATCH", "1")
    assert not log_in().logged_in and "HF_TOKEN" not in os.environ


def test_a_login_of_the_hub_s_own_command_is_found_last(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
    assert log_in().message.endswith("the token from the login that `hf auth login` stored")


def test_nothing_is_stored(hub, monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "stored_tokens"))
    monkeypatch.setattr(huggingface_hub, "login", lambda *_, **__: pytest.fail("login stores what it is given"))
    monkeypatch.setenv("HUGGINGFACE_TOKEN", TOKEN)
    assert log_in().logged_in and not list(tmp_path.iterdir())


def test_without_a_token_it_goes_on_and_says_what_that_means(hub):
    login = log_in()
    assert not login.logged_in and not hub.counts
    assert login.message == (
        "no login: the environment gave no HUGGINGFACE_TOKEN or HF_TOKEN. Public models and data work; gated models of "
        "the hub and publishing need a token: set the secret HUGGINGFACE_TOKEN (or HF_TOKEN)."
    )


@pytest.mark.parametrize("put", [put_kaggle, put_colab])
def test_missing_secrets_are_no_error_and_are_named(hub, monkeypatch, put):
    put(monkeypatch, {})
    login = log_in()
    kind = "RuntimeError" if put is put_kaggle else "SecretNotFoundError"
    assert not login.logged_in and f"gave no HUGGINGFACE_TOKEN ({kind}) or HF_TOKEN ({kind})" in login.message
    assert TOKEN not in login.message


@pytest.mark.parametrize("value", ["hf_two words", "hf_naïve", "hf_two\nlines"])
def test_what_cannot_be_a_token_is_not_sent(hub, monkeypatch, value):
    monkeypatch.setenv("HUGGINGFACE_TOKEN", value)
    login = log_in()
    assert "HUGGINGFACE_TOKEN (holds what cannot be a token)" in login.message and value not in login.message
    assert not hub.counts


def test_a_refused_token_is_told_and_no_longer_sent(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrongOne")
    login = log_in()
    assert login.message == (
        "no login: the hub refuses the token from the environment (HF_TOKEN) (401). Going on without."
    )
    assert not login.logged_in and "HF_TOKEN" not in os.environ and "hf_wrongOne" not in repr(login)


def test_a_token_that_may_only_read_is_told(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READER)
    assert log_in().message.endswith("It may read only: publishing needs one that may write")


def test_a_hub_that_says_nothing_is_given_up(hub, monkeypatch):
    monkeypatch.setattr("fgtools.run.hub.SILENCE", 0.2)
    monkeypatch.setenv("HUGGINGFACE_TOKEN", TOKEN)
    hub.fail("whoami", SILENT)
    assert "is used, but the hub could not be asked (ReadTimeout)" in log_in().message


@pytest.mark.parametrize("status", [429, 500])
def test_a_hub_that_does_not_answer_is_no_refusal(hub, monkeypatch, status):
    monkeypatch.setenv("HUGGINGFACE_TOKEN", TOKEN)
    hub.fail("whoami", status, body=f"echo of {TOKEN}")
    login = log_in()
    said = f"is used, but the hub could not be asked (HfHubHTTPError {status})"
    assert not login.logged_in and said in login.message and TOKEN not in repr(login)
    assert os.environ["HF_TOKEN"] == TOKEN


def test_offline_no_hub_is_blamed(hub, monkeypatch):
    from huggingface_hub import HfApi, errors

    def refuse(_):
        raise errors.OfflineModeIsEnabled("offline")

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(HfApi, "whoami", refuse)
    assert "the hub could not be asked (the variable HF_HUB_OFFLINE forbids it)" in log_in().message


@pytest.mark.parametrize("error", [ValueError(f"Invalid token {TOKEN}"), ConnectionError(TOKEN), HTTPError(TOKEN)])
def test_no_error_shows_the_token(hub, monkeypatch, error):
    from huggingface_hub import HfApi

    def refuse(_):
        raise error

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(HfApi, "whoami", refuse)
    login = log_in()
    assert not login.logged_in and type(error).__name__ in login.message and TOKEN not in login.message


def test_a_command_logs_in_only_for_what_comes_from_the_hub(hub, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "here").mkdir(parents=True)
    monkeypatch.setenv("HUGGINGFACE_TOKEN", TOKEN)
    log_in_for("standin", "sample", "owner/here", str(tmp_path), "rows.jsonl", "a/b/transformers/c", "")
    assert not hub.counts and capsys.readouterr() == ("", "")
    for names in (["owner/model"], ["owner/model:file.gguf"], ["standin", "owner/rows"]):
        log_in_for(*names)
    shown = capsys.readouterr()
    assert hub.counts["whoami"] == 3 and shown.err.count("logged in to the Hugging Face hub as 'you'") == 3
    assert not shown.out and TOKEN not in shown.err and os.environ["HF_TOKEN"] == TOKEN
    monkeypatch.setenv("FGTOOLS_LAUNCHED", "1")
    log_in_for("owner/model")
    assert hub.counts["whoami"] == 3


@pytest.fixture
def gated(hub, monkeypatch, tmp_path):
    """A hub that gives the stand-in to those who may see it; what is loaded from it."""
    from huggingface_hub import constants

    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    values = {"HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_CACHE": str(tmp_path / "cache")}
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    files = {path.name: path.read_bytes() for path in CHECKPOINT.iterdir() if path.is_file()}
    hub.repositories["you/gated"] = Repository(True, files)
    return "you/gated"


def write_rows(folder):
    from tests.toys import small_rows

    rows = small_rows(60, 24)
    write_jsonl(folder / "rows.train.jsonl", rows[4:])
    write_jsonl(folder / "rows.eval.jsonl", rows[:4])
    return ["--rows", str(folder)]


def test_train_and_evaluate_take_a_gated_model_with_the_secret_that_is_announced(
    gated, hub, monkeypatch, tmp_path, capsys
):
    given = ["--model", gated, "--out", str(tmp_path / "out"), *write_rows(tmp_path)]
    evaluate = ["evaluate", *given[:-1], str(tmp_path / "rows.eval.jsonl"), "--max-new-tokens", "2"]
    assert main(evaluate) == 1
    shown = capsys.readouterr()
    assert "no login: the environment gave no HUGGINGFACE_TOKEN" in shown.err
    assert "only to those who accepted its terms: accept them at https://huggingface.co/" in shown.err
    monkeypatch.setenv("HUGGINGFACE_TOKEN", TOKEN)  # a name that huggingface_hub itself does not know
    assert main(evaluate) == 0

    def stop(model, *_, **__):
        raise InputError(f"{sum(weight.numel() for weight in model.parameters())} parameters are here")

    monkeypatch.setattr("fgtools.train.train", stop)
    assert main(["train", *given, "--profile", "offline", "--ignore-audit"]) == 1
    shown = capsys.readouterr()
    assert " parameters are here" in shown.err and TOKEN not in shown.out + shown.err
    assert shown.err.count("logged in to the Hugging Face hub as 'you'") == 2
