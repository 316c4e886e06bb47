"""Streams: a summary that runs beside hours of frames, in memory that does not grow.

frames.py    the sampled frames, decoded in a thread of their own
window.py    the last minutes, looked at like one video; shots behind them are settled
shots.py     the bounded store of settled shots, and the choice among them
state.py     all of it as a file, to go on from
running.py   `vtsum.stream`
"""

from vtsum.summary.live.running import LiveSummary, stream

__all__ = ["LiveSummary", "stream"]
