import os
from pathlib import Path

# before torch is imported: the networks here are tiny, and pytest-xdist's workers already fill the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets and checkpoints, which are no part of the project."""
    folder = Path(os.environ.get("MASTERKEY_DATA", _ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; MASTERKEY_DATA can point to it")
    return folder
