"""Voice activity and recognition of speech: what they find, get wrong and cost.

    python -m bench.summary.speech [--shared DIR] [--parts activity recognition] [--speeds fast balanced] [--short]

activity: narrations by espeak-ng whose sentences' times are known, clean, clipped and under four noises at several
levels: recall and precision in seconds, beside Silero's and WebRTC's detectors where faster-whisper and pocketsphinx
bring them. recognition: PocketSphinx at its settings on narrations and on real clips whose words are known: word error
rate and the real-time factor (CPU seconds of one process for a second of sound with voice; the wall clock means little
on a shared machine). One JSON line a measurement goes to results/speech.jsonl, and docs/speech.png is drawn from them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.kit.command import keep, parser
from bench.kit.record import DOCS, machine, read
from bench.summary.speech_corpus import JFK, NOISES, PASSAGES, RATE, VOICES, Narration, clipped, narrate, with_noise
from vtsum.enhance.speech.activity import voice_activity, voiced
from vtsum.enhance.speech.recognisers import sphinx, sphinx_worker
from vtsum.enhance.speech.sound import as_pcm, read_sound
from vtsum.enhance.speech.subtitle_track import read_subtitle_track
from vtsum.enhance.speech.wer import word_errors

PACKAGES = ("numpy", "av", "pocketsphinx", "faster-whisper")
LEVELS = (20, 10, 5, 0)
Spans = list[tuple[float, float]]


def narrations(short: bool) -> Iterator[Narration]:
    """Each passage by one of the voices; or three sentences of two."""
    for name, (voice, speed) in list(zip(PASSAGES, VOICES, strict=True))[: 2 if short else None]:
        yield narrate(name, voice=voice, speed=speed, first=3 if short else None)


def conditions(samples: np.ndarray) -> Iterator[tuple[str, int | None, np.ndarray]]:
    """(name, decibels, samples): clean, clipped, and under each noise at each level."""
    yield "clean", None, samples
    yield "clipped", None, clipped(samples, 0.1)
    for kind in NOISES:
        for level in LEVELS:
            yield kind, level, with_noise(samples, level, kind)


def detectors() -> dict[str, Callable[[np.ndarray], Spans]]:
    """Ours, and those that other packages bring, with their own defaults."""
    found: dict[str, Callable[[np.ndarray], Spans]] = {"vtsum": voice_activity}
    try:
        from faster_whisper.vad import get_speech_timestamps

        found["silero"] = lambda x: [(s["start"] / RATE, s["end"] / RATE) for s in get_speech_timestamps(x)]
    except ImportError:
        pass
    try:
        import pocketsphinx

        def webrtc(samples: np.ndarray) -> Spans:
            ends = pocketsphinx.Endpointer(sample_rate=RATE)
            size, data, spans = ends.frame_bytes, as_pcm(samples).tobytes(), []
            for at in range(0, len(data) - size + 1, size):
                was = ends.in_speech
                ends.process(data[at : at + size])
                if was and not ends.in_speech:
                    spans.append((ends.speech_start, ends.speech_end))
            if ends.in_speech:
                spans.append((ends.speech_start, len(samples) / RATE))
            return spans

        found["webrtc"] = webrtc
    except ImportError:
        pass
    return found


def mask(spans: Spans, count: int) -> np.ndarray:
    """Which hundredths of a second lie in a span."""
    out = np.zeros(count, bool)
    for a, b in spans:
        out[round(a * 100) : round(b * 100)] = True
    return out


def measure_activity(short: bool) -> Iterator[dict[str, Any]]:
    """Recall and precision of speech, over all narrations, by detector and condition."""
    counts: dict[tuple[str, str, int | None], np.ndarray] = {}
    costs: dict[str, np.ndarray] = {}
    tools = detectors()
    for narration in narrations(short):
        count = round(narration.duration * 100)
        truth = mask([(a, b) for a, b, _ in narration.sentences], count)
        for kind, level, samples in conditions(narration.samples):
            for name, detect in tools.items():
                began = time.process_time()
                heard = mask(detect(samples), count)
                cost = np.array([time.process_time() - began, narration.duration])
                costs[name] = costs.get(name, np.zeros(2)) + cost
                hits = np.array([(heard & truth).sum(), heard.sum(), truth.sum()])
                counts[name, kind, level] = counts.get((name, kind, level), np.zeros(3, int)) + hits
    for (name, kind, level), (both, heard, true) in counts.items():
        yield {
            "op": "voice_activity",
            "detector": name,
            "noise": kind,
            "snr_db": level,
            "recall": round(both / true, 4),
            "precision": round(both / max(heard, 1), 4),
            "speech_s": true / 100,
            "cpu_s_per_s": round(costs[name][0] / costs[name][1], 5),
        }


def spoken(shared: Path | None, short: bool) -> Iterator[tuple[str, str, np.ndarray]]:
    """(name, the words, samples) of what is recognised."""
    if shared is not None:
        yield "jfk", JFK, _samples(shared / "media" / "jfk.flac")
        clip = shared / "media" / "nasa_13013.mp4"
        track, samples = read_subtitle_track(clip), _samples(clip)
        if track is not None:
            words = [word.text for word in track.words if word.end < len(samples) / RATE]
            yield "nasa", " ".join(words), samples
    for narration in narrations(short):
        yield f"espeak {narration.name}", narration.text, narration.samples
        if not short:
            yield f"espeak {narration.name}, 20 dB", narration.text, with_noise(narration.samples, 20)


def _samples(path: Path) -> np.ndarray:
    return np.concatenate([block for _, block in read_sound(path)])


def measure_recognition(shared: Path | None, speeds: list[str], short: bool) -> Iterator[dict[str, Any]]:
    """Word errors and cost of PocketSphinx, in this process, by setting and clip."""
    from pocketsphinx import Decoder

    for name, text, samples in spoken(shared, short):
        stretches = list(voiced(samples))
        seconds = sum(len(stretch.samples) for stretch in stretches) / RATE
        for speed in speeds:
            decoder = Decoder(loglevel="FATAL", cmn="batch", **sphinx.SETTINGS[speed])
            began = time.process_time()
            found = [sphinx_worker.recognise(decoder, as_pcm(s.samples).tobytes(), sphinx.READINGS) for s in stretches]
            cost = time.process_time() - began
            words = [word for one in found for word in one["words"]]
            errors = word_errors(text, " ".join(word[0] for word in words))
            yield {
                "op": "recognition",
                "recogniser": "pocketsphinx",
                "speed": speed,
                "clip": name,
                "wer": round(errors.rate, 4),
                "words": len(text.split()),
                "confidence": round(float(np.mean([word[3] for word in words])), 4) if words else None,
                "heard": " ".join(word[0] for word in words),
                "sound_s": round(len(samples) / RATE, 2),
                "voiced_s": round(seconds, 2),
                "cpu_s": round(cost, 2),
                "real_time_factor": round(cost / seconds, 3),
            }


def main() -> None:
    given = parser(__doc__, "speech", shared=None)
    given.add_argument("--parts", nargs="+", default=["activity", "recognition"], choices=["activity", "recognition"])
    given.add_argument("--speeds", nargs="+", default=list(sphinx.SETTINGS), choices=list(sphinx.SETTINGS))
    given.add_argument("--short", action="store_true", help="three sentences of two narrations")
    options: Any = given.parse_args()
    if "activity" in options.parts:
        keep(options.results, machine(PACKAGES), measure_activity(options.short))
    if "recognition" in options.parts:
        found = measure_recognition(options.shared, options.speeds, options.short)
        keep(options.results, machine(PACKAGES), found)
    from bench.summary.tables.speech import draw

    draw(DOCS / "speech.png", read(options.results))


if __name__ == "__main__":
    main()
