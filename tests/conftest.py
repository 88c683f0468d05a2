"""Settings and fixtures every test shares."""

import pytest
from hypothesis import settings

from tests.toys import fresh_model

# The same examples on every machine and no time limit per example: a slow CI core must not fail a property.
settings.register_profile("fgtools", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("fgtools")


SLOWEST = (
    *("test_notebooks.py", "test_chains.py", "test_processes.py", "test_benchmarks.py", "test_client.py"),
    *("test_resume.py", "test_replies.py", "test_training.py", "test_preparation.py", "test_response.py"),
    *("test_fuzz.py", "test_saving.py", "test_batch.py", "test_decoding.py", "test_main.py", "test_packaging.py"),
)
"""The files that take longest, in their order: they start first, so that two processes end at about the same time."""


def pytest_addoption(parser):
    text = "a run folder with a tuned model and its rows: the slow tests of tests/real run on it"
    parser.addoption("--real", metavar="RUN", default="", help=text)
    text = "run the series on a simulated Kaggle, in both layouts of its inputs and both recipes: minutes"
    parser.addoption("--kaggle", action="store_true", help=text)


def pytest_collection_modifyitems(config, items):
    order = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    if not config.getoption("--real"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="real weights: after `make real`, `make test-real` runs it"))
    if not config.getoption("--kaggle"):
        for item in items:
            if item.get_closest_marker("kaggle"):
                item.add_marker(pytest.mark.skip(reason="a simulated Kaggle, minutes: runs with --kaggle"))


@pytest.fixture(scope="session")
def tokenizer():
    """The stand-in's tokenizer."""
    from fgtools.models import load_tokenizer

    return load_tokenizer("standin")


@pytest.fixture(scope="session")
def model():
    """The stand-in, to be read and not changed."""
    return fresh_model()


@pytest.fixture(scope="session")
def coverage(tokenizer):
    """What the stand-in's template shows the model."""
    from fgtools.prompts import probe_template

    return probe_template(tokenizer)


@pytest.fixture
def batch_run(monkeypatch):
    """Say that nobody watches: plain lines in place of progress bars."""
    monkeypatch.setenv("FGTOOLS_BATCH", "1")
