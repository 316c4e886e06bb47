"""Every message of sliding_window_attention, and that an explicit backend never falls back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vtsum_kernels as vk

GOOD = torch.zeros(2, 3, 10, 8)


def call(q: Any = GOOD, k: Any = GOOD, v: Any = GOOD, window: Any = 5, **options: Any) -> Any:
    return vk.sliding_window_attention(q, k, v, window, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"q": [1.0]}, TypeError, "q must be a torch.Tensor, got list"),
        ({"q": GOOD.int()}, TypeError, "q must be float32, float16, bfloat16 or float64, got torch.int32"),
        ({"q": GOOD[0]}, ValueError, r"q must be of shape \[B, H, T, D\], got \[3, 10, 8\]"),
        ({"k": GOOD.double()}, TypeError, "k must be of the dtype of q, torch.float32, got torch.float64"),
        ({"v": GOOD.to("meta")}, ValueError, "v must be on the device of q, cpu, got meta"),
        (
            {"v": GOOD[:, :, :9]},
            ValueError,
            r"v must be of shape q's \[B, H, T, D\] = \[2, 3, 10, 8\], got \[2, 3, 9, 8\]",
        ),
        ({"q": GOOD[..., :0], "k": GOOD[..., :0], "v": GOOD[..., :0]}, ValueError, "D must be at least 1, got 0"),
        ({"window": 4}, ValueError, "window_size must be odd and at least 1 .*, got 4"),
        ({"window": -1}, ValueError, "window_size must be odd and at least 1 .*, got -1"),
        ({"window": True}, TypeError, r"window_size must be an odd int or \(left, right\), got True"),
        ({"window": 5.0}, TypeError, r"window_size must be an odd int or \(left, right\), got float"),
        (
            {"window": (1, 2, 3)},
            TypeError,
            r"window_size must be an odd int or two ints \(left, right\), got \(1, 2, 3\)",
        ),
        ({"window": (-2, 1)}, ValueError, r"window_size must be .* at least 0, or -1 for unbounded, got \(-2, 1\)"),
        ({"dilation": 0}, ValueError, "dilation must be at least 1, got 0"),
        ({"dilation": 1.5}, TypeError, "dilation must be an int, got float"),
        ({"scale": "1"}, TypeError, r"scale must be a float or None \(1 / sqrt\(D\)\), got str"),
        ({"scale": float("nan")}, ValueError, "scale must be finite, got nan"),
        ({"key_padding_mask": [True]}, TypeError, "key_padding_mask must be a torch.Tensor, got list"),
        ({"key_padding_mask": torch.ones(2, 10)}, TypeError, r"key_padding_mask must be bool \(True = valid\), got"),
        (
            {"key_padding_mask": torch.ones(2, 9, dtype=torch.bool)},
            ValueError,
            r"key_padding_mask must be of shape \[B, T\] = \[2, 10\], got \[2, 9\]",
        ),
        (
            {"key_padding_mask": torch.ones(3, dtype=torch.int64)},
            ValueError,
            r"key_padding_mask must be of shape \[B\]",
        ),
        (
            {"key_padding_mask": torch.ones(2, 10, dtype=torch.bool).to("meta")},
            ValueError,
            "on the device of the input",
        ),
        ({"backend": "fast"}, ValueError, "backend must be one of auto, .*reference, got fast"),
    ],
)
def test_message(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^sliding_window_attention: .*{message}"):
        call(**options)


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="dropout_p"):
        call(dropout_p=0.1)


def test_an_explicit_backend_does_not_fall_back(cpp: None) -> None:
    wide = torch.zeros(1, 1, 2000, 8)
    with pytest.raises(NotImplementedError, match="backend cpp cannot serve this call: a window holds 1201 keys"):
        vk.sliding_window_attention(wide, wide, wide, 1201, backend="cpp")
    assert vk.sliding_window_attention(wide[:, :, :700], wide[:, :, :700], wide[:, :, :700], 1201).shape[2] == 700


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: GOOD[0]}, "q must be of shape"),
        ({1: GOOD[:, :, :5]}, "k and v must be of q's shape"),
        ({2: GOOD.double()}, "k and v must be of q's dtype"),
        ({0: GOOD.int(), 1: GOOD.int(), 2: GOOD.int()}, "must be float32, float16, bfloat16 or float64"),
        ({3: torch.ones(2, 9, dtype=torch.bool)}, "key_padding_mask must be bool"),
        ({4: -2}, "window or dilation out of range"),
        ({6: 0}, "window or dilation out of range"),
    ],
)
def test_the_compiled_op_checks_again(cpp: None, change: dict[int, Any], message: str) -> None:
    arguments: list[Any] = [GOOD, GOOD, GOOD, None, 2, 2, 1, 0.3, False]
    for position, value in change.items():
        arguments[position] = value
    with pytest.raises(RuntimeError, match=message):
        torch.ops.vtsum_kernels.sliding_window_attention_fwd(*arguments)


def test_the_compiled_backward_checks_again(cpp: None) -> None:
    backward = torch.ops.vtsum_kernels.sliding_window_attention_bwd
    with pytest.raises(RuntimeError, match="dout must be of q's shape and dtype"):
        backward(GOOD[:, :, :5], GOOD, GOOD, GOOD, None, None, 2, 2, 1, 0.3)
    with pytest.raises(RuntimeError, match="dlse must be contiguous"):
        backward(GOOD, GOOD, GOOD, GOOD, None, GOOD[..., 0].double(), 2, 2, 1, 0.3)
