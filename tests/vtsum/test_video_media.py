"""Real clips with sound, from the shared test data."""

from __future__ import annotations

import av
import numpy as np
import pytest

from vtsum.errors import VTSumError
from vtsum.video import FrameSampler, cut, probe

# name: (width, height, seconds, frames a second)
CLIPS = {
    "big_buck_bunny_0_30.webm": (1280, 720, 30.0, 24.0),
    "chaplin.mp4": (640, 360, 9.64, 25.0),
    "flipping_a_pancake.mkv": (426, 240, 10.33, 30.0),
    "nasa_13013.mp4": (480, 270, 13.01, 29.97),
    "skateboarding_dog.mp4": (576, 1024, 14.18, 29.97),
    "speech_and_silence.mp4": (1280, 720, 42.4, 30.0),
}


@pytest.mark.parametrize("name", CLIPS)
def test_real_clip(shared, tmp_path, name):
    source = shared / "media" / name
    width, height, seconds, fps = CLIPS[name]
    info = probe(source)
    assert (info.width, info.height) == (width, height)
    assert info.has_audio
    assert info.rotation == 0
    assert info.duration == pytest.approx(seconds, abs=0.2)
    assert info.fps == pytest.approx(fps, abs=0.01)
    sampler = FrameSampler(source, fps=20.0, size=(96, 96))
    frames = list(sampler)
    assert sampler.duration == pytest.approx(seconds, abs=0.05)
    assert sampler.broken_at is None
    assert sampler.warnings == []
    assert sampler.damaged == []
    assert len(frames) == int(np.ceil(sampler.duration * 20 - 1e-6))
    segments = [(1.0, 2.5), (4.0, 5.5), (seconds - 2.0, seconds)]
    result = cut(source, segments, tmp_path / "out.mp4", max_height=240)
    assert result.duration == pytest.approx(5.0, abs=0.15)
    assert result.damaged == []
    shown = FrameSampler(tmp_path / "out.mp4", fps=4.0, size=(96, 96))
    out = list(shown)
    assert shown.duration == pytest.approx(result.duration, abs=0.01)
    for shot in result.shots:  # a picture in the middle of each shot is the source's at that time
        at = round((shot.out_start + 0.5) * 4)
        there = shot.start + at / 4 - shot.out_start
        near = [np.abs(out[at].image - f.image.astype(float)).mean() for f in frames if abs(f.time - there) < 0.051]
        assert min(near) < 6
    with av.open(str(tmp_path / "out.mp4")) as container:
        rate = container.streams.audio[0].rate
        sound = [frame.to_ndarray() for frame in container.decode(audio=0)]
    assert abs(sum(part.shape[1] for part in sound) / rate - result.duration) < 0.05
    assert max(float(np.abs(part).max()) for part in sound) > 0.01


def test_sound_alone_is_refused(shared):
    with pytest.raises(VTSumError, match="only sound"):
        probe(shared / "media" / "jfk.flac")
