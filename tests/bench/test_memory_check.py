"""What memory results are held to: an error in any of them is seen, and every rival computes what the ops compute."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import vtsum_kernels
from torch import Tensor

from bench.kit.accuracy import CHECK_ALL_UP_TO, stretches
from bench.kit.op import Rival
from bench.ops.memory_attention import check
from bench.ops.memory_attention.cases import our_layer
from bench.ops.memory_attention.check import Check
from bench.ops.memory_attention.rivals import RIVALS
from bench.ops.memory_attention.setting import (
    Setting,
    call_of,
    least_work,
    make_inputs,
    moved_bytes,
)
from bench.ops.memory_fuse.rivals import RIVALS as FUSE_RIVALS

EVERYONE = (
    *((rival, case) for rival in RIVALS for case in rival.cases),
    *((rival, case) for rival in FUSE_RIVALS for case in ("fuse", "projected")),
)
PLAIN = [(rival, case) for rival, case in EVERYONE if not rival.compiled and rival.name != "faiss"]


def setting(case: str, direction: str = "fwd+bwd", tokens: int = 11, slots: int = 13, heads: int = 1) -> Setting:
    k = 5 if case in ("topk", "product_keys", "search", "gather") else 0
    return Setting(case, "cpu", "float64", direction, tokens, 24, slots, heads, k)


CASES = [
    *((case, heads, 13) for case in ("fuse", "projected", "attention") for heads in (1, 3)),
    ("topk", 1, 13),
    ("topk", 1, 5),
    ("product_keys", 1, 12),
    ("gather", 1, 13),
]


@pytest.mark.parametrize("case", ["fuse", "projected", "attention", "topk", "product_keys", "gather"])
def test_an_error_in_any_result_is_seen(case: str) -> None:
    where = setting(case, slots=12)
    inputs = make_inputs(where)
    held_to, right = Check(where, inputs), call_of(our_layer(where, "reference"), where, inputs)(0)
    for which in range(len(right)):
        outputs = [x.clone() for x in right]
        outputs[which].view(-1)[-1] += 1e-3
        errors = held_to.errors(outputs)
        assert errors.max_error == pytest.approx(1e-3)
        assert errors.rms_ratio > 1e-7
        outputs[which].view(-1)[0] = float("nan")
        assert held_to.errors(outputs).rms_ratio == math.inf


def test_many_frames_are_checked_in_stretches_and_their_gradients_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "BLOCK_NUMBERS", 24 * 100)
    tokens = CHECK_ALL_UP_TO + 100
    forward = setting("fuse", "fwd", tokens)
    inputs = make_inputs(forward)
    out = call_of(our_layer(forward, "reference"), forward, inputs)(0)[0].clone()
    errors = Check(forward, inputs).errors((out,))
    assert errors.rms_ratio < 1e-12
    assert errors.checked_rows == sum(b - a for a, b in stretches(tokens)) < tokens
    out[0, -1] *= 1.01
    assert Check(forward, inputs).errors((out,)).rms_ratio > 1e-5
    both = setting("fuse", "fwd+bwd", tokens)
    inputs = make_inputs(both)
    errors = Check(both, inputs).errors(call_of(our_layer(both, "reference"), both, inputs)(0))
    assert errors.rms_ratio < 1e-12
    assert errors.checked_rows == tokens


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize(("rival", "case"), PLAIN, ids=lambda value: getattr(value, "name", value))
def test_rivals_compute_what_the_op_computes(rival: Rival, case: str, heads: int) -> None:
    for direction in ("fwd", "fwd+bwd"):
        for slots in (7, 40):  # fewer and more than the features of a head
            where = setting(case, direction, slots=slots, heads=heads)
            inputs = make_inputs(where)
            if case == "search" and where.gradients:
                continue
            if heads > 1 and where.k and case != "gather":
                with pytest.raises(NotImplementedError):
                    rival.make(where)
                continue
            assert Check(where, inputs).errors(call_of(rival.make(where), where, inputs)(0)).rms_ratio < 1e-12


@pytest.mark.parametrize(("case", "heads", "slots"), [*CASES, ("search", 1, 13)])
def test_ours_computes_it_too(case: str, heads: int, slots: int) -> None:
    where = setting(case, "fwd" if case == "search" else "fwd+bwd", slots=slots, heads=heads)
    inputs = make_inputs(where)
    assert Check(where, inputs).errors(call_of(our_layer(where, "auto"), where, inputs)(0)).rms_ratio < 1e-12


@pytest.mark.parametrize("case", ["fuse", "projected"])
def test_at_inference_the_bank_is_folded_once_ahead_of_the_calls(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = vtsum_kernels.fold_bank
    monkeypatch.setattr(vtsum_kernels, "fold_bank", lambda *a, **k: made.append(real(*a, **k)) or made[-1])
    for direction, count in (("fwd+bwd", 0), ("fwd", 1)):
        where = setting(case, direction, slots=4)
        inputs = make_inputs(where)
        call = call_of(our_layer(where, "auto"), where, inputs)
        assert len(made) == count
        assert Check(where, inputs).errors(call(0)).rms_ratio < 1e-12
        call(0)
        assert len(made) == count
    assert made[0].values is not None


def test_blocks_of_rows_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.ops.memory_attention.rivals.BLOCK", 4)
    for name in ("topk_bag_blocks", "matmul_topk_blocks"):
        rival = next(rival for rival in RIVALS if rival.name == name)
        where = setting(rival.cases[0], "fwd")
        inputs = make_inputs(where)
        assert Check(where, inputs).errors(call_of(rival.make(where), where, inputs)(0)).rms_ratio < 1e-12


def test_faiss_finds_the_best() -> None:
    pytest.importorskip("faiss")
    where = Setting("search", "cpu", "float32", "fwd", 300, 24, 400, 1, 5)
    inputs = make_inputs(where)
    rival = next(rival for rival in RIVALS if rival.name == "faiss")
    assert Check(where, inputs).errors(call_of(rival.make(where), where, inputs)(0)).rms_ratio < 1e-6


def search() -> tuple[Check, Tensor, Tensor]:
    where = setting("search", "fwd")
    inputs = make_inputs(where)
    inputs.parameters["bank"][3] = inputs.parameters["bank"][8]
    slots = torch.topk(inputs.x[0][0] @ inputs.parameters["bank"].t(), 5).indices
    scores = (inputs.parameters["bank"][slots] @ inputs.x[0][0][..., None]).squeeze(-1)
    return Check(where, inputs), scores, slots


def test_a_search_may_choose_among_ties() -> None:
    held_to, scores, slots = search()
    assert held_to.errors((scores, slots)).rms_ratio < 1e-12
    other = torch.where(slots == 3, 8, torch.where(slots == 8, 3, slots))
    assert not torch.equal(other, slots)
    assert held_to.errors((scores, other)).rms_ratio < 1e-12


def test_a_search_is_wrong_with_another_slot_or_score_or_the_same_slot_twice() -> None:
    held_to, scores, slots = search()
    worse = slots.clone()
    worse[4, -1] = next(s for s in range(13) if s not in slots[4])
    assert held_to.errors((scores, worse)).rms_ratio > 1e-5
    assert held_to.errors((scores * 1.0001, slots)).rms_ratio == pytest.approx(1e-4, rel=1e-3)
    assert held_to.errors((scores, slots[:, [0, 0, 2, 3, 4]])).rms_ratio == math.inf


@pytest.mark.parametrize("case", ["topk", "search"])
def test_rounding_does_not_change_which_slots_are_best(case: str) -> None:
    """Or else who rounds its scores would be found to have read others, and be refused."""
    where = Setting(case, "cpu", "bfloat16", "fwd", 64, 768, 2048, 1, 32)
    inputs = make_inputs(where)
    x, bank = inputs.x[0][0], F.normalize(inputs.parameters["bank"].float(), dim=-1)
    rounded = torch.topk((F.normalize(x.float(), dim=-1) @ bank.t()).bfloat16(), 32).indices.sort().values
    assert torch.equal(rounded, torch.topk(x.double() @ bank.double().t(), 32).indices.sort().values)


def test_the_temperatures_gradient_is_held_against_the_size_of_its_terms() -> None:
    """They may sum to nothing by chance, where any error would be infinite in proportion."""
    where = setting("attention", slots=2)
    inputs = make_inputs(where)
    held_to = Check(where, inputs)
    outputs = list(call_of(our_layer(where, "reference"), where, inputs)(0))
    bank, x, scale = inputs.parameters["bank"].detach(), inputs.x[0][0].detach(), inputs.parameters["scale"].detach()
    cosine = F.normalize(x, dim=-1) @ F.normalize(bank, dim=-1).t()
    weights, dweights = torch.softmax(scale * cosine, -1), inputs.dout[0][0] @ bank.t()
    terms = weights * (dweights - (weights * dweights).sum(-1, keepdim=True)) * cosine
    assert float(outputs[-1]) == pytest.approx(float(terms.sum()))
    outputs[-1] = outputs[-1] + 1e-3
    assert held_to.errors(outputs).rms_ratio == pytest.approx(1e-3 / float(terms.norm()), rel=1e-6)


def test_work_is_that_of_the_products() -> None:
    n, c, s = 100, 8, 6
    flops = 2 * n * c

    def sized(case: str, direction: str = "fwd", heads: int = 1, k: int = 0) -> Setting:
        return Setting(case, "cpu", "float32", direction, n, c, s, heads, k)

    assert least_work(sized("fuse")) == flops * (s + s + c)  # folded; of four heads, nothing is
    assert least_work(sized("fuse", heads=4)) == flops * (s + s + 2 * c)
    assert least_work(sized("projected", heads=2)) == flops * (2 * s + 2 * s + c)
    assert least_work(sized("projected", heads=4)) == flops * (c + s + s + 2 * c)
    # Folding is part of a training step: the values' product with the linear layer's weight.
    assert least_work(sized("fuse", "fwd+bwd")) == 3 * (flops * (s + s + c) + 2 * s * c * c)
    assert least_work(sized("attention", "fwd+bwd")) == 3 * flops * 2 * s
    assert least_work(sized("topk", k=2)) == flops * (s + 2)
    assert least_work(sized("product_keys", k=2)) == 2 * (n * c * 2 + n * 2 * c)  # scores of 2 + 3 halves
    assert least_work(sized("gather", k=2)) == 0
    assert moved_bytes(sized("gather", k=2)) == 4 * (n * 2 * c + n * c) + n * 2 * 8
    assert moved_bytes(sized("fuse")) == 4 * (2 * n * c + s * c + 2 * c * c)


def test_frames_rotate_and_the_bank_stays() -> None:
    where = setting("fuse")
    inputs = make_inputs(where, sets=3)
    assert len(inputs.x) == len(inputs.dout) == 3
    assert not torch.equal(inputs.x[0], inputs.x[1])
    call: Any = call_of(our_layer(where, "auto"), where, inputs)
    again = make_inputs(where, sets=3)
    again.x[0], again.dout[0] = again.x[2], again.dout[2]
    assert Check(where, again).errors(call(2)).rms_ratio < 1e-12
    assert Check(where, inputs).errors(call(2)).rms_ratio > 0.1
