"""Settings and fixtures every test shares."""

import pytest
from hypothesis import settings

from tests.toys import fresh_model

# The same examples on every machine and no time limit per example: a slow CI core must not fail a property.
settings.register_profile("fgtools", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("fgtools")


SLOWEST = ("test_notebooks.py", "test_chains.py")
"""Files that run for minutes: they start first, so that two processes end at about the same time."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in SLOWEST)


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
