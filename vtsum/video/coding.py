"""How a cut is encoded: by which of libav's encoders, how well, how quickly, with which fades."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import av
from av.video.stream import VideoStream

from vtsum.errors import VTSumError

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
LONGEST_FADE = 0.2  # seconds


@dataclass(frozen=True)
class _Kind:
    """An encoder: what crf it takes and how much is usual, its presets and the usual one, its codec's tag in MP4,
    options, and those that make it give pictures in the order in which they are shown."""

    most: int
    crf: int
    presets: tuple[str, ...]
    preset: str
    tag: str | None
    options: dict[str, str]
    in_order: dict[str, str]


# Those of libav's encoders of MP4's codecs that take a crf. Macroblock-tree rate control costs x264's quickest presets
# little and halves their files; a lookahead in threads of its own would make its bytes vary from run to run. x265 and
# SVT-AV1 would write to the terminal.
ENCODERS = {
    "libx264": _Kind(
        51, 23, PRESETS, "superfast", None, {"x264-params": "mbtree=1:rc-lookahead=10:sync-lookahead=0"}, {"bf": "0"}
    ),
    "libx265": _Kind(51, 28, PRESETS, "superfast", "hvc1", {"x265-params": "log-level=none"}, {"bf": "0"}),
    "libsvtav1": _Kind(63, 35, tuple(map(str, range(14))), "8", None, {}, {"svtav1-params": "pred-struct=1"}),
}

_LISTINGS = 10  # of a process's threads, at most


@contextlib.contextmanager
def as_urgent_as_before() -> Iterator[None]:
    """Around the opening of an encoder. To a process of root's SVT-AV1 gives real-time priority over all else on the
    machine: to its own threads and to the one that opens it, from which all that is begun later inherits it."""
    if sys.platform != "linux":
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        seen: set[str] | None = None
        for _ in range(_LISTINGS):
            threads = set(os.listdir("/proc/self/task"))
            for thread in threads:
                with contextlib.suppress(OSError):  # it has ended
                    if os.sched_getscheduler(int(thread)) == os.SCHED_FIFO != policy:
                        os.sched_setscheduler(int(thread), policy, priority)
            if threads == seen:
                break
            seen = threads  # Linux ends the list at a thread that ends meanwhile, as one of the encoder's before


@dataclass(frozen=True)
class Coding:
    """How a cut is encoded.

    Attributes:
        encoder: one of ENCODERS. crf (int | None): its quality, the lower the better; None: the usual one.
        preset (str | None): its speed; None: a quick one. fade (float): seconds of fade at each cut of the sound.
    """

    encoder: str = "libx264"
    crf: int | None = None
    preset: str | None = None
    fade: float = 0.005

    def check(self, op: str) -> None:
        """Refuse what cannot be; `op` begins the message.

        Raises:
            VTSumError: an encoder that is not known, or that this libav lacks; a crf or preset that it does not take.
        """
        if self.encoder not in ENCODERS:
            raise VTSumError(f"{op}: encoder must be one of {', '.join(ENCODERS)}, got {self.encoder!r}")
        if self.encoder not in av.codecs_available:
            raise VTSumError(f"{op}: encoder must be one that this build of PyAV has, got {self.encoder!r}")
        kind = ENCODERS[self.encoder]
        if self.crf is not None and not 0 <= self.crf <= kind.most:
            raise VTSumError(f"{op}: crf must be 0 to {kind.most} for {self.encoder}, got {self.crf}")
        if self.preset is not None and self.preset not in kind.presets:
            known = ", ".join(kind.presets)
            raise VTSumError(f"{op}: preset must be one of {known} for {self.encoder}, got {self.preset!r}")
        if not (math.isfinite(self.fade) and 0 <= self.fade <= LONGEST_FADE):
            raise VTSumError(f"{op}: fade must be 0 to {LONGEST_FADE:g} s, got {self.fade:g}")

    @property
    def in_order(self) -> dict[str, str]:
        """Options with which pictures are decoded in the order in which they are shown."""
        return ENCODERS[self.encoder].in_order

    def set_up(self, stream: VideoStream) -> None:
        """Let a new stream be encoded so."""
        os.environ.setdefault("SVT_LOG", "1")  # errors alone
        kind = ENCODERS[self.encoder]
        crf = kind.crf if self.crf is None else self.crf
        stream.codec_context.options = {"crf": str(crf), "preset": self.preset or kind.preset, **kind.options}
        if kind.tag is not None:
            stream.codec_context.codec_tag = kind.tag
