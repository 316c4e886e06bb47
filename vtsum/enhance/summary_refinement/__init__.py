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
    plan_clips,
)
from vtsum.enhance.summary_refinement.dpp import greedy_map
from vtsum.enhance.summary_refinement.knapsack import select_shots
from vtsum.enhance.summary_refinement.repeats import discount_repeats
from vtsum.enhance.summary_refinement.sampling import sample_kdpp
from vtsum.enhance.summary_refinement.smoothing import smooth_scores

__all__ = [
    "LEAST_LIMIT",
    "LIMIT_SHARE",
    "MIN_CLIP",
    "MOST_LIMIT",
    "NEW_CLIP",
    "Budget",
    "Clip",
    "best_window",
    "discount_repeats",
    "greedy_map",
    "parse_budget",
    "plan_clips",
    "sample_kdpp",
    "select_shots",
    "smooth_scores",
]
