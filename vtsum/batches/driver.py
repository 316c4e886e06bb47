"""The summaries of many videos: which are to be made, by whom, and what became of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from vtsum.batches.executors import check_executor, executor_of
from vtsum.batches.inputs import find_videos, lists_among, place
from vtsum.batches.ledger import Ledger
from vtsum.batches.results import Job, Result
from vtsum.batches.summaries import Summaries
from vtsum.batches.tables import check_table, write_table
from vtsum.errors import VTSumError
from vtsum.files import check_inputs, check_no_links, plain
from vtsum.summary.declaring import declared, taken, with_options
from vtsum.summary.naming import fields_of, filled, parted
from vtsum.summary.options import Options
from vtsum.summary.staging import check_output, sweep
from vtsum.video.incoming import Address

BatchProgress = Callable[[int, int, list[str]], None]
"""progress(done, total, names of the videos at work)."""


@dataclass
class BatchReport:
    """What became of each video, in the order in which they ended; those of runs before first."""

    results: list[Result] = field(default_factory=list)

    def of(self, status: str) -> list[Result]:
        """Those that were "done", "failed", "skipped" or "planned"."""
        return [result for result in self.results if result.status == status]


@with_options(Options)
def batch(
    inputs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    workers: int = 1,
    limit: float | None = None,
    executor: str = "local",
    gpus_per_worker: float = 0.0,
    table: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: BatchProgress | None = None,
    **options: Unpack[Options],
) -> BatchReport:
    """Summarise many videos, each into a folder of its own in `output`.

    A video that cannot be summarised does not keep the others from it. A run that was stopped, in whatever way, can be
    started again and goes on: what is done is not done again, what failed is tried again.

    Args:
        inputs: files, folders, patterns and "@FILE" lists (`vtsum.batches.inputs.find_videos`).
        output: the folder, in which batch.jsonl says what is done; in a text {budget} and {date} stand for what they
            are (`vtsum.summarize`), and the last part of it may be a template of the summaries' names: out/{stem}_30s.
        workers (int): processes, each with a model of its own.
        limit (float | None): seconds that one video may take.
        executor: "local", or "ray": the workers are actors of the Ray cluster of RAY_ADDRESS, or without one of one on
            this machine; the videos and `output` have the same paths on all its machines.
        gpus_per_worker (float): of a GPU, or GPUs, for each of Ray's actors.
        table: a Parquet file for what became of each video (`vtsum.batches.tables.write_table`); an older one is
            replaced, another file only with `overwrite`.
        progress: told how many have ended, of how many, and which are at work.
        dry_run (bool): only say what would be done, in results that are "planned"; nothing is watched or written.
        overwrite (bool): replace summaries in the folder that this batch did not make, and any file that is `table`.
        options: of `vtsum.summarize`, for all of them, but those that are of one video; a model by its name.
    Returns:
        BatchReport: what became of each.
    Raises:
        VTSumError: an input names nothing, the folder cannot be used, or an option is wrong.
    """
    check_executor("batch", executor, workers, limit, gpus_per_worker)
    asked = _asked(options)
    videos = find_videos(inputs, "batch")
    place_of, names = parted(output)
    fields = fields_of(asked["budget"])
    folder = Path(os.path.abspath(filled(place_of, fields, "batch")))
    filled(names, {**fields, "stem": "video"}, "batch")
    lists = lists_among(inputs)
    check_inputs("batch", folder, videos)
    check_table("batch", table, [*videos, *lists], overwrite)
    report = BatchReport()
    with Ledger(folder, dry=dry_run) as ledger:
        jobs = _jobs(videos, folder, ledger, lambda stem: str(filled(names, {**fields, "stem": stem}, "batch")))
        left = []
        for job in jobs:
            if ledger.is_done(job):
                if not dry_run and ledger.is_made(job):  # by a process that was killed before it could say so
                    ledger.end(job, Result(job.source, job.output, "done"))
                report.results.append(Result(job.source, job.output, "skipped"))
            elif (why := _in_the_way(job, overwrite, lists)) is not None:
                report.results.append(Result(job.source, job.output, "failed", why))
            elif dry_run:
                report.results.append(Result(job.source, job.output, "planned"))
            else:
                left.append(job)
        known = [] if dry_run else [job.output for job in jobs if ledger.name_of(job.key) is not None]
        sweep(known)
        running: list[str] = []
        tell = progress or (lambda done, total, names: None)
        tell(len(report.results), len(jobs), running)
        work = Summaries({**asked, "overwrite": overwrite})
        workplace = executor_of("batch", executor, workers, limit, gpus_per_worker, ledger.path)
        with closing(workplace.run(left, work)) as events:
            for job, result in events:
                if result is None:
                    ledger.begin(job)
                    running.append(job.source.name)
                else:
                    if ledger.is_made(job):
                        result = result.made()
                    ledger.end(job, result)
                    running.remove(job.source.name)
                    report.results.append(result)
                tell(len(report.results), len(jobs), running)
        if table is not None and not dry_run:
            write_table("batch", table, report.results)
        sweep(known)  # older summaries that were to be replaced by what was made only now
    return report


def _asked(options: Options) -> dict[str, Any]:
    """The options, checked: a mistake is told once, not for each video."""
    for name, option in declared(Options).items():
        if option.alone and options.get(name) is not None:
            raise VTSumError(f"batch: {name} must be left out, it is of one video; give it to vtsum summarize")
    return taken(Options, options, "batch")


def _jobs(videos: Sequence[Path | Address], folder: Path, ledger: Ledger, name: Callable[[str], str]) -> list[Job]:
    known: dict[Path | Address, str] = {}
    for video in videos:
        try:
            before = ledger.name_of(Job(video, folder).key)
        except OSError as error:
            raise VTSumError(f"batch: {plain(str(video))}: cannot be read: {error.strerror}") from None
        if before is not None:
            known[video] = before
    return [Job(video, place) for video, place in place(videos, folder, known, name).items()]


def _in_the_way(job: Job, overwrite: bool, lists: Sequence[Path]) -> str | None:
    """Why a summary cannot go to its folder, where something lies there that this batch did not make."""
    try:
        check_no_links("batch", job.output)  # a stranger's folder may lead to an older summary elsewhere
        check_output(job.output, overwrite, [job.source, *lists])
    except VTSumError as error:
        return str(error)
    return None
