"""Publishing on Kaggle Models: what kagglehub is called with, and what its errors become."""

import os
import traceback
from pathlib import Path

import pytest

from fgtools.files import FileError
from fgtools.run import kaggle_models, publish
from fgtools.run.folder import RunFolder
from fgtools.run.kaggle_models import stage_files
from fgtools.run.publish import publish_model
from fgtools.run.publish_plan import REQUIRED
from fgtools.run.uploads import PublishError

KEY = "0123456789abcdef0123456789abcdef"
HANDLE = "you/functiongemma-my-tools/transformers/270m"


class FakeKagglehub:
    """Stands for kagglehub.model_upload: keeps what it is called with, and raises what it is given."""

    def __init__(self):
        self.errors, self.calls, self.folders = [], [], []

    def upload(self, handle, folder, **options):
        self.calls.append((handle, options))
        folder = Path(folder)
        self.folders.append({path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))})
        self.content = {name: path.read_bytes() for name, path in self.folders[-1].items() if path.is_file()}
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture
def kagglehub(monkeypatch):
    fake = FakeKagglehub()
    monkeypatch.setattr("kagglehub.model_upload", fake.upload)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(publish, "MIN_WEIGHTS", 0)
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)
    monkeypatch.setenv("FGTOOLS_BATCH", "1")
    return fake


@pytest.fixture
def run(tmp_path):
    for name in [*(f"model/{name}" for name in REQUIRED), "model/notes.txt", "funnel.json", "figures/lengths.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    return RunFolder(tmp_path)


def test_a_dry_run_says_what_kaggle_does_and_calls_nobody(run, kagglehub):
    plan = publish_model(run, "# card", HANDLE, "kaggle")
    assert not plan.uploaded and not kagglehub.calls and plan.left_out == ("notes.txt",)
    assert "Kaggle keeps every upload as a version of its own" in plan.describe()
    assert "a new model is private on Kaggle whatever PRIVATE says" in " ".join(
        publish_model(run, "# card", HANDLE, "kaggle", private=False).notes
    )


def test_an_upload_is_the_staged_files_their_licence_and_a_note(run, kagglehub):
    plan = publish_model(run, "# card", HANDLE, "kaggle", dry_run=False)
    assert plan.uploaded and plan.url == f"https://www.kaggle.com/models/{HANDLE}"
    options = {"license_name": "Gemma", "version_notes": "The tuned model, its card and its scores"}
    assert kagglehub.calls == [(HANDLE, options)]
    assert sorted(kagglehub.content) == sorted([*REQUIRED, "README.md", "funnel.json", "figures/lengths.png"])
    assert kagglehub.content["README.md"] == b"# card" and not (run.root / "model" / "README.md").exists()
    assert not kagglehub.folders[0]["config.json"].exists()  # the temporary folder is gone, the model is not
    assert (run.root / "model" / "config.json").exists()


def answer(status, text=""):
    """The error that kagglehub raises for an answer of Kaggle."""
    import requests
    from kagglehub.exceptions import KaggleApiHTTPError

    response = requests.Response()
    response.status_code = status
    return KaggleApiHTTPError(f"{status} Client Error. {text}", response)


def list_failures():
    import requests
    from kagglehub.exceptions import BackendError, CredentialError

    return [
        (
            answer(401),
            1,
            "Kaggle does not accept the Kaggle account or its API key (401): outside Kaggle put a new API",
        ),
        (answer(403, KEY), 1, "may not write to 'you/functiongemma-my-tools/transformers/270m' (403)"),
        (BackendError("Invalid license", 400), 1, "Kaggle refuses what was sent"),
        (
            BackendError(f"odd {KEY}"),
            1,
            "failed in a way that is not known here (BackendError: odd <token>)",
        ),
        (CredentialError("no credentials"), 1, "failed in a way that is not known here"),
        (answer(503), 4, "Kaggle has a fault of its own"),
        (requests.ConnectionError("reset"), 4, "the connection to Kaggle was cut"),
        (OSError(28, os.strerror(28)), 1, "this machine's disk is full"),
    ]


@pytest.mark.parametrize(("error", "tries", "said"), list_failures())
def test_failures_have_their_sentence_and_no_key(run, kagglehub, error, tries, said, capsys):
    kagglehub.errors = [error] * tries
    with pytest.raises(PublishError) as caught:
        publish_model(run, "# card", HANDLE, "kaggle", dry_run=False)
    assert said in str(caught.value) and len(kagglehub.calls) == tries
    assert KEY not in "".join(traceback.format_exception(caught.value)) + capsys.readouterr().out


def test_a_failure_that_passes_is_survived(run, kagglehub):
    kagglehub.errors = [answer(503), answer(429)]
    assert publish_model(run, "# card", HANDLE, "kaggle", dry_run=False).uploaded and len(kagglehub.calls) == 3


def test_files_are_copied_where_there_are_no_links_and_a_full_disk_is_named(tmp_path, monkeypatch):
    source = tmp_path / "weights"
    source.write_bytes(b"1")
    assert (stage_files({"a/b": source, "c": b"2"}, tmp_path / "links") / "a" / "b").is_symlink()

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(kaggle_models.os, "symlink", refuse)
    copied = stage_files({"a/b": source}, tmp_path / "copies") / "a" / "b"
    assert copied.read_bytes() == b"1" and not copied.is_symlink()

    def fill(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(kaggle_models.shutil, "copyfile", fill)
    with pytest.raises(FileError, match="No space left on device: free some space on that disk"):
        stage_files({"a": source}, tmp_path / "full")
