"""Features of many videos, in one folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vtsum.batches.executors import check_executor, executor_of
from vtsum.batches.inputs import find_videos
from vtsum.batches.local import InThisProcess, LocalExecutor
from vtsum.batches.ray_cluster import RayExecutor
from vtsum.batches.results import Hopeless, Job
from vtsum.data.feature_files import check_id, feature_file
from vtsum.data.features import ExtractProgress, FeatureFolder, encode_video
from vtsum.devices import device_of, memory_told
from vtsum.errors import VTSumError
from vtsum.files import check_inputs
from vtsum.video.incoming import Address

if TYPE_CHECKING:
    from vtsum.protocols import FrameEncoder

_SMALLER = "take a smaller batch_size"


@dataclass
class ExtractReport:
    """What became of each video.

    Attributes:
        done, skipped (list[str]): ids; skipped ones were there already. failed (dict[str, str]): path -> why.
        notes (dict[str, list[str]]): id -> what was passed over in a video that is damaged but could be read.
        frames (int): encoded in this run. dim (int): C.
    """

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    frames: int = 0
    dim: int = 0


@memory_told("extract", _SMALLER)
def extract(
    videos: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    encoder: str = "embedded",
    fps: float = 1.0,
    device: str = "auto",
    batch_size: int = 32,
    workers: int = 1,
    limit: float | None = None,
    executor: str = "local",
    gpus_per_worker: float = 0.0,
    progress: ExtractProgress | None = None,
) -> ExtractReport:
    """Encode the frames of videos, each decoded once in a fixed amount of memory.

    Videos that are there already are left alone: a run that was stopped can be started again, and several may fill
    one folder. A video that cannot be read does not keep the others from being done.

    Args:
        videos: files, folders, patterns and "@FILE" lists (`vtsum.batches.inputs.find_videos`), but no addresses.
        output: the folder. encoder (str): see load_frame_encoder.
        fps (float): frames a second, at times 0, 1 / fps, 2 / fps, ... device: where the encoder runs; "auto": a GPU
        where there is one, else the CPU.
        batch_size (int): frames encoded at once.
        workers (int): processes, each with an encoder of its own. limit (float | None): seconds that one video may
            take. With one worker and no limit all is done in this process, whose progress counts frames, too.
        executor, gpus_per_worker: as `vtsum.batch` has them.
    Raises:
        VTSumError: no video is named, or two have one id; the encoder cannot be had, or is another one than the
            folder's; the folder cannot be written to, or holds an input or files of other origin under the videos'
            names.
    """
    if not 1e-4 <= fps <= 1000:
        raise VTSumError(f"extract: fps must be 0.0001 to 1000, got {fps}")
    if not 1 <= batch_size <= 1 << 20:
        raise VTSumError(f"extract: batch_size must be 1 to {1 << 20}, got {batch_size}")
    check_executor("extract", executor, workers, limit, gpus_per_worker)
    tell = progress or _silent
    found = by_id(files_among(find_videos(videos, "extract")))
    check_inputs("extract", output, [*found.values(), encoder, encoder.partition("@")[2]])  # timm:NAME@FILE
    features = Features(Path(os.path.abspath(os.fspath(output))), encoder, fps, device, batch_size)
    network = features.load()
    report = ExtractReport(dim=network.dim)
    for video, source in list(found.items()):
        try:
            check_id(video, f"extract: {source}: its name without its ending")
        except VTSumError as error:
            report.failed[str(source)] = str(error)
            del found[video]
    folder = FeatureFolder(features.folder, network, fps)
    folder.check(found)
    folder.sweep()
    jobs = []
    for video, source in found.items():
        if folder.has(video, source):
            report.skipped.append(video)
        else:
            jobs.append(Job(source, feature_file(features.folder, video)))
    workplace: InThisProcess | LocalExecutor | RayExecutor = InThisProcess()
    if executor != "local" or workers > 1 or limit is not None:
        del network  # each process has its own
        workplace = executor_of("extract", executor, workers, limit, gpus_per_worker, None)
    else:
        features = replace(features, network=network, tell=tell)
    ended = len(report.skipped)
    tell("videos", ended, len(found), "")
    with closing(workplace.run(jobs, features)) as events:
        for job, result in events:
            if result is None:
                continue
            ended += 1
            tell("videos", ended, len(found), "")
            if result.lost and folder.has(job.source.stem, Path(job.source)):
                result = result.made()
            if result.status == "failed":
                named = str(result.reason)
                report.failed[str(job.source)] = named if job.source.name in named else f"{job.source}: {named}"
                continue
            report.done.append(job.source.stem)
            if result.notes:
                report.notes[job.source.stem] = list(result.notes)
    report.frames = folder.frames_of(report.done)
    return report


def files_among(videos: Iterable[Path | Address]) -> list[Path]:
    """Videos on this machine.

    Raises:
        VTSumError: one is on the web.
    """
    files = []
    for video in videos:
        if isinstance(video, Address):
            raise VTSumError(f"extract: {video} must be a file on this machine, got an address; download it first")
        files.append(video)
    return files


def by_id(paths: Iterable[Path]) -> dict[str, Path]:
    """Videos by their names without endings.

    Raises:
        VTSumError: two have one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(path.stem, path)
        if not os.path.samefile(other, path):
            raise VTSumError(f"extract: videos must have names of their own, got {other} and {path}")
    return found


def _silent(stage: str, done: int, total: int, name: str) -> None:
    pass


@dataclass(frozen=True)
class Features:
    """The features of each video, as `extract` makes them; network, tell: at hand in this process only."""

    folder: Path
    encoder: str
    fps: float
    device: str
    batch_size: int
    network: FrameEncoder | None = None
    tell: ExtractProgress = _silent

    def load(self) -> FrameEncoder:
        from vtsum.model.encoders import load_frame_encoder

        return load_frame_encoder(self.encoder, device_of(self.device, "extract"))

    def begin(self, threads: int | None) -> Callable[[Job], tuple[str, ...]]:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        network = self.network or self.load()
        folder = FeatureFolder(self.folder, network, self.fps)

        @memory_told("extract", _SMALLER, Hopeless)
        def do(job: Job) -> tuple[str, ...]:
            source = Path(job.source)
            values, duration, notes = encode_video(source, network, self.fps, self.batch_size, self.tell)
            try:
                folder.add(source.stem, source, values, duration)
            except VTSumError as error:
                raise Hopeless(str(error)) from None
            return tuple(notes)

        return do

    def sweep(self, job: Job) -> None:
        """Nothing: a process that is asked to end removes what it has half-written, and the next run what one that was
        killed has."""
