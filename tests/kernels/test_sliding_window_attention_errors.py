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
            r"v must be of shape k's \[B, K, T, D\] = \[2, 3, 10, 8\], got \[2, 3, 9, 8\]",
        ),
        (
            {"k": GOOD[:, :, :9], "v": GOOD[:, :, :9]},
            ValueError,
            "k must be at least as long as q, which has 10 frames, got 9",
        ),
        (
            {"k": GOOD[..., :7], "v": GOOD[..., :7]},
            ValueError,
            r"k must be of shape \[B, K, T, D\] with q's other sizes = \[2, 3, 10, 8\], got \[2, 3, 10, 7\]",
        ),
        (
            {"k": GOOD[:, :2], "v": GOOD[:, :2]},
            ValueError,
            "K, the number of k's heads, must be a divisor of H = 3, got 2",
        ),
        ({"border": "wrap"}, ValueError, 'border must be "truncate" or "shift", got \'wrap\''),
        ({"border": "shift", "window": (2, -1)}, ValueError, "window_size must be finite on both sides with border"),
        ({"border": "shift", "causal": True}, ValueError, 'causal must be False with border="shift"'),
        ({"normalize": "rows"}, ValueError, 'normalize must be "window" or "global", got \'rows\''),
        ({"dropout_p": 1.0}, ValueError, "dropout_p must be at least 0 and less than 1, got 1.0"),
        ({"bias": torch.zeros(3, 4)}, ValueError, r"bias must be of shape \[H, left \+ right \+ 1\] = \[3, 5\], got"),
        (
            {"bias": torch.zeros(3, 5), "border": "shift"},
            ValueError,
            r"bias must be of shape \[H, 2 \* \(left \+ right\) \+ 1\] = \[3, 9\], got \[3, 5\]",
        ),
        ({"bias": torch.zeros(3, 5).int()}, TypeError, "bias must be float32, .*, got torch.int32"),
        ({"bias": torch.zeros(3, 5), "window": (-1, 2)}, ValueError, "finite on both sides where there is a bias"),
        ({"cu_seqlens": torch.tensor([0, 10])}, ValueError, r"q must be of shape \[total, H, D\], got \[2, 3, 10, 8\]"),
        ({"q": GOOD[..., :0], "k": GOOD[..., :0], "v": GOOD[..., :0]}, ValueError, "D must be at least 1, got 0"),
        ({"window": 4}, ValueError, "window_size must be odd and at least 1 .*, got 4"),
        ({"window": 0, "causal": True}, ValueError, r"window_size must be at least 1 \(with causal=True: .*, got 0"),
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
        ({"key_mask": [True]}, TypeError, "key_mask must be a torch.Tensor, got list"),
        ({"key_mask": torch.ones(2, 10)}, TypeError, r"key_mask must be bool \(True = valid\), got"),
        (
            {"key_mask": torch.ones(2, 9, dtype=torch.bool)},
            ValueError,
            r"key_mask must be of shape \[B, T\] = \[2, 10\], got \[2, 9\]",
        ),
        (
            {"key_mask": torch.ones(3, dtype=torch.int64)},
            ValueError,
            r"key_mask must be of shape \[B\]",
        ),
        (
            {"key_mask": torch.ones(2, 10, dtype=torch.bool).to("meta")},
            ValueError,
            "on the device of the input",
        ),
        ({"backend": "fast"}, ValueError, "backend must be one of auto, .*reference, blockwise, flash, got fast"),
    ],
)
def test_message(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^sliding_window_attention: .*{message}"):
        call(**options)


PACKED = torch.zeros(10, 3, 8)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cu_seqlens": [0, 10]}, TypeError, "cu_seqlens must be a torch.Tensor, got list"),
        ({"cu_seqlens": torch.tensor([0.0, 10.0])}, TypeError, "cu_seqlens must be int32 or int64, got torch.float32"),
        ({"cu_seqlens": torch.zeros(0, dtype=torch.int32)}, ValueError, r"cu_seqlens must be of shape \[N \+ 1\]"),
        (
            {"cu_seqlens": torch.tensor([0, 9])},
            ValueError,
            "cu_seqlens must be from 0 to q's total of 10 frames, got 0 to 9",
        ),
        ({"cu_seqlens": torch.tensor([0, 7, 4, 10])}, ValueError, "cu_seqlens must be never falling, got 4 after 7"),
        (
            {"cu_seqlens": torch.tensor([0, 10]), "key_mask": torch.ones(2, 10, dtype=torch.bool)},
            ValueError,
            r"key_mask must be of shape \[total\] = \[10\], got \[2, 10\]",
        ),
    ],
)
def test_message_for_packed_sequences(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^sliding_window_attention: .*{message}"):
        call(PACKED, PACKED, PACKED, **options)


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="dropout"):
        call(dropout=0.1)


def test_an_explicit_backend_does_not_fall_back(cpp: None) -> None:
    wide = torch.zeros(1, 1, 2000, 8)
    with pytest.raises(NotImplementedError, match="backend cpp cannot serve this call: a window holds 1201 keys"):
        vk.sliding_window_attention(wide, wide, wide, 1201, backend="cpp")
    with pytest.raises(NotImplementedError, match="backend flash cannot serve this call: it does not serve dilation"):
        vk.sliding_window_attention(wide, wide, wide, 1201, dilation=2, backend="flash")
    short = wide[:, :, :500]
    assert vk.sliding_window_attention(short, short, short, 1201, backend="cpp").shape[2] == 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: GOOD[0]}, "q must be of shape"),
        ({1: GOOD[:, :, :5]}, "k and v must be of one shape"),
        ({1: GOOD[:, :, :5], 2: GOOD[:, :, :5]}, "k and v must be of q's B, T and D"),
        ({1: GOOD[:, :2], 2: GOOD[:, :2]}, "the number of k's heads must divide q's"),
        ({2: GOOD.double()}, "k and v must be of q's dtype"),
        ({0: GOOD.int(), 1: GOOD.int(), 2: GOOD.int()}, "must be float32, float16, bfloat16 or float64"),
        ({3: torch.ones(2, 9, dtype=torch.bool)}, "key_mask must be bool"),
        ({4: torch.tensor([0, 10])}, "cu_seqlens must be int32"),
        ({5: torch.zeros(3, 4)}, r"bias must be \[H, 5\] in the dtype of lse"),
        ({7: -2}, "window or dilation out of range"),
        ({9: 0}, "window or dilation out of range"),
        ({7: -1, 10: True}, "shifted windows and a bias want a finite window"),
        ({12: 1.0}, "dropout_p must be at least 0 and less than 1"),
        ({12: 0.5}, "seed must be one int64"),
    ],
)
def test_the_compiled_op_checks_again(cpp: None, change: dict[int, Any], message: str) -> None:
    arguments: list[Any] = [GOOD, GOOD, GOOD, None, None, None, None, 2, 2, 1, False, 0.3, 0.0, 0, False]
    for position, value in change.items():
        arguments[position] = value
    with pytest.raises(RuntimeError, match=message):
        torch.ops.vtsum_kernels.sliding_window_attention_fwd(*arguments)


def test_the_compiled_op_looks_at_the_sequences_before_it_reads_them(cpp: None) -> None:
    one = GOOD[:1]
    for ends in ([0, 11], [0, 20, 10], [3, 10], [0, 5]):
        cu_seqlens = torch.tensor(ends, dtype=torch.int32)
        arguments = (one, one, one, None, cu_seqlens, None, None, 2, 2, 1, False, 0.3, 0.0, 0, False)
        with pytest.raises(RuntimeError, match="cu_seqlens must rise from 0 to the total of 10 frames"):
            torch.ops.vtsum_kernels.sliding_window_attention_fwd(*arguments)


def test_the_compiled_backward_checks_again(cpp: None) -> None:
    def backward(dout: Any, dlse: Any) -> Any:
        rest = (None, None, None, None, dlse, None, None, 2, 2, 1, False, 0.3, 0.0, 0)
        return torch.ops.vtsum_kernels.sliding_window_attention_bwd(dout, GOOD, GOOD, GOOD, *rest)

    with pytest.raises(RuntimeError, match="dout must be of q's shape and dtype"):
        backward(GOOD[:, :, :5], None)
    with pytest.raises(RuntimeError, match=r"dlse must be \[B, H, T\] in the dtype of lse"):
        backward(GOOD, GOOD[..., 0].double())
