"""A process whose Hub is the test server, and which takes one command after the other.

huggingface_hub reads its environment when it is imported, so each environment needs a process of its own; starting
one for every command would take most of the time of the tests.
"""

import json
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from hub_server import HubServer

_PATIENCE = 300.0  # seconds; only a test that would hang for ever gets there


@dataclass(frozen=True)
class Done:
    """What a command gave."""

    code: int
    out: str
    err: str


class Worker:
    """The process: call it with the arguments of ``masterkey``, or give it Python code."""

    def __init__(self, hub: "HubServer", home: Path, **environment: str) -> None:
        environment = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONUNBUFFERED": "1", **environment}
        self.home = home
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=hub.environment(home, **environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self, *arguments: str) -> Done:
        return self._do({"arguments": arguments})

    def python(self, code: str) -> Done:
        return self._do({"python": code})

    def _do(self, command: dict[str, object]) -> Done:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], _PATIENCE)
        assert ready, f"no answer to {command} within {_PATIENCE:g} seconds"
        return Done(**json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def _serve() -> None:
    import io
    import os
    import traceback
    from contextlib import redirect_stderr, redirect_stdout

    answers = os.fdopen(os.dup(1), "w")
    import torch  # noqa: F401 (what takes long, once)

    from masterkey.cli.main import run

    for line in sys.stdin:
        command = json.loads(line)
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                if "python" in command:
                    exec(command["python"], {})
                    code = 0
                else:
                    code = run(command["arguments"])
            except BaseException:
                traceback.print_exc()
                code = 99
        answers.write(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
