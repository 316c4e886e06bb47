"""attn_implementation="vtsum_sliding_window" against "eager", model by model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import masking_utils as mu
from vtsum_kernels.integrations import transformers as ours
from vtsum_kernels.integrations.transformers import NAME, LocalWindow, register

from tests.kernels.integrations.dense import close
from tests.kernels.integrations.models import CAUSAL, CONFIGS, build, outputs_and_gradients, padded, tokens

#: float32, four layers, weights of 0.5: what rounding alone makes of the largest entry.
BOUND = 1e-4


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    assert register() == NAME
    assert register() == NAME


@pytest.fixture
def windows() -> Iterator[list[LocalWindow | None]]:
    """What each attention call of a test got for a mask: a LocalWindow, or None for layers that SDPA served."""
    seen: list[LocalWindow | None] = []

    def watched(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **rest: Any) -> Any:
        seen.append(attention_mask if isinstance(attention_mask, LocalWindow) else None)
        return ours.attention(module, query, key, value, attention_mask, **rest)

    tf.AttentionInterface.register(NAME, watched)
    yield seen
    register()


def same(name: str, mask: Tensor | None, ids: Tensor, *, least: float = 1e-3, **rest: Any) -> None:
    wanted = outputs_and_gradients(build(name, "eager"), ids, mask, **rest)
    got = outputs_and_gradients(build(name), ids, mask, **rest)
    assert sum(x is not None for x in got.values()) > 10
    for part in wanted:
        close(f"{name} {part}", got[part], wanted[part], BOUND, least)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("padding", ["none", "ones", "both sides"])
def test_outputs_and_gradients(name: str, padding: str, windows: list[LocalWindow | None]) -> None:
    ids = tokens()
    mask = {"none": None, "ones": torch.ones_like(ids), "both sides": padded()}[padding]
    same(name, mask, ids)
    layers = getattr(CONFIGS[name], "layer_types", None) or ["sliding_attention"] * 2
    assert [window is not None for window in windows] == [kind == "sliding_attention" for kind in layers]
    assert all((window.key_mask is None) == (padding != "both sides") for window in windows if window)


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [
        *((name, 4, 0) for name in ("mistral", "gemma2", "gemma3", "gpt-oss")),
        *((name, 4, 4) for name in ("modernbert", "gemma3-encoder")),
    ],
)
def test_windows(name: str, left: int, right: int, windows: list[LocalWindow | None]) -> None:
    build(name)(input_ids=tokens())
    assert {(window.left, window.right, window.offset) for window in windows if window} == {(left, right, 0)}


@pytest.mark.parametrize("name", ["modernbert", "mistral"])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_shorter_than_the_window(name: str, frames: int) -> None:
    # One key a row: its score has no gradient, p (dp - delta) = 0. float32 leaves what rounding two sums that are the
    # same makes of it, some 1e-6 of dp, on a processor that adds them up in another order.
    same(name, None, tokens(2, frames), least=0.1 if frames == 1 else 1e-3)


class LargestMatrix(TorchDispatchMode):
    """Watches for tensors whose last two sizes are both those of the sequence."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames, self.found = frames, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, Tensor) and x.dim() >= 2 and min(x.shape[-2:]) >= self.frames:
                self.found += 1
        return out


@pytest.mark.parametrize("padding", [False, True])
def test_no_matrix_of_frames_by_frames_for_local_layers(padding: bool) -> None:
    ids = tokens(2, 120)
    mask = torch.ones_like(ids)
    mask[0, :9] = 0
    counts = {}
    for implementation in ("eager", NAME):
        model = build("mistral", implementation)
        with LargestMatrix(120) as watch:
            model(input_ids=ids, attention_mask=mask if padding else None).last_hidden_state.sum().backward()
        counts[implementation] = watch.found
    assert counts["eager"] > 0
    assert counts[NAME] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["modernbert", "gemma3"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """As near to float32 as "eager" is at the same dtype: the output, and the gradients taken together.

    Together, because a gradient of eight entries, a norm's weight, is now nearer and now further by chance: over six
    inputs Gemma-3's relative error in bfloat16 is 0.0193 for both.
    """
    ids, mask = tokens(), padded()
    exact = outputs_and_gradients(build(name, "eager"), ids, mask)
    errors: dict[str, dict[str, float]] = {}
    for implementation in ("eager", NAME):
        found = outputs_and_gradients(build(name, implementation, dtype), ids, mask)
        assert found["out"].dtype == dtype
        errors[implementation] = {
            part: float((found[part].float() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())
            for part, wanted in exact.items()
            if wanted is not None and wanted.any()
        }
    mine, eager = (errors[x] for x in (NAME, "eager"))
    assert mine["out"] <= 2 * eager["out"]
    assert sum(mine.values()) <= 1.5 * sum(eager.values())


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3"])
def test_packed_sequences(name: str, windows: list[LocalWindow | None]) -> None:
    """position_ids that start again: sequences laid end to end do not see each other."""
    ids = tokens(2, 20)
    positions = torch.tensor([[*range(7), *range(9), *range(4)], [*range(12), *range(8)]])
    same(name, None, ids, position_ids=positions, use_cache=False)
    bounds = torch.tensor([0, 7, 16, 20, 32, 40])
    assert all(torch.equal(window.cu_seqlens.long(), bounds) for window in windows if window)
    model = build(name)
    whole = model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    alone = model(input_ids=ids[:1, 7:16], use_cache=False).last_hidden_state
    close("a sequence on its own", whole[:1, 7:16], alone, BOUND)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize(
    "how",
    [{}, {"cache_implementation": "static"}, {"num_beams": 2}, {"prefill_chunk_size": 6}, {"use_cache": False}],
    ids=["cache", "static cache", "beams", "prefill in chunks", "no cache"],
)
def test_generation(name: str, how: dict[str, Any], windows: list[LocalWindow | None]) -> None:
    ids, mask = tokens(3, 13), torch.ones(3, 13, dtype=torch.long)
    mask[1, :6] = 0
    found = []
    for implementation in ("eager", NAME):
        torch.manual_seed(0)
        model = CAUSAL[name]._from_config(CONFIGS[name], attn_implementation=implementation).eval()
        asked = {"max_new_tokens": 8, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}
        result = model.generate(ids, attention_mask=mask, eos_token_id=None, **asked, **how)
        found.append((result.sequences, torch.stack(result.scores).nan_to_num(neginf=0.0)))
    assert torch.equal(found[0][0], found[1][0])
    close("scores", found[1][1], found[0][1], BOUND)
    offsets = {window.offset for window in windows if window}
    assert offsets == ({0, 4} if "prefill_chunk_size" in how else {0})  # queries after keys of the cache


def test_continuing_a_cache_with_several_tokens() -> None:
    """Queries fewer than keys, in layers with and without a window, padding in the cache."""
    ids, mask = tokens(), torch.ones(3, 23, dtype=torch.long)
    mask[1, :6] = 0
    model, whole = build("gemma3"), build("gemma3", "eager")
    wanted = whole(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    cache, chunks = tf.DynamicCache(config=model.config), []
    for first, last in ((0, 4), (4, 11), (11, 12), (12, 23)):
        found = model(
            input_ids=ids[:, first:last], attention_mask=mask[:, :last], past_key_values=cache, use_cache=True
        )
        chunks.append(found.last_hidden_state)
    close("chunks", torch.cat(chunks, 1)[mask.bool()], wanted[mask.bool()], BOUND)


@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize(("sinks", "softcap"), [(True, None), (False, 2.0), (True, 2.0)])
def test_sinks_and_softcap_in_layers_without_a_window(sinks: bool, softcap: float | None, mask: str | None) -> None:
    """A mask of any pattern is served as it is; without one the module says whether it is causal."""
    q, k, v = (torch.randn(2, heads, 9, 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2))
    given = torch.randn(4, dtype=torch.float64, requires_grad=True) if sinks else None
    visible = torch.rand(2, 1, 9, 9) > 0.4
    visible[1, :, 2] = False
    masks = {None: None, "bool": visible, "float": torch.zeros(visible.shape).masked_fill(~visible, -torch.inf)}
    for causal in (False, True):
        module = torch.nn.Identity()
        module.is_causal = causal
        out, _ = ours.attention(module, q, k, v, masks[mask], scaling=0.3, s_aux=given, softcap=softcap)
        seen = visible if mask else torch.ones(9, 9, dtype=torch.bool).tril(0 if causal else 9)
        scores = q @ k.repeat_interleave(2, 1).transpose(-1, -2) * 0.3
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        scores = scores.masked_fill(~seen, torch.finfo(torch.float64).min)
        if given is not None:
            scores = torch.cat([scores, given[:, None, None].expand(2, 4, 9, 1)], -1)
        weights = torch.softmax(scores, -1)[..., :9].masked_fill(~seen, 0.0)
        wanted = (weights @ v.repeat_interleave(2, 1)).transpose(1, 2)
        leaves = [x for x in (q, k, v, given) if x is not None]
        along = torch.randn(out.shape, dtype=torch.float64)
        found = [[x, *torch.autograd.grad((x * along).sum(), leaves)] for x in (out, wanted)]
        for got, exact in zip(*found, strict=True):
            torch.testing.assert_close(got, exact)


def test_gradient_checkpointing() -> None:
    ids, mask = tokens(), padded()
    wanted = outputs_and_gradients(build("modernbert"), ids, mask)
    model = build("modernbert").train()
    model.gradient_checkpointing_enable()
    got = outputs_and_gradients(model, ids, mask)
    for part in wanted:
        close(part, got[part], wanted[part], 1e-6)


@pytest.mark.parametrize("name", ["modernbert", "mistral", "gemma2"])
def test_compiled_in_one_graph(name: str) -> None:
    ids, mask = tokens(), padded()
    rest = {} if name == "modernbert" else {"use_cache": False}
    wanted = outputs_and_gradients(build(name, num_hidden_layers=2), ids, mask, **rest)
    torch._dynamo.reset()
    model = build(name, num_hidden_layers=2)
    model.forward = torch.compile(model.forward, backend="aot_eager", fullgraph=True)
    got = outputs_and_gradients(model, ids, mask, **rest)
    for part in wanted:
        close(part, got[part], wanted[part], BOUND)


def test_packed_sequences_break_a_graph() -> None:
    """Without a mask transformers looks for them, and what it finds depends on values: right, but not in one graph."""
    ids = tokens(2, 20)
    positions = torch.tensor([[*range(7), *range(9), *range(4)], [*range(12), *range(8)]])
    model = build("mistral", num_hidden_layers=1)
    wanted = model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    torch._dynamo.reset()
    got = torch.compile(model, backend="eager")(input_ids=ids, position_ids=positions, use_cache=False)
    close("packed", got.last_hidden_state, wanted, BOUND)
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(model, backend="eager", fullgraph=True)(input_ids=ids, position_ids=positions, use_cache=False)


@pytest.mark.parametrize("packed", [False, True])
def test_dropout(packed: bool) -> None:
    """The mean over many draws is the output without dropout; a seed gives its draw again; evaluation has none."""
    q, k, v = (torch.randn(1, 2, 9, 8, generator=torch.Generator().manual_seed(n)) for n in range(3))
    bounds = torch.tensor([0, 9], dtype=torch.int32) if packed else None
    window = LocalWindow(2, 2, 0, None, bounds)
    module = torch.nn.Identity()
    exact, _ = ours.attention(module, q, k, v, window)
    torch.manual_seed(5)
    first, _ = ours.attention(module, q, k, v, window, dropout=0.3)
    draws = torch.stack([ours.attention(module, q, k, v, window, dropout=0.3)[0] for _ in range(600)])
    torch.manual_seed(5)
    again, _ = ours.attention(module, q, k, v, window, dropout=0.3)
    assert torch.equal(first, again)
    assert not torch.equal(first, exact)
    sigma = draws.std(0) / draws.shape[0] ** 0.5
    assert ((draws.mean(0) - exact).abs() <= 5 * sigma + 1e-6).all()


def test_what_the_op_does_not_know_is_refused_by_name() -> None:
    q = torch.randn(1, 2, 9, 8)
    window = LocalWindow(2, 2, 0, None, None)
    for name in ("sinks", "position_bias", "cache"):
        with pytest.raises(NotImplementedError, match=rf"{NAME}: {name} must be None, got Tensor"):
            ours.attention(torch.nn.Identity(), q, q, q, window, **{name: torch.zeros(2)})
    for name in ("position_bias", "cache"):  # in layers without a window too, where SDPA does not serve them
        with pytest.raises(NotImplementedError, match=rf"{NAME}: {name} must be None, got Tensor"):
            ours.attention(torch.nn.Identity(), q, q, q, None, softcap=30.0, **{name: torch.zeros(2)})


def test_patterns_that_are_no_window_are_refused_by_name() -> None:
    chunks = mu.chunked_causal_mask_function(4, torch.zeros(2, dtype=torch.long))
    with pytest.raises(NotImplementedError, match=r"mask_function must be a sliding window.*and_masks.*use attn_impl"):
        ours.mask(2, 9, 9, mask_function=chunks, local_size=4)
    model = build("gemma3")
    blocks = torch.full((3, 23), -1)
    with pytest.raises(NotImplementedError, match=r"mask_function must be a sliding window.*or_masks"):
        mu.create_sliding_window_causal_mask(
            model.config, torch.zeros(3, 23, 32), None, None, block_sequence_ids=blocks
        )


def test_register_is_all_that_a_program_calls_before_it_loads_a_model() -> None:
    """Beside a torchvision that does not fit torch, importing a model class fails, and used to here too."""
    program = """
from vtsum_kernels.integrations.transformers import register
name = register()
from transformers import AutoModel, MistralConfig
sizes = dict(hidden_size=16, intermediate_size=16, num_attention_heads=2, num_key_value_heads=1, vocab_size=9)
print(AutoModel.from_config(MistralConfig(num_hidden_layers=1, **sizes), attn_implementation=name).config.model_type)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "mistral"), done.stderr[-2000:]
