"""The whole job against decoding the same file once, and its memory, for videos of 1, 10 and 60 minutes.

    python -m bench.summary.summarize [--minutes 1 10 60] [--repeats 3] [--model embedded] [--folder DIR]

Each measurement is a process of its own, decoding and job in turn. The job's time is that of the process: start of the
interpreter and imports count. Decoding is PyAV's plain loop, measured inside its process, once as PyAV does it by
default and once with all the threads that it can use. One JSON line for each length goes to results/summarize.jsonl.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.kit.command import keep, parser
from bench.kit.record import ROOT, machine, quantiles
from vtsum.files import written

SIZE, FPS = (640, 360), 30
BASE_SECONDS = 60
GRAIN = 5.0  # standard deviation of the grain, in levels of luma

DECODE = """
import sys, time
import av
began, cpu, frames = time.perf_counter(), time.process_time(), 0
with av.open(sys.argv[1]) as container:
    if sys.argv[2] != "default":
        container.streams.video[0].thread_type = sys.argv[2]
    for frame in container.decode(video=0):
        frames += 1
print(time.perf_counter() - began, time.process_time() - cpu, frames)
"""


def make_video(folder: Path, minutes: int) -> Path:
    """A video of that many minutes: one drawn minute, its packets copied over and over. Made once."""
    import av

    path = folder / f"bench_{SIZE[0]}x{SIZE[1]}_{minutes}min.mp4"
    if path.exists():
        return path
    base = folder / "bench_base.mp4"
    if not base.exists():
        make_base(base)
    with av.open(str(base)) as source:
        spans = [
            (p.dts * p.time_base, (p.dts + (p.duration or 0)) * p.time_base)
            for p in source.demux()
            if p.dts is not None
        ]
    # From the first block, which may lie before 0, to the end of the last: timestamps must not go back.
    step = float(max(end for _, end in spans) - min(begin for begin, _ in spans)) + 0.001
    with written(path) as part, av.open(str(part), "w", format="mp4") as target:
        targets: dict[int, Any] = {}
        for turn in range(minutes):
            with av.open(str(base)) as source:
                targets = targets or {s.index: target.add_stream_from_template(s) for s in source.streams}
                for packet in source.demux():
                    if packet.dts is None or packet.pts is None:
                        continue
                    shift = round(turn * step / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = targets[packet.stream.index]
                    target.mux(packet)
    return path


def make_base(path: Path) -> None:
    """A drawn minute of twelve scenes under film grain: about 1.2 Mbit/s, as web video of this size has."""
    from vtsum.recipes.procedural import EVENT_KINDS, Event, Scene, make_clip

    kinds = [EVENT_KINDS[i % len(EVENT_KINDS)] for i in range(12)]
    scenes = [Scene(BASE_SECONDS / 12, (Event(kind, 1.0, 2.5),)) for kind in kinds]
    with tempfile.TemporaryDirectory() as place:
        clean = Path(place) / "clean.mp4"
        make_clip(clean, scenes, fps=FPS, size=SIZE, seed=7, crf=18)
        add_grain(clean, path)


def add_grain(clean: Path, path: Path) -> None:
    """A clip under film grain, encoded anew; its sound as it is."""
    import av
    import numpy as np

    rng = np.random.default_rng(0)
    grains = rng.normal(0, GRAIN, (8, SIZE[1], SIZE[0])).astype(np.int16)
    with av.open(str(clean)) as source, written(path) as part, av.open(str(part), "w", format="mp4") as target:
        video = target.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        video.codec_context.options = {"preset": "veryfast", "crf": "24"}
        sound = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux():
            if packet.stream.type == "audio":
                if packet.dts is not None:
                    packet.stream = sound
                    target.mux(packet)
                continue
            for frame in source.streams.video[0].decode(packet):
                planes: Any = frame.to_ndarray(format="yuv420p")
                grain = grains[rng.integers(len(grains))]
                planes[: SIZE[1]] = np.clip(planes[: SIZE[1]] + grain, 16, 235)
                target.mux(video.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        target.mux(video.encode(None))


def environment() -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "kernels")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}


def run(words: list[str]) -> tuple[float, float, float, str]:
    """(wall seconds, CPU seconds, peak MiB, what it printed) of a process."""
    with tempfile.TemporaryFile() as printed:
        began = time.perf_counter()
        process = subprocess.Popen(words, env=environment(), stdout=printed)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"summarize: {' '.join(words[:6])} ended with {process.returncode}")
        printed.seek(0)
        return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, printed.read().decode()


def decode(video: Path, threads: str) -> tuple[float, float, int]:
    """(wall, CPU, frames) of PyAV's plain loop, measured inside its process."""
    wall, cpu, frames = run([sys.executable, "-c", DECODE, str(video), threads])[3].split()
    return float(wall), float(cpu), int(frames)


def summarize(video: Path, model: str) -> tuple[float, float, float, dict[str, Any]]:
    """(wall, CPU, peak MiB, summary.json) of the whole job, all formats; checks that the summary is right."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "vtsum.cli", "summarize", str(video), "-o", f"{folder}/out", "--model", model]
        wall, cpu, peak, printed = run([*words, "--json", "--quiet"])
        data = json.loads(printed)
        wanted = data["settings"]["budget_seconds"]
        _, _, frames = decode(Path(folder) / "out" / "summary.mp4", "default")
        if not 0.8 * wanted <= frames / data["source"]["fps"] <= wanted + 0.1:
            raise SystemExit(f"summarize: the summary has {frames} frames, wanted {wanted:.1f} s of {video.name}")
        return wall, cpu, peak, data


def measure(video: Path, minutes: int, model: str, repeats: int) -> dict[str, Any]:
    """One line of results."""
    plain, threaded, jobs, cpus, peaks = [], [], [], [], []
    decode_cpu = []
    data: dict[str, Any] = {}
    for _ in range(repeats):
        wall, cpu, _ = decode(video, "default")
        plain.append(wall)
        decode_cpu.append(cpu)
        threaded.append(decode(video, "AUTO")[0])
        wall, cpu, peak, data = summarize(video, model)
        jobs.append(wall)
        cpus.append(cpu)
        peaks.append(peak)
    return {
        "model": model,
        "weights": data["model"]["weights_sha256"][:16],
        "shape": {"minutes": minutes, "width": SIZE[0], "height": SIZE[1], "fps": FPS},
        "repeats": repeats,
        "job_s": quantiles(jobs),
        "decode_s": quantiles(plain),
        "decode_threaded_s": quantiles(threaded),
        "ratio": round(statistics.median(j / d for j, d in zip(jobs, plain, strict=True)), 3),
        "ratio_to_threaded": round(statistics.median(j / d for j, d in zip(jobs, threaded, strict=True)), 3),
        "job_cpu_s": quantiles(cpus),
        "decode_cpu_s": quantiles(decode_cpu),
        "peak_mib": round(max(peaks), 1),
        "stages_s": data["timings"],
        "summary_s": data["summary"]["duration"],
    }


def main() -> None:
    given = parser(__doc__, "summarize")
    given.add_argument("--minutes", type=int, nargs="+", default=[1, 10, 60])
    given.add_argument("--repeats", type=int, default=3)
    given.add_argument("--model", default="embedded")
    given.add_argument("--folder", type=Path, help="where the videos are kept, and found again; default: not kept")
    options = given.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        lines = (measure(make_video(folder, n), n, options.model, options.repeats) for n in options.minutes)
        keep(options.results, {"op": "summarize", **machine()}, lines)


if __name__ == "__main__":
    main()
