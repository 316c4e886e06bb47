"""The module over the memory ops: a bank of learnable slots that every frame reads."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import checks
from ..library import transformed
from ..memory_attention import memory_attention
from ..memory_attention.reference import unit
from ..memory_fuse import Folded, fold_bank, memory_fuse
from ..tensors import acc_dtype, autocast
from . import bank_writing

#: Where a learned temperature starts for cosine similarity. 1 / sqrt(C) keeps every logit so near 0 that the softmax
#: stays uniform and the bank is never read selectively; 16 spreads cosines of random vectors enough to learn from.
INITIAL_COSINE_SCALE = 16.0
MAX_SCALE = 100.0


class MemoryUsage(NamedTuple):
    """How a bank was used in the last forward.

    mass [H, S]: sum over valid frames of the weight each slot got. perplexity: of the mean weights, 1 (one slot takes
    all) to S (uniform), the mean over heads. dead: slots that got less than a hundredth of an even share in every head.
    """

    mass: Tensor
    perplexity: float
    dead: int


class MemoryBank(nn.Module):
    """A bank of learnable slots that every frame reads, and the layer that joins what was read to the frame.

        h = norm(x);  m = softmax(scale * cos(h, memory)) memory;  y = x + update(h, m)

    The update is Linear([h, m]) for fuse="concat", sigmoid(Linear([h, m])) * m for "gate", m for "add". The published
    form is normalize=True, temperature=1 / sqrt(C), fuse="concat", residual=False, norm=False.

    Args:
        num_slots (int): S. dim (int): C. num_heads (int): H, dividing C.
        query_proj (bool): a learned projection of h before it is compared with the slots.
        normalize (bool): cosine similarity in place of the plain product.
        temperature (str | float): the factor of the scores; "learned" starts at 16 for cosine, 1 / sqrt(C / H) else.
        top_k (int | None): read only the k best slots a frame and head.
        product_keys (bool): the keys of the S = R * R slots are all pairs of two sets of R half keys, so that a search
            among them costs 2 R products and not S: for banks above some 16,000 slots. Wants top_k.
        fuse (str): "concat", "gate" or "add".
        residual (bool): add x to the update. norm (bool): LayerNorm before the retrieval.
    Raises:
        ValueError: for a value outside those.
    """

    def __init__(
        self,
        num_slots: int,
        dim: int,
        num_heads: int = 1,
        query_proj: bool = False,
        normalize: bool = True,
        temperature: str | float = "learned",
        top_k: int | None = None,
        product_keys: bool = False,
        fuse: str = "concat",
        residual: bool = True,
        norm: bool = True,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        sizes = {"num_slots": num_slots, "dim": dim, "num_heads": num_heads} | (
            {} if top_k is None else {"top_k": top_k}
        )
        for argument, value in sizes.items():
            checks.is_positive_int(name, argument, value)
        if dim % num_heads:
            checks.fail(name, "dim", f"divisible by num_heads = {num_heads}", dim)
        if fuse not in ("concat", "gate", "add"):
            checks.fail(name, "fuse", '"concat", "gate" or "add"', repr(fuse))
        self.num_heads = num_heads
        self.normalize = normalize
        self.top_k = top_k
        self.fuse = fuse
        self.residual = residual
        # See fold_: the snapshot, and the parameters that it was made of.
        self._folded: tuple[Folded, tuple[nn.Parameter | None, ...]] | None = None
        self.norm = nn.LayerNorm(dim) if norm else None
        self.memory = nn.Parameter(torch.empty(num_slots, dim))
        nn.init.normal_(self.memory, std=dim**-0.5)  # rows of about unit norm
        # Parameters of this very module, not of Linear children: sharded training (ZeRO-3) gathers a parameter when
        # its own module's forward runs, and the folded products use these without calling a child's forward.
        self.half_keys: nn.Parameter | None = None
        self.query_weight: nn.Parameter | None = None
        self.join_weight: nn.Parameter | None = None
        self.join_bias: nn.Parameter | None = None
        if product_keys:
            root = math.isqrt(num_slots)
            if top_k is None:
                checks.fail(name, "top_k", "given where there are product_keys", None)
            if root * root != num_slots:
                checks.fail(name, "num_slots", "a square number where there are product_keys", num_slots)
            if dim // num_heads % 2:
                checks.fail(name, "dim", f"divisible by 2 * num_heads = {2 * num_heads} with product_keys", dim)
            self.half_keys = nn.Parameter(torch.empty(2, num_heads, root, dim // num_heads // 2))
            nn.init.normal_(self.half_keys, std=dim**-0.5)
        if query_proj:
            self.query_weight = nn.Parameter(_linear_init(dim, dim))
        if fuse != "add":
            self.join_weight = nn.Parameter(_linear_init(dim, 2 * dim))
            self.join_bias = nn.Parameter(torch.zeros(dim))
        # One element rather than none: sharded optimisers partition parameters along their first dimension.
        self.log_scale: nn.Parameter | None = None
        self.scale: float | None = None
        if temperature == "learned":
            start = INITIAL_COSINE_SCALE if normalize else (dim // num_heads) ** -0.5
            self.log_scale = nn.Parameter(torch.tensor([math.log(start)]))
        elif isinstance(temperature, (int, float)) and not isinstance(temperature, bool) and math.isfinite(temperature):
            self.scale = float(temperature)
        else:
            checks.fail(name, "temperature", '"learned" or a finite float', repr(temperature))
        self.mass: Tensor
        self.counts: Tensor
        wide = acc_dtype(self.memory.dtype)
        self.register_buffer("mass", torch.zeros(num_heads, num_slots, dtype=wide), persistent=False)
        # What `write` keeps: how many frames each slot stands for, and (last) where the next one goes. Integers, which
        # no conversion touches: bfloat16 counts to 256.
        self.register_buffer("counts", torch.zeros(num_slots + 1, dtype=torch.int64), persistent=False)
        self._usage: Tensor | None = None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, T, C]; mask bool [B, T], True = valid. Returns [B, T, C], 0 (with gradient 0) at padded frames."""
        valid = None if mask is None else mask.unsqueeze(-1)
        if valid is not None:
            x = x.masked_fill(~valid, 0.0)
        hidden = x if self.norm is None else self.norm(x)
        y, usage = self._read(hidden, x if self.residual else None, mask)
        if not transformed():  # a transform of torch.func lets nothing outside of it be written
            self.mass.copy_(usage.detach())
        self._usage = usage if torch.is_grad_enabled() and not torch.compiler.is_exporting() else None
        return y

    def _read(self, hidden: Tensor, residual: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The update, with the residual where there is one, [B, T, C], and the usage [H, S]."""
        options: dict[str, Any] = {
            "num_heads": self.num_heads,
            "scale": self.scale if self.log_scale is None else self.log_scale.exp().clamp(max=MAX_SCALE),
            "query_mask": mask,
            "return_usage": True,
        }
        if self.top_k is not None:
            options["top_k"] = self.top_k
        (hidden,) = autocast(hidden)
        dtype = hidden.dtype
        values = self.memory.to(dtype)
        keys: Any = values
        queries, query_weight = hidden, _cast(self.query_weight, dtype)
        weight, bias = _cast(self.join_weight, dtype), _cast(self.join_bias, dtype)
        if self.half_keys is None:
            options["normalize"] = self.normalize
            if self.fuse == "concat" and weight is not None:
                options |= {"query_weight": query_weight, "fold": self._folded_for(dtype) or "auto"}
                if residual is None or residual.dtype == dtype:
                    return memory_fuse(hidden, keys, None, weight, bias, residual=residual, **options)
                y, usage = memory_fuse(hidden, keys, None, weight, bias, **options)  # autocast norms in float32
                return residual + y, usage
        if query_weight is not None:
            queries = F.linear(hidden, query_weight)
        if self.half_keys is not None:
            keys = self.half_keys.to(dtype).unbind(0)
            if self.normalize:
                # Halves of norm 1 / sqrt(2) make keys of norm 1, whichever two are paired.
                keys = tuple(unit(half) * 0.5**0.5 for half in keys)
                queries = unit(queries.unflatten(-1, (self.num_heads, -1))).flatten(-2)
        read, usage = memory_attention(queries, keys, values, **options)
        if weight is not None:
            joined = F.linear(torch.cat((hidden, read), -1), weight, bias)
            if self.fuse == "gate":  # padded frames read nothing, so that the gate has nothing to let through
                read = torch.sigmoid(joined) * read
            else:
                read = joined if mask is None else joined.masked_fill(~mask[..., None], 0.0)
        return (read if residual is None else residual + read), usage

    def balance_loss(self) -> Tensor:
        """How unevenly the last forward used the slots: sum over slots of S * (mean weight)^2 - 1, the mean over heads.

        0 when they are used evenly, S - 1 when one takes all, 0 after a batch without a valid frame. Differentiable: it
        goes back through what that forward kept, and touches no parameter itself, so that sharded training keeps its
        gradient.

        Raises:
            RuntimeError: no forward has recorded gradients since the last call, as under checkpointing with
                use_reentrant=True, where the gradient would be silently lost.
        """
        usage, self._usage = self._usage, None
        if usage is None:
            raise RuntimeError(
                "MemoryBank: balance_loss must follow a forward that records gradients, got none; "
                "under activation checkpointing use use_reentrant=False"
            )
        share = usage / usage.sum(-1, keepdim=True).clamp_min(1e-12)
        balance = (share.square().sum(-1) * usage.shape[-1] - 1.0).mean()
        return balance * (usage.sum() > 0)

    @torch.no_grad()
    def usage(self) -> MemoryUsage:
        """How the slots were used in the last forward (outside of torch.func's transforms); zeros and perplexity 0
        before the first."""
        mass = self.mass.clone()
        total = mass.sum(-1, keepdim=True)
        if not bool((total > 0).all()):
            return MemoryUsage(mass, 0.0, mass.shape[1])
        share = mass / total
        entropy = -(share * share.clamp_min(1e-30).log()).sum(-1)
        dead = (share < 0.01 / mass.shape[1]).all(0)
        return MemoryUsage(mass, float(entropy.exp().mean()), int(dead.sum()))

    def sum_usage(self, group: Any = None) -> None:
        """Add up how all ranks of a group, each with a stretch of a sequence, used the slots in the last forward.

        `usage` and `balance_loss` then tell of the whole sequence, on every rank. Retrieval itself needs no other rank.

        The gradients of balance_loss by a rank's parameters are its frames' share, as those of any loss of its frames.

        Args:
            group: a ProcessGroup, a DeviceMesh of one dimension, or None: all processes. All of its ranks call this.
        Raises:
            RuntimeError: there is no process group, or a rank does not answer; it is named.
        """
        from ..distributed.group import group_of
        from ..distributed.sums import sum_value

        members = group_of(f"{type(self).__name__}.sum_usage", group)
        whole = sum_value(members, self.mass if self._usage is None else self._usage)
        self.mass.copy_(whole.detach())
        self._usage = None if self._usage is None else whole

    @torch.no_grad()
    def write(self, x: Tensor, rule: str = "fifo", mask: Tensor | None = None, momentum: float = 0.9) -> None:
        """Put frames of a stream into the bank, in their order; nothing of it is learned.

        Args:
            x (Tensor): [..., C], as `forward` takes them. mask (Tensor | None): bool [...], True = valid.
            rule (str): "fifo": each replaces the oldest slot; "ema": each moves the most similar slot towards itself,
                slot = momentum * slot + (1 - momentum) * frame; "merge": each is put at the end, and of all slots then
                the two neighbours that are most alike become their mean, weighted by the frames they stand for
                (after MA-LMM, CVPR 2024, section 3.2); slots that no frame was written to give way first.
            momentum (float): of "ema", 0 to 1.
        Raises:
            ValueError: for another rule, shape or value.
            RuntimeError: if the bank has product keys, or lies in shards of ZeRO-3.
        """
        name = type(self).__name__
        if rule not in bank_writing.RULES:
            checks.fail(name, "rule", " or ".join(f'"{one}"' for one in bank_writing.RULES), repr(rule))
        if self.half_keys is not None:
            raise RuntimeError("MemoryBank: write must be used on a bank without product_keys, whose keys are free")
        if self.memory.numel() == 0 or hasattr(self.memory, "ds_id"):
            raise RuntimeError("MemoryBank: write must be used on a whole bank, got one that is sharded (ZeRO-3)")
        dim = self.memory.shape[1]
        if x.shape[-1] != dim:
            checks.fail(name, "x", f"of shape [..., {dim}]", list(x.shape))
        if mask is not None and mask.shape != x.shape[:-1]:
            checks.fail(name, "mask", f"of x's shape {list(x.shape[:-1])}", list(mask.shape))
        if not 0.0 <= momentum <= 1.0:
            checks.fail(name, "momentum", "0 to 1", momentum)
        frames = x.reshape(-1, dim) if mask is None else x[mask]
        if self.norm is not None:
            frames = self.norm(frames)  # slots lie among what they are compared with
        self._folded = None
        bank_writing.RULES[rule](self.memory, self.counts, frames.to(self.memory.dtype), momentum)

    @torch.inference_mode(False)
    @torch.no_grad()
    def fold_(self) -> MemoryBank:
        """Make it ready for inference: evaluation mode, and a snapshot of what `fold_bank` folds into the bank, which
        forwards without gradients then use as it is. Returns self.

        The snapshot is dropped by `train()`, `load_state_dict`, `write`, whatever moves or converts the module, and a
        forward that wants gradients of the parameters. Any other change of a parameter (an optimiser's step,
        `p.data.copy_`, a broadcast) is the caller's to follow by `fold_()`; `fold_check()` finds what was not. Only
        fuse="concat" without product keys folds anything.

        Raises:
            RuntimeError: the bank lies in shards of ZeRO-3.
        """
        self.eval()
        if self.memory.numel() == 0 or hasattr(self.memory, "ds_id"):
            raise RuntimeError("MemoryBank: fold_ must be used on a whole bank, got one that is sharded (ZeRO-3)")
        folded = self._fold()
        self._folded = None if folded is None else (folded, self._sources())
        return self

    def fold_check(self) -> None:
        """Fold anew, and compare with the snapshot that forwards use; nothing is compared where there is none.

        Raises:
            RuntimeError: they differ by more than rounding.
        """
        if self._folded is None:
            return
        with torch.inference_mode(False), torch.no_grad():
            now = self._fold()
        try:
            torch.testing.assert_close(self._folded[0], now, equal_nan=True)
        except AssertionError as error:
            difference = " ".join(str(error).split())
            raise RuntimeError(
                "MemoryBank: fold_check: the parameters must be those that fold_ folded, got others; "
                f"call fold_() again ({difference})"
            ) from None

    def _fold(self) -> Folded | None:
        if self.join_weight is None or self.fuse != "concat" or self.half_keys is not None:
            return None
        options: dict[str, Any] = {"num_heads": self.num_heads, "normalize": self.normalize, "top_k": self.top_k}
        return fold_bank(self.memory, None, self.join_weight, query_weight=self.query_weight, **options)

    def _sources(self) -> tuple[nn.Parameter | None, ...]:
        return self.memory, self.join_weight, self.query_weight

    def _folded_for(self, dtype: torch.dtype) -> Folded | None:
        """The snapshot, where a forward may use it."""
        if self._folded is None:
            return None
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters()):
            self._folded = None
            return None
        folded, sources = self._folded
        # torch.func.functional_call puts others in their place; under autocast frames may be of another dtype.
        own = all(ours is theirs for ours, theirs in zip(self._sources(), sources, strict=True))
        return folded if own and dtype == self.memory.dtype else None

    def train(self, mode: bool = True) -> MemoryBank:
        if mode:
            self._folded = None
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> MemoryBank:  # to, cuda, half, share_memory and the like
        self._folded = None
        mass = self.mass
        super()._apply(*args, **kwargs)
        if acc_dtype(self.mass.dtype) != self.mass.dtype:  # float16 holds neither the mass of many frames nor a trace
            self.mass = mass.to(self.mass.device)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._folded = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # A copy of the module has had no forward of its own; what this one's graph holds cannot be copied.
        return {**self.__dict__, "_usage": None}

    def extra_repr(self) -> str:
        slots, dim = self.memory.shape
        scale = "learned" if self.scale is None else f"{self.scale:.4g}"
        search = "" if self.top_k is None else f", top_k={self.top_k}, product_keys={self.half_keys is not None}"
        return (
            f"num_slots={slots}, dim={dim}, num_heads={self.num_heads}, normalize={self.normalize}, "
            f"temperature={scale}{search}, fuse={self.fuse}, residual={self.residual}"
        )


def _linear_init(out_dim: int, in_dim: int) -> Tensor:
    """The start of torch.nn.Linear's weight."""
    return torch.empty(out_dim, in_dim).uniform_(-(in_dim**-0.5), in_dim**-0.5)


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)
