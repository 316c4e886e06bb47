"""Names, data and reasons of strangers in Markdown, LaTeX and CSV: text, whatever stands in it."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT, ROOT
from tests.vtsum.test_benchmark import write_h5
from tests.vtsum.test_videoxum_table import evaluation
from vtsum.markup import csv_cell, markdown, tex

NAME = "![x](http://e/?a)<img src=x>|b\\|*c*_d_`e`&lt;$f$~~g~~\n# h"


def table(folder: Path, form: str) -> str:
    """`vtsum table` on an evaluation all of whose texts are a stranger's."""
    made = evaluation(checkpoint={"name": NAME}, split="=1+1")
    made["data"] |= {"name": NAME, "path": '=HYPERLINK("http://e")'}
    made["measures"]["meteor"]["reason"] = NAME
    (folder / "e.json").write_text(json.dumps(made))
    done = forked.run(
        [sys.executable, "-m", "vtsum.cli", "table", folder / "e.json", "-o", folder / f"t.{form}"],
        cwd=ROOT,
        env=ENVIRONMENT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return (folder / f"t.{form}").read_text(encoding="utf-8")


def test_a_strangers_words_are_text_in_a_table_in_markdown(tmp_path: Path) -> None:
    text = table(tmp_path, "md")
    shown = (
        r"!\[x\](http\://e/?a)\<img src=x>\|b\\\|\*c\*\_d\_\`e\`\&lt;\$f\$\~\~g\~\~ # h"  # one line, every mark escaped
    )
    heading, _, _, _, row, *rest = text.splitlines()
    assert f"split =1+1 of {shown}, 30 videos" in heading
    assert row.startswith(f"| {shown} | ")
    assert f"METEOR was not computed: {shown}." in rest
    assert text.count("\n\n") == 2


def test_a_strangers_words_are_text_in_a_table_in_latex(tmp_path: Path) -> None:
    text = table(tmp_path, "tex")
    assert text.count(r"\textbackslash{}\textbar") == 0
    assert text.count(tex(NAME)) == 3
    assert tex("[1cm]*") == "{[}1cm]{*}"  # the first of a row, behind the end of the one before it
    assert tex("a\\b#c~d^e") == r"a\textbackslash{}b\#c\textasciitilde{}d\textasciicircum{}e"


def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path) -> None:
    first = next(iter(csv.DictReader(io.StringIO(table(tmp_path, "csv")))))
    assert first["data"] == '\'=HYPERLINK("http://e")'
    assert first["split"] == "'=1+1"
    assert first["name"] == NAME.replace("\n", " ")
    float(first["f1"])


@pytest.mark.parametrize("sign", "=+-@\t=\r=\uff1d\uff0b")
def test_what_a_spreadsheet_runs_gets_an_apostrophe(sign: str) -> None:
    assert csv_cell(f"{sign}1+1").startswith("'") or sign in "\t\r"
    assert not csv_cell(f"{sign}=1+1").startswith(("=", "\t", "\r"))
    assert csv_cell(-1.5) == -1.5
    assert csv_cell("a=1") == "a=1"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://evil.example/a", r"see http\://evil.example/a"),
        ("HTTPS://e.example", r"HTTPS\://e.example"),
        ("(www.evil.example)", r"(www\.evil.example)"),
        ("WWW.evil.example", r"WWW\.evil.example"),
    ],
)
def test_an_address_without_marks_is_no_link_either(text: str, shown: str) -> None:
    """GitHub's Markdown makes links of bare addresses."""
    assert markdown(text) == shown


def test_names_without_marks_stay_as_they_are() -> None:
    assert markdown("a 3:1 of v1.0, w.w, epoch:2") == "a 3:1 of v1.0, w.w, epoch:2"
    assert markdown("TT+CA+memory, 95% (a-b) 1.5 #2!") == "TT+CA+memory, 95% (a-b) 1.5 #2!"


def test_a_name_without_end_is_drawn_as_far_as_it_is_read(tmp_path: Path) -> None:
    """matplotlib lays a hundred thousand letters out for minutes."""
    made = evaluation(checkpoint={"name": "x" * 100_000})
    made["data"]["name"] = "y" * 100_000
    (tmp_path / "e.json").write_text(json.dumps(made))
    words = ["table", tmp_path / "e.json", "--plot", tmp_path / "p.svg", "-o", tmp_path / "t.md"]
    done = forked.run(
        [sys.executable, "-m", "vtsum.cli", *words],
        cwd=ROOT,
        env=ENVIRONMENT,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "p.svg").stat().st_size < 1_000_000


def test_a_strangers_folds_and_methods_are_text_in_the_table_of_a_benchmark(tmp_path: Path) -> None:
    fold = {"train": ["video_1", "video_2"], "test": ["video_3"]}
    (tmp_path / "s.json").write_text(json.dumps({NAME: [fold, fold | {"test": ["video_4"]}]}))
    write_h5(tmp_path / "a.h5")
    command = [sys.executable, "-m", "vtsum.cli", "benchmark", "tvsum", "--h5", "a.h5", "--splits", "s.json"]
    command += ["--records", "r.jsonl", "--seeds", "1"]
    assert forked.run(command, env=ENVIRONMENT, cwd=tmp_path).returncode == 0
    rows = (tmp_path / "r.jsonl").read_text()
    (tmp_path / "r.jsonl").write_text(rows + rows.split("\n", 1)[1].replace('"ridge"', json.dumps(NAME)))
    done = forked.run(command, env=ENVIRONMENT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"folds ({markdown(f'{NAME:.80}')})" in done.stdout
    assert f"| {markdown(NAME)} | 1 |" in done.stdout
    assert "<img" not in done.stdout.replace(r"\<img", "")
