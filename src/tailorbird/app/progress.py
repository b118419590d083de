"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere.

Writes to one stream, which is never standard output where that holds a JSON document. Nothing is
written more often than a reader follows: ten times a second on a terminal, every five seconds else.
"""

from typing import Final, TextIO

from tailorbird.clock import Clock

BAR_WIDTH: Final = 28
_TERMINAL_SECONDS: Final = 0.1
_LINES_SECONDS: Final = 5.0


class Progress:
    """Says how far work of `total` steps is; `total` is at least 1."""

    def __init__(self, label: str, total: int, stream: TextIO, clock: Clock) -> None:
        self._label = label
        self._total = total
        self._stream = stream
        self._clock = clock
        self._started = clock.elapsed()
        self._said_at = self._started
        self._is_terminal = stream.isatty()

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` steps are through, if the last word is old enough."""
        now = self._clock.elapsed()
        if now - self._said_at >= (_TERMINAL_SECONDS if self._is_terminal else _LINES_SECONDS):
            self._said_at = now
            self._say(done, note)

    def finish(self, done: int, note: str = "") -> None:
        """Say the last word, and leave the line."""
        self._say(done, note)
        if self._is_terminal:
            self._stream.write("\n")
            self._stream.flush()

    def _say(self, done: int, note: str) -> None:
        share = min(done / self._total, 1.0)
        spent = self._clock.elapsed() - self._started
        left = "" if share in {0.0, 1.0} else f", {spent / share - spent:.0f} s left"
        text = f"{share:4.0%}  {done:,} of {self._total:,}  {note}{left}"
        if self._is_terminal:
            filled = round(share * BAR_WIDTH)
            bar = "━" * filled + "╌" * (BAR_WIDTH - filled)
            self._stream.write(f"\r\x1b[K{self._label} {bar} {text}")
        else:
            self._stream.write(f"{self._label}: {text}\n")
        self._stream.flush()
