"""Progress is told in a log by lines, a minute apart and at the end, with the time left by the files' bytes."""

import io

import pytest
from rich.console import Console

from mmjax.data.prepare import preparing_progress
from mmjax.data.prepare.preparing_progress import PreparingProgress


def test_a_log_has_a_line_a_minute(monkeypatch: pytest.MonkeyPatch):
    now, log = [0.0], io.StringIO()
    monkeypatch.setattr(preparing_progress.time, "monotonic", lambda: now[0])
    with PreparingProgress(4, 1_000, 6, Console(file=log, width=40)) as progress:
        for size, seconds in ((100, 40.0), (400, 30.0), (100, 5.0), (400, 5.0)):
            now[0] += seconds
            progress.advance(1_800.0, size)
    assert log.getvalue().splitlines() == [
        "8/10 videos  0.03 videos/s  1.00 h of video  0:01:10 left",
        "10/10 videos  0.05 videos/s  2.00 h of video  0:00:00 left",
    ]


def test_a_terminal_has_one_line():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with PreparingProgress(2, 10, 0, console) as progress:
        progress.advance(3_600.0, 10)
    assert "1/2 videos" in screen.getvalue()
    assert "1.00 h of video" in screen.getvalue()
