"""What a drawn film shows, says and has written on it, held against what its summary says: which sentences are false.

The rule. A sentence is true if the film's `Script`, its pictures or its sound bear it out:

- *Heard*: it is whole sentences of one planted line, word by word in order, and was heard while the line was spoken
  (a second more or less). Of a recogniser's slips two are let pass, for they change nothing that is said: an article
  more, less or another one, and a word in another spelling of the same pronunciation (espeak-ng's). Case and
  punctuation do not count.
- *On screen*, and a title that was read: each quotation is a planted line of writing, letter by letter and figure by
  figure, at its time. A stray sign at a line's edge is the one slip that a reader may make.
- *Measured*: each clause by the limits below, on the film's own pictures and sound.
- A title is one of these, or the file's name; the lengths are those of the files.

Anything else, in summary.txt or in summary.json, is false: there is no other fact in the film.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np

from vtsum.recipes.film import Script
from vtsum.summary.schema import SummaryDocument

AROUND = 1.0  # seconds
DARK, BRIGHT = 55.0, 185.0  # levels of 255, five nearer the middle than where the summary says so
STILL = 1.0  # levels of 255, from one picture to the next
SILENT = 2e-3  # of full scale
_ARTICLES = {"a", "an", "the"}
_LINE = re.compile(r"\[(?P<span>[\d:]+-[\d:]+)\] (?P<told>.*?)(?: \((?:not )?in the summary(?: at [\d:, ]+)?\))?")


@dataclass(frozen=True)
class Statement:
    """What a summary says, and from when to when."""

    origin: str
    text: str
    start: float
    end: float
    title: bool = False

    @property
    def shown(self) -> tuple[str, str]:
        """As summary.txt should have it, and the time beside it."""
        quoted = f"“{self.text}”"
        if self.title:
            return (quoted if self.origin in ("heard", "read") else self.text), "title"
        told = {"heard": f"Heard: {quoted}", "read": self.text}.get(self.origin, f"{self.origin.title()}: {self.text}")
        return told, f"{_clock(self.start)}-{_clock(self.end)}"


class Facts:
    """A film's facts: those planted by its script, and its pictures and sound as they are in the file."""

    def __init__(self, script: Script, path: Path) -> None:
        self.script, self.name = script, path.name
        with av.open(str(path)) as file:
            shown = [
                (f.time, f.to_ndarray(width=64, height=36, format="gray").astype(float)) for f in file.decode(video=0)
            ]
        with av.open(str(path)) as file:
            self._sound = np.concatenate([f.to_ndarray()[0] for f in file.decode(audio=0)])
            self._rate = file.streams.audio[0].rate
        self._times = np.array([time for time, _ in shown])
        self._pictures = np.stack([picture for _, picture in shown])

    def false(self, document: SummaryDocument, text: str) -> list[str]:
        """All that summary.json and summary.txt say and the film does not bear out."""
        spans = [(shot["start"], shot["end"]) for shot in document["shots"]]
        told = list(_of_document(document))
        written, wrong = self._of_text(text, document["summary"]["duration"])
        wrong += [one.text for one in told if not self._holds(one, spans)]
        wrong += sorted({line for line, _ in {one.shown for one in told} ^ set(written)})
        wrong += [f"note: {note}" for note in document["warnings"]]
        wrong += [f"chapter: {chapter['title']}" for chapter in document["chapters"]]  # too short a film for any
        if abs(document["source"]["duration"] - self.script.duration) > 0.05:
            wrong.append(f"duration: {document['source']['duration']}")
        return wrong

    def _of_text(self, text: str, made: float) -> tuple[list[tuple[str, str]], list[str]]:
        """What summary.txt says, and when, and those of its lines that are nothing which it may say."""
        first, second, *lines = text.splitlines()
        lengths = f"{_clock(made)} of {_clock(self.script.duration)}"
        told = [(first, "title")]
        wrong = [] if second == (lengths if first == self.name else f"{self.name}, {lengths}") else [second]
        for line in filter(None, lines):
            found = _LINE.fullmatch(line)
            if found is None:
                wrong.append(line)
            else:
                told.append((found["told"], found["span"]))
        return told, wrong

    def _holds(self, one: Statement, spans: list[tuple[float, float]]) -> bool:
        if one.origin == "name":
            return one.text == self.name
        if one.origin == "heard":
            return self._said(one)
        if one.origin == "read":
            return self._written(one)
        return one.origin == "measured" and self._measured(one, spans)

    def _said(self, one: Statement) -> bool:
        for line in self.script.narration:
            sentences = [_words(s) for s in re.split(r"(?<=[.!?]) ", line.text)]
            ends = [(i, j) for i in range(len(sentences)) for j in range(i + 1, len(sentences) + 1)]
            runs = [[word for sentence in sentences[i:j] for word in sentence] for i, j in ends]
            heard_then = line.start - AROUND <= one.start and one.end <= line.end + AROUND
            if heard_then and any(_sounds(run) == _sounds(_words(one.text)) for run in runs):
                return True
        return False

    def _written(self, one: Statement) -> bool:
        quoted = re.findall("“(.*?)”", one.text) or [one.text]
        if one.text.startswith("On screen") and one.text != f"On screen: {', '.join(f'“{q}”' for q in quoted)}.":
            return False
        lines = {re.sub(r"^\W+|\W+$", "", quotation) for quotation in quoted}
        return any(
            w.start - AROUND <= one.start and one.end <= w.end + AROUND and lines <= set(w.lines)
            for w in self.script.writing
        )

    def _measured(self, one: Statement, spans: list[tuple[float, float]]) -> bool:
        head, _, rest = one.text.removesuffix(".").partition(": " if one.text[0] in "PA" else "; ")
        if head.endswith(" long"):
            return self._whole(head, rest, spans)
        part = re.fullmatch(r"Part (\d+)", head)
        if not part and (head, len(spans)) != ("All of it", 1):
            return False
        index = int(part[1]) - 1 if part else 0
        if index >= len(spans) or abs(one.start - spans[index][0]) > 1 or abs(one.end - spans[index][1]) > 1:
            return False
        return all(self._clause(clause, index, spans) for clause in rest.split(", "))

    def _whole(self, head: str, rest: str, spans: list[tuple[float, float]]) -> bool:
        found = "no change of scene was found"
        starts = [_clock(start) for start, _ in spans]
        if 1 < len(spans) <= 5:
            found = f"{len(spans)} parts were found, beginning at {', '.join(starts[:-1])} and {starts[-1]}"
        elif len(spans) > 5:
            lengths = [round(end - start) for start, end in spans]
            found = f"{len(spans)} parts were found, of {min(lengths)} to {max(lengths)} s"
        silent = "; the sound is silent" if np.abs(self._sound).max() < SILENT else ""
        return head == f"{_clock(self.script.duration)} long" and rest == found + silent

    def _clause(self, clause: str, index: int, spans: list[tuple[float, float]]) -> bool:
        shown = [self._pictures[(self._times >= a) & (self._times < b)] for a, b in spans]
        heard = [self._sound[int((a + 0.25) * self._rate) : int((b - 0.25) * self._rate)] for a, b in spans]
        changes = [float(np.abs(np.diff(s, axis=0)).mean()) if len(s) > 1 else 0.0 for s in shown]
        loudness = [_loudest(s, self._rate) for s in heard]
        others = [i for i in range(len(spans)) if i != index]
        return {
            "dark pictures": shown[index].mean() < DARK,
            "bright pictures": shown[index].mean() > BRIGHT,
            "hardly anything moves": changes[index] < STILL,
            "its pictures change more than those of any other": all(changes[index] > changes[i] for i in others),
            "silent": loudness[index] < SILENT,
            "louder than any other": all(loudness[index] > loudness[i] for i in others),
        }.get(clause, False)


def _of_document(document: SummaryDocument) -> Iterator[Statement]:
    title = document["title"]
    times = title["times"] or [{"start": 0.0, "end": 0.0}]
    yield Statement(title["origin"], title["text"], times[0]["start"], times[-1]["end"], title=True)
    for sentence in document["text"]:
        for span in sentence["times"]:
            yield Statement(sentence["origin"], sentence["text"], span["start"], span["end"])


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[\w']+", text.lower()) if word not in _ARTICLES]


def _sounds(words: list[str]) -> list[str]:
    return [_pronounced(word) for word in words]


@cache
def _pronounced(word: str) -> str:
    done = subprocess.run(["espeak-ng", "-q", "--ipa", "-v", "en-us", word], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _loudest(samples: np.ndarray, rate: int) -> float:
    tenth = rate // 10
    blocks = samples[: len(samples) // tenth * tenth].reshape(-1, tenth)
    return float(np.sqrt((blocks.astype(float) ** 2).mean(1)).max(initial=0.0))
