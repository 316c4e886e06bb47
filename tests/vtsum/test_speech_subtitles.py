"""Transcripts that somebody wrote: formats and their dialects, tracks in files, round trips, and what is refused."""

from __future__ import annotations

import string
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtsum.enhance.speech.subtitle_text import as_srt, as_vtt, subtitles
from vtsum.enhance.speech.subtitle_track import read_subtitle_track
from vtsum.enhance.speech.subtitles import parse_cues, read_transcript, spread_words, utterances_of
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word
from vtsum.errors import VTSumError

SRT = """1
00:00:01,000 --> 00:00:03,000
<i>Hello</i> there.

2
00:00:04,500 --> 00:00:06,000
- JOHN: {\\an8}I said &quot;no&quot;.
[door slams] (sighs)
♪ La la la ♪

3
00:01:00,000 --> 00:01:02,000
[applause]
"""


def read(tmp_path: Path, text: str | bytes, name: str = "talk.srt", **options: object) -> Transcript:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_transcript(path, **options)


def times(said: Transcript) -> list[tuple[str, float, float]]:
    return [(u.text, round(u.start, 3), round(u.end, 3)) for u in said.utterances]


def test_srt(tmp_path):
    said = read(tmp_path, SRT)
    assert times(said) == [("Hello there.", 1.0, 2.95), ('I said "no".', 4.5, 6.0)]
    assert (said.source, said.language, said.warnings) == ("talk.srt", None, ())
    hello, there = said.utterances[0].words
    assert (hello.end, there.start, hello.confidence) == (pytest.approx(1.9), pytest.approx(1.9), 1.0)  # 6 : 7 of 1.95


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings_and_line_ends(tmp_path, encoding):
    text = "1\r\n00:00:01,000 --> 00:00:03,000\r\nÜber Köln\r\n\r\n"
    said = read(tmp_path, text.encode(encoding), "talk.de.srt")
    assert (said.text, said.language) == ("Über Köln", "de")


def test_srt_without_empty_lines_between_and_out_of_order(tmp_path):
    text = "1\n00:00:05,0 --> 00:00:06,0\nsecond\n2\n00:00:01.5 --> 00:00:02,5\nfirst\n3\n0:07 --> 0:06\nnever\n"
    said = read(tmp_path, text)
    assert [(word, start) for word, start, _ in times(said)] == [("first", 1.5), ("second", 5.0)]
    assert said.warnings == ("talk.srt: 1 of 3 subtitles end before they begin and are left out",)


def test_vtt_with_headers_notes_settings_and_voices(tmp_path):
    text = (
        "WEBVTT - a talk\nKind: captions\nLanguage: en-GB\n\nSTYLE\n::cue { color: red }\n\nNOTE not said\nat all\n\n"
        "intro\n00:01.000 --> 00:03.000 align:start position:0%\n<v Mary>Fish &amp; chips\n\n"
        "01:00:00.250 --> 01:00:01.000\n<c.yellow>Bye</c>\n"
    )
    said = read(tmp_path, text, "talk.vtt")
    assert said.language == "en-GB"
    assert [(u.text, u.start) for u in said.utterances] == [("Fish & chips", 1.0), ("Bye", 3600.25)]


def test_rolling_captions_say_each_line_once(tmp_path):
    """As YouTube writes them: the new line with times inside, under the old one; between them 10 ms of the old one."""
    text = (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n \nso<00:00:00.500><c> we</c><00:00:01.000><c> begin</c>\n\n"
        "00:00:02.000 --> 00:00:02.010\nso we begin\n \n\n"
        "00:00:02.010 --> 00:00:04.000\nso we begin\nwith<00:00:03.000><c> bread</c>\n\n"
        "00:00:04.000 --> 00:00:04.010\nwith bread\n \n"
    )
    said = read(tmp_path, text, "talk.vtt")
    assert said.text == "so we begin\nwith bread"
    assert [(w.text, w.start) for w in said.words] == [
        ("so", 0.0), ("we", 0.5), ("begin", 1.0), ("with", 2.01), ("bread", 3.0)
    ]  # fmt: skip
    assert said.words[0].end <= 0.5


def test_plain_text_with_times(tmp_path):
    said = read(tmp_path, "[0:05] Take the flour.\nAnd the eggs.\n0:20\nStir it.\n(1:00) Done.\n", "talk.txt")
    assert [(u.text, u.start) for u in said.utterances] == [
        ("Take the flour. And the eggs.", 5.0), ("Stir it.", 20.0), ("Done.", 60.0)
    ]  # fmt: skip
    assert said.warnings == ()


def test_plain_text_without_times_is_spread_over_the_voice(tmp_path):
    text = "One two three four. Five six\nseven [laughs] eight!\n\nNine"
    said = read(tmp_path, text, "talk.txt", stretches=[(10.0, 20.0), (50.0, 52.0)], duration=90.0)
    assert [u.text for u in said.utterances] == ["One two three four.", "Five six seven eight!", "Nine"]
    for word in said.words:
        assert any(a <= word.start <= word.end <= b + 1e-9 for a, b in ((10.0, 20.0), (50.0, 52.0)))
    starts = [word.start for word in said.words]
    assert starts == sorted(starts)
    assert starts[0] == 10.0
    assert starts[-1] > 50.0
    assert said.warnings == ("talk.txt has no times: its words are spread over the parts with voice",)
    assert read(tmp_path, text, "talk.txt", duration=30.0).words[-1].end == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "must hold a transcript, got an empty file"),
        (b" \n\n", "got an empty file"),
        (b"\x00\x01\x02" * 50, "must be text .subtitles or plain., got binary data"),
        (b"1\n00:00:01,000 -> 00:00:02,000\nHi\n", "has no times"),
        (
            b"1\n00:00:01,000 --> 00:0x:02,000\nHi\n",
            "found none; talk.srt: a subtitle has a time that cannot be read, the first in line 2",
        ),
        (b"1\n00:00:01,000 --> 00:00:02,000\n[music]\n", "must hold words, found none"),
        (b"WEBVTT\n\n00:01.000 --> ", "found none; talk.srt: a subtitle has a time that cannot be read, .* line 3"),
    ],
)
def test_a_broken_transcript_is_named(tmp_path, data, message):
    with pytest.raises(VTSumError, match=f"read_transcript: .*talk.srt: .*{message}"):
        read(tmp_path, data)


HELLO = "1\n00:00:01,000 --> 00:00:04,000\nHello there.\n\n"


def said(path: Path) -> list[tuple[float, str]]:
    return [(u.start, u.text) for u in read_transcript(path, duration=60.0).utterances]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (HELLO + "2\n00:00:05,000 --> 00:00:06,000\nClick File --> Open.\n", [(5.0, "Click File --> Open.")]),
        (HELLO + "2\n00:00:6,500 --> 00:00:8,00\nBy nobody.\n", [(6.5, "By nobody.")]),
        (HELLO + "2\n00:00:05,000 --> 00:00:09,000\n\nStill America.\n\n", [(5.0, "Still America.")]),
        (HELLO + "2\n00:00:05,000 --> 00:00:09,000\nOne line\n\nand one more.\n", [(5.0, "One line and one more.")]),
        (
            HELLO + "2\n00:00:05,000 --> 00:00:09,000\nIf x < 5 and y > 3 <i>stop</i>.\n",
            [(5.0, "If x < 5 and y > 3 stop.")],
        ),
        (HELLO + "2\n00:00:05,000 --> 00:00:09,000\nIt costs $ 5.\n", [(5.0, "It costs $ 5.")]),
    ],
)
def test_what_people_write_in_srt(tmp_path, text, found):
    (tmp_path / "a.srt").write_text(text)
    assert said(tmp_path / "a.srt") == [(1.0, "Hello there."), *found]


def test_a_time_that_cannot_be_read_costs_its_subtitle_alone(tmp_path):
    (tmp_path / "a.srt").write_text(HELLO + "2\n00:00:05,000 --> 00:0x:06,000\nLost.\n\n" + HELLO.replace("01,", "07,"))
    made = read_transcript(tmp_path / "a.srt")
    assert [(u.start, u.text) for u in made.utterances] == [(1.0, "Hello there.")]
    assert any("a subtitle has a time that cannot be read, the first in line 6" in line for line in made.warnings)


OTHERS = {
    "a.ass": "[Script Info]\nTitle: x\n\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
    "Dialogue: 0,0:00:01.50,0:00:04.00,Default,{\\i1}Hello, you{\\i0}\\Nthere.\n"
    "Dialogue: 0,0:00:05.00,0:00:06.00,Default,{\\p1}m 0 0 l 9 9\n",
    "a.json": '{"text": "x", "segments": [{"id": 0, "start": 1.5, "end": 4.0, "text": " Hello, you there."}]}',
    "cpp.json": '{"transcription": [{"offsets": {"from": 1500, "to": 4000}, "text": " Hello, you there."}]}',
    "list.json": '[{"start": 1.5, "end": 4, "text": "Hello, you there."}, {"start": NULL}]'.replace("NULL", "null"),
    "a.tsv": "start\tend\ttext\n1500\t4000\tHello, you there.\n",
    "a.sbv": "0:00:01.500,0:00:04.000\nHello, you\nthere.\n\n",
    "a.sub": "{1}{1}24\n{36}{96}{y:i}Hello, you|there.\n",
    "a.mpl": "[15][40]/Hello, you|there.\n",
    "a.ttml": '<?xml version="1.0" encoding="utf-16"?>\n<!-- made -->\n<tt xmlns="http://www.w3.org/ns/ttml"><head>'
    "<title>No words</title></head><body>\n <div>\n  <p begin='00:00:01.500' end='4s'>Hello,\n  you<br/>there.</p>"
    "</div></body></tt>",
    "a.lrc": "[ar:Somebody]\n[00:01.50]Hello, you there.\n[00:04.00]\n",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_of_subtitles(tmp_path, name):
    (tmp_path / name).write_text(OTHERS[name])
    assert said(tmp_path / name) == [(1.5, "Hello, you there.")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<SAMI><HEAD>", "got SAMI"),
        (
            '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"/>',
            "must be TTML where it is XML, got <html>",
        ),
        ("<tt><body><p begin='1s'>a</p>", "XML that is broken in line 1"),
        ("<tt><body timeContainer='seq'><p dur='1s'>a</p></body></tt>", "got timeContainer seq"),
        (
            "<?xml version='1.0'?><!DOCTYPE tt [<!ENTITY a 'b'>]><tt><p begin='1s'>&a;</p></tt>",
            "without a document type",
        ),
        ("<tt>" * 100, "at most 64 elements in one another"),
        ("<tt><body><p begin='1s'>" + "a" * 10_001 + "</p></body></tt>", "at most 10000 characters"),
        ('{"segments": [{"start": 0, "end": 2, "text": "' + "a" * 10_001 + '"}]}', "at most 10000 characters"),
        ("start\tend\ttext\n0\t900\t" + "a" * 10_001, "at most 10000 characters"),
        ("<tt><body><p>No time.</p><p begin='soon'>A bad one.</p></body></tt>", "must hold words, found none"),
        ("{1}{50}Hello", "got MicroDVD, which counts pictures, without their rate"),
        ('{"words": []}', "must hold segments with start, end and text"),
        (
            '{"segments": [{"start": -1, "end": 2, "text": "x"}, {"start": 1e99, "end": 2, "text": "x"}]}',
            "got other JSON",
        ),
        ('{"segments": [', "must be JSON"),
    ],
)
def test_kinds_that_are_not_read_are_named(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(VTSumError, match=message):
        read_transcript(tmp_path / "a.txt", duration=60.0)


@pytest.mark.parametrize(
    "text",
    [
        '{"segments": [{"start": 1, "end": 2, "text": "One."}, {"start": "x", "end": 3, "text": "Two."}, '
        '{"start": 5, "end": 4, "text": "Three."}]}',
        "start\tend\ttext\n1000\t2000\tOne.\n5000\t4000\tThree.\nsoon\t3000\tTwo.\n",
        "[Events]\nFormat: Start, End, Text\nDialogue: 0:00:01.00,0:00:02.00,One.\nDialogue: soon,0:00:03.00,Two.\n"
        "Dialogue: 0:00:05.00,0:00:04.00,Three.\n",
    ],
)
def test_what_is_left_out_of_other_subtitles_is_told(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    found = read_transcript(tmp_path / "a.txt", duration=60.0)
    assert [utterance.text for utterance in found.utterances] == ["One."]
    broken, backwards = found.warnings
    assert (
        "a subtitle has a time that cannot be read, the first in " + ("segment 2" if text[0] == "{" else "line 4")
        in broken
    )
    assert "1 of 2 subtitles end before they begin and are left out" in backwards


RUSSIAN = "Сегодня мы поговорим о том, как делать короткие видео из длинных, и почему это бывает нужно."


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", RUSSIAN),
        ("koi8-r", RUSSIAN),
        ("gb18030", "今天我们来谈谈视频摘要的方法，然后看看几个例子，最后回答大家的问题。"),
        ("cp932", "今日は動画の要約について話します。それからいくつかの例を見てみましょう。"),
        ("cp1252", "Über Köln fährt heute kein Zug, denn alle Brücken sind gesperrt."),
    ],
)
def test_encodings_of_old_are_guessed_and_told(tmp_path, encoding, text):
    (tmp_path / "a.srt").write_bytes(HELLO.replace("Hello there.", text).encode(encoding))
    made = read_transcript(tmp_path / "a.srt")
    assert made.utterances[0].text == text
    assert any("its encoding was guessed: " in line for line in made.warnings)


@pytest.mark.parametrize("encoding", ["utf-32", "utf-16-le", "utf-16-be", "utf-32-le"])
def test_wide_encodings_with_and_without_a_mark(tmp_path, encoding):
    (tmp_path / "a.srt").write_bytes((HELLO + HELLO.replace("there", "Köln").replace(":01,", ":02,")).encode(encoding))
    made = read_transcript(tmp_path / "a.srt")
    assert [u.text for u in made.utterances] == ["Hello there.", "Hello Köln."]
    assert made.warnings == () or all("guessed" not in line for line in made.warnings)


def test_scripts_without_spaces_have_words_of_two_signs(tmp_path):
    chinese, thai = "大家好，欢迎收看 AI 节目。", "สวัสดีครับ ยินดีต้อนรับ"
    text = HELLO.replace("Hello there.", chinese) + f"2\n00:00:05,000 --> 00:00:06,000\n{thai}\n"
    (tmp_path / "a.srt").write_text(text)
    made = read_transcript(tmp_path / "a.srt")
    assert [u.text for u in made.utterances] == ["大家好，欢迎收看 AI 节目。", "สวัสดีครับยินดีต้อนรับ"]
    assert [w.text for w in made.utterances[0].words] == ["大家", "好，欢", "迎收", "看", "AI", "节目。"]
    assert all(a.end <= b.start + 1e-9 for u in made.utterances for a, b in zip(u.words, u.words[1:], strict=False))


def test_a_missing_transcript_is_named(tmp_path):
    with pytest.raises(VTSumError, match=r"none\.srt must be a readable file, got: no such file"):
        read_transcript(tmp_path / "none.srt")


def spoken(draws: list[list[tuple[str, int, int]]]) -> Transcript:
    """Utterances of words with lengths and gaps in milliseconds."""
    at, found = 0, []
    for draw in draws:
        words = []
        for text, gap, length in draw:
            words.append(Word(text, (at + gap) / 1000, (at + gap + length) / 1000, 0.5))
            at += gap + length
        found.append(Utterance(tuple(words)))
    return Transcript(tuple(found), "test", "en")


WORDS = st.tuples(st.text(string.ascii_lowercase + ".é&", min_size=1).filter(lambda t: t[0].isalpha()),
                  st.integers(0, 3000), st.integers(1, 900))  # fmt: skip


@settings(max_examples=40)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=30), max_size=3), st.sampled_from(["srt", "vtt"]))
def test_what_is_written_is_read_back(draws, kind):
    said = spoken(draws)
    text = as_srt(said) if kind == "srt" else as_vtt(said)
    cues, language, broken = parse_cues(text.splitlines(), "test")
    assert broken == []
    assert language == ("en" if kind == "vtt" else None)
    back = utterances_of(cues, "test")
    assert [w.text for u in back for w in u.words] == [w.text for w in said.words]
    for cue in cues:
        assert len(cue.lines) <= 2
        # No subtitle overlaps another, and each word is shown while it is said, to the millisecond.
    for one, other in pairwise(cues):
        assert one.end <= other.start + 1e-9
    shown = [u for u in subtitles(said) for _ in u[2].split()]
    for word, (start, end, _) in zip(said.words, shown, strict=True):
        assert start - 1e-9 <= word.start <= word.end <= end + 1e-9
        assert end - start <= 6.0 + 1e-9


@given(st.lists(st.text(string.ascii_letters, min_size=1, max_size=9), min_size=1), st.floats(0, 1e4), st.floats(0, 50))
def test_words_share_time_by_length(texts, start, length):
    words = spread_words(texts, start, start + length)
    total = sum(len(t) + 1 for t in texts)
    taken = min(length, 0.15 * total)
    at = start
    for word in words:
        assert word.start == pytest.approx(at, abs=1e-6)
        at += taken * (len(word.text) + 1) / total
        assert word.end == pytest.approx(at, abs=1e-6)


def test_limits_of_subtitles():
    words = tuple(Word("elevenchars", i * 0.4, i * 0.4 + 0.3, 1.0) for i in range(20))
    found = list(subtitles(Transcript((Utterance(words),), "test", None)))
    assert [len(text.replace("\n", " ").split()) for _, _, text in found] == [6, 6, 6, 2]  # three words a line of 42
    short = Transcript(
        (Utterance((Word("Hi.", 1.0, 1.1, 1.0),)), Utterance((Word("Ho.", 1.5, 1.6, 1.0),))), "test", None
    )
    assert [(a, b) for a, b, _ in subtitles(short)] == [(1.0, 1.5), (1.5, 2.3)]


def write_track(path: Path, text: str, pictures_from: float = 0.0) -> Path:
    """Ten seconds of black pictures and an SRT file as a track."""
    path.with_suffix(".srt").write_text(text)
    with av.open(str(path), "w") as file, av.open(str(path.with_suffix(".srt"))) as source:
        video = file.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        track = file.add_stream_from_template(source.streams.subtitles[0])
        track.metadata["language"] = "eng"
        for packet in list(source.demux(source.streams.subtitles[0])):
            if packet.size and packet.pts is not None:
                packet.stream = track
                file.mux(packet)
        for index in range(100):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            picture.pts, picture.time_base = index + round(pictures_from * 10), Fraction(1, 10)
            file.mux(video.encode(picture))
        file.mux(video.encode(None))
    return path


def test_the_track_in_a_file_is_read(tmp_path):
    said = read_subtitle_track(write_track(tmp_path / "talk.mkv", SRT))
    assert times(said) == [("Hello there.", 1.0, 2.95), ('I said "no".', 4.5, 6.0)]
    assert (said.source, said.language) == ("subtitles", "eng")


def test_times_count_from_the_first_picture(tmp_path):
    said = read_subtitle_track(write_track(tmp_path / "late.mkv", SRT, pictures_from=0.5))
    assert [u.start for u in said.utterances] == pytest.approx([0.5, 4.0])


def test_a_file_without_words_in_a_track_has_none(tmp_path, shared):
    silent = "1\n00:00:01,000 --> 00:00:02,000\n[music]\n"
    assert read_subtitle_track(write_track(tmp_path / "mute.mkv", silent)) is None
    assert read_subtitle_track(shared / "media" / "chaplin.mp4") is None
    with pytest.raises(VTSumError, match="no such file"):
        read_subtitle_track(tmp_path / "none.mkv")


def test_the_track_of_a_real_clip(shared):
    said = read_subtitle_track(shared / "media" / "nasa_13013.mp4")
    assert said.utterances[1].text == "space telescope in one of the largest cleanrooms in the world"
    assert said.words[-1].text == "successfully"


def test_an_arrow_makes_no_subtitles_of_plain_text(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("Pictures --> features. That is it.")
    (tmp_path / "t.lrc").write_text("[ar:A --> B]\n[00:01.00]Hello --> there\n[00:03.00]friends\n")
    plain = read_transcript(tmp_path / "t.txt", duration=9.0)
    assert plain.text.split("\n")[0].startswith("Pictures --> features.")
    timed = read_transcript(tmp_path / "t.lrc", duration=9.0)
    assert [(u.words[0].text, u.start) for u in timed.utterances] == [("Hello", 1.0), ("friends", 3.0)]
