"""Small video files made on the fly for the tests: known content at known times, odd forms, and damage."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 12  # a frame's number is drawn as this many black or white bars


def number_picture(number: int, width: int, height: int) -> np.ndarray:
    """Return uint8 [height, width, 3] in which `number_of` can read the number, also scaled, turned back, recoded."""
    bars = [(number >> bit) & 1 for bit in range(BITS)]
    columns = np.repeat(np.array([40, *[200 if bar else 40 for bar in bars], 200], np.uint8), 64)
    picked = columns[np.arange(width) * len(columns) // width]
    return np.ascontiguousarray(np.broadcast_to(picked[None, :, None], (height, width, 3)))


def number_of(image: np.ndarray) -> int:
    """Read the number from a picture [H, W, 3] or [H, W]."""
    line = image.reshape(image.shape[0], image.shape[1], -1).mean(axis=(0, 2))
    edges = np.linspace(0, len(line), BITS + 3)
    values = [line[int(np.ceil(a)) : max(int(b), int(np.ceil(a)) + 1)].mean() for a, b in itertools.pairwise(edges)]
    middle = (values[0] + values[-1]) / 2
    return sum(1 << bit for bit, value in enumerate(values[1:-1]) if value > middle)


def numbered_scene(number: int, time: float) -> np.ndarray:
    """A small picture with its number, and below it the colour of its scene: another one every ten seconds."""
    picture = number_picture(number, 96, 54)
    picture[30:] = ((200, 40, 40), (30, 200, 60), (40, 60, 220), (220, 210, 40))[int(time // 10)]
    return picture


def numbers_shown(path: Path) -> list[int]:
    """The numbers of the pictures that a film shows."""
    with av.open(str(path)) as film:
        return [number_of(frame.to_ndarray(format="rgb24")) for frame in film.decode(video=0)]


def tone(seconds: float, rate: int, channels: int, frequency: float = 440.0, level: float = 0.2) -> np.ndarray:
    """Return float32 [channels, n] of a sine."""
    wave = level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    return np.broadcast_to(wave.astype(np.float32), (channels, len(wave))).copy()


def write_clip(
    path: Path,
    times: Sequence[float],
    picture: Callable[[int, float], np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: Fraction | int = 25,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    format: str | None = None,
    sound: np.ndarray | None = None,
    sound_rate: int = 48000,
    sound_codec: str = "aac",
    sound_start: float = 0.0,
    start: float = 0.0,
    rotation: int = 0,
    aspect: Fraction | None = None,
    title: str | None = None,
    last_duration: float | None = None,
    gop: int = 12,
) -> Path:
    """Write a clip whose picture number n is `picture(n, times[n])`, shown from `times[n]` on.

    Args:
        start, sound_start: seconds by which pictures and sound are moved. rotation: clockwise degrees, as metadata.
        sound: float32 [channels, n].
    """
    first = picture(0, times[0])
    container = av.open(str(path), "w", format=format, options=container_options or {})
    if title is not None:
        container.metadata["title"] = title
    base = Fraction(1, 1000) if path.suffix in (".mkv", ".webm") else Fraction(1, 90000)
    if path.suffix in (".avi", ".gif", ".mxf", ".dv", ".mpg"):
        base = 1 / Fraction(rate)
    video = container.add_stream(codec, rate=Fraction(rate))
    video.width, video.height, video.pix_fmt = first.shape[1], first.shape[0], pix_fmt
    context = video.codec_context
    context.time_base = base
    context.gop_size = gop
    context.options = {"preset": "ultrafast", "crf": "20"} if codec == "libx264" else {}
    context.options = {**context.options, **(options or {})}
    if aspect is not None:
        context.sample_aspect_ratio = aspect
    if rotation:
        video.set_display_rotation(-rotation)
    audio = None
    if sound is not None:
        audio = container.add_stream(sound_codec, rate=sound_rate, layout="mono" if sound.shape[0] == 1 else "stereo")
    ends = [*times[1:], times[-1] + (last_duration or float(1 / Fraction(rate)))]
    durations: dict[int, int] = {}

    def mux(packets: list[av.Packet]) -> None:
        for packet in packets:  # not every encoder passes durations on
            packet.duration = durations.get(packet.pts, packet.duration)
            container.mux(packet)

    sent = 0

    def mux_sound(until: float) -> None:
        nonlocal sent
        while (
            sound is not None
            and audio is not None
            and sent < sound.shape[1]
            and sent / sound_rate + sound_start < until
        ):
            piece = np.ascontiguousarray(sound[:, sent : sent + 1024], np.float32)
            layout = "mono" if len(sound) == 1 else "stereo"
            part = av.AudioFrame.from_ndarray(piece, "fltp", layout)
            part.sample_rate = sound_rate
            part.pts, part.time_base = sent + round(sound_start * sound_rate), Fraction(1, sound_rate)
            sent += piece.shape[1]
            container.mux(audio.encode(part))

    for number, time in enumerate(times):
        image = first if number == 0 else picture(number, time)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
        frame.pts, frame.time_base = round((time + start) / base), base
        durations[frame.pts] = max(1, round((ends[number] - time) / base))
        mux(video.encode(frame))
        mux_sound(time + start)
    mux(video.encode(None))
    if audio is not None:
        mux_sound(float("inf"))
        container.mux(audio.encode(None))
    container.close()
    return path


def numbered_clip(
    path: Path, count: int, *, size: tuple[int, int] = (160, 90), rate: Fraction | int = 25, **kwargs
) -> Path:
    """Write a clip of `count` numbered frames at a constant rate; see `write_clip` for the rest."""
    times = [float(n / Fraction(rate)) for n in range(count)]
    return write_clip(path, times, lambda n, _: number_picture(n, *size), rate=rate, **kwargs)


def damaged_copies(src: Path, n: int, seed: int) -> list[tuple[str, bytes]]:
    """Return n damaged copies of a file as (what was done, contents), the same for the same seed.

    The kinds take turns: bits flipped, cut short, header bytes changed, ranges zeroed, pieces exchanged, pieces
    repeated, rubbish in the middle, rubbish behind, rubbish from some place to the end, and several of them at once.
    """
    original = src.read_bytes()
    kinds = [_flip, _cut_short, _header, _zero, _exchange, _repeat, _insert, _append, _rubbish_end, _boxes]
    copies = []
    for number in range(n):
        rng = random.Random(f"{seed}/{number}")
        data = bytearray(original)
        chosen = rng.sample(kinds, 3) if number % 11 == 10 else [kinds[number % 11 % len(kinds)]]
        for kind in chosen:
            data = kind(data, rng)
        copies.append(("+".join(kind.__name__.strip("_") for kind in chosen), bytes(data)))
    return copies


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice([1, 8, 64, 512])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _cut_short(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.choice([rng.randrange(64), rng.randrange(len(data)), len(data) - rng.randrange(1, 2000)])]


def _header(data: bytearray, rng: random.Random) -> bytearray:
    span = min(len(data), rng.choice([64, 1024, 8192]))
    at = rng.choice([0, max(0, len(data) - span)])  # an MP4 may carry its index at either end
    for _ in range(rng.choice([1, 4, 16])):
        data[at + rng.randrange(span)] = rng.randrange(256)
    return data


def _range(data: bytearray, rng: random.Random, most: int) -> tuple[int, int]:
    length = min(len(data) - 1, rng.randrange(1, most))
    start = rng.randrange(len(data) - length)
    return start, start + length


def _zero(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice([1, 3])):
        first, last = _range(data, rng, rng.choice([16, 512, max(17, len(data) // 4)]))
        data[first:last] = bytes(last - first)
    return data


def _exchange(data: bytearray, rng: random.Random) -> bytearray:
    size = rng.choice([4, 64, 4096])
    for _ in range(rng.choice([1, 5])):
        a, b = (rng.randrange(max(1, len(data) - size)) for _ in range(2))
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return data


def _repeat(data: bytearray, rng: random.Random) -> bytearray:
    first, last = _range(data, rng, max(2, len(data) // 4))
    return data[:last] + data[first:]


def _insert(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    return data[:at] + bytearray(rng.randbytes(rng.choice([1, 100, 10_000]))) + data[at:]


def _append(data: bytearray, rng: random.Random) -> bytearray:
    return data + bytearray(rng.randbytes(rng.choice([1, 1000, 100_000])))


def _rubbish_end(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    return data[:at] + bytearray(rng.randbytes(len(data) - at))


def _boxes(data: bytearray, rng: random.Random) -> bytearray:
    """Change one number inside an MP4's tables; in other formats, in the first kilobytes."""
    names = [b"stts", b"ctts", b"stsz", b"stco", b"stsc", b"mdhd", b"mvhd", b"tkhd", b"stsd", b"elst", b"avcC", b"esds"]
    places = [at for name in names if (at := data.find(name)) >= 0]
    at = rng.choice(places) if places else rng.randrange(min(len(data), 4096))
    for _ in range(rng.choice([1, 2, 6])):
        place = min(len(data) - 1, at + rng.randrange(48))
        data[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return data
