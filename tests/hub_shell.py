"""Many ``masterkey`` commands in one process of its own, whose Hub is a test server: it starts once, not each time."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Self

from hub_server import HubServer

from masterkey.index import IndexEntry, format_index, index

_CODE = """
import contextlib, io, json, pathlib, sys
import masterkey.index
masterkey.index._own = lambda: pathlib.Path(sys.argv[1])
from masterkey.cli.main import run
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


def unpinned_index(path: Path) -> Path:
    """Write the package's index without the hashes and commits that were locked; the tests have other filters."""
    path.write_text(format_index({name: IndexEntry(entry.layers) for name, entry in index().items()}))
    return path


class Shell:
    """A context manager; ``shell("push", "DIR", "org/name")`` runs a command to its end. No bank is pinned."""

    def __init__(self, hub: HubServer, home: Path, **environment: str) -> None:
        own = unpinned_index(home / "index.json")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, str(own)],
            env=hub.environment(home, **environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin and self._process.stdout
        words = [str(argument) for argument in arguments]
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        code, out, err = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(words, code, out, err)
