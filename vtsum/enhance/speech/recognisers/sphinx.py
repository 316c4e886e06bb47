"""PocketSphinx: English, on any machine, from its wheel, without a download.

Each stretch is one utterance for it: features normalised over the stretch, a beam search through an HMM with a trigram
language model, then the best path through the lattice of words, which also gives each word its posterior probability
(the confidence) and other readings. Several processes take stretches in turn; results come in order.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vtsum.enhance.speech.activity import LONGEST, Stretch
from vtsum.enhance.speech.sound import as_pcm
from vtsum.enhance.speech.transcript import Utterance, Word
from vtsum.errors import VTSumError

#: By speed: PocketSphinx's settings. What each costs and gets wrong: docs/speech.md.
SETTINGS: dict[str, dict[str, Any]] = {
    "fast": {"fwdflat": False, "topn": 2, "maxhmmpf": 5000},  # one pass, two Gaussians a frame, 5,000 HMMs at most
    "balanced": {"fwdflat": False, "ds": 2},  # one pass, the Gaussians of every other frame
    "accurate": {},  # two passes
}
READINGS = 5  # other readings of a stretch
_FRAME = 0.01  # seconds


class PocketSphinx:
    """PocketSphinx with its own English model, as a `Recogniser`.

    Args:
        speed (str): "fast", "balanced" or "accurate".
        processes (int | None): at most so many at once, some 120 MB each; None: one for each processor, up to 4.
    Raises:
        VTSumError: pocketsphinx is not installed.
        ValueError: another speed, or a number of processes under 1.
    """

    name = "pocketsphinx"
    language: str | None = "en"
    longest = LONGEST
    # Real clips with speech had 0.42 and more in the mean, nature and noise 0.33 and less; melodies up to 0.5, but not
    # one telling word.
    doubtful, understood, telling = 0.3, 0.4, 3

    def __init__(self, speed: str = "balanced", processes: int | None = None) -> None:
        if speed not in SETTINGS:
            raise ValueError(f"PocketSphinx: speed must be one of {', '.join(SETTINGS)}, got {speed!r}")
        if processes is not None and processes < 1:
            raise ValueError(f"PocketSphinx: processes must be at least 1, got {processes}")
        if importlib.util.find_spec("pocketsphinx") is None:
            raise VTSumError("PocketSphinx: pocketsphinx must be installed: pip install pocketsphinx")
        self.settings = {**SETTINGS[speed], "cmn": "batch", "readings": READINGS}
        self.processes = processes or min(os.cpu_count() or 1, 4)

    def recognise(self, stretches: Iterable[Stretch]) -> Iterator[Utterance]:
        """See `Recogniser`. Raises VTSumError if PocketSphinx's process ends or cannot load its model."""
        workers = _Workers(self.settings)
        waiting: deque[tuple[Stretch, Future[dict[str, Any]]]] = deque()
        try:
            with ThreadPoolExecutor(self.processes, thread_name_prefix="pocketsphinx") as pool:
                try:
                    for stretch in stretches:
                        sound = as_pcm(stretch.samples).astype("<i2").tobytes()
                        waiting.append((stretch, pool.submit(workers.ask, sound)))
                        while waiting and (len(waiting) > 2 * self.processes or waiting[0][1].done()):
                            yield from _utterance(*waiting.popleft())
                    while waiting:
                        yield from _utterance(*waiting.popleft())
                finally:
                    for _, future in waiting:
                        future.cancel()
                    workers.stop()  # before the pool waits for its threads: they may be reading from a process
        finally:
            workers.close()


def _utterance(stretch: Stretch, future: Future[dict[str, Any]]) -> Iterator[Utterance]:
    found = future.result()
    words = []
    for text, first, last, posterior in found["words"]:
        start = min(stretch.start + first * _FRAME, stretch.end)
        end = min(stretch.start + (last + 1) * _FRAME, stretch.end)
        words.append(Word(text, start, end, min(max(posterior, 0.0), 1.0)))
    if words:
        yield Utterance(tuple(words), tuple(tuple(other) for other in found["alternatives"]))


class _Workers:
    """Processes that are started when there is work for them, and lent to one thread at a time."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._all: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, sound: bytes) -> dict[str, Any]:
        worker = self._borrow()
        try:
            answer = worker.ask(sound)
        except VTSumError:
            with self._lock:
                self._all.remove(worker)
            worker.stop()
            worker.close()
            raise
        self._idle.put(worker)
        return answer

    def _borrow(self) -> _Worker:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        with self._lock:
            if self._closed:
                raise VTSumError("PocketSphinx: was stopped")
            # There are as many threads as processes, so whoever finds none idle may start one.
            self._all.append(_Worker(self._settings))
            return self._all[-1]

    def stop(self) -> None:
        """End all processes; whoever waits for an answer gets an error."""
        with self._lock:
            self._closed = True
            for worker in self._all:
                worker.stop()

    def close(self) -> None:
        """Close the pipes; when nobody reads from them any more."""
        for worker in self._all:
            worker.close()


class _Worker:
    """One PocketSphinx process."""

    def __init__(self, settings: dict[str, Any]) -> None:
        # -P: the folder of the script holds modules that must not stand in for packages of the same name.
        script = Path(__file__).with_name("sphinx_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._ready = False

    def ask(self, sound: bytes) -> dict[str, Any]:
        assert self._process.stdin is not None
        if not self._ready:
            self._answer()
            self._ready = True
        try:
            self._process.stdin.write(struct.pack("<I", len(sound) // 2) + sound)
            self._process.stdin.flush()
        except (OSError, ValueError):
            pass  # it has ended: the missing answer says so
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            raise VTSumError(f"PocketSphinx: its process ended with {self._process.wait()}") from None
        if "error" in answer:
            raise VTSumError(f"PocketSphinx: cannot load its model: {answer['error']}")
        return dict(answer)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what could not be written any more
                    pipe.close()
