"""Summary refinement: from shots and their scores to clips that fit a budget and do not repeat each other."""

from vtsum.enhance.summary_refinement.budget import Budget, parse_budget
from vtsum.enhance.summary_refinement.clips import (
    LEAST_LIMIT,
    LIMIT_SHARE,
    MIN_CLIP,
    MOST_LIMIT,
    NEW_CLIP,
    Clip,
    best_window,
    first_offers,
    plan_clips,
)
from vtsum.enhance.summary_refinement.cuts import align_to_shots, close_gaps, merge_short_shots, snap_to_pauses
from vtsum.enhance.summary_refinement.diverse import STRENGTH, likeness, novelty, select_diverse
from vtsum.enhance.summary_refinement.dpp import greedy_map
from vtsum.enhance.summary_refinement.knapsack import select_shots
from vtsum.enhance.summary_refinement.margins import overrun, with_margins
from vtsum.enhance.summary_refinement.repeats import discount_repeats
from vtsum.enhance.summary_refinement.sampling import sample_kdpp
from vtsum.enhance.summary_refinement.smoothing import smooth_scores

__all__ = [
    "LEAST_LIMIT",
    "LIMIT_SHARE",
    "MIN_CLIP",
    "MOST_LIMIT",
    "NEW_CLIP",
    "STRENGTH",
    "Budget",
    "Clip",
    "align_to_shots",
    "best_window",
    "close_gaps",
    "discount_repeats",
    "first_offers",
    "greedy_map",
    "likeness",
    "merge_short_shots",
    "novelty",
    "overrun",
    "parse_budget",
    "plan_clips",
    "sample_kdpp",
    "select_diverse",
    "select_shots",
    "smooth_scores",
    "snap_to_pauses",
    "with_margins",
]
