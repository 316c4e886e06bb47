"""Caption measures: our arithmetic against pycocoevalcap's, on a fixture and on random sentences."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from vtsum.errors import VTSumError
from vtsum.evaluation import java
from vtsum.evaluation.captions import bleu, bleu_counts, cider, plain_tokenize, rouge_l

WORDS = ["a", "man", "dog", "runs", "in", "the", "street", "and", "then", "plays"]


def corpus(seed: int, size: int, references: int) -> tuple[list[str], list[list[str]]]:
    rng = np.random.default_rng(seed)

    def sentence(shortest: int) -> str:
        return " ".join(rng.choice(WORDS, int(rng.integers(shortest, 22))).tolist())

    return [sentence(0) for _ in range(size)], [[sentence(1) for _ in range(references)] for _ in range(size)]


def theirs(scorer: object, made: list[str], references: list[list[str]], **options: int) -> tuple[object, object]:
    keys = range(len(made))
    return scorer.compute_score(dict(zip(keys, references, strict=True)), {k: [made[k]] for k in keys}, **options)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 4))
def test_bleu_rouge_and_cider_equal_pycocoevalcap(seed, size, references):
    made, known = corpus(seed, size, references)
    total = np.sum([bleu_counts(m, r) for m, r in zip(made, known, strict=True)], axis=0)
    assert bleu(total) == pytest.approx(theirs(Bleu(4), made, known, verbose=0)[0][3], abs=1e-12)
    each = [rouge_l(m, r) for m, r in zip(made, known, strict=True)]
    assert each == pytest.approx(theirs(Rouge(), made, known)[1], abs=1e-12)
    mean, single = theirs(Cider(), made, known)
    assert cider(made, known) == pytest.approx(single, abs=1e-10)
    assert cider(made, known).mean() == pytest.approx(mean, abs=1e-10)


def test_the_fixture_without_java(shared):
    fixture = json.loads((shared / "golden/vtsum/metric_fixture.json").read_text())
    made, known = [r[0] for r in fixture["res"].values()], list(fixture["gts"].values())
    total = np.sum([bleu_counts(m, r) for m, r in zip(made, known, strict=True)], axis=0)
    assert bleu(total) == pytest.approx(0.25686, abs=1e-5)
    assert np.mean([rouge_l(m, r) for m, r in zip(made, known, strict=True)]) == pytest.approx(0.62912, abs=1e-5)
    assert cider(made, known).mean() == pytest.approx(2.84205, abs=1e-5)


def test_bleu_sums_over_any_leading_dimension():
    counts = np.stack([bleu_counts(f"a man runs in the {w}", ["a man runs in the street now"]) for w in WORDS])
    assert bleu(counts) == pytest.approx([float(bleu(row)) for row in counts], abs=1e-15)
    assert bleu(counts)[WORDS.index("street")] == pytest.approx(np.exp(1 - 7 / 6), abs=1e-8)


def test_plain_words():
    assert plain_tokenize('A man, isn\'t "here"; 3.5 -- x_y (very)!') == "a man isn't here 3 5 x y very"
    assert plain_tokenize(" ... ") == ""


def test_references_must_be_lists():
    with pytest.raises(VTSumError, match="rouge_l: references must be a list of one or more sentences, got 'a b'"):
        rouge_l("a", "a b")
    with pytest.raises(VTSumError, match=r"bleu_counts: references must be a list of one or more sentences, got \[\]"):
        bleu_counts("a", [])
    with pytest.raises(VTSumError, match="cider: references must be as many as candidates, got 0 and 1"):
        cider(["a"], [])


def test_ptb_tokenizer_equals_pycocoevalcap(needs_program, shared):
    needs_program("java")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    fixture = json.loads((shared / "golden/vtsum/metric_fixture.json").read_text())
    raw = [r[0] for r in fixture["refs_raw"].values()]
    texts = [
        "He isn't (very) old -- he's 3.5 \"years\"!",
        "  two\nlines   here ",
        "café 中文 ||| gonna",
        "U.S. $5, e.g.",
    ]
    expected = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    first, *others = (expected[i][0] for i in range(4))
    known = [r[0] for r in fixture["gts"].values()]
    assert java.ptb_tokenize([*raw, texts[0], "", " \n ", *texts[1:]]) == [*known, first, "", "", *others]
    assert java.ptb_tokenize(["", " "]) == ["", ""]


# What pycocoevalcap 1.2's Meteor gives; to ask it again would start the program twice.
METEOR = [
    *(0.24563593105117024, 0.3143274219378075, 0.19580419580419584, 0.2469676640654866, 0.22913586456576973),
    *(0.32836972313185797, 0.15999999999999998, 0.29258557889719383, 0.39515266695572565, 0.036641221374045796),
    *(0.24909166152385537, 0.17647165873294848, 0.30198106388895446, 0.2754176111913508, 0.2686753769551704),
    *(0.32653061224489793, 0.0, 0.3132779173973497, 0.2507954736540763, 0.20965965610845377, 1.0, 0.0, 0.0),
]


def test_meteor_equals_the_program(needs_program, shared):
    """One sentence at a time and summed, among them a perfect one, one without any match, and an empty one; and
    whatever ends its block ends the program."""
    needs_program("java")
    fixture = json.loads((shared / "golden/vtsum/metric_fixture.json").read_text())
    made, known = [r[0] for r in fixture["res"].values()], list(fixture["gts"].values())
    with contextlib.suppress(ZeroDivisionError), java.Meteor() as program:
        counts = np.stack([program.counts(m, r) for m, r in zip(made, known, strict=True)])
        assert float(java.meteor(counts.sum(0))) == pytest.approx(fixture["meteor"][0], abs=1e-12)
        assert java.meteor(counts) == pytest.approx(fixture["meteor"][1:], abs=1e-12)
        more, references = corpus(0, 20, 2)
        more += ["a man runs", "dog", ""]
        references += [["a man runs"], ["street"], ["the dog"]]
        counts = np.stack([program.counts(m, r) for m, r in zip(more, references, strict=True)])
        assert program._process.poll() is None
        raise ZeroDivisionError
    assert program._process.returncode is not None, "ended, and waited for"
    assert java.meteor(counts) == pytest.approx(METEOR, abs=1e-12)
    assert float(java.meteor(counts.sum(0))) == pytest.approx(0.25010633634286267, abs=1e-12)


def test_a_program_that_breaks_is_named(tmp_path, monkeypatch):
    fake = tmp_path / "java"
    fake.write_text("#!/bin/sh\necho one line\necho 'no memory' >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(VTSumError, match="a line for each of 2 texts, got 1 and status 3: no memory"):
        java.ptb_tokenize(["a", "b"])
    with pytest.raises(VTSumError, match="meteor: the program must answer 23 numbers"), java.Meteor() as program:
        program.counts("a", ["b"])


def test_without_java_or_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert java.why_not() == java.NO_JAVA
    with pytest.raises(VTSumError, match=r"ptb_tokenize: needs a Java runtime \(`java`\); on Debian: apt-get install"):
        java.ptb_tokenize(["a"])
    with pytest.raises(VTSumError, match="meteor: needs a Java runtime"):
        java.Meteor()
    code = (
        "import sys; sys.modules['pycocoevalcap'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'pycocoevalcap' else real(name, package)\n"
        "from vtsum.evaluation import java, captions; print(java.why_not())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "needs pycocoevalcap: pip install vtsum[eval]\n", done.stderr
