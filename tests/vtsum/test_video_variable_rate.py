"""Variable frame rate: the summary's clips show what summary.json says, and keep the budget."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, pairwise
from pathlib import Path

import av
import numpy as np
import pytest

import vtsum
from tests.vtsum.clips import number_of, number_picture, tone, write_clip
from tests.vtsum.fakes import ColourModel

_FRAME = 1 / 25  # seconds


def _phone() -> list[float]:
    """30 a second, as a phone takes them in the dark: each up to 12 ms early or late, some left out."""
    rng = np.random.default_rng(1)
    return [n / 30 + float(rng.uniform(-0.012, 0.012)) * (n > 0) for n in range(600) if n % 17 != 5]


def _screen() -> list[float]:
    """A picture where something moves, nothing for seconds between."""
    steps = [*[0.05] * 20, 3.7, *[0.05] * 10, 0.31, 6.2, *[0.033] * 30, 2.05, 0.4, 4.9, *[0.1] * 10]
    return [0.0, *accumulate(steps)]


def _mixed() -> list[float]:
    """2 s at 15 a second, 2 s at 60, and so on."""
    return [2.0 * part + n / rate for part in range(8) for rate in [60 if part % 2 else 15] for n in range(2 * rate)]


@pytest.mark.parametrize(("made", "suffix"), [(_phone, ".mp4"), (_screen, ".mkv"), (_mixed, ".mp4")])
def test_clips_show_what_the_json_says(tmp_path, nobody_listens, made, suffix):
    times = made()
    lamps = [0.3, 1.0, 0.5, 0.8]  # scenes differ

    def picture(number: int, time: float) -> np.ndarray:
        return (number_picture(number, 320, 32) * lamps[int(time / 4) % 4]).astype(np.uint8)

    path = write_clip(tmp_path / f"a{suffix}", times, picture, rate=30, sound=tone(times[-1] + 0.1, 48000, 1), gop=50)
    found = vtsum.summarize(path, tmp_path / "o", model=ColourModel(), budget="6s", formats=("mp4", "json"), ocr=False)
    assert abs(found.data["source"]["duration"] - times[-1]) < 0.2
    assert found.data["summary"]["duration"] <= 6.0 + 1e-6
    shown = _pictures(found.files["mp4"])
    clips = [shot["clip"] for shot in found.data["shots"] if shot["clip"] is not None]
    assert len(clips) >= 1
    edges = [*times, times[-1] + 1.0]
    for clip in clips:
        lasts = clip["summary_end"] - clip["summary_start"]
        assert lasts == pytest.approx(clip["end"] - clip["start"], abs=_FRAME)
        inside = [(t, n) for t, n in shown if clip["summary_start"] - 1e-3 <= t < clip["summary_end"] - 1e-3]
        assert inside[0][0] == pytest.approx(clip["summary_start"], abs=1e-3)
        for (at, number), (until, _) in pairwise([*inside, (clip["summary_end"], 0)]):
            # Shown as long as in the source, within a frame.
            begin, end = (t - clip["summary_start"] + clip["start"] for t in (at, until))
            assert edges[number] - _FRAME <= begin, (clip, at, number)
            assert end <= edges[number + 1] + _FRAME, (clip, at, number)
        expected = bisect_right(times, clip["start"] + 1e-3) - 1
        assert abs(edges[inside[0][1]] - edges[expected]) <= _FRAME


def _pictures(path: Path) -> list[tuple[float, int]]:
    with av.open(str(path)) as container:
        return [(float(f.time), number_of(f.to_ndarray(format="rgb24"))) for f in container.decode(video=0)]
