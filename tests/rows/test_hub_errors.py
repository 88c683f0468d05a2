"""What is said where the hub gives nothing: the cause, a login only where a token helps, and no secret."""

import pytest

from fgtools.rows.hub_errors import explain_hub_error


def fail(name, *bases):
    """Return an error of a class with this name, as the clients have them, that quotes a token."""
    return type(name, bases or (Exception,), {})("hf_secret")


@pytest.mark.parametrize(
    ("error", "said", "login_helps"),
    [
        (
            fail("GatedRepoError"),
            "accepted its terms: accept them at https://huggingface.co/a/b",
            True,
        ),
        (fail("RepositoryNotFoundError"), "check the spelling; if it is private", True),
        (fail("LocalEntryNotFoundError"), "cannot be reached for the model 'a/b'", False),
        (fail("ConnectError"), "check the internet connection", False),
        (fail("RevisionNotFoundError"), "has no such revision", False),
        (fail("HFValidationError"), "can be no name on the hub", False),
        (fail("OSError"), "could not give the model 'a/b' (OSError)", False),
    ],
)
def test_an_error_is_told_by_its_kind(monkeypatch, error, said, login_helps):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    text = explain_hub_error(error, "a/b")
    assert said in text and ("HUGGINGFACE_TOKEN" in text) == login_helps and "hf_secret" not in text


def test_offline_is_the_cause_that_is_named(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError"):
        text = explain_hub_error(fail(name), "a/b", "data set")
        assert "HF_HUB_OFFLINE forbids to ask the hub: unset it" in text and "TOKEN" not in text


def test_the_error_that_one_was_raised_from_is_looked_at(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    outer = ValueError("x")
    outer.__cause__ = fail("GatedRepoError")
    assert "https://huggingface.co/datasets/a/b" in explain_hub_error(outer, "a/b", "data set")
