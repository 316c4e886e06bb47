"""Spoken material with known words and times: passages read by espeak-ng, with pauses, noise at a level, clipping.

The passages are the project's own. Noises are drawn from a seed, so the same material comes out each time but for the
voice, which depends on espeak-ng's version.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtsum.errors import VTSumError

RATE = 16_000
PASSAGES: dict[str, str] = {
    "bicycle": (
        "Today we are going to repair the back wheel of a bicycle. First turn the bicycle over so that it stands "
        "on the seat. Take off the chain and loosen the two nuts that hold the wheel. Pull the tire away from the"
        " rim and look for the hole. Put the tube under water and watch for bubbles. Clean the place around the "
        "hole, let it dry, and press the patch on it for one minute. Then put everything back together and fill "
        "the tire with air."
    ),
    "garden": (
        "Our garden was dry and empty when we bought the house. In the first spring we planted four apple trees "
        "along the wall. The neighbors told us that nothing would grow there, because the soil is full of stones."
        " We carried the stones to the river and brought back earth in a small car. Three years later the trees "
        "were taller than my daughter. Last week we picked the first apples and made a cake for everybody in the "
        "street."
    ),
    "harbor": (
        "The harbor of this city never sleeps. Every night more than twenty ships arrive from all over the world."
        " Large machines lift the boxes from the deck and set them on trucks. A man in a small room high above "
        "the water watches every movement on his screen. When the wind is strong the work has to stop. In the "
        "morning the ships leave again, and the workers go home to sleep while the children walk to school."
    ),
    "kitchen": (
        "This is the easiest soup you will ever cook. Cut two onions and fry them slowly in butter until they are"
        " soft. Add three carrots, a little salt, and half a bottle of water. Let it cook for thirty minutes and "
        "do not open the pot. After that, take a spoon and try it. If it is too thin, leave it on the fire a "
        "little longer. Serve the soup with fresh bread and a glass of cold milk."
    ),
}
#: What President Kennedy says in jfk.flac (inaugural address, 1961).
JFK = "And so, my fellow Americans: ask not what your country can do for you, ask what you can do for your country."
#: espeak-ng's voices and words a minute.
VOICES = (("en-us+klatt2", 130), ("en-us+f5", 130), ("en-us+klatt4", 130), ("en-us", 115))
NOISES = ("white", "hum", "babble", "music")


@dataclass(frozen=True)
class Narration:
    """A passage as it was read: float32 samples at 16 kHz, the words, and where sentences lie, in seconds."""

    name: str
    text: str
    samples: np.ndarray
    sentences: tuple[tuple[float, float, str], ...]

    @property
    def duration(self) -> float:
        return len(self.samples) / RATE


def speak(text: str, voice: str = "en-us", speed: int = 150) -> np.ndarray:
    """Text read by espeak-ng: float32 [n] at 16 kHz, silence at both ends cut off.

    Raises:
        VTSumError: espeak-ng is not installed, or fails.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise VTSumError("speak: espeak-ng must be installed (apt-get install espeak-ng)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        words = [program, "-v", voice, "-s", str(speed), "-w", str(path), "--", text]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode or not path.exists():
            raise VTSumError(f"speak: espeak-ng failed: {done.stderr.strip() or done.returncode}")
        with wave.open(str(path)) as file:
            rate = file.getframerate()
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    loud = np.flatnonzero(np.abs(samples) > 0.002)
    return resample(samples[loud[0] : loud[-1] + 1], rate, RATE) if len(loud) else np.zeros(0, np.float32)


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Another sample rate, band-limited, by the discrete Fourier transform."""
    count = round(len(samples) * wanted / rate)
    spectrum = np.fft.rfft(samples)
    kept = min(len(spectrum), count // 2 + 1)
    out = np.zeros(count // 2 + 1, complex)
    out[:kept] = spectrum[:kept]
    return (np.fft.irfft(out, count) * (count / len(samples))).astype(np.float32)


def narrate(
    name: str, *, voice: str = "en-us", speed: int = 150, seed: int = 0, level: float = 0.1, first: int | None = None
) -> Narration:
    """A passage, or its `first` sentences, with silence of 0.5 to 2 s around each."""
    rng = np.random.default_rng([seed, *name.encode()])
    lines = PASSAGES[name].replace(". ", ".\n").splitlines()[:first]
    return read_aloud(name, lines, voice, speed, rng, (0.5, 2.0), 1.0, level)


def read_aloud(
    name: str,
    lines: Sequence[str],
    voice: str,
    speed: int,
    rng: np.random.Generator,
    pauses: tuple[float, float],
    after: float,
    level: float = 0.1,
) -> Narration:
    """Sentences read one by one; seconds of silence before each, and after the last; `level` is the speech's RMS."""
    parts, sentences, at = [], [], 0
    for sentence in lines:
        silence = np.zeros(int(rng.uniform(*pauses) * RATE), np.float32)
        spoken = speak(sentence, voice, speed)
        parts += [silence, spoken]
        begin = at + len(silence)
        at = begin + len(spoken)
        sentences.append((begin / RATE, at / RATE, sentence))
    samples = np.concatenate([*parts, np.zeros(int(after * RATE), np.float32)])
    return Narration(name, " ".join(lines), samples * (level / speech_rms(samples)), tuple(sentences))


def speech_rms(samples: np.ndarray) -> float:
    """The RMS of the samples that are not silence (active level, after ITU-T P.56 in the simplest form)."""
    loud = samples[np.convolve(np.abs(samples), np.ones(800) / 800, "same") > 0.01 * np.abs(samples).max()]
    return float(np.sqrt(np.mean(loud.astype(np.float64) ** 2))) if len(loud) else 1.0


def with_noise(samples: np.ndarray, snr: float, kind: str = "white", seed: int = 0) -> np.ndarray:
    """The samples and a noise so strong that speech stands `snr` decibels above it."""
    noise = draw_noise(kind, len(samples), seed)
    gain = speech_rms(samples) / max(float(np.sqrt(np.mean(noise**2))), 1e-12) / 10 ** (snr / 20)
    return (samples + gain * noise).astype(np.float32)


def clipped(samples: np.ndarray, share: float = 0.2) -> np.ndarray:
    """The samples cut off at `share` of their peak and brought back to full scale."""
    limit = share * float(np.abs(samples).max())
    return (np.clip(samples, -limit, limit) / limit).astype(np.float32)


def draw_noise(kind: str, count: int, seed: int = 0) -> np.ndarray:
    """float64 [count]: "white", "hum" (mains and its harmonics under pink noise), "babble" (six voices that read
    passages at once) or "music" (chords with a beat)."""
    rng = np.random.default_rng([seed, *kind.encode()])
    time = np.arange(count) / RATE
    if kind == "white":
        return rng.normal(size=count)
    if kind == "hum":
        spectrum = np.fft.rfft(rng.normal(size=count))
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
        pink = np.fft.irfft(spectrum, count)
        tones = sum(np.sin(2 * np.pi * 50 * n * time) / n for n in (1, 2, 3, 5, 7))
        return pink / pink.std() + tones
    if kind == "music":
        return _music(time, rng)
    if kind != "babble":
        raise ValueError(f"draw_noise: kind must be one of {', '.join(NOISES)}, got {kind!r}")
    out = np.zeros(count)
    for turn in range(6):
        voice, speed = VOICES[turn % len(VOICES)]
        text = list(PASSAGES.values())[turn % len(PASSAGES)]
        spoken = speak(text, voice, speed + 10 * (turn // len(VOICES))).astype(np.float64)
        out += np.resize(np.roll(spoken, int(rng.integers(len(spoken)))), count)
    return out


def _music(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Four chords in turn, half a second each note, with harmonics that decay and a drum on each beat."""
    out = np.zeros(len(time))
    chords = ((60, 64, 67), (57, 60, 64), (65, 69, 72), (67, 71, 74))
    for beat in range(int(np.ceil((time[-1] if len(time) else 0) / 0.5)) + 1):
        part = slice(int(beat * 0.5 * RATE), min(int((beat * 0.5 + 0.9) * RATE), len(time)))
        local = time[part] - beat * 0.5
        if not len(local):
            break
        chord = chords[beat // 4 % len(chords)]
        for note in (*chord, chord[0] - 24, int(rng.choice(chord)) + 12):
            pitch = 440 * 2 ** ((note - 69) / 12)
            for n in range(1, 6):
                out[part] += np.sin(2 * np.pi * pitch * n * local) * np.exp(-local * (2 + n)) / n
        out[part] += rng.normal(size=len(local)) * np.exp(-local * 40) * 2
    return out
