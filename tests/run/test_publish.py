"""Publishing to a hub on this machine through huggingface_hub's real client: what leaves, and what it replaces."""

import os
import traceback
from pathlib import Path

import pytest

from fgtools.__main__ import main
from fgtools.files import sha256_of
from fgtools.run import publish, uploads
from fgtools.run.folder import MixedRunError, RunFolder
from fgtools.run.publish import publish_model
from fgtools.run.publish_plan import REQUIRED, build_publish_table, is_leftover
from fgtools.run.uploads import PublishError
from tests.hub_server import CUT, READ_ONLY, SILENT, HubServer, Repository
from tests.publish_failures import CARD, CASES, PAGE, TOKEN, provoke, shorten

BESIDE = {"funnel.json": b"{}", "scores.tuned.json": b"{}", "compare.json": b"{}", "figures/comparison.png": b"\x89PNG"}
UPLOADED = sorted(["README.md", *REQUIRED, *BESIDE, "chat_template.jinja", "tools.json", "NOTICE"])


@pytest.fixture
def run(tmp_path):
    """A run folder as the series leaves it, with files that are nobody's business."""
    root = tmp_path / "run"
    files = {f"model/{name}": b"{}" for name in [*REQUIRED, "chat_template.jinja", "tools.json", "NOTICE"]}
    private = {
        "rows.train.jsonl": b"",
        "replies.tuned.jsonl": b"",
        "run.json": b"{}",
        "card.md": b"",
        "audit.json": b"{}",
    }
    for name, data in {**files, **BESIDE, **private, "model/optimizer.pt": b"1", "model/old/notes.txt": b"2"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "model" / "model.safetensors").write_bytes(b"weights " * 1000)
    return RunFolder(root)


@pytest.fixture
def waits(monkeypatch):
    """The seconds that were waited for, of which none is."""
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


@pytest.fixture
def hub(monkeypatch, waits, tmp_path):
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "FGTOOLS_TOKEN_SOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HUGGINGFACE_TOKEN", TOKEN)
    monkeypatch.setenv("FGTOOLS_BATCH", "1")
    monkeypatch.setattr(publish, "MIN_WEIGHTS", 0)
    users = {TOKEN: "you", "hf_reader": f"you {READ_ONLY}", "hf_other": "other"}
    with HubServer(users) as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {"ENDPOINT": server.url, "HUGGINGFACE_CO_URL_TEMPLATE": template}.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server


def upload(run, **options):
    return publish_model(run, CARD, "you/model", dry_run=False, **options)


def changes(plan):
    return {file.name: file.change for file in plan.files}


def test_a_dry_run_without_a_name_asks_nobody_and_writes_nothing(run, hub):
    before = sorted(run.root.rglob("*"))
    plan = publish_model(run, CARD)
    assert [file.name for file in plan.files] == UPLOADED and set(changes(plan).values()) == {"added"}
    assert plan.left_out == ("old/notes.txt", "optimizer.pt")
    assert not plan.uploaded and plan.url == "" and not hub.counts and sorted(run.root.rglob("*")) == before
    assert plan.describe().splitlines() == [
        "no repository chosen: 13 added; 0.0 MB to upload",
        "2 files of the model's folder are left out: old/notes.txt, optimizer.pt",
        "dry run: nothing was uploaded",
    ]


def describe_files(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_a_new_repository_is_filled_in_one_commit_and_the_input_stays_as_it_is(run, hub, tmp_path, capsys):
    before = describe_files(run.root)
    for path in run.root.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    plan = upload(RunFolder(tmp_path / "own", (run.root,)))
    made = hub.repositories["you/model"]
    assert plan.uploaded and plan.url == f"{hub.url}/you/model" and made.private
    assert sorted(made.files) == sorted([".gitattributes", *UPLOADED])
    assert made.files["README.md"] == CARD.encode() and made.messages == ["Add the tuned model"]
    assert hub.counts["commit"] == 1 and hub.counts["put"] == 2
    assert "uploading 13 files, 0.0 MB, to you/model" in capsys.readouterr().out
    assert describe_files(run.root) == before and not (tmp_path / "own").exists()
    for path in run.root.rglob("*"):
        path.chmod(0o755)


def test_what_was_published_loads_again_through_the_client(run, hub, tmp_path):
    from huggingface_hub import snapshot_download

    upload(run, private=False)
    folder = Path(snapshot_download("you/model", token=False, cache_dir=tmp_path / "cache"))
    assert sha256_of(folder / "model.safetensors") == sha256_of(run.root / "model" / "model.safetensors")
    assert (folder / "README.md").read_text() == CARD


def test_a_second_upload_of_the_same_files_changes_nothing(run, hub):
    upload(run)
    plan = upload(run)
    assert set(changes(plan).values()) == {"unchanged", "kept"} and plan.size == 0
    assert plan.uploaded and "all files were there already" in plan.notes and hub.counts["commit"] == 1


def fill(hub, private=True):
    """A repository with an older upload, and with files of its owner's own."""
    files = {
        "config.json": b"old",
        "tools.json": b"{}",
        "model-00001-of-00002.safetensors": b"old",
        "added_tokens.json": b"{}",
    }
    own = {
        ".gitattributes": b"",
        "notes.md": b"mine",
        "onnx/model.bin": b"mine",
        "figures/errors.png": b"old",
        "LICENSE": b"mine",
    }
    hub.repositories["you/model"] = Repository(private, {**files, **own})


def test_what_is_there_is_compared_first_and_needs_leave_to_be_replaced(run, hub):
    fill(hub)
    plan = publish_model(run, CARD, "you/model")
    shown = changes(plan)
    expected = {"config.json": "replaced", "tools.json": "unchanged", "model.safetensors": "added"}
    gone = ["added_tokens.json", "figures/errors.png", "model-00001-of-00002.safetensors"]
    expected |= {**dict.fromkeys(gone, "removed"), "notes.md": "kept", "onnx/model.bin": "kept", "LICENSE": "kept"}
    assert {name: shown[name] for name in expected} == expected
    table = build_publish_table(plan)
    assert list(table.columns) == ["file", "bytes", "change"] and len(table) == len(plan.files)
    assert "publishing needs REPLACE = True (--replace)" in plan.describe()
    with pytest.raises(PublishError) as caught:
        upload(run)
    said = (
        "'you/model' holds files that would be replaced or removed (replaced: config.json; removed: added_tokens.json, "
    )
    assert str(caught.value).startswith(said) and "REPLACE = True" in str(caught.value)
    assert hub.counts["commit"] == 0 and hub.repositories["you/model"].files["config.json"] == b"old"


def test_with_leave_leftovers_go_in_the_same_commit_and_own_files_stay(run, hub):
    fill(hub)
    upload(run, replace_files=True)
    kept = [".gitattributes", "LICENSE", "notes.md", "onnx/model.bin"]
    assert sorted(hub.repositories["you/model"].files) == sorted([*UPLOADED, *kept])
    assert hub.counts["commit"] == 1


def test_which_files_are_leftovers():
    for name in ("pytorch_model.bin", "model.gguf", "scores.base.json", "figures/errors.png", "tokenizer.model"):
        assert is_leftover(name), name
    for name in ("README.md", "train.py", "gguf/model.gguf", "NOTICE", ".gitattributes", "figures/mine.svg"):
        assert not is_leftover(name), name


def test_who_sees_the_model_is_told_and_private_is_kept(run, hub):
    assert publish_model(run, CARD, "you/model").notes == ("the repository is new and will be private",)
    hub.repositories["you/model"] = Repository(private=False)
    assert "is public, but PRIVATE is True" in publish_model(run, CARD, "you/model").notes[0]
    with pytest.raises(PublishError, match=r"'you/model' is public, but PRIVATE is True: set PRIVATE = False"):
        upload(run)
    assert hub.counts["commit"] == 0
    assert upload(run, private=False).notes == ("the repository is there, and it is public",)
    hub.repositories["you/model"].private = True
    assert "stays private: PRIVATE = False" in upload(run, private=False).notes[0]
    assert hub.repositories["you/model"].private


@pytest.mark.parametrize(
    ("target", "repo_id"),
    [("hub", name) for name in ("", "model", "a/b/c", "/model", "you/")] + [("kaggle", "you/model")],
)
def test_a_malformed_name_is_named(run, hub, target, repo_id):
    with pytest.raises(PublishError, match=r"REPO_ID must be 'owner/"):
        publish_model(run, CARD, repo_id, target, dry_run=False)
    assert not hub.counts


def test_a_toy_an_unknown_target_and_an_incomplete_folder_are_refused(run, hub, monkeypatch):
    monkeypatch.setattr(publish, "MIN_WEIGHTS", 8001)
    with pytest.raises(PublishError, match="the offline stand-in is a toy"):
        upload(run)
    with pytest.raises(PublishError, match="TARGET must be one of hub, kaggle, got 'hf'"):
        publish_model(run, CARD, target="hf")
    (run.root / "model" / "tokenizer.json").unlink()
    with pytest.raises(PublishError, match=r"but lacks tokenizer\.json"):
        publish_model(run, CARD)
    assert not hub.counts


def test_without_a_token_it_says_where_one_is_looked_for(run, hub, monkeypatch):
    monkeypatch.delenv("HUGGINGFACE_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(
        PublishError, match="needs a token that may write, but the environment gave no HUGGINGFACE_TOKEN"
    ):
        upload(run)
    assert not hub.counts


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.route}-{case.status}-{case.times}")
def test_every_failure_has_its_sentence_and_is_tried_again_where_that_helps(run, hub, waits, capsys, case):
    said = provoke(hub, run, case)
    shown = capsys.readouterr()
    assert f"| {shorten(said)} |" in PAGE.read_text(encoding="utf-8")
    if not case.tries:
        assert said == "published" and hub.repositories["you/model"].messages == ["Add the tuned model"]
    else:
        retried = "trying again in" in shown.out
        assert said != "published" and ("(tried 4 times)" in said) == (case.tries == 4) == retried
        made = "The repository https://huggingface.co/you/model was made and is empty: the next run fills it"
        assert said.endswith(made) == (case.route not in ("create", "info"))
    assert TOKEN not in said + shown.out + shown.err


def test_no_traceback_holds_the_token(run, hub):
    hub.fail("commit", 403, body=f"echo of {TOKEN}")
    with pytest.raises(PublishError) as caught:
        upload(run)
    assert "echo of <token>" in str(caught.value)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_a_limit_for_silence_holds_for_the_hub_alone_and_leaves_one_that_is_set(hub):
    from huggingface_hub import get_session

    from fgtools.run.hub import SILENCE, limit_silence

    session = get_session()
    with limit_silence():
        assert session.timeout.read == session.timeout.write == SILENCE
    assert session.timeout.read is None
    session.timeout = 5
    with limit_silence():
        assert session.timeout.read == 5
    session.timeout = None


def test_every_failure_ends_a_request_at_once_and_keeps_the_limit(hub, waits):
    from huggingface_hub import get_session
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import http_backoff

    from fgtools.run.hub import SILENCE, UnansweredError, limit_silence

    hub.fail("info", 503, headers={"Retry-After": "3600"})
    hub.fail("tree", CUT)
    with limit_silence():
        session = get_session()
        with pytest.raises(UnansweredError, match="ConnectError"):
            http_backoff("GET", "http://127.0.0.1:9")
        with pytest.raises(UnansweredError, match="RemoteProtocolError"):
            http_backoff("GET", f"{hub.url}/api/models/you/model/tree/main")
        with pytest.raises(HfHubHTTPError, match="503"):
            http_backoff("GET", f"{hub.url}/api/models/you/model")
        assert get_session() is session and session.timeout.read == SILENCE
    assert not waits and hub.counts == {"info": 1, "tree": 1}
    assert get_session().timeout.read is None


def test_a_silent_hub_is_waited_for_once(run, hub, monkeypatch):
    monkeypatch.setattr("fgtools.run.hub.SILENCE", 0.3)
    hub.fail("put", SILENT)
    with pytest.raises(PublishError, match="stopped answering"):
        upload(run)
    assert hub.counts["put"] <= 2  # one for each large file, which are sent side by side


def test_figures_of_every_notebook_are_uploaded_from_where_they_lie(run, hub, tmp_path):
    """On Kaggle each notebook's figures lie in its own output, with or without another file that is uploaded."""
    trained, own = tmp_path / "04", RunFolder(tmp_path / "06", (run.root, tmp_path / "04"))
    for folder, name in ((trained, "training.png"), (own.root, "own.png")):
        (folder / "figures").mkdir(parents=True)
        (folder / "figures" / name).write_bytes(name.encode())
    names = {name for name in changes(publish_model(own, CARD)) if name.startswith("figures/")}
    assert names == {"figures/comparison.png", "figures/training.png", "figures/own.png"}
    (trained / "figures" / "comparison.png").write_bytes(b"of another training")
    with pytest.raises(MixedRunError, match=r"one attached folder must hold figures/comparison\.png"):
        publish_model(own, CARD)


def test_the_hub_is_asked_to_wait_as_long_as_it_says(run, hub, waits):
    hub.fail("create", 429, times=1, headers={"Retry-After": "17"})
    assert upload(run).uploaded and waits == [17.0]
    del hub.repositories["you/model"]
    hub.fail("create", 429, times=1, headers={"Retry-After": "3600"})
    with pytest.raises(PublishError, match=r"too many requests from this account \(429\): wait 3600 s"):
        upload(run)


@pytest.mark.parametrize("status", [0, 502])
def test_a_commit_whose_answer_is_lost_is_found_and_not_made_twice(run, hub, status):
    hub.fail("commit", status, times=1, done=True)
    assert upload(run).uploaded and len(hub.repositories["you/model"].commits) == 2


def test_a_repository_that_somebody_else_changes_meanwhile_is_not_overwritten(run, hub, monkeypatch):
    hub.repositories["you/model"] = Repository(private=True)
    from fgtools.run import hub_upload

    commit_files = hub_upload.commit_files

    def commit_late(*given):
        hub.repositories["you/model"].commits.append("1" * 40)
        return commit_files(*given)

    monkeypatch.setattr(hub_upload, "commit_files", commit_late)
    with pytest.raises(PublishError, match=r"was changed by somebody else since it was compared \(412\)"):
        upload(run)


def test_tokens_of_others_may_not_write(run, hub, monkeypatch):
    for token, said in {
        "hf_reader": "may not write",
        "hf_other": "may not write",
        "hf_wrong": "does not accept",
    }.items():
        monkeypatch.setenv("HUGGINGFACE_TOKEN", token)
        with pytest.raises(PublishError, match=said):
            upload(run)
    assert not hub.repositories


def test_a_dry_run_says_why_nothing_could_be_compared(run, hub, waits, monkeypatch):
    hub.fail("info", 503)
    plan = publish_model(run, CARD, "you/model")
    assert plan.notes[0].startswith("not compared with what is there: the Hugging Face hub has a fault") and not waits
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached: check the internet" in publish_model(run, CARD, "you/model").notes[0]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids every request" in publish_model(run, CARD, "you/model").notes[0]


def test_rows_that_are_quoted_are_pointed_out(run):
    (run.root / "funnel.json").write_text(
        '{"examples": {"bad_row": [{"row_id": "a/1", "detail": "x"}], "b": [{}, {}]}}'
    )
    assert publish_model(run, CARD).notes[0].startswith("funnel.json says of 3 raw rows what was wrong with them")


def test_a_full_disk_is_named(run, hub, monkeypatch):
    from huggingface_hub import HfApi

    def fill_disk(*_, **__):
        raise RuntimeError("Error while uploading") from OSError(28, os.strerror(28))

    monkeypatch.setattr(HfApi, "create_commit", fill_disk)
    with pytest.raises(PublishError, match="this machine's disk is full: free some space"):
        upload(run)


def test_faults_of_the_program_keep_their_traceback(run, hub, monkeypatch):
    monkeypatch.setattr("fgtools.run.hub_upload.commit_files", lambda *_: {}["missing"])
    with pytest.raises(KeyError):
        upload(run)


def test_large_files_go_through_xet_where_it_is_installed(run, hub, monkeypatch):
    pytest.importorskip("hf_xet")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    assert upload(run).uploaded and hub.counts["xorb"] >= 1 and not hub.counts["put"]
    _, size = hub.repositories["you/model"].large["model.safetensors"]
    assert size == 8000 and set(changes(upload(run)).values()) == {"unchanged", "kept"}


def test_a_refusal_of_xet_is_told_by_its_status(run, hub, monkeypatch):
    pytest.importorskip("hf_xet")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    hub.fail("xet", 403, body=f"echo of {TOKEN}")
    with pytest.raises(PublishError, match=r"may not write to 'you/model' \(403\)") as caught:
        upload(run)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_a_slow_upload_says_that_it_goes_on(monkeypatch, capsys, batch_run):
    import threading

    monkeypatch.setattr(uploads, "REPORT_EVERY", 0.01)
    with uploads.report_progress("uploading 1 file"):
        threading.Event().wait(0.1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "uploading 1 file" and lines[1] == "uploading 1 file: goes on, 0 s so far"


def test_the_command_compares_publishes_and_shows_the_table(run, hub, monkeypatch, capsys):
    monkeypatch.setattr(publish, "build_card", lambda run, repo_id, languages: f"{CARD}{repo_id} {languages}")
    words = ["publish", "--run", str(run.root), "--repo", "you/model"]
    assert main([*words, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "logged in to the Hugging Face hub as 'you'" in shown and "model.safetensors" in shown
    assert "the repository is new and will be private" in shown and "dry run: nothing was uploaded" in shown
    assert main([*words, "--no-private", "--languages", "en", "es"]) == 0
    made = hub.repositories["you/model"]
    assert made.files["README.md"] == f"{CARD}you/model ['en', 'es']".encode() and not made.private
    assert main(words) == 1 and "is public, but PRIVATE is True" in capsys.readouterr().err
    assert main([*words, "--no-private"]) == 1 and "set REPLACE = True (--replace)" in capsys.readouterr().err
    assert main([*words, "--no-private", "--replace"]) == 0
    assert made.files["README.md"] == f"{CARD}you/model []".encode()
    assert main(["publish", "--run", str(run.root / "none"), "--dry-run"]) == 1
    assert "--run must be the folder of a run, with its run.json" in capsys.readouterr().err
