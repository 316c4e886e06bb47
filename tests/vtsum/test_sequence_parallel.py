"""VTSum over the ranks of a group, each with a stretch of the videos: equal to one process, and no hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.once import once
from tests.vtsum.samples import ROOT
from tests.vtsum.sequence_parallel_ranks import CASES, MEMBERS, RANKS, SHARES

BOUND = {"torch.float32": 1e-5, "torch.float64": 1e-12}
IN_FLOAT32 = 1e-6
"""In float64 too the text's cross entropy is one of float32."""


def found_by(factory: pytest.TempPathFactory, program: str) -> list[dict[str, Any]]:
    """What each rank of a program found, which ran once."""

    def make(path: Path) -> None:
        folder = path.with_name(f"model_{program}")
        folder.mkdir()
        words = [sys.executable, "-m", "tests.vtsum.sequence_parallel_ranks", str(folder), program]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        run = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=540, check=False)
        # Of one that ended on purpose there is nothing.
        said = [folder / f"{rank}.json" for rank in range(RANKS)]
        assert run.returncode == 0, run.stderr[-4000:]
        path.write_text(json.dumps([json.loads(one.read_text()) if one.exists() else {} for one in said]))

    results: list[dict[str, Any]] = json.loads(once(factory, f"model_{program}.json", make).read_text())
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return found_by(tmp_path_factory, "all_of_it")


def check(found: dict[str, dict[str, float]], where: Any) -> None:
    for dtype, apart in found.items():
        # Losses, logits, frames, and the gradients of some sixty weights.
        assert len(apart) > 60
        for name, error in apart.items():
            of_text = name in ("loss", "loss_tsum") or name.startswith("gradient")
            bound = IN_FLOAT32 if dtype == "torch.float64" and of_text else BOUND[dtype]
            assert error <= bound, (where, dtype, name)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_all_gradients_are_those_of_one_process(ranks: list[dict[str, Any]], name: str) -> None:
    for n, members in MEMBERS.items():
        for shares in SHARES[n]:
            for rank in members:
                check(ranks[rank][f"{n} {shares} {name}"], (n, shares, rank))


def test_a_dimension_of_a_mesh_is_a_group(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        check(rank["mesh"], "mesh")


def test_words_are_dropped_alike_on_all_ranks(ranks: list[dict[str, Any]]) -> None:
    """Else each would attend with other queries, and what is merged would be nobody's."""
    for n, members in MEMBERS.items():
        found = [ranks[rank][f"{n} dropped"] for rank in members]
        assert all(one == found[0] for one in found)
        assert found[0]["finite"]
        assert len(set(found[0]["sums"])) == 3  # another draw at each pass


def test_sentences_are_written_from_the_frames_of_all_ranks(ranks: list[dict[str, Any]]) -> None:
    for n, members in MEMBERS.items():
        for rank in members:
            for found in ranks[rank][f"{n} sentences"].values():
                assert found["same"]
                assert found["saliency"] <= 1e-12


REFUSED = {
    "sentences": "ValueError: VTSum: tsum_labels must be the same on all ranks of the group, got ",
    "mask": "ValueError: VTSum: mask (given or not) must be the same on all ranks of the group, got 0 on its",
    "training": "ValueError: VTSum: training must be the same on all ranks of the group, got 0 on its rank 0 and 1 on",
    "nothing": "VTSumError: VTSum: video_embeddings must have frames on some rank of the group, got none on any",
    "packed": "VTSumError: VTSum: cu_seqlens must be None with a group, whose ranks hold padded videos, got some",
    "own loss": "VTSumError: VTSum: group must be None with a loss of one's own, which sees a stretch alone, got one",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_ranks_cannot_do_is_refused_on_all_of_them(ranks: list[dict[str, Any]], what: str) -> None:
    said = [ranks[rank]["refusals"][what] for rank in MEMBERS[2]]
    assert said[0] == said[1]
    assert said[0].startswith(REFUSED[what])


def test_groups_that_share_frames_train_as_one_process_does(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two groups of two ranks, each with videos of its own and two passes a step."""
    for found in found_by(tmp_path_factory, "trained"):
        assert found["losses"] <= 1e-6
        assert found["norms"] <= 1e-5
        # AdamW takes the sign of a gradient that is nought but for rounding.
        assert found["weights"] <= 1e-4
        assert found["flags"] == [[RANKS * 1.0]] * 2
        assert 0 < found["bfloat16"] < 3e-3
        assert found["moved"] > 1e-3  # the first step did something


def test_a_lost_rank_is_named_and_nobody_waits_for_ever(tmp_path_factory: pytest.TempPathFactory) -> None:
    ranks = found_by(tmp_path_factory, "lost")
    for rank in (0, 2, 3):
        assert f"rank 1 must make the same calls as rank {rank}" in ranks[rank]["gone"]
    assert "VTSum: rank 2 must make the same calls as rank 0, which waited for its options" in ranks[0]["silent"]
    assert 3 < float(ranks[0]["seconds"]) < 60
