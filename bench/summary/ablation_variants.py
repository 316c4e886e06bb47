"""The pipelines that the ablation compares, and the record of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bench.summary.refinement_tvsum import mean_and_error
from vtsum.enhance.event_segmentation import METHOD
from vtsum.summary.planning import Refine
from vtsum.summary.watching import Sampler

DRAWS = 5  # of random frame scores, as in vtsum.evaluation.baselines


@dataclass(frozen=True)
class Variant:
    """A pipeline. The defaults are those of `vtsum.summarize`; speech "known": pauses as they were planted."""

    name: str
    sampler: Sampler = "coverage"
    segmenter: str = METHOD
    refine: Refine = "dpp"
    smooth: bool = True
    speech: Literal["heard", "known", "off"] = "heard"
    random: bool = False  # saliency is drawn: what the figures are worth


BASE = Variant("everything on")
ALL_OFF = Variant("everything off", sampler="all", segmenter="uniform", refine="none", smooth=False, speech="off")
SAMPLING = (Variant("sampler all", sampler="all"), Variant("sampler uniform", sampler="uniform"))
SEGMENTING = (Variant("segmenter kts", segmenter="kts"), Variant("segmenter uniform", segmenter="uniform"))
REFINING = (Variant("refine knapsack", refine="knapsack"), Variant("refine none", refine="none"))
SMOOTHING_OFF = Variant("smoothing off", smooth=False)
SPEAKING = (Variant("speech off", speech="off"), Variant("speech known", speech="known"))
RANDOM = Variant("random saliency", random=True)

ON_TVSUM = {
    # Without a boundary head and pictures of the full rate, "joint" is KTS to the letter.
    "ridge": (BASE, *SAMPLING, SEGMENTING[1], *REFINING, SMOOTHING_OFF, ALL_OFF, RANDOM),
    "embedded": (BASE, *SAMPLING, *SEGMENTING, *REFINING, SMOOTHING_OFF, ALL_OFF, RANDOM),
}
ON_DRAWN = (BASE, *SAMPLING, *SEGMENTING, *REFINING, SMOOTHING_OFF, *SPEAKING, ALL_OFF, RANDOM)


def line(part: str, name: str, columns: Sequence[str], rows: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """Means over videos with their errors, and the paired differences to `base`; both [videos, columns]."""
    return {
        "part": part,
        "variant": name,
        "videos": len(rows),
        "values": {column: mean_and_error(rows[:, k]) for k, column in enumerate(columns)},
        "differences": {column: mean_and_error(rows[:, k] - base[:, k]) for k, column in enumerate(columns)},
    }
