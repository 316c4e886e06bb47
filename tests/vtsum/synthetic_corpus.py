"""A procedural corpus of short videos, made once for all tests of a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.once import once
from vtsum.recipes.synthetic import make_corpus
from vtsum.recipes.synthetic_scenes import CorpusParameters

SHORT = CorpusParameters(shortest=20.0, longest=34.0, events_share=(0.2, 0.3))
SIZES: dict[str, Any] = {"train": 3, "val": 1, "test": 12, "seed": 5, "parameters": SHORT, "clip_steps": 120}


def synthetic_corpus(factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        made = make_corpus(folder, films=1, **SIZES)
        assert made == json.loads((folder / "manifest.json").read_text())

    return once(factory, "synthetic", make)
