"""What `--about` brings into the summary: drawn videos over which passages are read, and each sentence asked about.

    python -m bench.summary.topics [--videos 5]

The videos are those of the ablation; what is read, and when, is known. A sentence is asked about by two of its words
that no other sentence of the video holds. Of a summary of a tenth: the seconds of the sentence that it shows, and how
many sentences it shows half of, without and with `--about`; by the transcript, and by what the recogniser heard.

By pictures: as many videos of the drawn corpus with two events and more, which nobody speaks over, watched by that
corpus's own CLIP. Each scene is asked about by its scenery ("pale grey roads"): the part of the summary that shows it.
One JSON line for each goes to results/topics.jsonl.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.kit.command import keep, parser
from bench.kit.record import machine
from bench.summary.ablation_drawn import Sentence, draw_video
from vtsum.enhance.speech.transcribe import transcribe
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word
from vtsum.enhance.summary_refinement import parse_budget
from vtsum.model import load
from vtsum.recipes.synthetic import CLIP, make_corpus, write_film
from vtsum.recipes.synthetic_scenes import CorpusParameters, VideoPlan, plan_video
from vtsum.summary.about import Passage, fits, passages, terms
from vtsum.summary.planning import Plan, make_plan
from vtsum.summary.progress import ignore
from vtsum.summary.watching import Watched, watch
from vtsum.video import VideoInfo, probe

BUDGET = "10%"
ASKED = 2  # words


@dataclass(frozen=True)
class Talk:
    """A video, what it shows, what is read over it, and what was heard of that."""

    info: VideoInfo
    watched: Watched
    boundaries: np.ndarray | None
    sentences: Sequence[Sentence]
    heard: Transcript


def talks(count: int) -> Iterator[Talk]:
    model = load("embedded")
    for seed in range(count):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "talk.mp4"
            truth = draw_video(path, seed)
            info = probe(path)
            watched = watch(path, info, model, 1.0, ignore)
            yield Talk(info, watched, model.boundaries(watched.features), truth.sentences, transcribe(path))


def written(sentences: Sequence[Sentence]) -> Transcript:
    """A transcript of sentences whose words are spread over their time."""
    found = []
    for start, end, text in sentences:
        words = text.split()
        edges = np.linspace(start, end, len(words) + 1).tolist()
        said = (Word(word, a, b, 1.0) for word, a, b in zip(words, edges, edges[1:], strict=False))
        found.append(Utterance(tuple(said)))
    return Transcript(tuple(found), "written", "en")


def asked(sentences: Sequence[Sentence]) -> list[tuple[Sentence, str]]:
    """The sentences that hold words of their own, and two of these."""
    known = Counter(word for *_, text in sentences for word in set(terms(text)))
    found = []
    for sentence in sentences:
        own = [word for word in dict.fromkeys(terms(sentence[2])) if known[word] == 1]
        if len(own) >= ASKED:
            found.append((sentence, " ".join(own[:ASKED])))
    return found


def plan_of(
    talk: Talk, said: Transcript, told: list[Passage], about: str | None, fitting: np.ndarray | None = None
) -> Plan:
    watched = replace(talk.watched, warnings=[])
    pauses = said.pauses(watched.duration)
    budget = parse_budget(BUDGET)
    asked_for: dict[str, Any] = {"about": about, "told": told, "seen": fitting}
    return make_plan(watched, budget, talk.info, 1.0, pauses=pauses, boundary_scores=talk.boundaries, **asked_for)


def shown(plan: Plan, sentence: Sentence) -> float:
    """Seconds of a sentence that a plan shows."""
    clips = [(clip.start / plan.rate, clip.end / plan.rate) for clip in plan.clips.values()]
    return sum(max(0.0, min(sentence[1], end) - max(sentence[0], start)) for start, end in clips)


def measured(found: list[Talk]) -> Iterator[dict[str, Any]]:
    """One record for each source of the words."""
    for source in ("transcript", "recogniser"):
        rows = []
        for talk in found:
            said = written(talk.sentences) if source == "transcript" else talk.heard
            told = passages(said, [])
            plain = plan_of(talk, said, told, None)
            for sentence, words in asked(talk.sentences):
                length, made = sentence[1] - sentence[0], plan_of(talk, said, told, words)
                rows.append((length, shown(plain, sentence), shown(made, sentence), any(made.words)))
        lengths, without, about, matched = (np.array(column, np.float64) for column in zip(*rows, strict=True))
        yield {
            "words": source,
            "videos": len(found),
            "budget": BUDGET,
            "sentences": len(rows),
            "matched": int(matched.sum()),
            "seconds": round(float(lengths.mean()), 2),
            "seconds_shown": [round(float(shown.mean()), 2) for shown in (without, about)],
            "half_shown": [int((shown >= lengths / 2).sum()) for shown in (without, about)],
        }


def drawn(count: int) -> list[VideoPlan]:
    """Videos of the corpus with two events or more; its CLIP learned of those of seed 0."""
    plans = (plan_video(1, "test", number, CorpusParameters()) for number in itertools.count())
    return list(itertools.islice((plan for plan in plans if len(plan.events) > 1), count))


def seen(count: int) -> Iterator[dict[str, Any]]:
    """The record of what is asked of the pictures."""
    silent = Transcript((), "none", None)
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        make_corpus(folder, train=1, val=1, test=1)
        model = load(f"{folder}/{CLIP}")
        for plan in drawn(count):
            path = Path(folder) / f"{plan.video_id}.mp4"
            write_film(plan, path)
            info = probe(path)
            watched = watch(path, info, model, 1.0, ignore)
            talk = Talk(info, watched, model.boundaries(watched.features), (), silent)
            plain = plan_of(talk, silent, [], None)
            for scene in plan.scenes:
                words = scene.scenery.words.partition(" ")[2]
                made = plan_of(talk, silent, [], words, fits(words, model, watched.event_features))
                shares.append([share(one, (scene.start, scene.end, words)) for one in (plain, made)])
    without, about = np.array(shares, np.float64).T
    yield {
        "words": "pictures",
        "videos": count,
        "budget": BUDGET,
        "sceneries": len(shares),
        "shares": [round(float(each.mean()), 3) for each in (without, about)],
        "more": int((about > without + 0.02).sum()),
        "less": int((about < without - 0.02).sum()),
    }


def share(plan: Plan, stretch: Sentence) -> float:
    """Of what a plan shows, the part that lies in a stretch."""
    return shown(plan, stretch) / (sum(len(clip) for clip in plan.clips.values()) / plan.rate)


def main() -> None:
    given = parser(__doc__, "topics")
    given.add_argument("--videos", type=int, default=5)
    options: Any = given.parse_args()
    found = itertools.chain(measured(list(talks(options.videos))), seen(options.videos))
    keep(options.results, {"op": "topics", **machine()}, found)


if __name__ == "__main__":
    main()
