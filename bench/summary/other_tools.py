"""The whole job beside those of other tools on the same file: time, and how much is left to watch.

    python -m bench.summary.other_tools [--scenedetect PYTHON] [--auto-editor PYTHON] [--minutes 10] [--repeats 2]

A tool is taken from a Python environment of its own: `pip install scenedetect opencv-python-headless`; `pip install
--no-deps auto-editor==23.32.1 ae-ffmpeg` and `pip install av pillow 'numpy<2'` (newer ones are no Python programs and
fetch a binary). FFmpeg must be installed; both use it. The video is the drawn one of bench.summary.summarize. Each
measurement is a process of its own, the tools in turn; its children count. One JSON line for each tool goes to
results/other_tools.jsonl.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

from bench.kit.command import keep, parser
from bench.kit.record import machine, quantiles
from bench.summary.summarize import SIZE, make_video, run

VTSUM = ("-m", "vtsum.cli", "summarize")


def commands(video: str, own: str, scenedetect: str | None, auto_editor: str | None) -> dict[str, list[str]]:
    """The words of each job, by what it does; {out} stands for its folder."""
    found = {
        "VTSum: summary, page, text": [own, *VTSUM, video, "-o", "{out}/s", "--quiet"],
        "VTSum, not listening or reading": [own, *VTSUM, video, "-o", "{out}/s", "--quiet", "--no-speech", "--no-ocr"],
    }
    if scenedetect is not None:
        cuts = [scenedetect, "-m", "scenedetect", "--quiet", "-i", video, "-o", "{out}", "detect-adaptive"]
        found["PySceneDetect: cuts and pictures"] = [*cuts, "list-scenes", "save-images"]
        found["PySceneDetect: cuts, every shot a file"] = [*cuts, "split-video"]
    if auto_editor is not None:
        edit = [auto_editor, "-m", "auto_editor", video, "--no-open", "--ffmpeg-location", shutil.which("ffmpeg") or ""]
        for rule in ("audio", "motion"):
            name = {"audio": "silence", "motion": "stillness"}[rule]
            found[f"auto-editor: without {name}"] = [*edit, "--edit", rule, "-o", "{out}/out.mp4"]
    return found


def seconds_of(video: Path) -> float:
    with av.open(str(video)) as container:
        return float((container.duration or 0) / av.time_base)


def seconds_in(folder: Path) -> float:
    """The length of all videos in a folder."""
    return sum(seconds_of(path) for path in folder.rglob("*.mp4"))


def measured(video: Path, jobs: dict[str, list[str]], repeats: int) -> Iterator[dict[str, Any]]:
    """One record for each job."""
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, words in jobs.items():
            with tempfile.TemporaryDirectory() as out:
                # Its peak memory is not kept: Linux counts the process that started it, where that one's was higher.
                wall, cpu, _, _ = run([word.replace("{out}", out) for word in words])
                runs[name].append((wall, cpu, seconds_in(Path(out))))
    for name, found in runs.items():
        walls, cpus, lengths = zip(*found, strict=True)
        yield {
            "job": name,
            "video": video.name,
            "shape": {"width": SIZE[0], "height": SIZE[1], "seconds": round(seconds_of(video), 1)},
            "repeats": repeats,
            "job_s": quantiles(list(walls)),
            "cpu_s": quantiles(list(cpus)),
            "made_s": round(max(lengths), 1),
        }


def version(python: str | None, package: str) -> str | None:
    """A package's version in an environment."""
    words = ["-c", f"from importlib.metadata import version as v; print(v({package!r}))"]
    return None if python is None else run([python, *words])[3].strip()


def main() -> None:
    given = parser(__doc__, "other_tools")
    given.add_argument("--scenedetect", metavar="PYTHON", help="a Python that has PySceneDetect")
    given.add_argument("--auto-editor", metavar="PYTHON", help="a Python that has auto-editor")
    given.add_argument("--minutes", type=int, default=10)
    given.add_argument("--repeats", type=int, default=2)
    options: Any = given.parse_args()
    others = {
        "scenedetect": version(options.scenedetect, "scenedetect"),
        "auto-editor": version(options.auto_editor, "auto-editor"),
    }
    with tempfile.TemporaryDirectory() as temporary:
        video = make_video(Path(temporary), options.minutes)
        jobs = commands(str(video), sys.executable, options.scenedetect, options.auto_editor)
        facts = {"op": "other_tools", "tools": others, **machine()}
        keep(options.results, facts, measured(video, jobs, options.repeats))


if __name__ == "__main__":
    main()
