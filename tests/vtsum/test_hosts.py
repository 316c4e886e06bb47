"""Two machines, as far as one has them: two network namespaces with an address each and a cable between them.

`make test-hosts` runs it, as root; each machine has processes, sockets and a network of its own, and shares the disk.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.once import once
from tests.vtsum.samples import ENVIRONMENT, ROOT
from tests.vtsum.test_batch import OPTIONS, _clip, _entries, _whole
from tests.vtsum.test_training_launch import SHORT, STEPS, Launched, compare
from tests.vtsum.test_training_run import measures, names, words
from tests.vtsum.training_corpus import write_corpus
from vtsum.training.train import main


def _missing() -> str | None:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "needs root and iproute2"
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True)
    return None if made.returncode == 0 else "no network namespaces are allowed here"


pytestmark = [pytest.mark.slow, pytest.mark.skipif(_missing() is not None, reason=str(_missing()))]
PORT = 29641


class Host:
    """A namespace with the address `address`; its name stands for that address in its own hosts file."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address, self.cable = name, address, f"v{name[-14:]}"

    def run(self, *words: str) -> None:
        subprocess.run([*self.at(), *words], check=True, capture_output=True)

    def at(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    def environment(self) -> dict[str, str]:
        return {"GLOO_SOCKET_IFNAME": self.cable, "TP_SOCKET_IFNAME": self.cable}

    def processes(self) -> list[int]:
        told = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True).stdout
        return [int(line) for line in told.split()]

    def die(self) -> None:
        """As a machine whose plug is pulled: no process ends by itself, and nobody at the other end is told."""
        self.run("ip", "link", "set", self.cable, "down")
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    both = [Host(f"vtsum{os.getpid()}{letter}", f"10.213.7.{n}") for n, letter in enumerate("ab", 1)]
    files = Path("/etc/netns")
    try:
        for host in both:
            subprocess.run(["ip", "netns", "add", host.name], check=True)
            (files / host.name).mkdir(parents=True)
            lines = [f"{other.address} {other.name}\n" for other in both]
            (files / host.name / "hosts").write_text(
                f"127.0.0.1 localhost\n{host.address} {os.uname()[1]}\n{''.join(lines)}"
            )
        one, two = both
        cable = ["type", "veth", "peer", "name", two.cable, "netns", two.name]
        subprocess.run(["ip", "link", "add", one.cable, "netns", one.name, *cable], check=True)
        for host in both:
            host.run("ip", "address", "add", f"{host.address}/24", "dev", host.cable)
            host.run("ip", "link", "set", host.cable, "up")
            host.run("ip", "link", "set", "lo", "up")
        yield both
    finally:
        for host in both:
            for pid in host.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", host.name], capture_output=True)
            shutil.rmtree(files / host.name, ignore_errors=True)


class Both:
    """A command on each of two hosts."""

    def __init__(self, hosts: list[Host], folder: Path, *commands: list[str]) -> None:
        self.started = []
        for host, command in zip(hosts, commands, strict=True):
            named = [f"{name}={value}" for name, value in host.environment().items()]
            log = folder / f"{host.name}-{time.monotonic_ns()}.log"
            self.started.append(Launched([*host.at(), "env", *named, *command], log))

    def wait(self, seconds: float = 300) -> list[int]:
        return [each.wait(seconds) for each in self.started]

    def said(self) -> str:
        return "\n".join(each.said()[-3000:] for each in self.started)

    def until_step(self, step: int) -> None:
        end = time.monotonic() + 240
        while not any(f"step {step}/" in each.said() for each in self.started):
            assert time.monotonic() < end, self.said()
            time.sleep(0.1)

    def end(self) -> None:
        for each in self.started:
            each.end()


def torchrun(host: Host, rank: int, head: Host, *arguments: str) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", str(rank), "--nproc_per_node", "1"]
    launcher += ["--master_addr", head.address, "--master_port", str(PORT)]
    return [sys.executable, *launcher, "-m", "vtsum.training.train", *arguments]


def deepspeed(hostfile: Path, rank: int, head: Host, *arguments: str) -> list[str]:
    launcher = ["-m", "deepspeed.launcher.runner", "--hostfile", str(hostfile), "--no_ssh", "--node_rank", str(rank)]
    launcher += ["--master_addr", head.address, "--master_port", str(PORT), "--log_level", "warning"]
    return [sys.executable, *launcher, "--module", "vtsum.training.train", *arguments]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "corpus_of_32", lambda folder: write_corpus(folder, videos=32))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What one process measures that takes the two machines' passes one after the other."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(words(data, run, *SHORT, "--gradient_accumulation_steps", "2")) == 0
    return measures(run)


def test_deepspeed_trains_on_the_machines_of_a_hostfile(hosts, data, tmp_path, whole):
    hostfile = tmp_path / "hosts"
    hostfile.write_text("".join(f"{host.address} slots=1\n" for host in hosts))
    arguments = words(data, tmp_path / "run", *SHORT, "--deepspeed", "configs/ds_zero2.json")
    both = Both(hosts, tmp_path, *(deepspeed(hostfile, rank, hosts[0], *arguments) for rank in range(2)))
    try:
        assert both.wait() == [0, 0], both.said()
        compare(tmp_path / "run", whole, 1e-5)
        assert sum(word in both.said() for word in ("rank 1", f"step {STEPS}/")) >= 1
    finally:
        both.end()


@pytest.mark.parametrize(("lost", "engine"), [(1, "deepspeed"), (0, "deepspeed"), (1, "torch")])
def test_a_machine_that_is_lost_is_noticed_and_the_run_resumed(hosts, data, tmp_path, whole, lost, engine):
    run = tmp_path / "run"
    arguments = words(data, run, *SHORT, "--ckpt_steps", "4", "--rank_timeout", "0.25")
    arguments += ["--deepspeed", "configs/ds_zero2.json"] if engine == "deepspeed" else []
    both = Both(hosts, tmp_path, *(torchrun(host, rank, hosts[0], *arguments) for rank, host in enumerate(hosts)))
    try:
        both.until_step(6)
        hosts[lost].die()
        began = time.monotonic()
        left = both.started[1 - lost]
        assert left.wait(120) != 0, both.said()
        assert time.monotonic() - began < 90
        assert "all ranks must live, another one said nothing for 0.25 minutes" in left.said()
        assert hosts[1 - lost].processes() == []
    finally:
        both.end()
    assert names(run)
    hosts[lost].run("ip", "link", "set", hosts[lost].cable, "up")
    again = [torchrun(host, rank, hosts[0], *arguments, "--resume") for rank, host in enumerate(hosts)]
    both = Both(hosts, tmp_path, *again)
    try:
        assert both.wait() == [0, 0], both.said()
    finally:
        both.end()
    compare(run, whole, 1e-5)


def _ray(host: Host, environment: dict[str, str], *words: str) -> subprocess.Popen:
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--node-ip-address",
        host.address,
        "--num-cpus",
        "1",
    ]
    return subprocess.Popen([*host.at(), *command, "--block", *words], env=environment, stdout=subprocess.DEVNULL)


def test_a_batch_on_a_cluster_of_two_machines_outlives_one(hosts, tmp_path):
    """Each of two machines has an actor; one is lost, and all summaries are made, nothing twice."""
    out = tmp_path / "out"
    videos = [str(_clip(tmp_path / f"{n}.mp4", 60 + 10 * n, 6.0)) for n in range(8)]
    head, other = hosts
    where = f"{head.address}:6379"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    environment = {
        **ENVIRONMENT,
        **token,
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ADDRESS": where,
    }
    started = [_ray(head, environment, "--head", "--port", "6379", "--include-dashboard", "false")]
    try:
        time.sleep(15)
        started.append(_ray(other, environment, "--address", where))
        time.sleep(10)
        command = [*head.at(), sys.executable, "-m", "vtsum.cli", "batch", *OPTIONS, *videos, "-o", str(out)]
        batch = subprocess.Popen(
            [*command, "--executor", "ray", "--workers", "2"], env=environment, stderr=subprocess.PIPE, text=True
        )
        end = time.monotonic() + 180
        while sum(entry["status"] == "done" for entry in _entries(out)) < 2:
            assert batch.poll() is None, batch.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.1)
        workers = [pid for pid in other.processes() if b"ray::_Actor" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert workers, "the other machine works on nothing"
        other.die()
        said = batch.communicate(timeout=240)[1]
        assert batch.returncode == 0, said
        assert _whole(out) == {f"{n}" for n in range(8)}
        done = [entry["output"] for entry in _entries(out) if entry["status"] == "done"]
        assert sorted(done) == [f"{n}" for n in range(8)]
    finally:
        for process in started:
            process.kill()
