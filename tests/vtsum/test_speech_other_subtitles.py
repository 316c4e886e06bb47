"""Subtitles that state their times in other ways, TTML's many and MicroDVD's pictures, and those that are pictures."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest

from tests.vtsum.clips import numbered_clip
from tests.vtsum.test_speech_subtitles import said
from vtsum.enhance.speech.subtitles import read_transcript
from vtsum.enhance.speech.transcribe import transcribe


def test_every_form_of_time_in_ttml(tmp_path):
    body = """<tt:tt xmlns:tt="http://www.w3.org/ns/ttml" xmlns:ttp="http://www.w3.org/ns/ttml#parameter"
    xmlns:tts="http://www.w3.org/ns/ttml#styling" ttp:frameRate="24" ttp:frameRateMultiplier="1000 1001"
    ttp:tickRate="10000000"><tt:body begin="1s"><tt:div begin="1000ms">
    <tt:p begin="00:00:01:12" dur="2s">Frames of a clock.</tt:p>
    <tt:p begin="70000000t" end="80000000t">Ticks &amp; x &lt; 5.</tt:p>
    <tt:p begin="240f">Frames.</tt:p>
    <tt:p begin="0.005h" end="1m"><tt:span begin="1s" end="2s">First,</tt:span> <tt:span begin="2s">then <tt:span
    tts:ruby="text">zen</tt:span>that.</tt:span></tt:p>
    <tt:p begin="later">Lost.</tt:p></tt:div></tt:body></tt:tt>"""
    (tmp_path / "a.xml").write_text(body)
    assert said(tmp_path / "a.xml") == [
        (pytest.approx(3 + 12 * 1.001 / 24), "Frames of a clock."),
        (9.0, "Ticks & x < 5."),
        (pytest.approx(2 + 10 * 1.001), "Frames."),
        (21.0, "First,"),
        (22.0, "then that."),
    ]


def test_pictures_counted_without_a_rate_are_those_of_the_video(tmp_path):
    (tmp_path / "a.sub").write_text("{50}{100}Hello there.\n{120}{}And on.\n")
    clip = numbered_clip(tmp_path / "clip.mp4", 200, rate=20)
    found = transcribe(clip, transcript=tmp_path / "a.sub", recogniser=None)
    assert [(u.start, u.text) for u in found.utterances] == [(2.5, "Hello there."), (6.0, "And on.")]
    assert found.warnings == ("a.sub: it counts pictures: 20 a second were taken, as in the video",)
    assert [w.start for w in read_transcript(tmp_path / "a.sub", rate=50.0).words][:1] == [1.0]
    (tmp_path / "a.sub").write_text("{1}{1}25\n{50}{100}Hello there.\n")
    assert transcribe(clip, transcript=tmp_path / "a.sub", recogniser=None).warnings == ()


@pytest.mark.parametrize(
    ("codecs", "kind"),
    [
        (["hdmv_pgs_subtitle"], "PGS"),
        (["dvd_subtitle"], "DVD"),
        (["dvb_subtitle"], "DVB"),
        (["dvd_subtitle", "subrip"], ""),
    ],
)
def test_subtitles_that_are_pictures_are_said_not_to_be_read(tmp_path, codecs, kind):
    clip, path = numbered_clip(tmp_path / "clip.mkv", 50), tmp_path / "subtitled.mkv"
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        film = target.add_stream_from_template(source.streams.video[0])
        tracks = [target.add_mux_stream(codec) for codec in codecs]
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = film
                target.mux(packet)
        for track in tracks:
            words = av.Packet(b"Hello.")
            words.stream, words.time_base, words.pts, words.dts, words.duration = (
                track,
                Fraction(1, 1000),
                500,
                500,
                900,
            )
            target.mux(words)
    found = transcribe(path, recogniser=None)
    if kind:
        assert found.utterances == ()
        assert found.warnings == (f"the subtitles in the file are pictures ({kind}): they were not read",)
    else:
        assert [u.text for u in found.utterances] == ["Hello."]
        assert found.warnings == ()
