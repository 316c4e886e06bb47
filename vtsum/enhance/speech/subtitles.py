"""Transcripts that somebody else has written: subtitles of many kinds (`other_subtitles`), plain text, and what the
subtitle tracks inside a video hold."""

from __future__ import annotations

import html
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from vtsum.enhance.speech.cues import MAX_LINE, MAX_LINES, Cue, check_words
from vtsum.enhance.speech.other_subtitles import other_cues
from vtsum.enhance.speech.text_encoding import decoded
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word, count_words, pieces
from vtsum.errors import VTSumError
from vtsum.reading import read_file
from vtsum.shown import clean
from vtsum.video.source import show

MAX_BYTES = 8 << 20  # a day's speech is 1 MB, with rolling captions 6
SLOWEST = 0.15  # seconds a character; a subtitle stays longer than its words take, so that it can be read
_TIME = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?$")
_BROKEN = re.compile(r"^[\s:.,]*\d[\s\d:.,]*-->")  # meant for times
_SBV = re.compile(rf"^\s*{_TIME},{_TIME}\s*$")
_INLINE = re.compile(r"<((?:\d{1,3}:)?\d{2}:\d{2}\.\d{3})>")
_LEADING = re.compile(rf"^(?:[\[(]({_TIME})[\])]|({_TIME}))(?:(?:(?<=[\])])|\s*[-–:]?\s+)(\S.*))?\s*$")
_ABOUT = re.compile(r"^\[[A-Za-z#]{1,10}:.*\]$")  # of LRC: [ar:Somebody]
# A bracket ends at the next of its kind, be it another beginning: a million "<" must not each be followed to the end.
# "x < 5 and y > 3" holds none.
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<[\d:.]+>|\{\\[^{}]*\}")
_SOUND = re.compile(r"\[[^\[\]]*\]|\([^()]*\)")  # [applause], (laughs): heard, but not said
_NUMBERED = re.compile(r"&#([0-9]{8,});?")  # a sign by its number, longer than any
_SPEAKER = re.compile(r"^\s*(?:[-–—]\s*|>>+\s*)*(?:[A-Z][A-Z0-9 .'’]+:\s+)?")
_LANGUAGE = re.compile(r"[a-z]{2}(-[A-Za-z0-9]{2,4})?")


def read_transcript(
    path: str | os.PathLike[str],
    *,
    stretches: Sequence[tuple[float, float]] | None = (),
    duration: float | None = None,
    rate: float | None = None,
) -> Transcript:
    """Read a transcript: SRT, WebVTT, SBV, ASS, TTML, MicroDVD, MPL2, LRC, what Whisper writes (JSON, TSV) or plain
    text, told apart by what is in it.

    Words take their share of a subtitle's time by their length, or their own times where WebVTT gives them. Notes of
    sounds ("[applause]", "(laughs)"), tags, speakers' names in capitals and lines that a rolling caption shows twice
    are left out. Plain text may give times at the beginnings of its lines ("[0:12] So ..."); else its words are spread
    over `stretches`, or over the whole `duration`.

    Args:
        path: the file, in UTF-8, UTF-16 or UTF-32; else its encoding is guessed, and a warning says so.
        stretches: (start, end) in seconds where somebody speaks, as `voice_activity` finds them; None: nobody could
            find out; for plain text.
        duration (float | None): of the video, in seconds; for plain text.
        rate (float | None): of the video's pictures, a second; for MicroDVD whose first line does not state it.
    Returns:
        Transcript: every confidence 1; `source` is the file's name.
    Raises:
        VTSumError: the file is missing, empty, no text, of another kind of subtitles, of more than 8 MiB or 600,000
            lines, has a line longer than any subtitle's, or holds no words or more than 300,000; or it is plain text
            without times, and neither stretches nor a duration are given.
    """
    name = show(Path(path).name)
    where = f"read_transcript: {show(path)}"
    text, guessed = decoded(read_file(path, "read_transcript", MAX_BYTES), where)
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise VTSumError(f"{where}: must have at most {MAX_LINES} lines, got {len(lines)}")
    language = language_of(Path(path).name)
    warnings = [] if guessed is None else [f"{name}: its encoding was guessed: {guessed}"]
    if (others := other_cues(text, where, rate)) is not None:
        cues, note, left_out = others
        utterances = utterances_of(cues, where)
        warnings += [*([] if note is None else [f"{name}: {note}"]), *_left_out(name, cues, left_out)]
    elif text.startswith("WEBVTT") or any(map(_states_times, lines)):
        cues, stated, broken = parse_cues([_SBV.sub(_arrow, line) for line in lines], where)
        language = stated or language
        utterances = utterances_of(cues, where)
        warnings += _left_out(name, cues, [f"line {number}" for number in broken])
    elif (timed := _timed_lines(lines, duration, where)) is not None:
        utterances = utterances_of(timed, where)
    else:
        spans = [(a, b) for a, b in stretches or () if b > a] or ([(0.0, duration)] if duration else [])
        if not spans:
            raise VTSumError(f"read_transcript: {show(path)}: has no times, and nothing says how long the video is")
        check_words(count_words(text), where)
        utterances = _spread(lines, spans)
        parts = "the parts with voice" if stretches else "the whole video"
        why = "; pip install 'vtsum[speech]' finds those with voice" if stretches is None else ""
        warnings.append(f"{name} has no times: its words are spread over {parts}{why}")
    if not utterances:
        raise VTSumError(f"{where}: must hold words, found none" + "".join(f"; {line}" for line in warnings))
    return Transcript(utterances, name, language, tuple(warnings))


def _left_out(name: str, cues: Sequence[Cue], broken: Sequence[str]) -> list[str]:
    """What is to be said of subtitles that are left out; `broken`: where those are whose times cannot be read."""
    said = []
    if broken:
        many = f"{len(broken)} subtitles have times" if len(broken) > 1 else "a subtitle has a time"
        said.append(f"{name}: {many} that cannot be read, the first in {broken[0]}, and are left out")
    if backwards := sum(cue.end < cue.start for cue in cues):
        said.append(f"{name}: {backwards} of {len(cues)} subtitles end before they begin and are left out")
    return said


def _states_times(line: str) -> bool:
    """Whether a line is one of times, be they broken; plain text may hold an arrow."""
    arrow = "-->" in line and (_TIMING.match(line) or _BROKEN.match(line))
    return bool(arrow or _SBV.match(line))


def language_of(name: str) -> str | None:
    """The language that a file's name states, as in talk.en.srt, or None."""
    parts = name.split(".")
    return parts[-2] if len(parts) > 2 and _LANGUAGE.fullmatch(parts[-2]) else None


def parse_cues(lines: Sequence[str], where: str) -> tuple[list[Cue], str | None, list[int]]:
    """The subtitles of an SRT or WebVTT file, in order of time, the language that a WebVTT header states, and the
    numbers of lines whose times cannot be read: what they belong to is left out.

    In SRT a text may begin or go on behind an empty line, and hold an arrow.

    Raises:
        VTSumError: a line of more than 10,000 characters, or more subtitles than there may be words; `where` begins the
            message.
    """
    reader = _Reader(is_vtt=bool(lines) and lines[0].startswith("WEBVTT"))
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE:
            raise VTSumError(f"{where}: line {number}: must have at most {MAX_LINE} characters, got {len(line)}")
        reader.take(number, line)
        check_words(len(reader.cues), where)
    reader.close()
    reader.give_loose()
    cues = [Cue(start, end, tuple(text)) for start, end, text in reader.cues]
    return sorted(cues, key=lambda cue: cue.start), reader.language, reader.broken


class _Reader:
    """Takes the lines of an SRT or WebVTT file one by one."""

    def __init__(self, *, is_vtt: bool) -> None:
        self.is_vtt = is_vtt
        self.cues: list[tuple[float, float, list[str]]] = []
        self.language: str | None = None
        self.broken: list[int] = []
        self._timing: tuple[float, float] | None = None
        self._block: list[str] = []
        self._loose: list[str] = []  # lines behind a subtitle's end
        self._skipped = False  # inside a NOTE, STYLE or REGION of WebVTT, or what broken times belong to

    def take(self, number: int, line: str) -> None:
        if not (line if self.is_vtt else line.strip()):  # WebVTT's rolling captions hold lines of a space
            if self._block or self.is_vtt:
                self.close()
            self._skipped = False
        elif "-->" in line and (found := _TIMING.match(line)) is not None:
            self._begin((_seconds(found.groups()[:4]), _seconds(found.groups()[4:])))
        elif "-->" in line and _BROKEN.match(line):
            self.broken.append(number)
            self._begin(None)
            self._skipped = True
        elif self._skipped:
            return
        elif self._timing is not None:
            self._block.append(line)
        elif self.is_vtt and re.match(r"(NOTE|STYLE|REGION)\b", line):
            self._skipped = True
        elif stated := re.match(r"Language:\s*([A-Za-z-]+)", line):
            self.language = stated[1]
        else:
            self._loose.append(line)

    def _begin(self, timing: tuple[float, float] | None) -> None:
        open_lines = self._block if self._timing is not None else self._loose
        if open_lines and open_lines[-1].strip().isdigit():
            open_lines.pop()  # the subtitle's number, which may stand without an empty line before it
        self.close()
        self.give_loose()
        self._timing, self._skipped = timing, False

    def close(self) -> None:
        """The subtitle ends."""
        if self._timing is not None:
            self.cues.append((*self._timing, list(self._block)))
        self._timing = None
        self._block.clear()

    def give_loose(self) -> None:
        """Lines behind an empty one belong to the subtitle before it; in WebVTT they are names of the next."""
        if self.cues and not self.is_vtt:
            self.cues[-1][2].extend(self._loose)
        self._loose.clear()


def utterances_of(cues: Iterable[Cue], where: str) -> tuple[Utterance, ...]:
    """Each subtitle's words with times; those without words are left out.

    Raises:
        VTSumError: more than 300,000 words; `where` begins the message.
    """
    cues = list(cues)
    count = 0
    rolling = any(_INLINE.search(line) for cue in cues for line in cue.lines)
    found = []
    last, last_end = "", -1.0
    for cue in cues:
        if cue.end < cue.start:
            continue
        plain = [(line, text) for line in cue.lines if (text := _plain(line))]
        if not plain:
            continue
        follows = cue.start - last_end < 0.1
        last_end = cue.end
        if follows and plain[0][1] == last and (rolling or len(plain) > 1):
            plain = plain[1:]
        if plain:
            last = plain[-1][1]
            lines = [line for line, _ in plain]
            count += sum(count_words(line) + line.count("<") for line in lines)  # inner times may stand without spaces
            check_words(count, where)
            if words := _words(lines, cue.start, cue.end):
                found.append(Utterance(words))
    return tuple(sorted(found, key=lambda u: u.start))


def _words(lines: Sequence[str], start: float, end: float) -> tuple[Word, ...]:
    """A subtitle's words: between the times inside it where it has them, else over its whole time."""
    parts = _INLINE.split("\n".join(lines))
    if len(parts) == 1:
        return spread_words(_spoken("\n".join(lines)), start, end)
    words: list[Word] = []
    times = [start, *(min(max(_clock(t), start), end) for t in parts[1::2]), end]
    for piece, begin, until in zip(parts[::2], times, times[1:], strict=False):
        begin = max(begin, words[-1].start if words else start)
        words += spread_words(_spoken(piece), begin, max(until, begin))
    return tuple(words)


def spread_words(texts: Sequence[str], start: float, end: float) -> tuple[Word, ...]:
    """Words one after the other over a time, each as long as its letters and a space are a share of all."""
    sizes = [len(text) + 1 for text in texts]
    whole = sum(sizes)
    end = min(end, start + SLOWEST * whole)
    words, done = [], 0
    for text, size in zip(texts, sizes, strict=True):
        a = start + (end - start) * done / whole
        done += size
        words.append(Word(text, a, max(start + (end - start) * done / whole, a), 1.0))
    return tuple(words)


def untagged(text: str) -> str:
    """A piece of a subtitle without tags, its signs written out and clean, line by line."""
    text = _NUMBERED.sub(lambda m: f"&#{m[1].lstrip('0')[:8] or 0};", _TAG.sub("", text))
    return "\n".join(map(clean, html.unescape(text).split("\n")))


def _plain(line: str) -> str:
    """A line without tags, for comparison."""
    return " ".join(untagged(line).split())


def _spoken(text: str) -> list[str]:
    """The words said in a piece of a subtitle."""
    text = untagged(text)
    for _ in range(2):  # a bracket may hold another
        text = _SOUND.sub(" ", text)
    lines = [_SPEAKER.sub("", line) for line in text.splitlines() if not line.lstrip().startswith(("♪", "♫", "#"))]
    return _tokens(" ".join(lines))


def _tokens(text: str) -> list[str]:
    """Words, and signs that are read out, as < and $."""
    words = [word for token in text.split() for word in pieces(token)]
    return [
        word
        for word in words
        if any(c.isalnum() or c in "&@%" or unicodedata.category(c) in ("Sm", "Sc") for c in word)
    ]


def _timed_lines(lines: Sequence[str], duration: float | None, where: str) -> list[Cue] | None:
    """Plain text whose lines begin with times, as subtitles; None where fewer than half of its lines do, or times
    stand alone between them.

    Raises:
        VTSumError: more times than there may be words; `where` begins the message.
    """
    entries: list[tuple[float, list[str]]] = []
    filled = [line.strip() for line in lines if line.strip() and not _ABOUT.match(line.strip())]
    for line in filled:
        found = _LEADING.match(line)
        if found is not None:
            entries.append((_clock(found[1] or found[6]), [found.groups()[-1]] if found.groups()[-1] else []))
            check_words(len(entries), where)
        elif entries:
            entries[-1][1].append(line)
        else:
            return None
    if not entries or 3 * len(entries) < len(filled):
        return None
    entries.sort(key=lambda entry: entry[0])
    cues = []
    for i, (start, said) in enumerate(entries):
        text = " ".join(said)
        end = entries[i + 1][0] if i + 1 < len(entries) else max(duration or 0.0, start + SLOWEST * (len(text) + 1))
        cues.append(Cue(start, end, (text,)))
    return cues


def _spread(lines: Sequence[str], spans: Sequence[tuple[float, float]]) -> tuple[Utterance, ...]:
    """Sentences over the spans, as if they were one stretch of time; a word lies in the span where it begins."""
    text = re.sub(r"\[[^\[\]]*\]", " ", "\n".join(map(clean, lines)))
    sentences = [_tokens(part) for part in re.split(r"(?<=[.!?…])\s+|\n\s*\n", text)]
    sentences = [sentence for sentence in sentences if sentence]
    size = sum(len(word) + 1 for sentence in sentences for word in sentence)
    length = sum(b - a for a, b in spans)
    found, done, index, before = [], 0, 0, 0.0
    for sentence in sentences:
        words = []
        for text in sentence:
            begin = done / size * length
            done += len(text) + 1
            until = done / size * length
            while index + 1 < len(spans) and begin >= before + spans[index][1] - spans[index][0]:
                before += spans[index][1] - spans[index][0]
                index += 1
            a, b = spans[index]
            at = min(a + begin - before, b)
            words.append(Word(text, at, max(min(a + until - before, b), at), 1.0))
        found.append(Utterance(tuple(words)))
    return tuple(found)


def _arrow(found: re.Match[str]) -> str:
    """A line of times as YouTube's SBV has it, as SRT has it."""
    return found[0].replace(",", " --> ", 1)


def _clock(text: str) -> float:
    found = re.fullmatch(_TIME, text)
    return _seconds(found.groups()) if found else 0.0


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = parts
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0) + float(f"0.{fraction or 0}")
