"""What register() says where transformers is missing or too old, and what importing the package brings along."""

from __future__ import annotations

import subprocess
import sys

import pytest
import transformers
from transformers import masking_utils
from vtsum_kernels.integrations.transformers import NAME, register


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"^register: transformers must be installed \(pip install 'transformers>=5"):
        register()


def test_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    def sdpa_mask(batch_size: int, cache_position: int, kv_length: int) -> None: ...  # 5.0's arguments

    monkeypatch.setattr(masking_utils, "sdpa_mask", sdpa_mask)
    monkeypatch.setattr(transformers, "__version__", "5.0.0")
    message = (
        r"^register: transformers must be 5.5 or newer, got 5\.0\.0, whose mask functions do not take local_size, q_"
    )
    with pytest.raises(ImportError, match=message):
        register()


def test_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.masking_utils", None)
    with pytest.raises(ImportError, match=r"able to import its models, got 5\."):
        register()


def test_known_to_transformers() -> None:
    register()
    assert transformers.AttentionInterface._global_mapping[NAME].__module__ == "vtsum_kernels.integrations.transformers"
    assert NAME in masking_utils.ALL_MASK_ATTENTION_FUNCTIONS


def test_importing_brings_nothing_along() -> None:
    modules = ("transformers", "longformer", "flash_attn", "natten", "sdpa", "align", "windows")
    imports = "; ".join(["import sys, vtsum_kernels"] + [f"import vtsum_kernels.integrations.{m}" for m in modules])
    wanted = "[m for m in sys.modules if m.split('.')[0] in ('transformers', 'natten', 'flash_attn', 'timm', 'triton')]"
    found = subprocess.run(
        [sys.executable, "-c", f"{imports}; print({wanted})"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
