import os
from collections.abc import Iterator
from pathlib import Path

# before torch is imported: the networks here are tiny, and pytest-xdist's workers already fill the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hub_server import HubServer
from hub_worker import Worker

from masterkey.cli.main import run

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets and checkpoints, which are no part of the project."""
    folder = Path(os.environ.get("MASTERKEY_DATA", _ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; MASTERKEY_DATA can point to it")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where a test's pictures are decoded to."""
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def _hub_server() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def hub(_hub_server: HubServer) -> Iterator[HubServer]:
    """The Hub on this machine, with an empty log and without faults; its repositories stay."""
    _hub_server.clear()
    yield _hub_server
    _hub_server.clear()


@pytest.fixture(scope="session")
def hub_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HF_HOME of the workers."""
    return tmp_path_factory.mktemp("hf-home")


@pytest.fixture(scope="session")
def online(_hub_server: HubServer, hub_home: Path) -> Iterator[Worker]:
    """A process that may ask the Hub."""
    with Worker(_hub_server, hub_home) as worker:
        yield worker


@pytest.fixture(scope="session")
def offline(_hub_server: HubServer, hub_home: Path) -> Iterator[Worker]:
    """A process with the same cache that may not."""
    with Worker(_hub_server, hub_home, HF_HUB_OFFLINE="1") as worker:
        yield worker


@pytest.fixture(scope="session")
def hurried(_hub_server: HubServer, hub_home: Path) -> Iterator[Worker]:
    """A process with the same cache that waits a second for an answer."""
    with Worker(_hub_server, hub_home, HF_HUB_ETAG_TIMEOUT="1", HF_HUB_DOWNLOAD_TIMEOUT="1") as worker:
        yield worker


@pytest.fixture
def cli(capfd):
    """Run the command line in this process: exit code and what it said."""

    def call(*arguments) -> tuple[int, str]:
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out + captured.err

    return call
