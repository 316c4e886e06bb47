"""The two parts of the caption measures that are Java programs: the PTB tokenizer and METEOR 1.5.

Both jars come inside pycocoevalcap (extra `eval`) and run offline on any Java runtime. Nothing is written into that
package's folder, every process has a bound on its memory, and none outlives the call that started it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from types import TracebackType

import numpy as np

from vtsum.errors import VTSumError

NO_JAVA = "needs a Java runtime (`java`); on Debian: apt-get install default-jre-headless"
# Tokens that the COCO evaluation drops after tokenizing.
_DROPPED = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
_TOKENIZER = "tokenizer/stanford-corenlp-3.4.1.jar"
_METEOR = "meteor/meteor-1.5.jar"
_UTF8 = ["-Dfile.encoding=UTF-8", "-Dstdin.encoding=UTF-8", "-Dstdout.encoding=UTF-8"]
COUNTS = 23
"""Numbers that METEOR keeps of one sentence."""
# METEOR 1.5's parameters for English, task "rank": precision's share, the penalty's shape and size, the share of
# content words, and the weights of matches by exact form, stem, synonym and paraphrase.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])


def why_not() -> str | None:
    """None where the Java programs can run, else what is missing and how to get it."""
    if _package() is None:
        return "needs pycocoevalcap: pip install vtsum[eval]"
    return None if _java() else NO_JAVA


def ptb_tokenize(texts: Sequence[str]) -> list[str]:
    """Each text's words as the COCO evaluation sees them: lowercase, punctuation dropped, one space between.

    Args:
        texts: any strings; line breaks in them count as spaces.
    Raises:
        VTSumError: no Java runtime, no pycocoevalcap, or the tokenizer failed.
    """
    lines = [" ".join(text.split()) for text in texts]
    asked = [line for line in lines if line]
    if not asked:
        return [""] * len(lines)
    command = [
        *_program("ptb_tokenize", "1g"),
        "-cp",
        str(_jar(_TOKENIZER, "ptb_tokenize")),
        "edu.stanford.nlp.process.PTBTokenizer",
        "-preserveLines",
        "-lowerCase",
    ]
    done = subprocess.run(command, input="".join(line + "\n" for line in asked).encode(), capture_output=True)
    found = done.stdout.decode("utf-8", "replace").split("\n")[:-1]
    if done.returncode or len(found) != len(asked):
        raise VTSumError(
            f"ptb_tokenize: the tokenizer must give a line for each of {len(asked)} texts, got {len(found)} "
            f"and status {done.returncode}: {_last_line(done.stderr)}"
        )
    tokenized = iter(" ".join(word for word in line.split() if word not in _DROPPED) for line in found)
    return [next(tokenized) if line else "" for line in lines]


class Meteor:
    """METEOR's aligner as a process, for the time of a `with` block.

    `counts` asks it how two sentences align; `meteor` turns counts, of one sentence or summed over many, into the
    score, so that resampling asks for nothing twice.

    Raises:
        VTSumError: no Java runtime, no pycocoevalcap, or the program fails.
    """

    def __init__(self) -> None:
        command = [*_program("meteor", "2g"), "-jar", str(_jar(_METEOR, "meteor"))]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [*command, "-", "-", "-stdio", "-l", "en", "-norm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def counts(self, candidate: str, references: Sequence[str]) -> np.ndarray:
        """Alignment of one tokenized sentence with its best reference: float64 [23]."""
        parts = [" ".join(part.replace("|||", " ").split()) for part in (*references, candidate)]
        assert self._process.stdin is not None  # both are pipes
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(" ||| ".join(["SCORE", *parts]).encode() + b"\n")
            self._process.stdin.flush()
            numbers = [float(word) for word in self._process.stdout.readline().split()]
        except (OSError, ValueError):
            numbers = []
        if len(numbers) != COUNTS:
            self._errors.seek(0)
            raise VTSumError(f"meteor: the program must answer {COUNTS} numbers: {_last_line(self._errors.read())}")
        counts = np.array(numbers)
        if counts[20] == 1 and counts[21] == counts[0] and counts[22] == counts[1]:
            counts[20] = 0.0  # the program lets the one chunk of a perfect sentence go unpunished, in sums too
        return counts

    def __enter__(self) -> Meteor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def meteor(counts: np.ndarray) -> np.ndarray:
    """METEOR 1.5 (0..1) of summed `Meteor.counts`: [..., 23] -> [...].

    The harmonic mean of precision and recall over weighted matches, times 1 - gamma * (chunks / matches)^beta: the
    program's own arithmetic on its own counts (summed, for a corpus).

    Source: Denkowski and Lavie, "Meteor Universal", 2014.
    """
    counts = np.asarray(counts, np.float64)
    length, reference_length, function_words, reference_function_words = np.moveaxis(counts[..., :4], -1, 0)
    matches = counts[..., 4:20].reshape(*counts.shape[:-1], 4, 4)
    chunks, matched, reference_matched = np.moveaxis(counts[..., 20:], -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = _weighted(matches[..., 0], matches[..., 2]) / _content(length, function_words)
        recall = _weighted(matches[..., 1], matches[..., 3]) / _content(reference_length, reference_function_words)
        mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        fragments = chunks / ((matched + reference_matched) / 2)
        score = mean * (1 - _GAMMA * fragments**_BETA)
    return np.asarray(np.where(matched > 0, score, 0.0))


def _weighted(content: np.ndarray, function: np.ndarray) -> np.ndarray:
    return np.asarray((_DELTA * content + (1 - _DELTA) * function) @ _WEIGHTS)


def _content(length: np.ndarray, function: np.ndarray) -> np.ndarray:
    return np.asarray(_DELTA * (length - function) + (1 - _DELTA) * function)


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java") or (shutil.which("java", path=os.path.join(home, "bin")) if home else None)


def _package() -> Path | None:
    found = util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations)))


def _program(function: str, memory: str) -> list[str]:
    java = _java()
    if java is None:
        raise VTSumError(f"{function}: {NO_JAVA}")
    # The serial collector starts fastest and leaves the other cores alone.
    return [java, f"-Xmx{memory}", "-XX:+UseSerialGC", *_UTF8]


def _jar(name: str, function: str) -> Path:
    package = _package()
    if package is None:
        raise VTSumError(f"{function}: pycocoevalcap must be installed: pip install vtsum[eval]")
    if not (package / name).is_file():
        raise VTSumError(f"{function}: pycocoevalcap must hold {name}, not found in {package}; install version 1.2")
    return package / name


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "no message"
