"""What the kernels should take on a GPU: how machine code is read, and the arithmetic of the prediction."""

from __future__ import annotations

import pytest

from bench.gpu import cost, cost_memory, cost_window
from bench.gpu.card import CARDS, FLOPS_OF_MMA, Code, predicted
from bench.gpu.predictions import COPY, VIDEO
from bench.gpu.sass import parse
from bench.kit.tables import records

SASS = """
        /*0010*/                   MOV R1, c[0x0][0x28] ;                   /* 0x00000a0000017a02 */
                                                                            /* 0x000fe20000000f00 */
        /*0020*/               @P0 EXIT ;
        /*0030*/                   MUFU.EX2 R4, R5 ;
        /*0040*/                   HMMA.16816.F32.BF16 R8, R4, R6, R8 ;
        /*0050*/                   BRA.DIV UR5, 0x90 ;
        /*0060*/                   NOP ;
        /*0070*/              @!P1 BRA 0x30 ;
        /*0080*/                   EXIT ;
        /*0090*/                   WARPSYNC.COLLECTIVE R3, 0xb0 ;
        /*00a0*/                   BRA 0x10 ;
        /*00b0*/                   BRA 0xb0;
"""

TURN = cost_window.KERNELS[0]._replace(turns=1)


def test_the_longest_loop_is_told_from_what_lies_behind_the_end() -> None:
    """Code for diverged lanes branches back into the function from behind its end, and makes no loop of it."""
    found = parse(32, SASS)
    assert found.loop == found.inner == ["MUFU.EX2", "HMMA.16816.F32.BF16", "BRA.DIV", "BRA"]
    assert TURN.loop(found) == Code(instructions=4, products=1, specials=1)
    without = parse(32, SASS.replace("@!P1 BRA 0x30", "@!P1 BRA 0x90"))
    assert (len(without.names), without.loop, without.inner) == (10, without.names, [])


def test_a_loop_within_a_loop() -> None:
    found = parse(32, SASS.replace("BRA.DIV UR5, 0x90", "@P2 BRA 0x40"))
    assert found.within == found.inner == ["HMMA.16816.F32.BF16", "BRA"]
    assert len(found.loop) == 4
    assert TURN.loop(found) == Code(4, 1, 1)
    assert TURN._replace(turns=2).loop(found) == Code(3, 1, 0.5)  # two of its own, and half of the two around it


def test_what_dropout_alone_does_is_not_counted() -> None:
    """It is known by its random numbers: a loop that loads, stores and multiplies nothing."""
    text = "".join(
        f"        /*{16 * at:04x}*/ {line} ;\n"
        for at, line in enumerate([
            "LDG R1, [R2]", "@P0 BRA 0x60", "MOV R3, R4", "IMAD R5, R6, R7, R8", "@P1 BRA 0x30", "FSEL R9, R1, RZ, P3",
            "FADD R1, R1, R9", "@P2 BRA 0x0", "EXIT",
        ])
    )  # fmt: skip
    found = parse(32, text)
    assert found.loop == ["LDG", "BRA", "FADD", "BRA"]
    assert found.within == []


@pytest.mark.parametrize("kernel", cost_window.KERNELS, ids=lambda kernel: f"{kernel.what} {kernel.window}")
def test_a_prediction_covers_all_rows_and_is_no_less_than_what_binds_it(kernel: cost_window.Kernel) -> None:
    card, loop, blocks = CARDS["H200"], Code(1000, 40, 20), kernel.blocks(160)
    asked = kernel.asked(blocks, loop, card)
    found = predicted(asked, card)
    floor = sum(kernel.tensors) * VIDEO["B"] * VIDEO["H"] * VIDEO["T"] * VIDEO["D"] * 2 / COPY
    assert floor <= found["times"]["memory"] < 1.1 * floor
    assert found["times"][found["bound"]] <= found["predicted_s"] < 1.2 * found["times"][found["bound"]]
    work = kernel.work(kernel, blocks * card.processors)
    rows_a_loop = {cost_window.ring: 32, cost_window.strip: 16, cost_window.tile: 64 / (4 * 3 * kernel.turns)}
    assert 1 <= work.loops * rows_a_loop[kernel.work] / (VIDEO["B"] * VIDEO["H"] * VIDEO["T"]) < 1.15
    slow = predicted(kernel.asked(blocks, loop._replace(instructions=100_000), card), card)
    assert slow["bound"] == "issue"
    assert kernel.blocks(255) <= blocks


def test_a_warp_of_a_memory_kernel_takes_its_turns() -> None:
    """Its own instructions once, those of its loop once a turn; within a loop from block to block likewise."""
    once = parse(32, SASS)
    nested = parse(32, SASS.replace("BRA.DIV UR5, 0x90", "@P2 BRA 0x40"))
    kernel = cost_memory.KERNELS[0]
    assert kernel._replace(turns=cost_memory.Turns(5)).loop(once) == Code(10 + 4 * 4, 5, 5)
    assert kernel._replace(turns=cost_memory.Turns(within=6)).loop(nested) == Code(10 + 5 * 2, 6, 1)


@pytest.mark.parametrize("kernel", cost_memory.KERNELS, ids=lambda kernel: kernel.what)
def test_a_memory_kernel_is_given_all_its_rows(kernel: cost_memory.Kernel) -> None:
    asked = kernel.asked(3, Code(1, 1, 1), CARDS["H200"])
    assert kernel.all_warps % kernel.warps == 0
    assert 0.5 < asked.busy <= 1
    if "k" not in kernel.shape:  # by tensor cores: the turns of the loop that was found make all products
        products = {line["loop"]["products"] for line in records("gpu_cost") if line["kernel"] == kernel.what}
        all_of_them = 2 * cost_memory.FRAMES * cost_memory.WIDTH * kernel.shape["S"]
        assert {count * kernel.all_warps * FLOPS_OF_MMA for count in products} == {all_of_them}


def test_every_kernel_has_a_record_and_a_row() -> None:
    kept = {(line["kernel"], line.get("window"), line["card"]) for line in records("gpu_cost")}
    assert kept == {(k.what, k.facts.get("window"), card) for k in cost.KERNELS for card in CARDS}
    text = cost.costs()
    for kernel in cost_window.KERNELS:
        assert f"| {kernel.what}, window {kernel.window} | " in text
    for other in cost_memory.KERNELS:
        assert f"| {other.what} | " in text
