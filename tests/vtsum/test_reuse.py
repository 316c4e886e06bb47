"""Models that are kept between the videos of a batch."""

from __future__ import annotations

import pytest

from vtsum import reuse


class Model:
    def __init__(self, name: str) -> None:
        self.weights = [name]
        self.language: str | None = None


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of models that were loaded; what is kept is forgotten at the end."""
    monkeypatch.setattr(reuse, "_kept", None)
    return []


@pytest.mark.parametrize("ours", [True, False])
def test_a_model_is_loaded_once_and_learns_nothing_of_another_video(loads, monkeypatch, ours):
    monkeypatch.setattr(Model, "__module__", "vtsum.enhance.speech" if ours else "theirs")

    @reuse.reused
    def make(name: str) -> Model:
        loads.append(name)
        return Model(name)

    assert make("a") is not make("a")
    assert loads == ["a", "a"]
    reuse.keep_models()
    loads.clear()
    first = make("a")
    first.language = "de"
    second, other = make("a"), make("b")
    assert loads == (["a", "b"] if ours else ["a", "a", "b"])
    assert second.language is None
    assert (second.weights is first.weights) == ours
    assert other.weights == ["b"]


def test_the_parts_of_a_summary_are_kept(loads, monkeypatch):
    from vtsum.enhance.screen_text import reader
    from vtsum.enhance.speech import make_recogniser

    reuse.keep_models()
    one, two = make_recogniser("carried"), make_recogniser("carried")
    assert one is not two
    assert one._model is two._model
    assert reader.RapidReader()._engine.text_det is reader.RapidReader()._engine.text_det
