"""The film that the project shows itself with: 91 seconds of a day in a small harbour town, drawn by program.

    python -m vtsum.recipes.film OUT.mp4

It has six scenes, quiet stretches between lively moments, hard cuts and dissolves, a title card and a lower third,
spoken narration (by espeak-ng, which must be installed), music and noises. The same film comes out each time, but for
the voice, which depends on espeak-ng's version. `vtsum/assets/film.mp4` was made by it. Another `Script` makes another
film of the same scenes.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from vtsum.errors import VTSumError
from vtsum.files import check_new, written
from vtsum.recipes.command import status
from vtsum.recipes.film_scenes import city, land, sea, sounds
from vtsum.recipes.film_scenes.paint import Painter, Scene
from vtsum.recipes.film_scenes.writing import Card, Writing
from vtsum.recipes.procedural import SOUND_RATE, write_video
from vtsum.shown import reason

SIZE = (640, 360)
RATE = Fraction(24)
VOICE = ("-v", "en-us+f2", "-s", "150", "-g", "6")  # espeak-ng: accent and voice, words a minute, pauses between them
UNDER_VOICE = 0.1  # how loud music and noises are beside themselves while somebody speaks


@dataclass(frozen=True)
class Part:
    """A scene of the film, by its name. Times are seconds; `lively` lies within the film, `dissolve` is the time it
    fades in."""

    name: str
    start: float
    duration: float
    lively: tuple[float, float] | None
    dissolve: float = 0.0


@dataclass(frozen=True)
class Line:
    """A spoken sentence, in seconds of the film. `end` as measured with espeak-ng 1.51."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Script:
    """What is shown, said and written in a film: its scenes one after the other, sentences and writing in order."""

    parts: tuple[Part, ...]
    narration: tuple[Line, ...]
    writing: tuple[Writing, ...]

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.parts[-1].start + self.parts[-1].duration

    @property
    def cuts(self) -> tuple[float, ...]:
        """Seconds of the cuts, and of the middles of the dissolves."""
        return tuple(part.start + part.dissolve / 2 for part in self.parts[1:])


HARBOUR = Script(
    parts=(
        Part("sunrise", 0.0, 17.0, (8.0, 17.0)),
        Part("train", 17.0, 15.0, (23.5, 31.0)),
        Part("mist", 32.0, 8.0, None, dissolve=1.0),
        Part("rain", 40.0, 16.0, (46.5, 56.0)),
        Part("balloons", 56.0, 17.0, (61.5, 73.0)),
        Part("fireworks", 73.0, 18.0, (78.5, 90.0), dissolve=1.0),
    ),
    narration=(
        Line(1.0, 3.8, "Morning comes slowly to the harbour."),
        Line(9.0, 14.2, "The sun is up, the gulls are out, and the first boat sails."),
        Line(18.2, 20.8, "Up in the hills, it is quiet."),
        Line(24.5, 29.1, "Here comes the little train, over the old stone bridge."),
        Line(47.0, 54.0, "In the city it rains. Umbrellas bloom like flowers, and the yellow tram goes by."),
        Line(62.5, 66.9, "In the afternoon, balloons rise over the snowy mountains."),
        Line(74.5, 78.7, "Night falls, and the lighthouse turns on its light."),
        Line(81.0, 86.3, "Fireworks! The whole town looks up, and the day is over."),
    ),
    writing=(
        Writing(1.0, 6.5, ("A Day in Port Merrow", "From sunrise to fireworks"), "title"),
        Writing(74.5, 79.5, ("The lighthouse", "Port Merrow, lit since 1871"), "lower third"),
    ),
)


def make_film(
    path: str | Path, script: Script = HARBOUR, *, size: tuple[int, int] = SIZE, rate: Fraction = RATE
) -> None:
    """Draw a film and write it as an MP4: width and height in pixels, pictures a second.

    Raises:
        VTSumError: espeak-ng is not installed, or fails.
    """
    sound = mix_sound(script)
    # x264's bytes would vary from run to run with mbtree, and what is read off the pictures with them.
    options = {"preset": "veryslow", "tune": "animation", "crf": "30", "x264-params": "keyint=240:aq-mode=3:mbtree=0"}
    write_video(path, frames(script, size, rate), rate, size, sound=sound, sound_bit_rate=36_000, options=options)


def frames(script: Script = HARBOUR, size: tuple[int, int] = SIZE, rate: Fraction = RATE) -> Iterator[np.ndarray]:
    """Yield a film's pictures, uint8 [height, width, 3]."""
    parts = script.parts
    canvas = Painter(*size)
    makers: dict[str, Callable[[Painter], Scene]] = {
        "sunrise": sea.Sunrise,
        "train": land.Train,
        "mist": land.Mist,
        "rain": city.Rain,
        "balloons": land.Balloons,
        "fireworks": sea.Fireworks,
    }
    scenes = [makers[part.name](canvas) for part in parts]
    cards = [Card(writing, *size) for writing in script.writing]
    number = 0
    for index in range(round(script.duration * rate)):
        time = float(index / rate)
        while number + 1 < len(parts) and time >= parts[number + 1].start:
            number += 1
        part = parts[number]
        local = time - part.start
        if local < part.dissolve:
            scenes[number - 1](canvas, time - parts[number - 1].start)
            before = np.clip(canvas.pixels, 0, 1)
            scenes[number](canvas, local)
            canvas.pixels = before + (np.clip(canvas.pixels, 0, 1) - before) * np.float32(local / part.dissolve)
        else:
            scenes[number](canvas, local)
        for card in cards:
            card(canvas, time)
        black = min(1.0, time / 1.0 + 0.04, (script.duration - time) / 1.5)
        if black < 1:
            canvas.pixels = np.clip(canvas.pixels, 0, 1) * np.float32(black)
        yield canvas.image()


def mix_sound(script: Script = HARBOUR) -> np.ndarray:
    """Return a film's sound, float32 [n] at SOUND_RATE: narration over music and noises that make way for it."""
    count = round(script.duration * SOUND_RATE)
    ground = np.zeros(count)
    for part in script.parts:
        first, length = round(part.start * SOUND_RATE), round(part.duration * SOUND_RATE)
        wave_form = _ground(part)[:length]
        edge = round((part.dissolve or 0.15) * SOUND_RATE)
        wave_form[:edge] *= np.linspace(0, 1, edge)
        wave_form[-round(0.15 * SOUND_RATE) :] *= np.linspace(1, 0, round(0.15 * SOUND_RATE))
        ground[first : first + length] += wave_form
    voice, gain = np.zeros(count), np.ones(count)
    for sentence in script.narration:
        spoken = speak(sentence.text)
        first = round(sentence.start * SOUND_RATE)
        voice[first : first + len(spoken)] += spoken[: count - first]
        gain[max(0, first - SOUND_RATE // 4) : first + len(spoken) + SOUND_RATE // 4] = UNDER_VOICE
    width = SOUND_RATE // 5
    steps = np.cumsum(np.concatenate([[0.0], np.pad(gain, (width // 2, width - width // 2), mode="edge")]))
    smooth = (steps[width:] - steps[:-width])[:count] / width
    fade = np.clip((script.duration - np.arange(count) / SOUND_RATE) / 1.5, 0, 1)
    sound = (ground * smooth * 1.2 + voice) * fade
    return np.asarray(np.tanh(sound), np.float32)


def _ground(part: Part) -> np.ndarray:
    """Music and noises of one scene."""
    length = part.duration
    if part.name == "mist":
        return sounds.wind(length) * 0.7
    lively = (part.lively or (part.start, part.start))[0] - part.start
    if part.name == "sunrise":
        return sounds.music(length, (0, 5, 7, 0), 1.0, 1) + sounds.surf(length) + sounds.gulls(length, lively, 2)
    if part.name == "train":
        return (
            sounds.music(length, (7, 0, 5, 7), 1.5, 3)
            + sounds.wind(length)
            + sounds.train(length, lively - 1, length - 1)
        )
    if part.name == "rain":
        return (
            sounds.music(length, (-3, 2, 5, -3), 0.75, 5) + sounds.rain(length) + sounds.bell(length, (8.6, 9.0, 12.2))
        )
    if part.name == "balloons":
        return (
            sounds.music(length, (5, 7, 0, 5), 1.0, 7)
            + sounds.wind(length)
            + sounds.burners(length, (6.0, 9.5, 12.4, 14.2))
        )
    return sounds.music(length, (0, -3, 5, 7), 1.0, 9) + sounds.surf(length) * 0.7 + sounds.bangs(length, sea.LAUNCHES)


def speak(text: str) -> np.ndarray:
    """Return a sentence spoken by espeak-ng, float64 [n] at SOUND_RATE.

    Raises:
        VTSumError: espeak-ng is not installed, or fails.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise VTSumError("film: espeak-ng must be installed to speak the narration (apt-get install espeak-ng)")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "voice.wav"
        done = subprocess.run([program, *VOICE, "-w", str(file), text], capture_output=True, text=True, check=False)
        if done.returncode or not file.is_file():
            raise VTSumError(f"film: espeak-ng failed: {done.stderr.strip() or done.returncode}")
        with wave.open(str(file)) as source:
            rate = source.getframerate()
            samples = np.frombuffer(source.readframes(source.getnframes()), np.int16).astype(np.float64) / 32768
    loud = np.flatnonzero(np.abs(samples) > 0.005)
    if len(loud):
        samples = samples[: loud[-1] + rate // 20]
    at = np.arange(int(len(samples) * SOUND_RATE / rate)) * rate / SOUND_RATE
    spoken = np.interp(at, np.arange(len(samples)), samples)
    return np.asarray(0.8 * spoken / max(float(np.abs(spoken).max()), 1e-9))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m vtsum.recipes.film", description="Draw the demonstration film.")
    parser.add_argument("out", metavar="OUT.mp4", help="the file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an older file")
    options = parser.parse_args(arguments)

    def work() -> None:
        out = Path(options.out)
        check_new("film", out, options.overwrite)
        try:
            with written(out) as part:
                make_film(part)
                check_new("film", out, options.overwrite)  # somebody may have put it there meanwhile
        except OSError as error:
            raise VTSumError(f"film: OUT.mp4 must be writable, got {options.out}: {reason(error)}") from None

    return status(work)


if __name__ == "__main__":
    sys.exit(main())
