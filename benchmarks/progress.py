"""How far a sweep is, on standard error: a bar with the time left for a person, a line for every run for a log."""

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from .sweep import Progress

_IN_WORDS = {
    "lost": "lost with its node or worker, started again",
    "waiting": "is done by another process, which this one waits for",
}


class Display:
    """Shows the progress of a sweep; call it with each moment, leave it as a context when done."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._start = time.time()
        self._fractions: dict[str, float] = {}
        self._bar: tqdm | None = None

    def __call__(self, progress: Progress) -> None:
        """Show a moment."""
        run_id = progress.run.config.id
        self._fractions[run_id] = progress.fraction
        if progress.state in ("done", "failed", "busy", "waiting"):
            del self._fractions[run_id]
        if progress.state in ("done", "failed", "lost", "waiting"):
            self._say(_line(progress))
        if self._stream.isatty():
            self._move_bar(progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _say(self, line: str) -> None:
        tqdm.write(line, file=self._stream)
        self._stream.flush()

    def _move_bar(self, progress: Progress) -> None:
        behind = progress.settled + sum(self._fractions.values())
        if self._bar is None:
            self._bar = tqdm(
                total=progress.total,
                initial=progress.settled - (progress.state in ("done", "failed")),  # what was there took no time now
                unit="run",
                smoothing=0,
                file=self._stream,
                bar_format="{percentage:3.0f} %|{bar}| {n:.1f} of {total_fmt} runs, {elapsed} so far, {remaining} left",
            )
            self._bar.start_t = self._start
        self._bar.total = progress.total
        self._bar.n = behind
        self._bar.refresh()


def _line(progress: Progress) -> str:
    run = progress.run
    what = f"{run.target} {run.model} {run.arm} lr {run.config.train.lr:g} seed {run.config.seed} ({run.stage})"
    outcome = _IN_WORDS.get(progress.state, progress.state)
    message = f": {' '.join(progress.message.split())}" if progress.message else ""
    return f"[{progress.settled}/{progress.total}] {run.config.id} {what} {outcome}{message}"
