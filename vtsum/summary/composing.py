"""The text of a summary: its title, its sentences and its chapters, from what is seen, heard and read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vtsum.enhance.screen_text.sentences import quotations
from vtsum.enhance.speech.merge import Sentence, merge_text, shares
from vtsum.errors import VTSumError
from vtsum.summary.chapters import Chapter, Title, chapters_of, title_of
from vtsum.summary.choosing import Span, choose, heard_twice, preferring, spans_of
from vtsum.summary.facts import measured_text
from vtsum.summary.loudness import Loudness
from vtsum.summary.text import MAX_SENTENCES, ShotCaption
from vtsum.summary.writing import Written, write

if TYPE_CHECKING:
    from vtsum.enhance.speech import Transcript
    from vtsum.protocols import Writer
    from vtsum.summary.planning import Plan
    from vtsum.summary.watching import Watched
    from vtsum.video import VideoInfo

FEWEST = 2  # sentences; where words give fewer, what was measured makes up for it


@dataclass(frozen=True)
class Text:
    """What a summary says in words, and a note where a writer's sentences were refused."""

    title: Title
    sentences: list[Sentence]
    chapters: list[Chapter]
    notes: list[str]


def compose(
    source: Path,
    info: VideoInfo,
    watched: Watched,
    said: Transcript | None,
    plan: Plan,
    captions: Sequence[ShotCaption],
    fps: float,
    writer: Writer | None = None,
    given: str | None = None,
    about: str | None = None,
) -> Text:
    """The text of a video: extracted, and rewritten where there is a writer and the quotations bear it out.

    Args:
        source, info, watched, said, plan: of the video; frames sampled at `fps` a second.
        captions: of its pictures. given: the title that the user wants. about: what sentences are preferred of.
    Returns:
        Text: two to five sentences in order of time.
    Raises:
        VTSumError: the writer stopped working.
    """
    clips = [(i, clip.start / plan.rate, clip.end / plan.rate) for i, clip in sorted(plan.clips.items())]
    words = said.words if said is not None else ()
    lines = quotations(watched.screen, [(word.text, word.start) for word in words])
    spans, rows = spans_of(said, lines, watched.saliency, fps, watched.start)
    notes, scores = [], [span.score for span in spans]
    spans = preferring(about, spans)
    once = any(span.origin == "heard" and span.score > 0 for span in spans)
    try:
        spans = heard_twice(said, spans, watched.duration)
    except VTSumError as error:  # at the end of all the work: it is summarised without
        spans = [replace(span, score=0.0) if span.origin == "heard" else span for span in spans]
        notes.append(f"what was heard could not be heard again: {error}")
    twice = any(span.origin == "heard" and span.score > 0 for span in spans)
    limit = MAX_SENTENCES - shares(MAX_SENTENCES, (sum(span.score > 0 for span in spans), len(captions)))[1]
    chosen = choose(spans, rows, limit)
    # The titles are the video's, whatever somebody asks about.
    entitling = [
        replace(span, score=score if span.score > 0 else 0.0) for span, score in zip(spans, scores, strict=True)
    ]
    own = title_of(info.title, source.name, entitling, watched.screen)
    title = own if given is None else Title(given, "given")
    shots = [plan.span(i) for i in range(len(plan.shots))]
    chapters = chapters_of(
        watched.duration, watched.event_features, fps, entitling, rows, watched.screen, shots, watched.start
    )
    if once and not twice:
        notes.append("no sentence that was heard is sure enough to be quoted")
    if watched.screen and not any(line.confirmed for line in watched.screen):
        notes.append("no line on the screen is sure enough to be quoted")
    written = Written()
    if writer is not None:
        written = write(writer, spans, [(chapter.start, chapter.end) for chapter in chapters], limit)
        if written.refused:
            were = "one line" if written.refused == 1 else f"{written.refused} lines"
            borne = "was" if written.refused == 1 else "were"
            notes.append(f"{were} by {writer.name} {borne} not borne out by what is heard and read, and left out")
        chapters = [_retitled(chapter, i, written, spans) for i, chapter in enumerate(chapters)]
        if written.title is not None and title.origin not in ("given", "file"):
            title = Title(written.title[0], "written", _span_of(written.title[1], spans))
    told = {i for _, cited in written.sentences for i in cited}
    room = limit - len(written.sentences)
    kept = sorted(sorted((i for i in chosen if i not in told), key=lambda i: -spans[i].score)[:room])
    heard = [spans[i] for i in kept if spans[i].origin == "heard"]
    read = [spans[i] for i in kept if spans[i].origin == "read"]
    sentences = merge_text(captions, heard, MAX_SENTENCES, quotations=read, clips=clips)
    sentences += [_sentence(text, [spans[i] for i in cited], clips) for text, cited in written.sentences]
    if len(sentences) < FEWEST:
        loudness = Loudness.of(source, watched.start, watched.duration) if info.has_audio else None
        measured = measured_text(info, watched, plan, loudness)
        sentences += measured[: FEWEST - len(sentences) if sentences else None]
    return Text(title, sorted(sentences, key=lambda sentence: sentence.times[0][0]), chapters, notes)


def _sentence(text: str, cited: Sequence[Span], clips: Sequence[tuple[int, float, float]]) -> Sentence:
    times = tuple((span.start, span.end) for span in cited)
    shots = tuple(shot for shot, a, b in clips if any(min(b, end) > max(a, start) for start, end in times))
    return Sentence(text, min(span.confidence for span in cited), times, "written", shots)


def _retitled(chapter: Chapter, number: int, written: Written, spans: Sequence[Span]) -> Chapter:
    """A chapter with the title that was written for it, if that is borne out by what is heard and read in it."""
    text, cited = written.chapters.get(number, ("", []))
    if not cited or any(not chapter.start <= spans[i].start < chapter.end for i in cited):
        return chapter
    return replace(chapter, title=Title(text, "written", _span_of(cited, spans)))


def _span_of(cited: Sequence[int], spans: Sequence[Span]) -> tuple[float, float]:
    return spans[cited[0]].start, spans[cited[0]].end
