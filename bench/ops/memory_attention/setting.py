"""A case of the memory benchmarks: its sizes, its inputs, and the work that it takes at the least."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.kit.clock import Call

#: What is computed: the layer of MemoryBank, the same with projected queries and the plain product in place of cosine,
#: retrieval alone, reading the k best slots, the same with keys that are pairs of halves, finding those slots alone,
#: and the weighted sum of their values alone.
CASES = ("fuse", "projected", "attention", "topk", "product_keys", "search", "gather")
#: Where MemoryBank's learned temperature starts, for cosine; for the plain product of projected queries, a factor
#: at which the weights are as far from uniform.
COSINE_SCALE, PLAIN_SCALE = 16.0, 4.0
#: The slots that a frame reads with all its weight lie about one direction, this near to it; so does the frame.
NEARNESS = 0.7


@dataclass(frozen=True)
class Setting:
    case: str
    device: str
    dtype: str
    direction: str
    """fwd or fwd+bwd."""
    tokens: int
    dim: int
    slots: int
    heads: int = 1
    k: int = 0

    @property
    def gradients(self) -> bool:
        return self.direction == "fwd+bwd"

    @property
    def element_bytes(self) -> int:
        return int(getattr(torch, self.dtype).itemsize)

    @property
    def cosine(self) -> bool:
        return self.case not in ("projected", "product_keys", "gather")

    @property
    def shape(self) -> dict[str, int]:
        sizes = {"N": self.tokens, "C": self.dim, "S": self.slots, "H": self.heads}
        return sizes | ({"k": self.k} if self.k else {})

    @property
    def halves(self) -> tuple[int, int]:
        """The numbers of first and second halves whose pairs are the slots: as near to each other as can be."""
        first = next(n for n in range(int(self.slots**0.5), 0, -1) if self.slots % n == 0)
        return first, self.slots // first

    @property
    def title(self) -> str:
        best = f" k {self.k}" if self.k else ""
        return f"memory {self.case} {self.direction} {self.dtype} N {self.tokens} S {self.slots} H {self.heads}{best}"

    def as_case(self, case: str) -> Setting:
        return dataclasses.replace(self, case=case)


@dataclass(frozen=True)
class Inputs:
    """Several sets of x and the result's gradient, which meet the same bank."""

    x: list[Tensor]
    """[1, N, C]; for gather the weights [N, k], float32 at least."""
    dout: list[Tensor]
    parameters: dict[str, Tensor]
    """With gradients, where the pass has any: bank [S, C]; join_weight [C, 2 C], join_bias [C]; query_weight [C, C];
    scale []; for product keys first [Sa, C / 2], second [Sb, C / 2] and values [S, C]; for gather table [S, C]."""
    constants: dict[str, Tensor]
    """index [N, k], for gather."""


@dataclass(frozen=True)
class Layer:
    """How an implementation computes: what depends on the parameters alone, and the rest.

    At inference the first is done once, ahead of the calls, as it is by whoever cares for speed.
    """

    prepare: Callable[..., tuple[Any, ...]]
    compute: Callable[..., Any]


def _clusters(setting: Setting, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A bank whose slots lie in groups of k, in no order, and the groups' directions [groups, C].

    A frame near a group's direction has that group for its k best slots, by a distance that rounding to bfloat16 does
    not bridge: who rounds is found to be less precise, and not to have read other slots.
    """
    groups = max(setting.slots // max(setting.k, 1), 1)

    def directions(count: int) -> Tensor:
        made = torch.randn(count, setting.dim, generator=generator, device=setting.device)
        return F.normalize(made, dim=-1)

    centres = directions(groups)
    own = torch.arange(setting.slots, device=setting.device) // max(setting.k, 1)
    apart = (1 - NEARNESS**2) ** 0.5
    bank = directions(setting.slots) * torch.where(own < groups, apart, 1.0)[:, None]
    bank += NEARNESS * centres[own.clamp(max=groups - 1)] * (own < groups)[:, None]
    order = torch.randperm(setting.slots, generator=generator, device=setting.device)
    return bank[order], centres


def make_inputs(setting: Setting, sets: int = 1, seed: int = 0) -> Inputs:
    """Inputs as a model has them: frames of unit variance, a bank of about unit norm, a Linear's weights."""
    device, (n, c, s) = setting.device, (setting.tokens, setting.dim, setting.slots)
    dtype = getattr(torch, setting.dtype)
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def linear(out: int, into: int) -> Tensor:
        return (torch.rand(out, into, generator=generator, device=device) * 2 - 1) * into**-0.5

    parameters, constants, centres = {}, {}, None
    if setting.case == "gather":
        parameters["table"] = normal(s, c) * c**-0.5
        constants["index"] = torch.randint(s, (n, setting.k), generator=generator, device=device, dtype=torch.int32)
    elif setting.case == "product_keys":
        first, second = setting.halves
        parameters |= {"first": normal(first, c // 2) * c**-0.5, "second": normal(second, c // 2) * c**-0.5}
        parameters["values"] = normal(s, c) * c**-0.5
    elif setting.case in ("topk", "search"):
        parameters["bank"], centres = _clusters(setting, generator)
    else:
        parameters["bank"] = normal(s, c) * c**-0.5
    if setting.case in ("fuse", "projected"):
        parameters |= {"join_weight": linear(c, 2 * c), "join_bias": linear(1, c).flatten()}
    if setting.case == "projected":
        parameters["query_weight"] = linear(c, c)
    parameters = {name: tensor.to(dtype) for name, tensor in parameters.items()}
    if setting.case not in ("search", "gather"):
        scale = COSINE_SCALE if setting.cosine else PLAIN_SCALE
        parameters["scale"] = torch.tensor(scale, dtype=torch.promote_types(dtype, torch.float32), device=device)
    if setting.gradients:
        for tensor in parameters.values():
            tensor.requires_grad_()

    def frames() -> Tensor:
        if setting.case == "gather":
            return torch.softmax(normal(n, setting.k), -1).to(torch.promote_types(dtype, torch.float32))
        if centres is None:
            return normal(1, n, c).to(dtype)
        near = centres[torch.randint(len(centres), (1, n), generator=generator, device=device)]
        x = NEARNESS * near + (1 - NEARNESS**2) ** 0.5 * normal(1, n, c) * c**-0.5
        # Searching alone takes frames of unit norm and leaves the bank as it is: an inner product, as faiss has it.
        return (F.normalize(x, dim=-1) if setting.case == "search" else x * c**0.5).to(dtype)

    xs = [frames().requires_grad_(setting.gradients) for _ in range(sets)]
    shape = (n, c) if setting.case == "gather" else (1, n, c)
    return Inputs(
        xs, [normal(*shape).to(dtype) for _ in range(sets if setting.gradients else 0)], parameters, constants
    )


def call_of(layer: Layer, setting: Setting, inputs: Inputs, compiled: bool = False) -> Call:
    """The pass to measure: (out, ...), and with gradients those of x and of each parameter, in order."""
    parameters = tuple(inputs.parameters.values())

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function, dynamic=False, fullgraph=True) if compiled else function

    if not setting.gradients:
        prepared, compute = layer.prepare(**inputs.parameters, **inputs.constants), wrapped(layer.compute)

        def forward(i: int) -> tuple[Tensor, ...]:
            out = compute(inputs.x[i], *prepared)
            return out if isinstance(out, tuple) else (out,)

        return forward

    def whole(x: Tensor, *tensors: Tensor) -> Tensor:
        named = dict(zip(inputs.parameters, tensors, strict=True))
        return layer.compute(x, *layer.prepare(**named, **inputs.constants))

    run = wrapped(whole)

    def both(i: int) -> tuple[Tensor, ...]:
        out = run(inputs.x[i], *parameters)
        return out, *torch.autograd.grad(out, (inputs.x[i], *parameters), inputs.dout[i])

    return both


# Work: multiplications and additions of the matrix products.


def _dense(s: Setting, fold_values: bool, fold_keys: bool) -> int:
    bank, passes = s.heads * s.slots, 3 if s.gradients else 1  # each product has two gradients, products both
    joined, projected = s.case in ("fuse", "projected"), s.case == "projected"
    a_frame = (bank if fold_keys else s.slots) + (bank if fold_values else s.slots)  # scores, and what they weigh
    if projected and not fold_keys:
        a_frame += s.dim
    if joined:
        a_frame += s.dim * (1 if fold_values else 2)
    # Folding is done once and for all at inference, and in every step of training.
    folding = s.slots * s.dim * s.dim * (fold_values + fold_keys) if s.gradients else 0
    return 2 * passes * (s.tokens * s.dim * a_frame + folding)


def work_sparse(s: Setting) -> int:
    """All scores once (for product keys, of the halves); of the slots that were read, the values and the gradients."""
    scored = sum(s.halves) // 2 if s.case == "product_keys" else s.slots
    read = 0 if s.case == "search" else s.tokens * s.k * s.dim * (5 if s.gradients else 1)
    return 2 * (s.tokens * s.dim * scored + read)


def least_work(s: Setting) -> int:
    """Of whichever way takes least; 0 for the gather, which moves bytes."""
    if s.case == "gather":
        return 0
    if s.k:
        return work_sparse(s)
    folds = (False, True)
    joined, projected = s.case in ("fuse", "projected"), s.case == "projected"
    return min(_dense(s, v and joined, k and projected) for v in folds for k in folds)


def moved_bytes(s: Setting) -> int:
    """Bytes that have to be read and written: frames, results and parameters, and the gradients of each."""
    frames, bank = s.tokens * s.dim, s.slots * s.dim
    if s.case == "gather":
        rows, weights = s.tokens * s.k * s.dim, s.tokens * s.k
        elements = rows + frames
        if s.gradients:  # the rows once more for the weights' gradients; the output's for each slot that was read
            elements += 2 * rows + frames + bank
        return elements * s.element_bytes + weights * 4 * (6 if s.gradients else 2)  # and the indices
    if s.case == "search":
        return (frames + bank) * s.element_bytes + s.tokens * s.k * 8
    joined = {"fuse": 2, "projected": 3}.get(s.case, 0) * s.dim**2
    elements = 2 * frames + bank + joined
    return elements * (2 if s.gradients else 1) * s.element_bytes


def smallest_first(settings: Sequence[Setting]) -> list[Setting]:
    """Case by case, the least work first."""
    return sorted(settings, key=lambda s: (CASES.index(s.case), max(least_work(s), moved_bytes(s))))
