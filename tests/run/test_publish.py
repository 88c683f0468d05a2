"""Publishing: a dry run stays at home, an upload is whole, and a refusal says what to check."""

import pytest

from fgtools.run.publish import REQUIRED, PublishError, publish_model


@pytest.fixture
def folder(tmp_path):
    for name in REQUIRED:
        (tmp_path / name).write_text("{}")
    return tmp_path


class FakeHub:
    def __init__(self, error=None):
        self.error = error
        self.calls = []

    def create_repo(self, repo_id, **options):
        if self.error:
            raise self.error
        self.calls.append(("create_repo", repo_id, options))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, **options):
        self.calls.append(
            ("upload_folder", options["repo_id"], sorted(p.name for p in options["folder_path"].iterdir()))
        )


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub

    hub = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    return hub


def grow(folder, size=100_000_000):
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(size)


def test_a_dry_run_lists_every_file_and_writes_nothing(folder, hub):
    plan = publish_model(folder, "# card")
    assert [file.name for file in plan.files] == sorted([*REQUIRED, "README.md"])
    assert plan.size == 2 * len(REQUIRED) + 6
    assert (plan.uploaded, plan.url, hub.calls) == (False, "", [])
    assert not (folder / "README.md").exists()
    (folder / "tools.json").write_text("{}")
    assert "tools.json" in [file.name for file in publish_model(folder, "# card").files]


def test_an_upload_makes_the_repository_and_carries_the_card(folder, hub):
    grow(folder)
    plan = publish_model(folder, "# card", "you/model", dry_run=False)
    assert plan.uploaded and plan.url == "https://huggingface.co/you/model"
    assert hub.calls[0] == ("create_repo", "you/model", {"private": True, "exist_ok": True})
    assert hub.calls[1] == ("upload_folder", "you/model", sorted([*REQUIRED, "README.md"]))


@pytest.mark.parametrize("repo_id", ["", "model", "a/b/c", "/model", "you/"])
def test_a_malformed_repository_is_named(folder, hub, repo_id):
    grow(folder)
    with pytest.raises(PublishError, match="REPO_ID must be 'owner/name'"):
        publish_model(folder, "# card", repo_id, dry_run=False)
    assert hub.calls == []


def test_the_stand_in_is_not_published(folder, hub):
    with pytest.raises(PublishError, match="stand-in is a toy"):
        publish_model(folder, "# card", "you/model", dry_run=False)


def test_an_incomplete_folder_is_named(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(PublishError, match=r"but lacks tokenizer\.json"):
        publish_model(folder, "# card")


def test_a_refusal_of_the_hub_says_what_to_check(folder, hub):
    grow(folder)
    hub.error = ConnectionError("secret-token in an url")
    with pytest.raises(
        PublishError, match=r"the hub refused 'you/model' \(ConnectionError\).*HUGGINGFACE_TOKEN"
    ) as caught:
        publish_model(folder, "# card", "you/model", dry_run=False)
    assert "secret-token" not in str(caught.value)


def test_a_repository_is_public_on_request(folder, hub):
    grow(folder)
    publish_model(folder, "# card", "you/model", dry_run=False, private=False)
    assert hub.calls[0][2]["private"] is False


def test_weights_too_small_for_the_real_model_are_not_uploaded(folder, hub):
    grow(folder, 99_999_999)
    with pytest.raises(PublishError, match="the offline stand-in is a toy"):
        publish_model(folder, "# card", "you/model", dry_run=False)
    assert hub.calls == []
