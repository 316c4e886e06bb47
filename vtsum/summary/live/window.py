"""The last minutes of a stream: the frames whose shots are not settled yet, with a context before them.

A window holds at most FRAMES sampled frames, as many as the shipped model has positions for, and is looked at like one
video: its saliency, its event boundaries, its shots. When it is full, the shots that end CONTEXT frames before its own
end are settled and leave it; CONTEXT frames of them stay as context. So up to FRAMES frames nothing differs from a
whole video, and behind that a frame's saliency is what it is within some minutes, with at least CONTEXT frames on
either side.

A model whose attention is local, and whose saliency is its head's alone, needs no window for it: what its own windows
need is carried over (`vtsum.model.streaming`), and each frame's saliency is that of the whole stream, as long as that
depends on no more than CONTEXT frames that follow.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vtsum.enhance.event_segmentation import PictureChanges
from vtsum.enhance.summary_refinement import smooth_scores
from vtsum.errors import VTSumError
from vtsum.reading import whole_numbers
from vtsum.summary.live.shots import Shot, Store
from vtsum.summary.planning import SHORTEST_SHOT, find_runs, most_telling
from vtsum.summary.watching import SMOOTHING

if TYPE_CHECKING:
    from vtsum.model import Summarizer
    from vtsum.model.streaming import LocalStream

FRAMES = 512
CONTEXT = 64
MOST_FPS = 2.0  # frames a second: a shot lasts a minute at most, and several have to fit into the window
_BEFORE = 5.0  # seconds of changes that are kept before the context: cuts are judged by what is around them


class Window:
    """Frames in, settled shots out.

    Args:
        model: that encodes and weighs. fps: sampled frames a second. rate: ticks a second. segmenter: what finds the
            shots. memory: the rule by which settled frames are written to the model's memory bank, a copy of it; None:
            it stays as it was trained.
    Attributes:
        count (int): frames that came. first (int): the number of the first frame of the window. settled (int): frames
            whose shots are settled; from there on pictures are kept. begin (int): the tick at which they end.
    Raises:
        VTSumError: a model that has no bank to write to.
    """

    def __init__(
        self, model: Summarizer, *, fps: float, rate: float, segmenter: str, memory: str | None = None
    ) -> None:
        self._fps, self._rate, self._segmenter, self._memory = fps, rate, segmenter, memory
        self.model = model
        self.changes = PictureChanges()
        self.count = self.first = self.settled = self.begin = 0
        self._features: list[np.ndarray] = []  # of each frame from `first` on
        self._pictures: list[bytes] = []  # of each frame from `settled` on
        self.local: LocalStream | None = None
        self._noted = -1.0  # seconds
        self._known: list[float] = []  # saliency of frames from `first` on, as `local` gave it
        self._set_up()

    def _set_up(self) -> None:
        from vtsum.model.streaming import LocalStream, check_rule, is_local
        from vtsum.model.summarizer import VTSumSummarizer

        if not isinstance(self.model, VTSumSummarizer):
            if self._memory is not None:
                raise VTSumError(f"stream: memory must be None for a model without a memory bank, got {self._memory!r}")
            return
        check_rule(self.model.model, self._memory)
        if self._memory is not None:  # what is written to is not the caller's
            own = copy.copy(self.model)
            own.model = copy.deepcopy(self.model.model)
            self.model = own
        if self.model.ridge is None and is_local(self.model.model):
            local = LocalStream(self.model.model, self._memory)
            self.local = local if local.lag <= CONTEXT else None

    def see(self, features: np.ndarray, picture: bytes, seen: Sequence[tuple[float, np.ndarray]]) -> None:
        """Take the next sampled frame.

        Args:
            features: float32 [C], as the model encodes it. picture: a JPEG. seen: time and `PictureChanges.small` of
                each picture that was decoded since the frame before.
        """
        self.note(seen)
        self._features.append(features)
        self._pictures.append(picture)
        if self.local is not None:
            self._known += _probabilities(self.local.see(features[None]))
        self.count += 1

    def note(self, seen: Sequence[tuple[float, np.ndarray]]) -> None:
        """Take pictures as `see` does, without a frame behind them; those that were taken before are passed over."""
        for time, small in seen:
            if time > self._noted:
                self.changes.note(time, small)
                self._noted = time

    @property
    def is_full(self) -> bool:
        """Whether shots are to be settled before another frame comes."""
        return len(self._features) >= FRAMES

    def shots(self, end: float | None = None) -> tuple[list[Shot], np.ndarray, float]:
        """The shots that are not settled, up to `end` seconds (None: as long as the last frame's turn lasts), and the
        sum of their frames' unit features [C], and of their squares."""
        return self._found(self.count / self._fps if end is None else end, None)

    def settle(self) -> tuple[list[Shot], np.ndarray, float]:
        """Let the shots go that end CONTEXT frames before the window does; what `shots` gives, of those."""
        features, before = np.stack(self._features), self.settled
        found = self._found(self.count / self._fps, self.count - CONTEXT)
        if self._memory is not None and self.local is None:
            from vtsum.model.streaming import write_banks

            write_banks(
                self.model.model,  # type: ignore[attr-defined]  # what has a bank has this
                features,
                before - self.first,
                self.settled - self.first,
                self._memory,
            )
        gone = max(self.settled - CONTEXT - self.first, 0)
        del self._features[:gone], self._known[:gone], self._pictures[: self.settled - before]
        self.first += gone
        self.changes.forget(self.first / self._fps - _BEFORE)
        return found

    def _found(self, end: float, until: int | None) -> tuple[list[Shot], np.ndarray, float]:
        """The shots, all of them, or those that end at frame `until` or before, which are then settled."""
        open_from = self.settled - self.first
        if len(self._features) == open_from:
            return [], np.zeros(1), 0.0
        features = np.stack(self._features)
        saliency = self._saliency(features)[open_from:]
        boundaries = self.model.boundaries(features)
        events = self.model.event_features(features)[open_from:]
        runs = find_runs(
            events,
            self.changes,
            self._fps,
            self._rate,
            segmenter=self._segmenter,
            boundary_scores=None if boundaries is None else boundaries[open_from:],
            first=self.settled,
            begin=self.begin,
            end=max(round(end * self._rate), self.begin + 1),
            shortest=max(1, round(SHORTEST_SHOT * self._rate)),
        )
        frames = list(zip(runs.frames, runs.means, strict=True))
        if until is not None:
            frames = [(part, mean) for part, mean in frames if self.settled + part[1] <= until] or frames[:1]
        shots = []
        for (a, b), mean in frames:
            edges, own = runs.edges[a : b + 1], saliency[a:b]
            start, stop = edges[0] / self._rate, edges[-1] / self._rate
            best = a + most_telling(events[a:b], own, mean)
            change = self.changes.liveliness(start, stop)
            shots.append(Shot(edges, own, mean, change, int(runs.edges[best]), self._pictures[best]))
        rows = events[: frames[-1][0][1]].astype(np.float64)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        if until is not None:
            self.settled += frames[-1][0][1]
            self.begin = shots[-1].span[1]
        return shots, rows.sum(axis=0), float((rows**2).sum())

    def _saliency(self, features: np.ndarray) -> np.ndarray:
        from vtsum.model.frame_encoder import check_finite

        if self.local is None:
            found = self.model.saliency(features)
        else:
            found = np.array([*self._known, *_probabilities(self.local.rest())], np.float32)
        check_finite(found, "saliency", self.model.name, "stream")
        return smooth_scores(np.clip(found, 0.0, 1.0), "gaussian", SMOOTHING).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """All that is carried over, as arrays; `restore` goes on from there."""
        pictures = [np.frombuffer(picture, np.uint8) for picture in self._pictures]
        found = {
            "window": np.array([self.count, self.first, self.settled, self.begin], np.int64),
            "features": np.stack(self._features) if self._features else np.zeros((0, 1), np.float32),
            "noted": np.array([self._noted]),
            "known": np.array(self._known, np.float64),
            "pictures": np.concatenate([np.zeros(0, np.uint8), *pictures]),
            "picture_sizes": np.array([len(picture) for picture in pictures], np.int64),
            "recent": self.changes.recent(),
            **{f"changes_{name}": value for name, value in self.changes.state().items()},
        }
        if self.local is not None:
            found |= {f"local_{name}": value for name, value in self.local.state().items()}
        if self._memory is not None:
            for number, bank in enumerate(self.model.model.banks()):  # type: ignore[attr-defined]
                found[f"bank{number}"] = bank.memory.detach().cpu().numpy()
                found[f"bank{number}_counts"] = bank.counts.cpu().numpy()
        return found

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` gave.

        Raises:
            ValueError, KeyError: it is something else, or of another model.
        """
        import torch

        count, first, settled, begin = whole_numbers(state, "window", 4)
        if state["noted"].shape != (1,) or not np.isfinite(state["noted"]).all():
            raise ValueError("noted must be one finite number")
        noted = float(state["noted"][0])
        features, known, sizes = state["features"], state["known"], state["picture_sizes"]
        if not (0 <= first <= settled <= count and begin >= 0 and count - first <= FRAMES):
            raise ValueError(f"window must be of numbers that fit each other, got {[count, first, settled, begin]}")
        if features.ndim != 2 or len(features) != count - first or not np.isfinite(features).all():
            raise ValueError(f"features must be {count - first} finite rows, got shape {list(features.shape)}")
        if known.ndim != 1:
            raise ValueError(f"known must be a row, got shape {list(known.shape)}")
        changes = PictureChanges.of_state(
            {name.removeprefix("changes_"): value for name, value in state.items() if name.startswith("changes_")}
        )
        changes.go_on(state["recent"])
        if self.local is not None:
            local = {name.removeprefix("local_"): v for name, v in state.items() if name.startswith("local_")}
            if (at := whole_numbers(local, "counts", 4))[0] != count or at[1] - first != len(known):
                raise ValueError("the model's own windows must have come as far as the frames")
            if not ((known >= 0) & (known <= 1)).all():
                raise ValueError("known must lie in 0..1")
            self.local.restore(local)
        if self._memory is not None:
            with torch.inference_mode():
                for number, bank in enumerate(self.model.model.banks()):  # type: ignore[attr-defined]
                    slots, counts = state[f"bank{number}"], state[f"bank{number}_counts"]
                    if slots.shape != tuple(bank.memory.shape) or counts.shape != tuple(bank.counts.shape):
                        raise ValueError(f"bank {number} must be of shape {list(bank.memory.shape)}")
                    bank.memory.copy_(torch.from_numpy(slots.copy()))
                    bank.counts.copy_(torch.from_numpy(counts.copy()))
            self.model.model.fold_()  # type: ignore[attr-defined]
        self.count, self.first, self.settled, self.begin = count, first, settled, begin
        self._features, self._known = [row.copy() for row in features], known.tolist()
        self._pictures = pieces(state["pictures"], sizes, count - settled)
        self.changes, self._noted = changes, noted

    def check_widths(self, store: Store) -> None:
        """Whether what `restore` and `store_of` read has as many numbers a frame as this model makes.

        Raises:
            ValueError: it is of another one.
        """
        from vtsum.model.frame_encoder import encoded

        size = self.model.image_size
        of_one = encoded(self.model, np.zeros((1, size, size, 3), np.uint8), "stream")
        features, events = of_one.shape[1], self.model.event_features(of_one).shape[1]
        if any(row.shape != (features,) for row in self._features):
            raise ValueError(f"features must be rows of {features} numbers, got {len(self._features[0])}")
        sums = [shot.mean for shot in store.shots]
        sums += [] if store.totals.rows is None else [store.totals.rows]
        if any(row.shape != (events,) for row in sums):
            raise ValueError(f"means and rows must be of {events} numbers")


def pieces(data: np.ndarray, sizes: np.ndarray, count: int) -> list[bytes]:
    """`count` pictures of these sizes, out of the bytes of all.

    Raises:
        ValueError: they do not fit.
    """
    if data.dtype != np.uint8 or data.ndim != 1 or sizes.shape != (count,) or (sizes < 1).any():
        raise ValueError(f"pictures must be {count} of a size each")
    if int(sizes.sum()) != len(data):
        raise ValueError(f"pictures must have {int(sizes.sum())} bytes, got {len(data)}")
    ends = np.cumsum(sizes)
    return [data[end - size : end].tobytes() for end, size in zip(ends.tolist(), sizes.tolist(), strict=True)]


def _probabilities(logits: np.ndarray) -> list[float]:
    return list((1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).tolist())
