from pathlib import Path

import pytest
from tiny_market import make_data


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """4 identities x 4 images to train on, 2 to test, with maps; read only."""
    return make_data(tmp_path_factory.mktemp("market"))
