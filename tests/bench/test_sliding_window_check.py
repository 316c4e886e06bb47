"""What results are held to: the reference at stretches of frames is as in the whole sequence; every rival passes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bench.kit.accuracy import CHECK_ALL_UP_TO, stretches
from bench.kit.kernels import reference
from bench.kit.op import Rival
from bench.kit.roofline import COPY_BYTES, copy_entry, input_sets
from bench.ops.sliding_window_attention.rivals import FLEX_BLOCK, RIVALS, flex_mask
from bench.ops.sliding_window_attention.setting import TENSORS, Check, Setting, call_of, make_inputs

PACKAGES = ("local_attention", "natten")
PLAIN = [r for r in RIVALS if r.name not in PACKAGES and not r.compiled and "cpu" in r.devices]


def setting(
    frames: int, window: int, direction: str = "fwd+bwd", layout: str = "bhtd", dtype: str = "float64"
) -> Setting:
    return Setting("sweep", "cpu", dtype, direction, 1, 2, frames, 4, window, layout)


def whole(q: Tensor, k: Tensor, v: Tensor, window: int, shift: bool) -> Tensor:
    side = window // 2
    return reference("sliding_window_attention", q, k, v, side, side, scale=q.shape[-1] ** -0.5, shift=shift)[0]


def results(inputs: tuple[Tensor, Tensor, Tensor, Tensor], window: int, shift: bool = False) -> tuple[Tensor, ...]:
    return call_of(lambda q, k, v: whole(q, k, v, window, shift), [inputs], "fwd+bwd")(0)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize(("frames", "window"), [(1, 5), (3, 9), (40, 5), (300, 17), (CHECK_ALL_UP_TO + 100, 65)])
def test_stretches_are_as_in_the_whole_sequence(frames: int, window: int, shift: bool) -> None:
    inputs = make_inputs(setting(frames, window))
    check, right = Check(inputs, window), results(inputs, window, shift)
    for outputs, gradients in ((right[:1], False), (right, True), (right[1:], True)):
        errors = check.errors(outputs, gradients, shift)
        assert errors.max_error < 1e-12
        assert errors.rms_ratio < 1e-12
    assert errors.checked_rows == (frames if frames <= CHECK_ALL_UP_TO else 1024)


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("row", [0, 1, CHECK_ALL_UP_TO + 98, CHECK_ALL_UP_TO + 99])
def test_one_wrong_row_at_a_border_is_seen(which: int, row: int) -> None:
    frames = CHECK_ALL_UP_TO + 100
    inputs = make_inputs(setting(frames, 5))
    outputs = [x.clone() for x in results(inputs, 5)]
    outputs[which][0, 1, row] += 0.5
    errors = Check(inputs, 5).errors(outputs, True)
    assert errors.max_error == pytest.approx(0.5)
    assert errors.rms_ratio > 1e-3


def test_a_result_that_is_not_a_number_is_seen_wherever_it_is() -> None:
    frames = 4 * CHECK_ALL_UP_TO
    inputs = make_inputs(setting(frames, 3, "fwd"), 0)
    out = torch.zeros_like(inputs[0])
    unchecked = next(i for i in range(frames) if not any(a <= i < b for a, b in stretches(frames)))
    out[0, 0, unchecked, 1] = float("nan")
    assert Check(inputs, 3).errors((out,), False).rms_ratio == math.inf


@pytest.mark.parametrize("layout", ["bhtd", "bthd"])
@pytest.mark.parametrize(("frames", "window"), [(7, 3), (77, 9), (200, 65), (5, 9), (130, 257)])
@pytest.mark.parametrize("rival", PLAIN, ids=lambda rival: rival.name)
def test_rivals_compute_what_the_op_computes(rival: Rival, frames: int, window: int, layout: str) -> None:
    case = setting(frames, window, layout=layout)
    inputs = make_inputs(case, 0)
    assert inputs[0].is_contiguous() == (layout == "bhtd")
    errors = Check(inputs, window).errors(call_of(rival.make(case), [inputs], "fwd+bwd")(0), True)
    assert errors.rms_ratio < 1e-12


@pytest.mark.parametrize("frames", [100, 128, 300, 1024])
@pytest.mark.parametrize("window", [3, 65, 255, 257, 513, 2047])
def test_flex_blocks_are_those_that_torch_finds(frames: int, window: int) -> None:
    from torch.nn.attention.flex_attention import create_block_mask

    ours = flex_mask(frames, window, "cpu")
    theirs = create_block_mask(
        lambda b, h, i, j: (i - j).abs() <= window // 2, None, None, frames, frames, "cpu", BLOCK_SIZE=FLEX_BLOCK
    )
    assert ours.shape == theirs.shape
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    assert torch.equal(ours.kv_num_blocks, theirs.kv_num_blocks)
    assert torch.equal(ours.full_kv_num_blocks, theirs.full_kv_num_blocks)


@pytest.mark.parametrize(("direction", "tensors"), [("fwd", 4), ("bwd", 7), ("fwd+bwd", 11)])
@pytest.mark.parametrize("most", [COPY_BYTES, 1000])
def test_the_copy_reads_and_writes_what_the_op_has_to(
    monkeypatch: pytest.MonkeyPatch, direction: str, tensors: int, most: int
) -> None:
    assert TENSORS[direction] == tensors
    case = setting(30, 5, direction, dtype="float32")
    copy, copied = copy_entry("cpu", tensors * case.tensor_bytes, 1, most).start(), []
    original = torch.Tensor.copy_

    def counted(target: Tensor, source: Tensor) -> Tensor:
        copied.append(source.nbytes)
        assert target.data_ptr() != source.data_ptr()
        return original(target, source)

    monkeypatch.setattr(torch.Tensor, "copy_", counted)
    copy(0)
    assert 2 * sum(copied) == tensors * 2 * 30 * 4 * 4
    assert max(copied) <= most


def test_inputs_rotate_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        L2_cache_size = 50 * 2**20

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    assert input_sets("cuda", 10 * 2**20) == 15
    assert input_sets("cuda", 2**30) == 1
    assert input_sets("cuda", 100) == 128
    assert input_sets("cpu", 100) == 1
