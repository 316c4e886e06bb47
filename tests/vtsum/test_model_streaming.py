"""Frames that come bit by bit through a model with local attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vtsum.config import VTSumConfig
from vtsum.errors import VTSumError
from vtsum.model import VTSum
from vtsum.model.streaming import BLOCK, LocalStream, position_at, write_banks

FORMS = {
    "windowed": {},
    "no transformer": {"depth": 0, "temporal_window": None},
    "wide": {"temporal_window": 33, "kernel_size": 9},
    "no local attention": {"kernel_size": None},
}


def model_of(**options: object) -> VTSum:
    torch.manual_seed(3)
    usual = {"width": 64, "num_heads": 4, "depth": 2, "temporal_window": 9, "kernel_size": 5, "memory_slots": 0}
    return VTSum(VTSumConfig(**{**usual, **options})).double().eval()


def frames_of(count: int) -> torch.Tensor:
    return torch.randn(count, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def whole(model: VTSum, x: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return model.saliency_logits(model.encode(x[None]))[0].numpy()


def chunked(model: VTSum, x: torch.Tensor, size: int, rule: str | None = None) -> np.ndarray:
    stream = LocalStream(model, rule)
    found = [stream.see(x[at : at + size]) for at in range(0, len(x), size)]
    return np.concatenate([*found, stream.see(x[:0], last=True)])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_chunked_equals_whole_bit_for_bit(form, size):
    model = model_of(**FORMS[form])
    for count in (BLOCK, 200, 512):
        x = frames_of(count)
        assert np.array_equal(chunked(model, x, size), whole(model, x)), count


@pytest.mark.parametrize("position", ["before", "inside", "after"])
def test_with_a_memory_bank_and_with_any_number_of_frames_it_is_so_to_rounding(position):
    model = model_of(memory_slots=16, memory_position=position)
    for count in (1, 5, 203, 512):
        x = frames_of(count)
        pieces = [chunked(model, x, size) for size in (1, 7, 1000)]
        np.testing.assert_allclose(pieces[0], whole(model, x), rtol=0, atol=1e-14)
        assert all(np.array_equal(pieces[0], other) for other in pieces)  # how they come changes nothing


def test_a_frame_is_given_once_those_it_depends_on_have_come_and_the_rest_changes_nothing():
    model, x = model_of(), frames_of(100)
    stream, given = LocalStream(model), []
    for n in range(100):
        given.append(stream.see(x[n : n + 1]))
        rest = stream.rest()
        assert stream.given + len(rest) == n + 1
        assert stream.given >= n + 1 - stream.lag
        np.testing.assert_allclose(np.concatenate([*given, rest]), whole(model, x[: n + 1]), rtol=0, atol=1e-14)


def test_it_goes_on_from_its_state():
    model, x = model_of(memory_slots=16), frames_of(300)
    through = chunked(model, x, 300)
    for stop in (1, 37, 64, 200):
        first = LocalStream(model)
        begun = first.see(x[:stop])
        second = LocalStream(model)
        second.restore({name: value.copy() for name, value in first.state().items()})
        assert np.array_equal(np.concatenate([begun, second.see(x[stop:], last=True)]), through)


def test_a_state_of_another_model_or_a_damaged_one_is_refused():
    stream = LocalStream(model_of())
    stream.see(frames_of(50))
    state = stream.state()
    with pytest.raises(ValueError, match=r"rows must be finite and \[n, 32\]"):
        LocalStream(model_of(width=32)).restore(state)
    with pytest.raises(KeyError):
        LocalStream(model_of(depth=3)).restore(state)
    broken = {**state, "rows0": np.full_like(state["rows0"], np.nan)}
    with pytest.raises(ValueError, match="finite"):
        stream.restore(broken)
    with pytest.raises(ValueError, match="four numbers"):
        stream.restore({**state, "counts": np.array([1, 2, 3, 4])})


def test_what_is_carried_over_does_not_grow():
    model, sizes = model_of(temporal_window=21), []
    stream = LocalStream(model)
    for _ in range(50):
        stream.see(frames_of(40))
        sizes.append(sum(value.nbytes for value in stream.state().values()))
    assert max(sizes[5:]) <= max(sizes[:5])


def test_positions_go_to_and_fro():
    assert position_at(torch.arange(10), 4).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert position_at(torch.arange(3), 1).tolist() == [0, 0, 0]


@pytest.mark.parametrize("position", ["before", "inside", "after"])
@pytest.mark.parametrize("rule", ["fifo", "ema", "merge"])
def test_frames_are_written_to_the_bank(rule, position):
    model, x = model_of(memory_slots=16, memory_position=position), frames_of(64)
    before = [bank.memory.clone() for bank in model.banks()]
    still = chunked(model, x, 64)
    written = chunked(model, x, 64, rule)
    if position == "after":  # the first block has read before anything was written, but for what lies at its end
        assert np.array_equal(still[: BLOCK - 2], written[: BLOCK - 2])
    assert not np.array_equal(still, written)
    for bank, slots in zip(model.banks(), before, strict=True):
        assert not torch.equal(bank.memory, slots)
        assert int(bank.counts[:-1].sum()) >= 16


def test_frames_of_a_window_are_written_to_the_bank():
    """What a bank holds afterwards are the frames as it saw them: "before" it is the features themselves."""
    model, x = model_of(memory_slots=16, memory_position="before", temporal_window=None), frames_of(40)
    bank = model.banks()[0]
    write_banks(model, x.numpy(), 8, 24, "fifo")
    assert torch.equal(bank.memory, bank.norm(x[8:24]))
    assert len(bank._forward_pre_hooks) == 0


def test_what_cannot_be_streamed_is_refused():
    with pytest.raises(VTSumError, match="model must have a temporal_window"):
        LocalStream(model_of(temporal_window=None))
    with pytest.raises(VTSumError, match="memory must be None for a model without a memory bank, got 'fifo'"):
        LocalStream(model_of(), "fifo")
    with pytest.raises(VTSumError, match="memory must be one of fifo, ema, merge, or None, got 'lru'"):
        LocalStream(model_of(memory_slots=4), "lru")
