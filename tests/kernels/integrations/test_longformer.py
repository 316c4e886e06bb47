"""The op inside transformers' Longformer and LED, against their own code."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor, nn
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention
from vtsum_kernels.integrations import longformer

from tests.kernels.integrations.dense import close
from tests.kernels.integrations.models import outputs_and_gradients, padded

_CONFIG = tf.LongformerConfig(
    vocab_size=60,
    hidden_size=32,
    intermediate_size=24,
    num_attention_heads=4,
    num_hidden_layers=2,
    attention_window=[4, 8],
    max_position_embeddings=70,
    initializer_range=0.5,
    attention_probs_dropout_prob=0.0,
    hidden_dropout_prob=0.0,
)
_LED = tf.LEDConfig(
    vocab_size=60,
    d_model=32,
    encoder_layers=2,
    decoder_layers=1,
    encoder_ffn_dim=24,
    decoder_ffn_dim=24,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    attention_window=4,
    max_encoder_position_embeddings=70,
    max_decoder_position_embeddings=70,
    init_std=0.3,
    dropout=0.0,
    attention_dropout=0.0,
)


def build(kind: str) -> nn.Module:
    torch.manual_seed(0)
    model = {"longformer": tf.LongformerModel, "led": tf.LEDModel}[kind]
    return model(copy.deepcopy({"longformer": _CONFIG, "led": _LED}[kind])).eval()


def batch() -> dict[str, Tensor]:
    mask = padded()
    ids = torch.randint(3, 60, mask.shape, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("kind", ["longformer", "led"])
def test_models(kind: str) -> None:
    wanted = outputs_and_gradients(build(kind), *batch().values())
    model = build(kind)
    assert longformer.use_in(model) == 2
    assert longformer.use_in(model) == 2
    got = outputs_and_gradients(model, *batch().values())
    assert sum(x is not None for x in got.values()) > 20
    for name in wanted:
        # One vector added to all keys changes no softmax: that gradient is 0 but for rounding, of terms of about 1.
        close(name, got[name], wanted[name], 1e-4, least=1.0 if name.endswith("key.bias") else 1e-3)


def attention(window: int = 6) -> LongformerSelfAttention:
    config = copy.deepcopy(_CONFIG)
    config.attention_window = [window]
    torch.manual_seed(0)
    module = LongformerSelfAttention(config, layer_id=0).eval()
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.5)
    return module


@pytest.mark.parametrize(("dtype", "padding"), [(torch.float32, 7), (torch.float64, 3)])
def test_every_row_of_a_layer(dtype: torch.dtype, padding: int) -> None:
    """Padded rows too, which Longformer sets to 0. In float64 its gradient is NaN where a row sees padding alone."""
    module = attention().to(dtype)
    x = torch.randn(2, 18, 32, dtype=dtype, generator=torch.Generator().manual_seed(3)).requires_grad_()
    masked = torch.zeros(2, 18, dtype=torch.bool)
    masked[0, :padding] = masked[1, 18 - padding :] = True
    mask = torch.zeros(2, 18, dtype=dtype).masked_fill(masked, torch.finfo(dtype).min)
    along = torch.randn(2, 18, 32, dtype=dtype, generator=torch.Generator().manual_seed(4))
    wanted = module(x, attention_mask=mask, is_index_masked=masked)[0]
    got = longformer.longformer_self_attention(module, x, mask, masked)
    close("out", got, wanted, 1e-5)  # Longformer's own softmax is in float32
    assert not got[masked].any()
    (dx,), (wanted_dx,) = (torch.autograd.grad((out * along).sum(), x) for out in (got, wanted))
    close("dx", dx, wanted_dx, 1e-5)


def test_lengths_that_longformer_pads() -> None:
    module, x = attention(), torch.randn(1, 25, 32, generator=torch.Generator().manual_seed(3))
    long = torch.cat([x, torch.zeros(1, 5, 32)], 1)
    masked = torch.arange(30)[None, :] >= 25
    mask = torch.zeros(1, 30).masked_fill(masked, torch.finfo(torch.float32).min)
    wanted = module(long, attention_mask=mask, is_index_masked=masked)[0][:, :25]
    close("out", longformer.longformer_self_attention(module, x), wanted, 1e-5)


def test_dropout_only_in_training() -> None:
    module, x = attention(), torch.randn(1, 12, 32)
    module.dropout = 0.5
    still = longformer.longformer_self_attention(module, x)
    assert torch.equal(still, longformer.longformer_self_attention(module, x))
    module.train()
    assert not torch.equal(still, longformer.longformer_self_attention(module, x))


@pytest.mark.parametrize("asked", [{"global": True}, {"output_attentions": True}])
def test_what_is_not_covered_runs_as_before(asked: dict[str, Any]) -> None:
    inputs: dict[str, Any] = batch()
    if asked.pop("global", False):
        inputs["global_attention_mask"] = torch.zeros_like(inputs["input_ids"])
        inputs["global_attention_mask"][:, 8] = 1
    model = build("longformer")
    wanted = model(**inputs, **asked)
    longformer.use_in(model)
    got = model(**inputs, **asked)
    assert torch.equal(got.last_hidden_state, wanted.last_hidden_state)
    if asked:
        assert all(torch.equal(a, b) for a, b in zip(got.attentions, wanted.attentions, strict=True))


def test_restore() -> None:
    model = build("longformer")
    wanted = model(**batch()).last_hidden_state
    longformer.use_in(model)
    changed = model(**batch()).last_hidden_state
    assert not torch.equal(changed, wanted)  # the same to rounding, by another way
    assert longformer.restore(model) == 2
    assert longformer.restore(model) == 0
    assert torch.equal(model(**batch()).last_hidden_state, wanted)


def test_models_without_local_attention() -> None:
    with pytest.raises(ValueError, match=r"^use_in: model must contain LongformerSelfAttention or LED.*, got Linear$"):
        longformer.use_in(nn.Linear(2, 2))
