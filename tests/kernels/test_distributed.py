"""Sliding-window attention over several processes: equal to one, and no hang where one is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from hypothesis import given
from hypothesis import strategies as st
from vtsum_kernels import distributed
from vtsum_kernels.distributed.plan import Window, plan

from tests.kernels import sequence_parallel
from tests.kernels.comparisons import RMS_BOUND
from tests.kernels.sequence_parallel_cases import CASES, DISAGREEMENTS, FRAMES, MEMBERS, SHARES
from tests.once import once

BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-5}


def found_by(factory: pytest.TempPathFactory, program: str, ranks: int) -> list[dict[str, Any]]:
    """What each rank of a program found, which ran once."""

    def make(path: Path) -> None:
        results = sequence_parallel.launch(path.with_name(f"{program}_ranks"), program, ranks)
        path.write_text(json.dumps(results))

    results: list[dict[str, Any]] = json.loads(once(factory, program, make).read_text())
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return found_by(tmp_path_factory, "all_of_it", 4)


@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients_are_those_of_one_process(ranks: list[dict[str, Any]], name: str) -> None:
    dtype = CASES[name].get("dtype", torch.float64)
    bound = BOUNDS.get(dtype) or RMS_BOUND[dtype]
    for n, members in MEMBERS.items():
        for shares in SHARES[n]:
            for rank in members:
                compared = ranks[rank][f"{n} {shares} {name}"]
                assert len(compared) >= 5 or (dtype.itemsize == 2 and 0 in shares), (n, shares, rank)
                for what, error in compared.items():
                    if what.endswith("a share"):
                        assert not error or shares[0] == FRAMES, "a rank's own rows alone have the whole gradient"
                    else:
                        assert error <= bound, (n, shares, rank, what)


def test_dropout_keeps_the_weights_that_one_process_keeps(ranks: list[dict[str, Any]]) -> None:
    for n, members in MEMBERS.items():
        for shares in SHARES[n]:
            kept = [ranks[rank][f"{n} {shares} kept"] for rank in members]
            assert sum(one["different"] for one in kept) == 0
            assert sum(one["kept"] for one in kept) == kept[0]["of"] > 100


def test_the_module_s_parameters_have_the_gradients_of_one_process(ranks: list[dict[str, Any]]) -> None:
    for n, members in MEMBERS.items():
        for shares in SHARES[n]:
            for rank in members:
                apart = ranks[rank][f"{n} {shares} module"]
                assert len(apart) == 7
                assert max(apart.values()) <= 1e-12, (n, shares, rank, apart)


def test_a_bank_is_used_over_all_ranks_as_in_one_process(ranks: list[dict[str, Any]]) -> None:
    for n, members in MEMBERS.items():
        for shares in SHARES[n]:
            for rank in members:
                apart = dict(ranks[rank][f"{n} {shares} bank"])
                assert (apart.pop("alone") > 0.01) == (shares[0] < FRAMES or rank > 0)
                assert max(apart.values()) <= 1e-12


@pytest.mark.parametrize("heads", ["3 False", "5 True", "1 True"])
def test_attention_to_all_frames_is_that_of_one_process(ranks: list[dict[str, Any]], heads: str) -> None:
    """Also with fewer heads than ranks, and with heads that do not divide by them."""
    for n, members in MEMBERS.items():
        for shares in SHARES[n]:
            for place, rank in enumerate(members):
                apart = ranks[rank][f"{n} {shares} full {heads}"]
                assert len(apart) == (8 if shares[place] else 0)
                for what, error in apart.items():
                    bound = 1e-12 if "float64" in what else RMS_BOUND[torch.bfloat16]
                    assert error <= bound, (n, shares, rank, what)


def test_what_ranks_find_among_their_own_keys_is_merged(ranks: list[dict[str, Any]]) -> None:
    for n, members in MEMBERS.items():
        for shares in SHARES[n]:
            for rank in members:
                apart = ranks[rank][f"{n} {shares} merged"]
                assert max(apart.values()) <= 1e-12, (n, shares, rank, apart)


def test_what_travels_is_under_way_while_other_rows_are_computed(ranks: list[dict[str, Any]]) -> None:
    """Forward and backward: the rank in the middle has two neighbours."""
    assert ranks[2]["order"] == [
        *("post keys and values", "rows 20", "wait keys and values", "rows 4", "rows 4", "finish keys and values"),
        *("gradient of rows 4", "gradient of rows 4", "post gradients", "gradient of rows 20", "finish gradients"),
    ]


DIFFERENCES = {
    "dilation": "dilation must be the same on all ranks of the group, got 2 on its rank 0 and 1 on its rank 1",
    "window": "right must be the same on all ranks of the group, got 0 on its rank 0 and 1 on its rank 1",
    "border": "border must be the same on all ranks of the group, got shift on its rank 0 and truncate on its rank 1",
    "softcap": "softcap must be the same on all ranks of the group, got 2.5 on its rank 0 and 0.0 on its rank 1",
    "mask": "key_mask must be the same on all ranks of the group, got lengths [B] on its rank 0 and None on its rank 1",
    "bias": "bias (given or not) must be the same on all ranks of the group, got 1 on its rank 0 and 0 on its rank 1",
    "dtype": "q.dtype must be the same on all ranks of the group, got torch.float64 on its rank 0 and torch.float32 on",
    "batch": "B must be the same on all ranks of the group, got 3 on its rank 0 and 1 on its rank 1",
    "gradient": "requires_grad of k or v must be the same on all ranks of the group, got 1 on its rank 0 and 0 on its",
    "seed": "dropout_seed must be the same on all ranks of the group, got 1 on its rank 0 and 2 on its rank 1",
    "lengths": "lengths[1] must be the same on all ranks of the group, got 11 on its rank 0 and 10 on its rank 1",
    "some lengths": "lengths (given or not) must be the same on all ranks of the group, got 1 on its rank 0 and 0 on",
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_ranks_that_disagree_are_told_on_both_sides(ranks: list[dict[str, Any]], name: str) -> None:
    said = [ranks[rank]["disagree"][name] for rank in MEMBERS[2]]
    assert said[0] == said[1]
    assert said[0].startswith("ValueError: distributed.sliding_window_attention: " + DIFFERENCES[name])


@pytest.mark.parametrize("name", ["compiled", "checkpointed"])
def test_torch_compile_leaves_it_alone_and_it_can_be_computed_anew(ranks: list[dict[str, Any]], name: str) -> None:
    assert [ranks[rank][name] for rank in MEMBERS[2]] == [{"same": True}] * 2


def test_a_mesh_of_one_dimension_is_a_group(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["mesh"]
        assert max(error for what, error in rank["mesh"].items() if not what.endswith("a share")) <= 1e-12


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mesh of two dimensions", "ValueError: {}: group must be a DeviceMesh of one dimension (mesh[name] is one)"),
        (
            "falling mesh",
            "ValueError: {}: group must be a DeviceMesh whose processes rise, as the ranks of its group do",
        ),
        ("not a member", "ValueError: {}: group must be one that this process is in, got another"),
        ("no group", "TypeError: {}: group must be a ProcessGroup, a DeviceMesh or None, got str"),
        ("too few lengths", "ValueError: {}: lengths must be a number for each of the group's 3 ranks, got [4, 4]"),
        ("other lengths", "ValueError: {}: lengths must be the ranks' numbers of frames, 4 at this one, the group's"),
    ],
)
def test_a_wrong_group_or_lengths_are_refused_before_anything_is_sent(
    ranks: list[dict[str, Any]], name: str, said: str
) -> None:
    texts = [rank[name] for rank in ranks if name in rank]
    assert texts
    assert texts[0].startswith(said.format("distributed.sliding_window_attention"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "full, too few lengths",
            "full_attention: lengths must be a number for each of the group's 3 ranks, got [4, 4]",
        ),
        (
            "full, other lengths",
            "full_attention: lengths must be the ranks' numbers of frames, 4 at this one, the group",
        ),
        (
            "full, other shapes",
            "full_attention: q, k and v must be of one shape [B, H, T, D], got [[1, 1, 4, 4], [1, 1",
        ),
        ("full, mask of a stretch", "full_attention: key_mask must be [B, 12], of the whole sequence, got [1, 4]"),
        ("lse", "merge_attention: lse must be of out's shape without its last dimension, [1, 1, 4], got [1, 1, 4, 4]"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_sent(ranks: list[dict[str, Any]], name: str, said: str) -> None:
    for rank in MEMBERS[3]:
        assert ranks[rank][name].startswith(f"ValueError: distributed.{said}")


def test_without_a_process_group_it_says_so() -> None:
    x = torch.ones(1, 1, 4, 4)
    with pytest.raises(RuntimeError, match=r"torch\.distributed must be initialized before the call"):
        distributed.sliding_window_attention(x, x, x, 3)


def test_a_lost_rank_is_named_and_nobody_hangs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Process 1 of three does not answer, then goes no way back, then has ended. Their patience is 3 seconds."""
    said = found_by(tmp_path_factory, "lost", 3)
    for rank in (0, 2):
        for name, what in (
            *(("options", "options"), ("keys", "keys and values")),
            *(("gradients", "gradients"), ("ended", "options")),
        ):
            start = "RuntimeError: distributed.sliding_window_attention: rank 1 must make the same calls as rank"
            assert said[rank][name].startswith(f"{start} {rank}, which waited for its {what}, got: "), name
        assert 2.5 < float(said[rank]["options, s"]) < 12


@st.composite
def windows(draw: st.DrawFn) -> tuple[list[int], Window]:
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6))
    shift = draw(st.booleans())
    side = st.integers(0 if shift else -1, 7)
    return lengths, Window(draw(side), draw(side), draw(st.integers(1, 4)), shift)


@given(windows())
def test_halos_hold_what_windows_see_and_ranks_agree_on_them(drawn: tuple[list[int], Window]) -> None:
    """Which keys a row sees is asked of the op itself: with one feature a frame, out says it."""
    lengths, window = drawn
    total = sum(lengths)
    plans = [plan(lengths, rank, window) for rank in range(len(lengths))]
    q, marks = torch.zeros(1, 1, total, max(total, 1)), torch.eye(total, max(total, 1))[None, None]
    border = "shift" if window.shift else "truncate"
    sides = window.left, window.right
    seen = vk.sliding_window_attention(
        q, q, marks, sides, dilation=window.dilation, border=border, backend="reference"
    )[0, 0] > 0  # fmt: skip
    for rank, own in enumerate(plans):
        held = range(own.first - own.before, own.end + own.after)
        for row in range(own.first, own.end):
            keys = seen[row].nonzero().flatten().tolist()
            assert set(keys) <= set(held)
            beyond = [key for key in keys if not own.first <= key < own.end]
            middle = own.first + own.head <= row < own.end - own.tail
            assert not (middle and beyond), "what is computed before the halo is there needs none of it"
        pieces = [frame for piece in own.received for frame in range(piece.first, piece.end)]
        assert pieces == [frame for frame in held if not own.first <= frame < own.end]
        for piece in own.received:
            assert piece._replace(peer=rank) in plans[piece.peer].sent
        assert len(own.sent) == sum(piece.peer == rank for other in plans for piece in other.received)
