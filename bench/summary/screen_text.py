"""How well words on the screen are read, and what that costs: writing drawn over real footage, and footage without any.

    python -m bench.summary.screen_text --shared DIR [--only drawn|plain|cost|chinese]

Ten typefaces in four heights of letters, each four seconds, over each of FOOTAGE, H.264 at 640 x 360; every third in a
colour near the picture's own, every fourth moving. A line is right if at most a fifth of its letters are wrong. Lines
go to results/screen_text.jsonl:

    drawn    by height, contrast and movement: lines found, wrong letters in them, and found lines that are none; the
             same of confirmed lines alone, those that may be quoted, and the share of right lines that are not
    plain    footage without writing: lines found, all of them wrong
    chinese  as drawn, of Chinese in five typefaces; only where it is asked for, and Debian's fonts-noto-cjk and
             fonts-wqy-zenhei are installed
    cost     ten drawn minutes with grain: seconds of processor time and memory of the whole job, with and without
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.kit.command import keep, parser
from bench.kit.record import machine
from bench.summary.summarize import make_video
from vtsum.enhance.screen_text import RapidReader, ScreenLine, ScreenText
from vtsum.enhance.speech.wer import distance

#: Name -> seconds of it that hold no writing.
FOOTAGE = {"big_buck_bunny_0_30.webm": 19.0, "flipping_a_pancake.mkv": 10.0, "skateboarding_dog.mp4": 14.0}
PLAIN = {**FOOTAGE, "chaplin.mp4": 9.0, "nasa_13013.mp4": 13.0}
SIZE, RATE, CRF = (640, 360), 25, 26
HEIGHTS = (0.04, 0.06, 0.09, 0.14)  # of the picture, of a typeface's em
EACH, PAUSE = 4.0, 1.0  # seconds
RIGHT = 0.2  # share of wrong letters
MINUTES = 10
SPEED = 15.0  # pixels a second
FONTS = (
    *("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf"),
    *("DejaVuSansMono.ttf", "STIXGeneral.ttf", "STIXGeneralBol.ttf", "cmr10.ttf", "cmtt10.ttf"),
)
TEXTS = (
    *(
        "Budget report 2026",
        "Jane Miller, astronomer",
        "Chapter 3: Results",
        "Add two cups of flour",
        "Harbour at dawn",
    ),
    *(
        "Live from Lisbon",
        "Subscribe for more",
        "The second experiment",
        "Turn left at the bridge",
        "Thank you for watching",
    ),
)


CHINESE_FONTS = (
    *(Path("/usr/share/fonts/opentype/noto", f"Noto{kind}CJK-{face}.ttc") for kind in ("Sans", "Serif")
      for face in ("Regular", "Bold")),
    Path("/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc"),
)  # fmt: skip
SIMPLIFIED = 2  # of the languages in Noto's files
CHINESE = (
    *("二零二六年预算报告", "天文学家王小明", "第三章：实验结果", "加入两杯面粉", "港口的清晨"),
    *("来自里斯本的直播", "订阅我们的频道", "第二次实验", "在桥边向左转", "感谢您的观看"),
)


@dataclass(frozen=True)
class Drawn:
    """A text over a clip, from `start` for EACH seconds."""

    text: str
    start: float
    height: float
    faint: bool
    moves: bool


def typefaces(em: int, chinese: bool) -> list[Any]:
    """One for each text."""
    import matplotlib
    from PIL import ImageFont

    if not chinese:
        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        return [ImageFont.truetype(str(folder / name), em) for name in FONTS]
    if missing := [path.name for path in CHINESE_FONTS if not path.exists()]:
        raise SystemExit(
            f"bench.summary.screen_text: {', '.join(missing)}: fonts-noto-cjk, fonts-wqy-zenhei are missing"
        )
    faces = [(path, SIMPLIFIED if "Noto" in path.name else 0) for path in CHINESE_FONTS]
    return [ImageFont.truetype(str(path), em, index=index) for path, index in faces] * 2


def draw(source: Path, path: Path, seconds: float, height: float, chinese: bool) -> list[Drawn]:
    """Footage over and over, with a text in each typeface."""
    import av
    from PIL import Image, ImageDraw

    em = round(height * SIZE[1])
    fonts = typefaces(em, chinese)
    texts = CHINESE if chinese else TEXTS
    drawn = [Drawn(text, i * (EACH + PAUSE) + PAUSE, height, i % 3 == 2, i % 4 == 3) for i, text in enumerate(texts)]
    end = drawn[-1].start + EACH + PAUSE
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"crf": str(CRF), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number, picture in enumerate(_endless(source, seconds)):
            time = number / RATE
            if time >= end:
                break
            image = Image.fromarray(picture)
            for i, one in enumerate(drawn):
                if one.start <= time < one.start + EACH:
                    at = (30 + (SPEED * (time - one.start) if one.moves else 0), 40 + 27 * i)
                    under = picture[int(at[1]) : int(at[1]) + em, 30:300].reshape(-1, 3).mean(0)
                    bright = under.mean() < 128
                    ink = under + (1 if bright else -1) * 70 if one.faint else [255 * bright] * 3
                    colour = tuple(int(min(max(c, 0), 255)) for c in ink)
                    ImageDraw.Draw(image).text(at, one.text, font=fonts[i], fill=colour)
            frame = av.VideoFrame.from_image(image)
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return drawn


def _endless(source: Path, seconds: float) -> Iterator[Any]:
    """Pictures of the first `seconds`, forward and backward, so that no cut is added."""
    import av

    with av.open(str(source)) as container:
        pictures = []
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= seconds:
                break
            pictures.append(frame.reformat(*SIZE, "rgb24").to_ndarray())
    while True:
        yield from pictures
        yield from pictures[-2:0:-1]


def lines_in(path: Path, reader: RapidReader) -> tuple[list[ScreenLine], int, float]:
    """The lines of a video, how many parts of pictures were read, and its length."""
    from vtsum.video import FrameSampler

    screen = ScreenText(reader)
    sampler = FrameSampler(path, fps=1.0, size=(32, 32), on_picture=screen.see)
    for _ in sampler:
        pass
    return screen.lines(sampler.duration), screen.read, sampler.duration


def wrong(found: str, true: str) -> float:
    """The share of wrong letters, by the least number of changes; spaces and case count."""
    return distance(true, found) / len(true)


def mean(shares: list[float]) -> float | None:
    """None of none."""
    return sum(shares) / len(shares) if shares else None


def bench_drawn(folder: Path, media: Path, reader: RapidReader, chinese: bool = False) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[tuple[float | None, bool]]] = defaultdict(list)
    false: list[ScreenLine] = []
    total, confirmed, reads, length = 0, 0, 0, 0.0
    for name, seconds in FOOTAGE.items():
        for height in HEIGHTS:
            path = folder / f"{Path(name).stem}_{height}.mp4"
            drawn = draw(media / name, path, seconds, height, chinese)
            lines, count, duration = lines_in(path, reader)
            reads, length, total = reads + count, length + duration, total + len(lines)
            confirmed += sum(line.confirmed for line in lines)
            matched = set()
            for one in drawn:
                near = [line for line in lines if line.start < one.start + EACH + 1 and line.end > one.start - 1]
                best = min(near, key=lambda line: wrong(line.text, one.text), default=None)
                rate = None if best is None else wrong(best.text, one.text)
                if rate is not None and rate <= RIGHT:
                    matched.add(id(best))
                else:
                    rate = None
                kinds = [("height", f"{100 * height:.0f}%"), ("contrast", "low" if one.faint else "high")]
                for kind in [*kinds, ("writing", "moving" if one.moves else "still"), ("all", "all")]:
                    groups[kind].append((rate, best is not None and best.confirmed))
            false += [line for line in lines if id(line) not in matched]
    rows: list[dict[str, Any]] = []
    for (by, value), lines_read in groups.items():
        right = [rate for rate, _ in lines_read if rate is not None]
        sure = [rate for rate, twice in lines_read if rate is not None and twice]
        row = {"found": len(right) / len(lines_read), "wrong": mean(right)}
        row |= {"confirmed": len(sure) / len(lines_read), "confirmed_wrong": mean(sure)}
        row["lost"] = mean([float(not twice) for rate, twice in lines_read if rate == 0])
        shares = {name: None if share is None else round(share, 4) for name, share in row.items()}
        rows.append({"case": "drawn", "by": by, "of": value, "lines": len(lines_read), **shares})
    whole = next(row for row in rows if row["by"] == "all")
    precision = round(1 - len(false) / max(total, 1), 4)
    if chinese:
        rows, whole["by"], whole["of"] = [whole], "script", "Chinese"
    sure_false = [line.text for line in false if line.confirmed]
    whole |= {"false": [line.text for line in false], "precision": precision, "confirmed_false": sure_false}
    whole["confirmed_precision"] = round(1 - len(sure_false) / max(confirmed, 1), 4)
    whole["reads_a_minute"] = round(60 * reads / length, 2)
    return rows


def bench_plain(media: Path, reader: RapidReader, folder: Path) -> dict[str, Any]:
    import av

    lines, seconds, reads = [], 0.0, 0
    for name, until in PLAIN.items():
        path = folder / f"plain_{Path(name).stem}.mp4"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=RATE, options={"crf": str(CRF), "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            for number, picture in enumerate(_endless(media / name, until)):
                if number >= 40 * RATE:
                    break
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = number
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        found, count, duration = lines_in(path, reader)
        lines += [line.text for line in found]
        seconds, reads = seconds + duration, reads + count
    return {"case": "plain", "videos": len(PLAIN), "seconds": round(seconds, 1), "lines": lines, "reads": reads}


def bench_cost(folder: Path) -> dict[str, Any]:
    path = make_video(folder, MINUTES)
    found: dict[str, list[float]] = {}
    for option in ("--no-ocr", "--ocr"):
        command = [sys.executable, "-m", "vtsum.cli", "summarize", str(path), "-o", str(folder / option), "-q"]
        process = subprocess.Popen([*command, "--no-speech", option], stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"bench.summary.screen_text: {' '.join(command)} ended with {status}")
        found[option[2:].replace("-", "_")] = [round(used.ru_utime + used.ru_stime, 2), used.ru_maxrss // 1024]
    share = 1 - found["no_ocr"][0] / found["ocr"][0]
    return {"case": "cost", "minutes": MINUTES, "seconds_and_mib": found, "share": round(share, 4)}


def main() -> None:
    given = parser(__doc__, "screen_text", shared=True)
    given.add_argument("--only", choices=("drawn", "plain", "cost", "chinese"))
    options = given.parse_args()
    reader = RapidReader()
    media = options.shared / "media"
    facts = {"op": "screen_text", "reader": reader.name, **machine(("rapidocr", "onnxruntime", "av"))}
    with tempfile.TemporaryDirectory() as folder:
        cases: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "drawn": lambda: bench_drawn(Path(folder), media, reader),
            "plain": lambda: [bench_plain(media, reader, Path(folder))],
            "cost": lambda: [bench_cost(Path(folder))],
        }
        if options.only == "chinese":
            keep(options.results, facts, bench_drawn(Path(folder), media, reader, chinese=True))
            return
        for case in [options.only] if options.only else cases:
            keep(options.results, facts, cases[case]())


if __name__ == "__main__":
    main()
