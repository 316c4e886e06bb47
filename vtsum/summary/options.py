"""The options of a summary, each declared once: for `summarize`, `recut` and `batch`, as functions and commands.

What `Choice` holds is decided anew by `recut`; the rest of `Options` before a video is watched. A value is checked by
`taken` wherever it comes from; what a command line gives is text, which Python may give, too.
"""

# No `from __future__ import annotations` here: the declarations are read without the types they name, some of which
# are in heavy modules.
from typing import TYPE_CHECKING, Annotated, TypedDict

from vtsum.summary.declaring import Option
from vtsum.summary.values import (
    FORMATS,
    OneOf,
    a_budget,
    a_fade,
    a_limit,
    a_loudness,
    a_margin,
    a_shape,
    a_topic,
    known_encoder,
    known_formats,
    known_segmenter,
    number_in,
    or_none,
    seconds_of,
    seconds_or_none,
    stretches,
    whole_or_none,
    words_or_none,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from vtsum.enhance.summary_refinement import Budget
    from vtsum.model import Summarizer
    from vtsum.summary.by_hand import Range

GROUPS = ("What is shown", "What is seen", "What is heard", "What is written", "The files", "The run")
SHOWN, SEEN, HEARD, WRITTEN, FILES, RUN = GROUPS


class Choice(TypedDict, total=False):
    """What a summary shows, and as what: another one of the same video may have it otherwise."""

    budget: Annotated[
        "str | Budget | None",
        Option(
            "15%",
            SHOWN,
            "Of the summary: 15%, 30s, 2min, 1:30, or 12frames (sampled frames, see --fps).",
            "LENGTH",
            a_budget,
        ),
    ]
    about: Annotated[
        "str | None",
        Option(
            None,
            SHOWN,
            "Prefer what tells of this, by the words heard and read, and by pictures with a CLIP: 'the harvest'.",
            "TEXT",
            a_topic,
        ),
    ]
    keep: Annotated[
        "str | Sequence[str | Range] | None",
        Option(
            (),
            SHOWN,
            "Stretches that the summary shows whole: 0:10-0:20; several by commas.",
            "TIMES",
            stretches,
            many=True,
        ),
    ]
    drop: Annotated[
        "str | Sequence[str | Range] | None",
        Option((), SHOWN, "Stretches of which it shows nothing.", "TIMES", stretches, many=True),
    ]
    margin: Annotated[
        "str | float | Sequence[float] | None",
        Option(
            (0.0, 0.0),
            SHOWN,
            "Seconds added before and after each chosen piece, within the budget: 0.2,0.5, or one number for both.",
            "BEFORE,AFTER",
            a_margin,
            shown="none",
        ),
    ]
    min_shot: Annotated[
        "str | float | None",
        Option(
            None,
            SHOWN,
            "Seconds that a shot and a piece of it last at least. [default: shots 0.5, pieces 1]",
            "SECONDS",
            seconds_or_none,
        ),
    ]
    segmenter: Annotated[
        "str | None",
        Option(
            "joint",
            SHOWN,
            "What finds the events: joint, kts, learned, cuts, uniform or module:Class.",
            take=known_segmenter,
        ),
    ]
    refine: Annotated[
        "str | None",
        Option(
            "dpp",
            SHOWN,
            "What chooses among the shots: dpp, knapsack or none.",
            take=OneOf("dpp", "knapsack", "none"),
        ),
    ]
    title: Annotated[
        "str | None",
        Option(
            None,
            WRITTEN,
            "What the summary is called: on the page, in summary.txt and in the metadata of summary.mp4.",
            "TEXT",
            words_or_none,
            alone=True,
            shown="found in the video",
        ),
    ]
    formats: Annotated[
        "Sequence[str] | None",
        Option(
            FORMATS,
            FILES,
            f"{', '.join(FORMATS)} (for recut); edl, otio, fcpxml, csv, srt, vtt, chapters, ffmetadata, youtube; "
            "several by commas.",
            "NAMES",
            known_formats,
            names=("--format", "-f"),
            many=True,
            shown="the first six",
        ),
    ]
    fade: Annotated[
        "str | float | None",
        Option(
            0.005,
            FILES,
            "Seconds of fade at each cut of the sound, against clicks; 0: none.",
            "SECONDS",
            a_fade,
        ),
    ]
    loudness: Annotated[
        "str | float | None",
        Option(
            None,
            FILES,
            "Bring the sound of all pieces to one loudness in LUFS (EBU R 128): -16, -23.",
            "LUFS",
            a_loudness,
            shown="as it is",
        ),
    ]
    encoder: Annotated[
        "str | None",
        Option("libx264", FILES, "What encodes summary.mp4: libx264, libx265 or libsvtav1.", take=known_encoder),
    ]
    crf: Annotated[
        "str | int | None",
        Option(None, FILES, "Its quality, the lower the better. [default: 23, 28 and 35]", "NUMBER", whole_or_none),
    ]
    preset: Annotated[
        "str | None",
        Option(None, FILES, "Its speed: ultrafast to placebo, or 13 to 0. [default: superfast, superfast and 8]"),
    ]
    stream_copy: Annotated[
        "bool | None",
        Option(
            False,
            FILES,
            "Cut at key frames without encoding: quick, and every picture as it was, but the edges of pieces move.",
            switch="--stream-copy/--no-stream-copy",
        ),
    ]
    crop: Annotated[
        "str | None",
        Option(
            None,
            FILES,
            "Show a part of the pictures, of this width to height, that follows what is salient: 9:16, 1:1.",
            "W:H",
            a_shape,
            shown="all of them",
        ),
    ]
    tracks: Annotated[
        "str | None",
        Option(
            "best",
            FILES,
            "Tracks of the video kept in summary.mp4: best (of its sound), or all of its sound and subtitles.",
            take=OneOf("best", "all"),
        ),
    ]
    clock: Annotated[
        "str | None",
        Option(
            "summary",
            FILES,
            "Times of subtitles and chapters in these: summary (of summary.mp4) or source (the video).",
            take=OneOf("summary", "source"),
        ),
    ]


class Options(Choice, total=False):
    """All options of `summarize`."""

    start: Annotated[
        "str | float",
        Option(
            0.0,
            SEEN,
            "Where the part of the video begins that is summarised; nothing else is watched.",
            "TIME",
            seconds_of,
            shown="the start",
            names=("--from",),
        ),
    ]
    end: Annotated[
        "str | float | None",
        Option(None, SEEN, "Where it ends.", "TIME", seconds_or_none, shown="the end", names=("--to",)),
    ]

    model: Annotated[
        "str | os.PathLike[str] | Summarizer",
        Option(
            "embedded",
            SEEN,
            "The model: embedded (shipped with vtsum), another's name, a folder, or module:Class.",
            "NAME|PATH",
        ),
    ]
    fps: Annotated[float, Option(1.0, SEEN, "Frames looked at per second of video.", "NUMBER", number_in(1e-4, 30))]
    sampler: Annotated[
        str,
        Option(
            "coverage",
            SEEN,
            "Frames that the encoder sees: coverage, uniform or all.",
            take=OneOf("coverage", "uniform", "all"),
        ),
    ]
    speech: Annotated[
        "str | None",
        Option(
            "auto",
            HEARD,
            "Who listens: auto (the best Whisper at hand), carried (tiny.en), whisper:NAME_OR_FOLDER, "
            "faster-whisper:NAME_OR_FOLDER or module:Class.",
            names=("--recogniser",),
            switch="--speech/--no-speech",
            switched="Listen to what is said.",
        ),
    ]
    transcript: Annotated[
        "str | os.PathLike[str] | None",
        Option(
            None,
            HEARD,
            "A transcript of yours, taken instead of listening: subtitles or plain text.",
            "FILE",
            alone=True,
        ),
    ]
    denoiser: Annotated[
        "str | None",
        Option(
            "embedded",
            HEARD,
            "What cleans the words heard: embedded, none, or a BART checkpoint's name or folder.",
            "NAME|PATH",
            or_none,
        ),
    ]
    speech_limit: Annotated[
        "str | float | None",
        Option(
            3600.0,
            HEARD,
            "How much voice is listened to, spread over the video: 60min, 90s, or all.",
            "LENGTH",
            a_limit,
            shown="60min",
        ),
    ]
    ocr: Annotated[bool, Option(True, SEEN, "Read what is written on the screen.", switch="--ocr/--no-ocr")]
    captioner: Annotated[
        str,
        Option(
            "auto",
            WRITTEN,
            "Who describes the pictures: auto (the model if it can, else the best in the hub's cache), blip, an "
            "image-text-to-text checkpoint's name or folder, module:Class, none, or embedded (for research).",
            "NAME|PATH",
        ),
    ]
    writer: Annotated[
        "str | None",
        Option(
            None,
            WRITTEN,
            "Who writes the text: none (extraction), an instruct checkpoint's name or folder, or module:Class.",
            "NAME|PATH",
            or_none,
            shown="none",
        ),
    ]
    offline_default: Annotated[bool, Option(False, RUN, "Take nothing from caches: the same summary on every machine.")]
    device: Annotated[str, Option("auto", RUN, "Where models compute: cpu, cuda, cuda:1, or auto (a GPU, if usable).")]
