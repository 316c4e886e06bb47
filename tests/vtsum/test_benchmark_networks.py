"""The networks of `vtsum benchmark`: they learn a planted signal, keep their best epoch, and go by their seed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vtsum.test_benchmark import write_h5
from vtsum.benchmarks import methods
from vtsum.benchmarks.selected import train_selected
from vtsum.benchmarks.vasnet import Network, VASNet
from vtsum.benchmarks.visual_path import VisualPath
from vtsum.data.tvsum import TVSumVideo, load_tvsum
from vtsum.evaluation.baselines import score_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[TVSumVideo]:
    """With 64 features, mixed of the four: so narrow a network as four ask for hardly learns."""
    mixing = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    found = load_tvsum(write_h5(tmp_path_factory.mktemp("benchmark") / "a.h5"))
    return [dataclasses.replace(video, features=video.features @ mixing) for video in found]


@pytest.mark.parametrize(
    "make",
    [
        lambda: VASNet(epochs=40, learning_rate=1e-3),
        lambda: VisualPath(epochs=40),
        lambda: VisualPath(epochs=40, kernel_size=None, memory_slots=0),
    ],
)
def test_a_network_learns_and_its_seed_says_how(make: Any, videos: list[TVSumVideo]) -> None:
    before = torch.random.get_rng_state()
    runs = []
    for seed in (0, 0, 1):
        model = make()
        model.fit(videos[:4], videos[4:5], seed)
        runs.append(model.predict(videos[5].features))
    assert score_video(runs[0], videos[5]).rho > 0.5
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_vasnet_is_its_formula() -> None:
    torch.manual_seed(0)
    network = Network(4).eval()
    x = torch.randn(1, 5, 4)
    q, k, v = (x[0] @ layer.weight.T for layer in (network.query, network.key, network.value))
    weights = torch.stack([torch.softmax(torch.stack([0.06 * (q[t] @ k[i]) for i in range(5)]), 0) for t in range(5)])
    read = (weights @ v) @ network.out.weight.T + x[0]

    def norm(rows: torch.Tensor) -> torch.Tensor:
        return (rows - rows.mean(1, keepdim=True)) / (rows.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    hidden = norm(torch.relu(norm(read) @ network.hidden.weight.T + 0.1))
    wanted = torch.sigmoid(hidden @ network.score.weight[0] + 0.1)
    assert torch.allclose(network(x)[0], wanted, atol=1e-6)


def test_the_best_epoch_is_kept(videos: list[TVSumVideo]) -> None:
    """A weight that grows by 1 an epoch; scores are best while it is 2."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    wanted = videos[0].ratings.mean(axis=0)

    def predict(features: np.ndarray) -> np.ndarray:
        return wanted if round(model.weight.item()) == 2 else -wanted

    train_selected(
        model,
        [(torch.ones(1, 1), torch.ones(1))],
        videos[:1],
        predict=predict,
        loss=lambda x, target: -model(x).sum(),
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        epochs=5,
        select="rho",
    )
    assert model.weight.item() == 2
    assert not model.training


def test_every_network_can_be_made() -> None:
    for name in methods.NETWORKS:
        entry = methods.entry_of(f"{name}{methods.ON_TEST}", "cpu")
        assert (entry.seeded, entry.on_test, entry.is_network, len(entry.code)) == (True, True, True, 64)
        assert Path(methods.__file__).with_name(f"{type(entry.make('cpu')).__module__.rpartition('.')[2]}.py").is_file()
