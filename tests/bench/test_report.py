"""Tables and plots from records."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.kit import record
from bench.kit.plot import Panel, Picture, Style, count, seconds
from bench.kit.record import append, newest_comparisons, read
from bench.kit.tables import NOTHING
from bench.ops.sliding_window_attention import tables


def line(
    name: str, micros: float | None, window: int = 5, frames: int = 4096, run: str = "2026-01-01", **more: Any
) -> dict[str, Any]:
    facts = {
        "op": "sliding_window_attention",
        "run": run,
        "case": "sweep",
        "pass": "fwd",
        "dtype": "float32",
        "shape": {"B": 1, "H": 12, "T": frames, "D": 64, "window": window},
        "layout": "bhtd",
        "name": name,
        "device": "Some CPU",
        "device_type": "cpu",
        "threads": 2,
        "versions": {"torch": "2.13.0"},
        "commit": "abc1234",
    }
    if micros is None:
        return {**facts, "status": "too slow", "reason": "a call took 9 s", **more}
    times = {"p20": micros, "p50": micros, "p80": micros}
    share = {"share_of_copy": round(980 / micros, 4), "peak_mib": 12.0, "status": "ok", "time_us": times}
    return {**facts, **share, **more}


RECORDS = [
    line("copy", 980.0),
    line("vtsum", 1120.0),
    line("shifts", 9000.0),
    line("shifts_compiled", 2700.0),
    line("natten", 1.0, status="wrong"),
    line("sdpa_masked", None),
    line("copy", 990.0, window=33),
    line("vtsum", 5000.0, window=33),
    line("local_attention", 4000.0, window=33),
    line("copy", 44.0, frames=300),
    line("vtsum", 55.5, frames=300),
    line("copy", 2000.0, dtype="bfloat16", **{"pass": "fwd+bwd"}),
    line("vtsum", None, dtype="bfloat16", **{"pass": "fwd+bwd"}, status="cannot run"),
    line("copy", 980.0, layout="bthd"),
    line("vtsum", 1300.0, layout="bthd"),
    line("shifts", 2600.0, layout="bthd"),
]


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("|")]


def test_windows_table() -> None:
    assert rows(tables.windows("cpu", RECORDS)) == [
        ["window, T 4096", "float32 forward", "bfloat16 forward + backward"],
        ["---", "---:", "---:"],
        ["5", "1.12 ms · 88% · 2.4 x sum of shifts, compiled", "cannot run"],
        ["33", "5 ms · 20% · 0.8 x local-attention", ""],
    ]
    assert tables.windows("cpu", RECORDS).endswith(
        "\n\nSome CPU, 2 threads, torch 2.13.0, commit abc1234, 2026-01-01; medians, B 1, H 12, D 64."
    )


def test_the_table_of_everyone_says_who_has_no_time_and_why() -> None:
    table = dict(row[:2] for row in rows(tables.all_at_one_size("cpu", RECORDS)))
    assert table["VTSum"] == "1.12 ms, 12 MiB"
    assert table["NATTEN"] == "wrong"
    assert table["SDPA, masked"] == "too slow"


@pytest.mark.parametrize("name", ["windows", "frames", "all_at_one_size", "overhead", "aims"])
def test_without_records_a_table_says_so(name: str) -> None:
    assert getattr(tables, name)("cuda", RECORDS) == "Not measured yet."


def test_a_comparison_is_never_mixed_from_two_runs() -> None:
    """The older run's rival is not compared with what we took in the newer one."""
    newer = [line("copy", 500.0, run="2026-02-02"), line("vtsum", 600.0, run="2026-02-02")]
    compared = [one for one in newest_comparisons([*RECORDS, *newer], "cpu") if one["copy"]["run"] == "2026-02-02"]
    assert [sorted(one) for one in compared] == [["copy", "vtsum"]]
    cells = rows(tables.windows("cpu", [*RECORDS, *newer]))
    assert cells[2][1] == "600 µs · 163%"
    assert cells[3][1] == "5 ms · 20% · 0.8 x local-attention"


def test_the_report_fills_the_readme_and_notices_when_it_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, readme = tmp_path / "results", tmp_path / "README.md"
    readme.write_text("# Title\n<!-- bench:sliding_window_cpu_windows -->\nold\n<!-- /bench -->\nend\n")
    page = tmp_path / "docs" / "kernels.md"
    page.parent.mkdir()
    page.write_text("<!-- bench:sliding_window_cpu_frames -->\n<!-- /bench -->\n")
    append(results / "sliding_window_attention.jsonl", *RECORDS)
    monkeypatch.setattr(record, "RESULTS", results)
    monkeypatch.setattr(report, "README", readme)
    monkeypatch.setattr("sys.argv", ["report", "--check"])
    assert report.main() == 1
    assert "old" in readme.read_text()
    monkeypatch.setattr("sys.argv", ["report"])
    assert report.main() == 0
    text = readme.read_text()
    assert "| 5 | 1.12 ms · 88% · 2.4 x sum of shifts, compiled | cannot run |" in text
    assert text.startswith("# Title\n<!-- bench:sliding_window_cpu_windows -->\n| window")
    assert text.endswith("\n<!-- /bench -->\nend\n")
    assert "| 300 | 55.5 µs" in page.read_text()
    assert "| 4096, stored as [B, T, H, D] | 1.3 ms · 75% · 2 x sum of shifts |" in page.read_text()
    plots = sorted(path.name for path in results.glob("*.svg"))
    assert plots == ["sliding_window_attention_cpu_frames.svg", "sliding_window_attention_cpu_window.svg"]
    monkeypatch.setattr("sys.argv", ["report", "--check"])
    assert report.main() == 0
    append(results / "sliding_window_attention.jsonl", line("vtsum", 1000.0, frames=300))
    assert report.main() == 1


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(SystemExit, match=r"a table must be one of summarize, .*, got nonesuch"):
        report.filled("<!-- bench:nonesuch -->\n\n<!-- /bench -->")


def test_records_survive_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    append(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"a": ')
    append(path, {"a": 2}, {"a": 3})
    assert read(path) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert json.loads(path.read_text().splitlines()[-1]) == {"a": 3}


def test_pictures_hold_every_time_and_no_wrong_ones() -> None:
    picture = tables.pictures(RECORDS)["sliding_window_attention_cpu_window.svg"]
    assert picture.title == "Sliding-window attention: time by window (T 4096, Some CPU)"
    points = [(panel.title, name, len(line)) for panel in picture.panels for name, line in panel.lines.items()]
    assert sorted(points) == [
        ("bfloat16 forward + backward", "copy", 1),
        ("float32 forward", "copy", 2),
        ("float32 forward", "local_attention", 1),
        ("float32 forward", "shifts", 1),
        ("float32 forward", "shifts_compiled", 1),
        ("float32 forward", "vtsum", 2),
    ]
    root = ElementTree.fromstring(picture.svg())
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {picture.title, "VTSum", "copying the same bytes", "sum of shifts", "local-attention"} <= texts
    assert not {"NATTEN", "SDPA, masked"} & texts


def test_a_picture_is_the_same_file_each_time_and_says_what_it_shows() -> None:
    points: list[tuple[float, float]] = [(1.0, 1e-3), (10.0, 1e-2), (100.0, 1e-1)]
    picture = Picture("a < b", [Panel("panel", "x", {"one": points})], {"one": Style("One", "#123456")})
    text = picture.svg()
    assert text == picture.svg()
    assert picture.digest in text
    assert "a &lt; b" in text
    assert [tick in text for tick in (">1 ms<", ">10 ms<", ">100 ms<", ">10<")] == [True] * 4
    uses = re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)" style="[^"]*#123456', text)
    (x0, y0), (x1, y1), (x2, y2) = [(float(x), float(y)) for x, y in uses[:3]]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)  # both axes are logarithmic
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert y0 > y1
    assert picture._replace(title="b").digest != picture.digest


def test_numbers_in_the_unit_that_suits_them() -> None:
    values = (4.32e-7, 5.5e-6, 0.00025, 0.0009999, 0.00112, 0.0634, 0.99999, 12.34)
    assert [seconds(v) for v in values] == [
        "0.432 µs",
        "5.5 µs",
        "250 µs",
        "1 ms",
        "1.12 ms",
        "63.4 ms",
        "1 s",
        "12.3 s",
    ]
    assert [count(v) for v in (300, 1024, 262144, 5)] == ["300", "1k", "256k", "5"]


def test_aims_are_held_against_the_records() -> None:
    overhead = {"case": "overhead", "run": "2026-01-01"}
    lines = [
        *RECORDS,
        line("vtsum", 30.0, frames=32, **overhead),
        line("sdpa", 50.0, frames=32, **overhead),
    ]
    rows = tables.aims("cpu", lines).splitlines()
    assert "| aim at window 5, T 4096 | measured | reached |" in rows
    found = {row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:4]] for row in rows[2:]}
    assert found["float32 forward: at most 1.15 times copying the same bytes"] == ["1.14", "yes"]
    assert found["bfloat16 forward: at least 1.6 times as fast as float32"] == ["not measured", ""]
    assert found["a call at T 32, forward: at most 1.5 times SDPA's own"] == ["0.60", "yes"]
    # At window 33 local-attention takes 4.0 ms where ours takes 5.0.
    assert next(cells for aim, cells in found.items() if aim.startswith("ahead of every rival")) == ["0.80", "**no**"]
    assert tables.aims("cuda", lines) == NOTHING
