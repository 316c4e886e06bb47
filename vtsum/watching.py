"""Watching a video once: sample its frames, encode them, keep their features and saliency."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vtsum.enhance.event_segmentation import CutFinder
from vtsum.errors import VTSumError
from vtsum.progress import ProgressCallback

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from vtsum.model import Summarizer
    from vtsum.video import FrameSampler, VideoInfo

BATCH = 32  # frames encoded at once


@dataclass(frozen=True)
class Watched:
    """What is kept of a video after it was watched once."""

    features: np.ndarray  # [T, C] float32
    event_features: np.ndarray  # [T, C'] float32: those columns of it that tell events apart
    saliency: np.ndarray  # [T] float32, 0..1
    duration: float
    broken_at: float | None
    warnings: list[str]
    cuts: CutFinder


def load_model(model: str | os.PathLike[str] | Summarizer) -> Summarizer:
    if not isinstance(model, str | os.PathLike):
        return model
    from vtsum.model import load

    return load(os.fspath(model))


def watch(
    source: Path, info: VideoInfo, model: str | os.PathLike[str] | Summarizer, fps: float, tell: ProgressCallback
) -> tuple[Summarizer, Watched]:
    """Sample and encode in one pass: frames come from a thread of their own, so that both cores have work."""
    from vtsum.video import FrameSampler

    tell("read", 0.0)
    loaded = load_model(model)
    size = (loaded.image_size, loaded.image_size)
    whole = max(info.duration, 1e-3)
    cuts = CutFinder()

    def note(time: float, frame: VideoFrame) -> None:
        if frame.format.components and frame.format.components[0].bits == 8 and frame.planes:
            plane = frame.planes[0]
            cuts.see(time, memoryview(plane), plane.line_size, plane.width, plane.height)

    sampler = FrameSampler(
        source,
        fps=fps,
        size=size,
        on_progress=lambda done: tell("read", min(done / whole, 0.99)),
        on_picture=note,
    )
    features = [loaded.encode(batch) for batch in _batches(sampler)]
    encoded = np.concatenate(features) if features else np.zeros((0, 1), np.float32)
    if not len(encoded):
        raise VTSumError(f"summarize: {source.name} must hold at least one picture that can be decoded, got none")
    saliency = np.clip(np.nan_to_num(loaded.saliency(encoded)), 0.0, 1.0)
    tell("read", 1.0)
    return loaded, Watched(
        encoded,
        loaded.event_features(encoded),
        saliency,
        sampler.duration,
        sampler.broken_at,
        list(sampler.warnings),
        cuts,
    )


def _batches(sampler: FrameSampler) -> Iterator[np.ndarray]:
    """Batches of frames, decoded ahead by another thread by at most two batches."""
    ahead: queue.Queue[list[np.ndarray] | BaseException | None] = queue.Queue(maxsize=2)
    stop = threading.Event()

    def put(item: list[np.ndarray] | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ahead.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def decode() -> None:
        try:
            batch: list[np.ndarray] = []
            for frame in sampler:
                batch.append(frame.image)
                if len(batch) == BATCH:
                    if not put(batch):
                        return
                    batch = []
            if batch:
                put(batch)
            put(None)
        except BaseException as error:  # handed to the thread that waits for frames
            put(error)

    worker = threading.Thread(target=decode, name="vtsum-decode", daemon=True)
    worker.start()
    try:
        while True:
            item = ahead.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield np.stack(item)
    finally:
        stop.set()
        worker.join(timeout=5.0)
