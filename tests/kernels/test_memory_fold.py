"""Folding: nothing is kept that was not asked for, a snapshot is dropped in time, and a stale one is found."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import vtsum_kernels as vk
from torch import Tensor, nn
from vtsum_kernels.nn import MemoryBank

pytestmark = pytest.mark.usefixtures("cpp")
X = torch.linspace(-2, 2, 2 * 9 * 24).view(2, 9, 24).sin()


def bank(**options: Any) -> MemoryBank:
    return MemoryBank(16, 24, **{"query_proj": True, "normalize": False, **options})


def fresh(like: MemoryBank, x: Tensor = X, **options: Any) -> Tensor:
    """What a bank of these very parameters, which never folded anything, makes of x."""
    twin = bank(**options)
    twin.load_state_dict({name: value.clone() for name, value in like.state_dict().items()})
    with torch.no_grad():
        result: Tensor = twin(x)
    return result


def step(optimiser: Callable[..., torch.optim.Optimizer]) -> Callable[[MemoryBank], None]:
    def write(bank: MemoryBank) -> None:
        for parameter in bank.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimiser(bank.parameters(), lr=0.1, fused=True).step()

    return write


def data(change: Callable[[Tensor], Any]) -> Callable[[MemoryBank], None]:
    def write(bank: MemoryBank) -> None:
        for parameter in bank.parameters():
            change(parameter.data)

    return write


def by_numpy(x: Tensor) -> None:
    x.numpy()[...] *= 0.5


def by_collective(x: Tensor) -> None:
    """As a broadcast writes into the ranks that receive; a scatter does so where there is one rank alone."""
    dist.scatter(x, [x * 0.5])


#: Ways of writing into parameters that leave both their version and their address as they were, and ways that do not.
WRITES: dict[str, Callable[[MemoryBank], None]] = {
    "fused AdamW": step(torch.optim.AdamW),
    "fused Adam": step(torch.optim.Adam),
    "fused SGD": step(torch.optim.SGD),
    "fused Adagrad": step(torch.optim.Adagrad),
    "data.copy_": data(lambda x: x.copy_(x.flip(0))),
    "data.mul_": data(lambda x: x.mul_(0.5)),
    "data.clamp_": data(lambda x: x.clamp_(-0.01, 0.01)),
    "collective": data(by_collective),
    "DLPack": data(lambda x: torch.from_dlpack(x).mul_(0.5)),
    "numpy": data(by_numpy),
    "another tensor": lambda bank: setattr(bank.memory, "data", bank.memory.data * 0.5),
    "another parameter": lambda bank: setattr(bank, "memory", nn.Parameter(bank.memory.detach() * 0.5)),
}


@pytest.fixture
def process_group(tmp_path: Any) -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(params=WRITES)
def write(request: pytest.FixtureRequest) -> Callable[[MemoryBank], None]:
    if request.param == "collective":
        request.getfixturevalue("process_group")
    return WRITES[request.param]


@torch.no_grad()
def test_no_write_leaves_something_stale(write: Callable[[MemoryBank], None]) -> None:
    reads = bank()
    before = reads(X)
    write(reads)
    torch.testing.assert_close(reads(X), fresh(reads))
    assert (reads(X) - before).abs().max() > 1e-3


@torch.no_grad()
def test_a_write_after_folding_is_found_and_mended(write: Callable[[MemoryBank], None]) -> None:
    reads = bank().fold_()
    reads.fold_check()
    write(reads)
    with pytest.raises(RuntimeError, match=r"^MemoryBank: fold_check: .* call fold_\(\) again"):
        reads.fold_check()
    torch.testing.assert_close(reads.fold_()(X), fresh(reads))
    reads.fold_check()


@pytest.mark.parametrize("normalize", [True, False])
def test_a_snapshot_follows_no_tensor(normalize: bool) -> None:
    """Keys that need no work are none of the bank's own memory, and nothing wants a gradient."""
    reads = bank(normalize=normalize, query_proj=False).fold_()
    with torch.no_grad():
        before = reads(X)
        reads.memory.mul_(0.5)
        assert torch.equal(reads(X), before)
    with pytest.raises(RuntimeError, match=r"^MemoryBank: fold_check: .* call fold_\(\) again"):
        reads.fold_check()
    keys, weight = (torch.randn(shape, requires_grad=True) for shape in ((7, 8), (5, 16)))
    folded = vk.fold_bank(keys, None, weight, normalize=normalize)
    assert not any(x.requires_grad for x in folded[:2] if isinstance(x, Tensor))


@pytest.mark.parametrize("folded", [True, False])
def test_no_step_of_ddp_leaves_something_stale(process_group: None, folded: bool) -> None:
    """DeepSpeed's steps are tried in tests/vtsum/test_training_sharded.py."""
    reads = bank().fold_() if folded else bank()
    parallel, optimiser = nn.parallel.DistributedDataParallel(reads), torch.optim.AdamW(reads.parameters(), fused=True)
    for _ in range(2):
        with torch.no_grad():
            before = reads(X)
        parallel(X).square().sum().backward()
        optimiser.step()
        with torch.no_grad():
            torch.testing.assert_close(reads(X), fresh(reads))
            assert (reads(X) - before).abs().max() > 1e-4


def test_the_functional_op_keeps_nothing_of_an_address_that_is_used_again() -> None:
    x, weight = torch.randn(20, 8), torch.randn(4, 16)
    addresses = []
    for seed in range(6):
        keys = torch.randn(64, 8, generator=torch.Generator().manual_seed(seed))
        addresses.append(keys.data_ptr())
        exact = vk.memory_fuse(x, keys, None, weight, fold=False, backend="reference")
        torch.testing.assert_close(vk.memory_fuse(x, keys, None, weight, fold=True), exact, rtol=1e-4, atol=1e-4)
        del keys
    assert len(set(addresses)) < 6, "no address was used again"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize": True},
        {"normalize": True, "query_proj": False},
        {"num_heads": 4},
        {"top_k": 3},
        {"residual": False, "norm": False},
        {"fuse": "gate"},
        {"top_k": 3, "product_keys": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("masked", [False, True])
def test_folding_changes_no_number(options: dict[str, Any], masked: bool) -> None:
    reads, mask = bank(**options), torch.arange(9) < torch.tensor([[9], [5]]) if masked else None
    expected = reads(X, mask)
    assert reads.fold_() is reads
    assert not reads.training
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(reads(X, mask), expected, rtol=1e-5, atol=1e-6)
    reads.fold_check()


def drop_by_gradients(bank: MemoryBank) -> None:
    gradient = torch.autograd.grad(bank(X).sum(), bank.memory)[0]
    assert gradient.abs().sum() > 0


def drop_by_a_parent(bank: MemoryBank) -> None:
    parent = nn.Sequential(bank)
    parent.load_state_dict(parent.state_dict())


DROPS: dict[str, Callable[[MemoryBank], Any]] = {
    "train": lambda bank: bank.train(),
    "load_state_dict": lambda bank: bank.load_state_dict(bank.state_dict()),
    "a parent's load_state_dict": drop_by_a_parent,
    "to": lambda bank: bank.to("cpu", torch.float64).float(),
    "half": lambda bank: bank.half().float(),
    "share_memory": lambda bank: bank.share_memory(),
    "write": lambda bank: bank.write(torch.ones(3, 24)),
    "gradients": drop_by_gradients,
}


@pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS)
def test_the_snapshot_is_dropped(drop: Callable[[MemoryBank], Any]) -> None:
    reads = bank().fold_()
    reads.memory.data.mul_(0.5)  # whoever goes on with the snapshot is wrong
    drop(reads)
    with torch.no_grad():
        torch.testing.assert_close(reads(X), fresh(reads))
    reads.fold_check()


def test_evaluation_and_copies_keep_the_snapshot() -> None:
    reads = bank().fold_()
    for kept in (reads.eval(), copy.deepcopy(reads), pickle.loads(pickle.dumps(reads))):
        with torch.no_grad():
            torch.testing.assert_close(kept(X), fresh(reads))
        kept.memory.data.mul_(0.5)
        with pytest.raises(RuntimeError, match="fold_check"):
            kept.fold_check()
        kept.memory.data.mul_(2)


def test_a_frozen_bank_passes_gradients_to_its_frames_by_the_snapshot() -> None:
    reads = bank().requires_grad_(False)
    x = X.clone().requires_grad_()
    expected = torch.autograd.grad(reads(x).square().sum(), x)[0]
    with torch.inference_mode():
        reads.fold_()
    torch.testing.assert_close(torch.autograd.grad(reads(x).square().sum(), x)[0], expected)
    reads.memory.mul_(0.5)
    with pytest.raises(RuntimeError, match="fold_check"):
        reads.fold_check()  # so it was the snapshot


@torch.no_grad()
def test_other_parameters_for_one_call_are_not_the_snapshots() -> None:
    reads = bank().fold_()
    before = reads(X)
    other = {name: p * 0.5 for name, p in reads.named_parameters()}
    twin = bank()
    twin.load_state_dict(other)
    torch.testing.assert_close(torch.func.functional_call(reads, other, (X,)), twin(X))
    assert torch.equal(reads(X), before)
    reads.fold_check()


def test_folded_under_autocast_and_in_half_precision() -> None:
    reads = bank()
    exact = fresh(reads)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = reads.fold_()(X)
    assert (rough.float() - exact).norm() < 0.02 * exact.norm()
    with torch.inference_mode():
        torch.testing.assert_close(reads(X), exact)
    half, x = bank().bfloat16(), X.bfloat16()
    with torch.inference_mode():
        expected = half(x)
        assert torch.equal(half.fold_()(x), expected)
        half.fold_check()


def test_messages() -> None:
    x, keys, weight = torch.randn(20, 8), torch.randn(7, 8), torch.randn(5, 16)
    folded = vk.fold_bank(keys, None, weight)
    wrong = "^memory_fuse: fold must be "
    for arguments, options in (
        ((x, torch.randn(6, 8), None, weight), {}),
        ((x, keys, None, torch.randn(4, 16)), {}),
        ((x, keys, None, weight), {"normalize": True}),
        ((x.double(), keys.double(), None, weight.double()), {}),
        ((x.view(2, 10, 8), keys.expand(2, 1, -1, -1), None, weight), {}),
    ):
        with pytest.raises(ValueError, match=wrong + "fold_bank of this bank, these weights and options"):
            vk.memory_fuse(*arguments, fold=folded, **options)  # type: ignore[arg-type]
    projected = vk.fold_bank(torch.randn(7, 8), None, weight, query_weight=torch.randn(8, 8))
    with pytest.raises(ValueError, match=wrong + "fold_bank of this bank"):
        vk.memory_fuse(x, keys, None, weight, fold=projected)
    with pytest.raises(ValueError, match=wrong + '"auto" or False with a norm'):
        vk.memory_fuse(x, keys, None, weight, fold=folded, norm=(None, None, 1e-5))
    halves = (torch.randn(2, 4), torch.randn(3, 4))
    with pytest.raises(ValueError, match=wrong + '"auto", True or False with product keys'):
        vk.memory_fuse(x, halves, torch.randn(6, 8), weight, fold=folded, top_k=2)
    for name, leaves in {"keys": (keys, weight), "weight": (weight, keys)}.items():
        leaves[0].requires_grad_()
        with pytest.raises(ValueError, match=wrong + f'"auto", True or False where {name} may want a gradient'):
            vk.memory_fuse(x, keys, None, weight, fold=folded)
        leaves[0].requires_grad_(False)
    with pytest.raises(ValueError, match=r"^fold_bank: weight must be of shape \[O, C \+ E\]"):
        vk.fold_bank(keys, None, torch.randn(5, 7))
    with pytest.raises(TypeError, match=r"^fold_bank: keys must be a torch\.Tensor, got tuple"):
        vk.fold_bank(halves, None, weight)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^fold_bank: keys must be of shape \[S, D\] or \[H, S, d\]"):
        vk.fold_bank(torch.randn(2, 1, 7, 8), None, weight)
    sharded = bank()
    sharded.memory.ds_id = 7  # type: ignore[attr-defined]  # as DeepSpeed marks what it shards
    with pytest.raises(RuntimeError, match="fold_ must be used on a whole bank"):
        sharded.fold_()
