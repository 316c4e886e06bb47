"""A process group as the ops take one, and messages between its ranks that say whom they waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .. import checks

#: What travels. Each has its tag: a rank that makes other calls than the rest is waited for, and never takes one for
#: another (NCCL has no tags).
OPTIONS, KEYS, GRADIENTS, SHARED, HEADS = "options", "keys and values", "gradients", "share of a sum", "heads"
_TAGS = {OPTIONS: 1, KEYS: 2, GRADIENTS: 3, SHARED: 4, HEADS: 5}


class Group(NamedTuple):
    """A group of processes, this one's rank in it, and the name of the op that uses it, for its messages."""

    op: str
    handle: Any
    rank: int
    ranks: int


def group_of(op: str, group: Any) -> Group:
    """Of a ProcessGroup, a DeviceMesh of one dimension, or None: all processes.

    Raises:
        TypeError: it is something else.
        ValueError: a mesh of more dimensions, or a group that this process is not in.
        RuntimeError: there are no process groups.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError(
            f"{op}: torch.distributed must be initialized before the call, got no process group; "
            "torch.distributed.init_process_group joins one"
        )
    if group is None:
        group = dist.group.WORLD
    elif callable(getattr(group, "get_group", None)):
        if group.ndim != 1:
            checks.fail(op, "group", "a DeviceMesh of one dimension (mesh[name] is one)", f"{group.ndim} dimensions")
        place = group.get_coordinate()
        if place is None:
            checks.fail(op, "group", "one that this process is in", "another")
        mesh, group = group, group.get_group()
        if place[0] != dist.get_rank(group):
            rule = "a DeviceMesh whose processes rise, as the ranks of its group do"
            checks.fail(op, "group", rule, mesh.mesh.tolist())
    if group == dist.GroupMember.NON_GROUP_MEMBER:
        checks.fail(op, "group", "one that this process is in", "another")
    if not isinstance(group, dist.ProcessGroup):
        checks.fail(op, "group", "a ProcessGroup, a DeviceMesh or None", type(group).__name__, TypeError)
    return Group(op, group, dist.get_rank(group), dist.get_world_size(group))


def check_lengths(name: str, group: Group, lengths: Sequence[int], own: int) -> None:
    """Refuse lengths that are not those of the ranks, as far as this one knows."""
    if len(lengths) != group.ranks:
        checks.fail(name, "lengths", f"a number for each of the group's {group.ranks} ranks", list(lengths))
    if lengths[group.rank] != own or min(lengths) < 0:
        rule = f"the ranks' numbers of frames, {own} at this one, the group's rank {group.rank}"
        checks.fail(name, "lengths", rule, list(lengths))


class Message(NamedTuple):
    """A contiguous tensor to or from another rank of the group. What is received is written into it."""

    peer: int
    tensor: Tensor
    sent: bool


class Post:
    """Messages under way. Every pair of ranks posts those between them in the same order."""

    def __init__(self, group: Group, messages: Sequence[Message], what: str) -> None:
        self._group, self._what = group, what
        self._messages = [message for message in messages if message.tensor.numel()]
        self._works: list[Any] = []
        # On a GPU all at once, of which NCCL makes one work; on the CPU one by one, to know whose fails.
        together = any(message.tensor.is_cuda for message in self._messages)
        for batch in [self._messages] if together else [[message] for message in self._messages]:
            try:
                self._works += dist.batch_isend_irecv([self._operation(message) for message in batch])
            except RuntimeError as error:
                raise self._lost([message.peer for message in batch], error) from error

    def _operation(self, message: Message) -> dist.P2POp:
        peer = dist.get_global_rank(self._group.handle, message.peer)
        kind = dist.isend if message.sent else dist.irecv
        return dist.P2POp(kind, message.tensor, peer, self._group.handle, _TAGS[self._what])

    def wait(self) -> None:
        """Until what is received is there; then what was sent may still be under way."""
        self._wait(sent=False)

    def finish(self) -> None:
        """Until all of it is through, and the tensors are let go."""
        self._wait(sent=False)
        self._wait(sent=True)
        self._messages = []

    def _wait(self, sent: bool) -> None:
        apart = len(self._works) == len(self._messages)  # NCCL makes one of all
        peers = [[message.peer] for message in self._messages] if apart else [[m.peer for m in self._messages]]
        left = []
        for n, work in enumerate(self._works):
            if apart and self._messages[n].sent != sent:
                left.append(n)
                continue
            try:
                work.wait()
            except RuntimeError as error:
                raise self._lost(peers[n] if n < len(peers) else peers[-1], error) from error
        self._works = [self._works[n] for n in left]
        self._messages = [self._messages[n] for n in left]

    def _lost(self, peers: Sequence[int], error: RuntimeError) -> RuntimeError:
        who = sorted({dist.get_global_rank(self._group.handle, peer) for peer in peers})
        named = f"rank {who[0]}" if len(who) == 1 else f"one of the ranks {', '.join(map(str, who))}"
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return RuntimeError(
            f"{self._group.op}: {named} must make the same calls as rank {dist.get_rank()}, which waited for its "
            f"{self._what}, got: {first_line}"
        )


def swap(group: Group, given: Sequence[Tensor], taken: list[Tensor], what: str) -> None:
    """Give the n-th tensor to rank n of the group and take one of each: what comes is written into `taken`, where the
    rank's own gift stands in its place."""
    taken[group.rank] = given[group.rank]
    others = [rank for rank in range(group.ranks) if rank != group.rank]
    messages = [Message(rank, given[rank].contiguous(), True) for rank in others]
    messages += [Message(rank, taken[rank], False) for rank in others]
    Post(group, messages, what).finish()


def everyones(group: Group, own: Tensor, what: str) -> list[Tensor]:
    """Each rank's tensor, all of one shape and dtype, on all of them. For small ones: each goes to everyone.

    By messages rather than by a collective, which would not say which rank is missing.
    """
    own = own.contiguous()
    found = [torch.empty_like(own) for _ in range(group.ranks)]
    swap(group, [own] * group.ranks, found, what)
    return found
