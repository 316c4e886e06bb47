"""Listening to a video beside watching it: what is said, found in a thread of its own."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from vtsum.devices import memory_told
from vtsum.enhance.speech.transcript import Transcript, Utterance
from vtsum.errors import Stopped, VTSumError
from vtsum.reuse import reused
from vtsum.summary.progress import ProgressCallback
from vtsum.threads import import_whole
from vtsum.video.part import WHOLE, Part

if TYPE_CHECKING:
    from vtsum.enhance.speech.transcribe import Denoiser
    from vtsum.video import VideoInfo

RECOGNISER, CARRIED = "auto", "carried"  # the default, and the same on every machine
DENOISER = "embedded"
_PATIENCE = 2.0  # seconds that a thread nobody waits for any more is given to tidy up
_AT_LEAST, _A_SECOND = 1000, 25  # words that a video may have; ten times what is said, in two languages at once
LIMIT = 3600.0  # seconds of voice that are listened to: Whisper's tiny.en takes some two minutes of two cores for them


class Listening:
    """What is said in a video, found while the `with` block goes on; leaving it in a hurry stops the search.

    Args:
        source: the file. info: what `probe` found of it.
        speech (str | None): the recogniser's name (`vtsum.enhance.speech.make_recogniser`); None: nobody listens.
        transcript: the user's own, a file; it is taken as it is, without listening.
        denoiser (str | None): "embedded", a sequence-to-sequence checkpoint's name or folder, or None.
        limit (float | None): at most so many seconds of voice are listened to.
        device (str): where recogniser and denoiser run.
        tell: told ("listen", fraction).
        part: start and end in seconds of what is listened to; None: the end.
    """

    def __init__(
        self,
        source: Path,
        info: VideoInfo,
        speech: str | None,
        transcript: str | os.PathLike[str] | None,
        denoiser: str | None,
        limit: float | None,
        device: str,
        tell: ProgressCallback,
        part: Part = WHOLE,
    ) -> None:
        self._source, self._info = source, info
        self._speech, self._transcript, self._denoiser = speech, transcript, denoiser
        self._limit, self._device, self._tell = limit, device, tell
        self._part = part
        self._stop = threading.Event()
        self._job: Future[Transcript] | None = None
        # A daemon: what does not look at `_stop`, as a long transcript is read, must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="vtsum-listen", daemon=True)

    def __enter__(self) -> Listening:
        wanted = self._speech is not None or self._transcript is not None
        if wanted and {self._speech, self._denoiser} - {RECOGNISER, CARRIED, DENOISER, None}:
            # A model of transformers listens: two threads that import it at the same time each find half of it.
            from vtsum_kernels.integrations import torchvision_free

            torchvision_free.prepare()
            from transformers import AutoTokenizer  # noqa: F401
        if self._transcript is not None:  # a wrong one is told before the video is watched
            from vtsum.enhance.speech.subtitles import read_transcript

            found = read_transcript(self._transcript, duration=1.0, rate=25.0)  # times not stated are found later
            stated = self._info.stated_duration
            # Words of plain text all lie in that second; how long they may take, a wrong statement must not decide.
            if stated is not None and any(word.end > 1.0 for word in found.words):
                self._check_count(within(found, stated, self._part), stated)
        if wanted:
            self._job = Future()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._job is not None:
            self._thread.join(timeout=_PATIENCE)

    def said(self, duration: float) -> Transcript | None:
        """What was said in the video's first `duration` seconds; None where nobody was to listen.

        A recogniser that cannot go on leaves an empty transcript with a warning: the video can be summarised without.

        Raises:
            VTSumError: the user's own transcript, or a recogniser or denoiser asked for by another name than the
                default's, cannot be had.
        """
        if self._job is None:
            return None
        try:
            found = self._job.result()
        except VTSumError as error:
            asked = self._speech not in (RECOGNISER, CARRIED) or self._denoiser not in (DENOISER, None)
            if self._transcript is not None or asked:
                raise
            return Transcript((), "none", None, (f"what is said was not listened to: {error}",))
        found = within(found, duration, self._part)
        if (told := self._check_count(found, duration)) is None:
            return found
        return Transcript((), "none", None, (*found.warnings, f"the words of the video were left out: {told}"))

    def _check_count(self, found: Transcript, duration: float) -> str | None:
        """None where so many words can be said in that time, else what is to be told of them.

        Raises:
            VTSumError: they are more, and of the user's own transcript.
        """
        count, seconds = len(found.words), min(self._part[1] or duration, duration) - self._part[0]
        if count <= _AT_LEAST + _A_SECOND * seconds:
            return None
        told = f"{count:,} words in {seconds:.0f} s, more than anybody can say"
        if self._transcript is not None:
            raise VTSumError(f"summarize: transcript must be of the video, got {told}")
        return told

    def _run(self) -> None:
        assert self._job is not None
        try:
            with memory_told("listening", "take a smaller --recogniser or --denoiser"):
                self._job.set_result(self._listen())
        except BaseException as error:  # handed to the thread that waits for the words
            self._job.set_exception(error)

    def _listen(self) -> Transcript:
        import_whole("vtsum.model")
        from vtsum.enhance.speech.transcribe import transcribe

        self._tell("listen", 0.0)
        found = transcribe(
            self._source,
            recogniser=self._speech if self._info.has_audio else None,
            transcript=self._transcript,
            denoiser=_denoiser(self._denoiser, self._device),
            limit=self._limit,
            device=self._device,
            progress=self._note,
            part=self._part,
        )
        self._tell("listen", 1.0)
        return found

    def _note(self, done: float) -> None:
        if self._stop.is_set():
            raise Stopped
        self._tell("listen", min(done, 0.99))


def _denoiser(name: str | None, device: str) -> Denoiser | None:
    if name is None:
        return None
    if name == DENOISER:
        from vtsum.enhance.speech.denoise import denoise

        return denoise
    from vtsum.enhance.speech.denoise_seq2seq import Seq2SeqDenoiser

    return reused(Seq2SeqDenoiser)(name, device=device)


def within(transcript: Transcript, duration: float, part: Part = WHOLE) -> Transcript:
    """The words that begin in a part of a video of `duration` seconds, none of them ending later; a warning tells of
    those past the video's end."""
    kept = []
    start, until = part
    late = 0 if until is not None else sum(word.start >= duration for word in transcript.words)
    for utterance in transcript.utterances:
        words = [replace(w, end=min(w.end, duration)) for w in utterance.words if start <= w.start < duration]
        if words:
            kept.append(Utterance(tuple(words)))
    if late:
        told = "1 word" if late == 1 else f"{late} words"
        warning = f"{told} past the end of the video ({duration:.0f} s) were left out"
        transcript = replace(transcript, warnings=(*transcript.warnings, warning))
    return replace(
        transcript, utterances=tuple(kept), unheard=tuple(u for u in transcript.unheard if start <= u[0] < duration)
    )
