"""A tiny data set in Market-1501's layout, made once."""

import shutil
from pathlib import Path

import pytest
from tiny_market import make_data, write_person

from dsareid.data.store.pack import pack


@pytest.fixture(scope="session")
def add_person():
    """write_person, for tests that need more images."""
    return write_person


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """4 identities x 4 images to train on, 2 to test; read only."""
    return make_data(tmp_path_factory.mktemp("market"))


@pytest.fixture
def own_data(tmp_path) -> Path:
    """The same, to be damaged by a test."""
    return make_data(tmp_path / "market")


@pytest.fixture(scope="session")
def tiny_store(tiny_data, tmp_path_factory) -> Path:
    """The store of tiny_data, 64 rows x 32 columns; read only."""
    return pack(tiny_data, tmp_path_factory.mktemp("stores") / "tiny").path


@pytest.fixture
def own_store(tiny_store, tmp_path) -> Path:
    """The same, to be damaged by a test."""
    return shutil.copytree(tiny_store, tmp_path / "store")
