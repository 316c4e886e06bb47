"""Pages that tests of the page share: of a short clip with speech, and of a document of three hours."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import av
import numpy as np

import vtsum
from tests.vtsum.fakes import ColourModel
from vtsum.summary import report, schema

HOURS = 10800  # seconds
SRT = """1
00:00:00,200 --> 00:00:01,700
Small red balls bounce about here.

2
00:00:04,200 --> 00:00:05,700
Then coloured stripes come past.

3
00:00:08,300 --> 00:00:09,800
Stars burst at last.
"""


def short_page(clip: Path, folder: Path) -> None:
    """`folder`/o holds a summary of `folder`/small.mp4, which lies beside it; two of its three scenes are shown."""
    folder.mkdir()
    source = Path(shutil.copy(clip, folder / "small.mp4"))
    (folder / "small.srt").write_text(SRT, encoding="utf-8")
    vtsum.summarize(
        source,
        folder / "o",
        budget="4s",
        model=ColourModel(),
        captioner="none",
        transcript=folder / "small.srt",
        drop="4-8",
        ocr=False,
    )


def made_video(path: Path, seconds: int, every: int) -> None:
    """A small video with a picture every so many seconds."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "20"}
        for second in range(0, seconds, every):
            frame = av.VideoFrame.from_ndarray(np.full((36, 64, 3), second // every % 200, np.uint8), "rgb24")
            frame.pts = second
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def hours_document(short: schema.SummaryDocument) -> schema.SummaryDocument:
    """A valid document of three hours: 900 shots, of which every sixth is shown for 10.8 s (15%), twelve chapters,
    2,400 sentences said."""
    data = copy.deepcopy(short)
    step, clip = HOURS / 900, 10.8
    data["source"] |= {"name": "hours.mp4", "duration": float(HOURS)}
    data["summary"] |= {"duration": 150 * clip, "share": 0.15}
    data["settings"] |= {"keep": [], "drop": [], "budget": "15%", "budget_seconds": 0.15 * HOURS}
    shot = next(shot for shot in data["shots"] if shot["clip"])
    data["shots"] = []
    for i in range(900):
        start, part = i * step, i // 6
        shown: schema.ClipEntry | None = None
        if i % 6 == 0:
            shown = {
                **shot["clip"],
                "start": start,
                "end": start + clip,
                "summary_start": part * clip,
                "summary_end": (part + 1) * clip,
                "keyframe_time": start + 1,
                "keyframe": f"keyframes/shot_{i:04}.jpg",
            }
        data["shots"].append(
            {
                **shot,
                "index": i,
                "start": start,
                "end": start + step,
                "rank": i + 1,
                "chosen": bool(shown),
                "clip": shown,
            }
        )
    data["frames"] |= {
        "time": [float(t) for t in range(HOURS)],
        "saliency": [round(0.5 + 0.4 * float(np.sin(t / 97)), 4) for t in range(HOURS)],
        "boundary": None,
    }
    data["chapters"] = [
        {"start": 900.0 * i, "title": f"Chapter {i + 1} of a long talk", "origin": "heard"} for i in range(12)
    ]
    said = []
    for i in range(2400):
        words = f"This is sentence {i} of the talk".split()
        at = [4.5 * i + 0.5 * n for n in range(len(words) + 1)]
        entries = [
            {"text": w, "start": a, "end": b, "confidence": 1.0} for w, a, b in zip(words, at, at[1:], strict=False)
        ]
        said.append({"start": at[0], "end": at[-1], "words": entries})
    data["speech"] = {"source": "subtitles", "language": "en", "utterances": said, "warnings": []}
    data["text"] = [
        {**short["text"][0], "origin": "heard", "text": f"This is sentence {i} of the talk", "shots": [],
         "times": [{"start": 4.5 * i, "end": 4.5 * i + 3.5}]} for i in (0, 700, 1500)]  # fmt: skip
    return schema.validate(data)


def hours_page(short: schema.SummaryDocument, folder: Path) -> None:
    """`folder`/report.html is the page of the document of three hours; its original lies beside."""
    folder.mkdir()
    made_video(folder / "hours.mp4", HOURS, 5)
    made_video(folder / "summary.mp4", 1620, 1)
    data = hours_document(short)
    data["source"]["size_bytes"] = (folder / "hours.mp4").stat().st_size
    from PIL import Image

    Image.new("RGB", (64, 36), (90, 120, 150)).save(folder / "one.jpg")
    picture = (folder / "one.jpg").read_bytes()
    pictures = {shot["index"]: picture for shot in data["shots"] if shot["clip"]}
    page = report.render(data, (folder / "summary.mp4").read_bytes(), pictures)
    (folder / "report.html").write_text(page, encoding="utf-8")
