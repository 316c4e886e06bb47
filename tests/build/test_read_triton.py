"""What the compiler makes of Triton's kernels where it decides on their speed: needs Triton, and no GPU."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="the package triton is not installed (pip install triton)")

from vtsum_kernels.sliding_window_attention import triton as sliding
from vtsum_kernels.sliding_window_attention.triton import configs
from vtsum_kernels.sliding_window_attention.triton import launch as sliding_launch
from vtsum_kernels.triton_kit import launch as kit
from vtsum_kernels.triton_kit.tuning import Config

from bench.gpu.sass import Function
from tests.build import compile_triton, read_triton, triton_memory
from tests.build.compile_triton import Case, Usage

CASE = Case(torch.bfloat16, 64, 5, False)
PROBLEM = configs.Problem(False, 64, 2, 2, False, False)


def only(case: Case | triton_memory.Case, kernel: str) -> tuple[read_triton.Read, int]:
    """What one kernel of a case became for an H100, and how many warps of it fit an SM."""
    (launch,) = [made for made in read_triton.launches(case, False) if kernel in made.kernel.__name__]
    found = read_triton.read(90, launch)
    return found, read_triton.warps_an_sm(90, found, launch.config.warps)


def test_values_are_loaded_beside_keys() -> None:
    """Loaded after the softmax, they wait for memory once more, and only 16 or 20 warps fit."""
    found, warps = only(CASE, "tile_fwd")
    assert found.usage[1:] == (0, 0)
    assert warps >= 24
    assert set(found.moved("LDG")) == {128}


def test_in_fewer_registers_more_warps_fit_and_none_spills() -> None:
    configs_held = [config for config in configs.forward_candidates(PROBLEM) if config.registers]
    assert len(configs_held) == 2
    for held in configs_held:
        launches = [made for made in read_triton.launches(CASE, True) if made.config == held]
        assert [made.kernel.__name__ for made in launches] == ["sliding_window_attention_tile_fwd_kernel"]
        found = read_triton.read(90, launches[0])
        assert found.usage[1:] == (0, 0), held
        assert found.usage.registers <= held.registers
        assert read_triton.warps_an_sm(90, found, held.warps) == 16


def test_all_rows_that_see_a_key_of_a_narrow_window_are_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk over blocks of them is compiled three times: 234 registers, and most of its loads are seldom made."""
    monkeypatch.setattr(sliding_launch, "backward_candidates", lambda problem: [Config("tile", 64, 64, 4, 1)])
    found, warps = only(CASE, "tile_bwd_keys")
    assert found.usage[1:] == (0, 0)
    assert warps >= 12
    assert len(found.code.names) < 2500


@pytest.mark.parametrize("kernel", ["weights_fwd", "weights_bwd", "scores_bwd"])
def test_rows_of_weights_that_8_divides_and_16_does_not_move_16_bytes_a_time(kernel: str) -> None:
    """Of 1,000 slots. Two bytes a time, an SM has eight times as many loads and stores to begin."""
    found, _ = only(triton_memory.Case("weights", torch.bfloat16, 384, 1000, 1, False), kernel)
    assert found.usage[1:] == (0, 0)
    loads, stores = found.moved("LDG"), found.moved("STG")
    assert loads[128] > 8
    assert loads[16] == stores[16] == 0
    assert stores[128] > 0


@pytest.mark.parametrize("kernel", ["flash_fwd", "flash_bwd_rows", "flash_bwd_slots"])
@pytest.mark.parametrize("dim", [64, 128])
def test_no_score_of_flash_attention_is_computed_by_two_warps(dim: int, kernel: str) -> None:
    """As by eight warps of 64 rows, where a product feeds another: half of all their work."""
    case = triton_memory.Case("flash", torch.bfloat16, dim, 4096, 768 // dim)
    (launch,) = [made for made in read_triton.launches(case, False) if kernel in made.kernel.__name__]
    found, config = read_triton.read(90, launch), launch.config
    assert found.usage[1:] == (0, 0)
    scores = config.block_m * config.block_n / (32 * config.warps)
    assert scores <= found.powers <= scores + 4  # and of the maximum, and others


@pytest.mark.parametrize("window", [5, 129])
def test_one_kernel_serves_all_lengths(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled once for each kind of call: not for each way in which 16 divides its lengths and strides, or not."""
    compiled = defaultdict(set)

    def record(kernel: Any, grid: Any, arguments: dict[str, Any], config: Any) -> None:
        source = compile_triton.source(kernel, arguments)
        facts = (source.signature, source.constants, source.attrs)
        compiled[kernel.__name__].add(repr([sorted(fact.items(), key=repr) for fact in facts]))

    monkeypatch.setattr(kit, "start", record)
    options = (None, None, None, None, window // 2, window // 2, 1, False, 0.1, 0.0, 0)
    for frames in (2 * window + 1, 300, 304, 1024, 4099, 8192, 10_006):
        for batch in (1, 2):
            q = torch.empty(batch, 4, frames, 64, dtype=torch.bfloat16)
            out, lse = sliding.forward(q, q, q, *options, True)
            sliding.backward(q, q, q, q, *options[:4], None, out, lse, *options[4:])
    assert {name: len(kinds) for name, kinds in compiled.items()} == dict.fromkeys(compiled, 1)
    assert len(compiled) == (2 if window == 5 else 3)


def test_what_is_counted() -> None:
    names = ["LDG.E.128.CONSTANT", "LDG.E", "LDG.E.U16", "LDG.E.LTC128B.64", "LDGSTS.E.BYPASS.LTC128B.128", "STG.E.S8"]
    assert list(map(read_triton.bits, names)) == [128, 32, 16, 64, 128, 8]
    code = Function(128, [*names, "BAR.SYNC"], [], [], ["MUFU.EX2", "BRA"])
    assert read_triton.Read(Usage(128, 0, 0), 0, code).moved("STG") == {8: 1}
    assert read_triton.Read(Usage(128, 0, 0), 0, code).powers == 1

    def warps(registers: int, shared: int) -> int:
        return read_triton.warps_an_sm(90, read_triton.Read(Usage(registers, 0, 0), shared, code), 4)

    assert [warps(128, 0), warps(129, 0), warps(32, 0), warps(32, 100 * 1024)] == [16, 12, 64, 8]
