"""Licence files of a saved model: what Gemma's terms ask for, beside the weights of a Gemma model and of no other."""

import stat

import pytest

from fgtools.models import load_tokenizer, save_model
from fgtools.models.base import identify_base
from fgtools.models.licence import LINK_FILE, NOTICE, NOTICE_FILE, RESTRICTIONS, find_copies, write_licence_files
from fgtools.profiles import STANDIN_SHAPE
from tests.toys import fresh_model

GEMMA = {"model_type": "gemma3_text", "hidden_size": 640}


@pytest.fixture
def saved(tmp_path):
    """A folder as save_model has written it."""
    folder = tmp_path / "saved"
    folder.mkdir()
    for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.model", "odd.bin"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def base(tmp_path):
    """The folder of a base model with a copy of the terms."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "GEMMA_TERMS.html").write_bytes(b"Model Derivatives \xff")
    (folder / "LICENSE.txt").write_text("a licence")
    return folder


def test_the_notice_says_to_the_letter_what_the_terms_ask_for(saved):
    write_licence_files(saved, "google/functiongemma-270m-it", GEMMA)
    text = (saved / NOTICE_FILE).read_text()
    assert text.startswith(
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms\n"
    )
    assert RESTRICTIONS in text and "ai.google.dev/gemma/prohibited_use_policy" in text
    assert "a derivative of a Gemma model, google/functiongemma-270m-it, and not Google's own" in text
    assert "- model.safetensors: the weights, changed by fine-tuning" in text
    assert "- generation_config.json: generation settings" in text and "- config.json: the architecture" in text
    assert "- tokenizer.model: the base's vocabulary, unchanged" in text and "- odd.bin: written anew" in text


def test_copies_of_the_terms_are_carried_on(saved, base):
    written = write_licence_files(saved, str(base), GEMMA)
    assert [path.name for path in written] == ["GEMMA_TERMS.html", "LICENSE.txt", NOTICE_FILE]
    assert (saved / "GEMMA_TERMS.html").read_bytes() == b"Model Derivatives \xff"
    assert "See GEMMA_TERMS.html, LICENSE.txt in this folder" in (saved / NOTICE_FILE).read_text()


def test_without_a_copy_the_folder_says_where_the_terms_are_and_that_this_is_no_copy(saved, base):
    (base / "GEMMA_TERMS.html").unlink()
    written = write_licence_files(saved, str(base), GEMMA)
    assert [path.name for path in written] == [LINK_FILE, "LICENSE.txt", NOTICE_FILE]
    link = (saved / LINK_FILE).read_text()
    assert NOTICE in link and "https://ai.google.dev/gemma/terms" in link and "before publishing" in link
    assert find_copies(saved) == []  # neither the link nor another licence is a copy of the terms


def test_a_second_training_keeps_the_earlier_notice_and_copies(saved, base, tmp_path):
    write_licence_files(saved, str(base), GEMMA)
    again = tmp_path / "again"
    again.mkdir()
    (again / "model.safetensors").touch()
    write_licence_files(again, str(saved), GEMMA)
    text = (again / NOTICE_FILE).read_text()
    assert text.count(NOTICE) == 2 and "NOTICE OF THE MODEL IT WAS MADE FROM" in text
    assert find_copies(again) == ["GEMMA_TERMS.html"] and (again / "LICENSE.txt").is_file()


def test_a_foreign_notice_of_any_bytes_is_kept(saved, base):
    (base / NOTICE_FILE).write_bytes(b"by someone \xff\xfe")
    write_licence_files(saved, str(base), GEMMA)
    assert "by someone" in (saved / NOTICE_FILE).read_text()


def test_beside_a_lone_file_only_the_terms_belong_to_it(saved, base):
    file = base / "mine.gguf"
    file.touch()
    assert [path.name for path in write_licence_files(saved, str(file), GEMMA)] == ["GEMMA_TERMS.html", NOTICE_FILE]


@pytest.mark.parametrize("config", [STANDIN_SHAPE, {"model_type": "llama"}, {}])
def test_another_base_gets_no_gemma_licence(saved, base, config):
    before = sorted(path.name for path in saved.iterdir())
    assert write_licence_files(saved, str(base), config) == []
    assert sorted(path.name for path in saved.iterdir()) == before


@pytest.mark.parametrize("source", ["", "/nowhere/at/all", "google/functiongemma-270m-it"])
def test_a_base_that_is_not_here_has_no_copies(saved, source):
    assert [path.name for path in write_licence_files(saved, source, GEMMA)] == [LINK_FILE, NOTICE_FILE]


def test_no_folder_of_this_machine_is_named(saved, base):
    write_licence_files(saved, str(base), GEMMA)
    assert str(base.parent) not in (saved / NOTICE_FILE).read_text()
    assert identify_base(str(base), GEMMA).name == "base"


def test_a_saved_gemma_model_has_the_files_with_the_modes_of_their_neighbours(tmp_path, base):
    model = fresh_model()
    model.config.name_or_path = str(base)
    stand_in = save_model(model, load_tokenizer("standin"), tmp_path / "toy")
    assert not {NOTICE_FILE, LINK_FILE} & {path.name for path in stand_in.iterdir()}
    model.config.vocab_size += 1  # no longer the stand-in's shape: a Gemma model
    folder = save_model(model, load_tokenizer("standin"), tmp_path / "model")
    names = {path.name for path in folder.iterdir()}
    assert {NOTICE_FILE, "GEMMA_TERMS.html", "LICENSE.txt"} <= names and LINK_FILE not in names
    assert len({stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}) == 1
    assert "tokenizer_config.json: tokenizer settings" in (folder / NOTICE_FILE).read_text()
