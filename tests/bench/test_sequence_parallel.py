"""The benchmark of windows over several ranks: right numbers, counted bytes, and what the table says of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.kit.record import read
from bench.kit.tables import NOTHING
from bench.summary.sequence_parallel import DIM, HEADS
from bench.summary.tables.sequence_parallel import full_attention, sequence_parallel


def test_ways_are_right_and_the_halo_s_bytes_do_not_grow(tmp_path: Path) -> None:
    words = ["--ranks", "2", "--frames", "48", "96", "--window", "9", "--repeats", "2"]
    path = tmp_path / "found.jsonl"
    command = [sys.executable, "-m", "bench.summary.sequence_parallel", *words, "--results", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {(line["way"], line["shape"]["T"]): line for line in read(path)}
    assert len(found) == len(done.stdout.splitlines()) == 8
    for (way, _), line in found.items():
        assert line["right"] == (way != "alone"), line
        assert line["s"] > 0
    sent = {key: line["sent_bytes"] for key, line in found.items()}
    item, side = 4 * HEADS * DIM, 4
    options = sent["halo", 48] - 4 * side * item  # k and v of the halo, and their gradients
    assert 0 < options < 400
    assert sent["halo", 96] == sent["halo", 48]
    assert sent["gather", 48] == 4 * 24 * item
    assert sent["gather", 96] == 2 * sent["gather", 48]
    assert sent["ulysses", 48] == 8 * 24 * item // 2  # q, k, v, out, and their gradients; half stays
    assert sent["alone", 48] == 0


def test_all_frames_for_heads_are_right_and_hand_over_least(tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    words = ["--all", "--ranks", "4", "--frames", "48", "--repeats", "2", "--results", str(path)]
    command = [sys.executable, "-m", "bench.summary.sequence_parallel", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {line["way"]: line for line in read(path)}
    assert {way: line["right"] for way, line in found.items()} == {
        "heads": True, "ring": True, "gather": True, "alone": False,
    }  # fmt: skip
    own = 4 * HEADS * DIM * 48 // 4  # bytes of a rank's q
    sent = {way: line["sent_bytes"] for way, line in found.items()}
    assert sent == {
        "heads": 8 * own * 3 // 4,  # q, k, v, out, and their gradients; a fourth of each stays
        "ring": (2 * 3 + 4 * 4) * own,
        "gather": 4 * 3 * own,
        "alone": 0,
    }
    assert "ring" in full_attention(list(found.values()) * 2)


def test_the_table_leaves_out_a_time_of_wrong_numbers() -> None:
    assert sequence_parallel([]) == NOTHING
    line = {
        "ranks": 2, "shape": {"B": 1, "H": 12, "T": 4096, "D": 64}, "way": "halo", "s": 0.0123, "sent_bytes": 3 << 19,
        "device": "a processor", "threads": 2, "versions": {"torch": "2.13"}, "dtype": "float32", "commit": "abc",
        "window": 65,
    }  # fmt: skip
    said = sequence_parallel([line, {**line, "way": "ulysses", "s": None}])
    assert "| 2 x 2,048 frames | 12.3 ms · 1.50 MiB | wrong numbers |  |  |" in said
