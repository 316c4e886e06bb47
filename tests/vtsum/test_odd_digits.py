"""Digits of other scripts make no name one of ours: such a file is the user's, and is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import forked
from tests.vtsum.samples import small_clip
from tests.vtsum.test_damage_told import ENVIRONMENT, FAKE
from tests.vtsum.test_nothing_is_lost import refused
from vtsum.training import checkpoints

DIGITS = ["\uff11\uff12\uff13\uff14", "\u0661\u0662\u0663\u0664", "\u0967\u0968\u0969\u096a"]


def test_a_picture_among_the_key_frames_is_not_deleted(tmp_path: Path) -> None:
    clip = small_clip(tmp_path / "clip.mp4").path
    command = [*FAKE, "summarize", str(clip), "-o", "o", "--no-speech", "--no-ocr", "-f", "json", "-q", "--overwrite"]
    done = forked.run(command, env=ENVIRONMENT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "o" / "keyframes").mkdir()
    for digits in DIGITS:
        mine = tmp_path / "o" / "keyframes" / f"shot_{digits}.jpg"
        mine.write_text("mine")
        refused(command, tmp_path, f"with keyframes/{mine.name} in it")
        mine.unlink()


@pytest.mark.parametrize("digits", DIGITS)
def test_a_sweep_of_checkpoints_keeps_other_folders(digits: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    names = {f"step-{2 * digits}", f".step-{2 * digits}.part", "step-00000001"}
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "state.pt").write_text("mine")
    (folder / "step-00000001" / f"rng-{digits}5.pt").write_text("mine")
    checkpoints.sweep(tmp_path, 0)
    assert set(os.listdir(folder)) == names
    assert os.listdir(folder / "step-00000001") == [f"rng-{digits}5.pt"]
