"""Tables of evaluations: one in the terminal, several models beside one another as Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtsum.errors import VTSumError
from vtsum.evaluation.videoxum_scores import (
    MEASURES,
    TITLES,
    format_value,
)
from vtsum.evaluation.videoxum_seeds import MEMBERS, differences, grouped
from vtsum.markup import csv_cell, markdown, tex
from vtsum.shown import one_line

FORMATS = ("md", "tex", "csv")
_TEX_TITLES = {"kendall": r"Kendall's $\tau$", "spearman": r"Spearman's $\rho$"}
_REVISION = "protocol_revision"
_NEVER_MIXED = {
    "protocol": lambda e: e["protocol"],
    "revision of the protocol": lambda e: e.get(_REVISION),
}
_MUST_AGREE = {
    "split": lambda e: e["split"],
    "data": lambda e: (e["data"]["annotations_sha256"], sorted(v["video_id"] for v in e["videos"])),
    "caption tokenizer": lambda e: e["settings"]["caption_tokenizer"],
    "CLIP": lambda e: (e["clip"] or {}).get("sha256"),
}


def describe(evaluation: Mapping[str, Any]) -> str:
    """An evaluation for the terminal: each measure with its interval, and the two baselines."""
    rows = [["", "model", "95% interval", "random", "uniform"]]
    remarks: dict[str, str] = {}
    for name in MEASURES:
        cell = evaluation["measures"][name]
        if cell["value"] is None:
            rows.append([TITLES[name], "not computed", "", *_baselines(evaluation, name)])
            remarks[TITLES[name]] = cell["reason"]
            continue
        span = f"{format_value(name, cell['low'])} to {format_value(name, cell['high'])}"
        rows.append([TITLES[name], format_value(name, cell["value"]), span, *_baselines(evaluation, name)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [f"{caption([evaluation])}", ""]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    for name, cell in evaluation.get("own_metrics", {}).items():
        lines.append(f"{name}, a measure of your own: {cell['value']:.4g} ({cell['low']:.4g} to {cell['high']:.4g})")
    lines += [f"{name} was not computed: {reason}" for name, reason in remarks.items()]
    return "\n".join(lines)


def caption(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """What the figures are of: protocol, split, data, number of videos, tokenizer; several where they differ."""

    def each(values: Sequence[Any]) -> str:
        return " / ".join(dict.fromkeys(str(value) for value in values))

    words = ["PTB tokenizer" if e["settings"]["caption_tokenizer"] == "ptb" else PLAIN for e in evaluations]
    return one_line(
        f"Protocol {each([_protocol(e) for e in evaluations])}, split {each([e['split'] for e in evaluations])} of "
        f"{each([e['data']['name'] for e in evaluations])}, {each([len(e['videos']) for e in evaluations])} videos, "
        f"captions by the {each(words)}. Rank correlations as they are, all others times 100."
    )


def _protocol(evaluation: Mapping[str, Any]) -> str:
    revision = evaluation.get(_REVISION)
    return f"{evaluation['protocol']} ({'no revision: an older file' if revision is None else f'revision {revision}'})"


PLAIN = "plain tokenizer (not PTB: text figures are not comparable with published ones)"


def row_names(evaluations: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> list[str]:
    """What rows are called unless told: the checkpoints' names, or the files' where two are the same. Trainings of
    --seeds ("RUN seed 0", "RUN seed 1") have one name, and so one row."""
    names = [evaluation["checkpoint"]["name"] for evaluation in evaluations]
    if len(set(names)) < len(names):
        files_named = [path.stem for path in files]
        before = [files_named[:i].count(stem) for i, stem in enumerate(files_named)]
        return [f"{stem} ({n + 1})" if n else stem for stem, n in zip(files_named, before, strict=True)]
    stems = [re.sub(r" seed \d+$", "", name) for name in names]
    return [name if stem in names or stems.count(stem) == 1 else stem for name, stem in zip(names, stems, strict=True)]


def results_table(
    evaluations: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    *,
    form: str = "md",
    baselines: bool = True,
    mix: bool = False,
) -> str:
    """Models as rows, the eight measures as columns, the protocol in the caption.

    The best value of the models in each column is bold. A value is marked + or - where it is better or worse than the
    first row's beyond chance: the 95% interval of the difference over the same resamples of the same videos leaves out
    0 (in CSV, columns of their own give the difference, its interval and p-values). Evaluations of one name are
    trainings of one model: a row of means with standard deviations (see `vtsum.evaluation.videoxum_seeds`).

    Args:
        evaluations: contents of evaluation files. names: of the rows, for each evaluation.
        form: "md", "tex" or "csv".
        baselines: add the first evaluation's rows for random and uniform.
        mix: allow evaluations of different splits, data, tokenizers or CLIPs in one table.
    Raises:
        VTSumError: none given, names that are not as many, an unknown form, a mixture that was not asked for, or one of
            protocols or their revisions, whose F1 means another thing in each.
    """
    if not evaluations or len(names) != len(evaluations):
        raise VTSumError(f"table: names must be one for each of {len(evaluations)} evaluations, got {len(names)}")
    if form not in FORMATS:
        raise VTSumError(f"table: form must be one of {', '.join(FORMATS)}, got {form!r}")
    names = [one_line(name) for name in names]
    if apart := [name for name, of in _NEVER_MIXED.items() if any(of(e) != of(evaluations[0]) for e in evaluations)]:
        kinds = ", ".join(dict.fromkeys(_protocol(evaluation) for evaluation in evaluations))
        raise VTSumError(
            f"table: evaluations must agree in {' and '.join(apart)}, got {kinds}; their figures do not "
            "compare, evaluate again under one protocol"
        )
    different = [name for name, of in _MUST_AGREE.items() if any(of(e) != of(evaluations[0]) for e in evaluations)]
    if different and not mix:
        raise VTSumError(
            f"table: evaluations must agree in {', '.join(_MUST_AGREE)}, got different {' and '.join(different)} "
            "(--mix allows it)"
        )
    evaluations, names = grouped(evaluations, names)
    changes_of = [differences(e, evaluations[0], i) if i else {} for i, e in enumerate(evaluations)]
    if form == "csv":
        return _csv(evaluations, names, changes_of, baselines)
    best: dict[str, str] = {}
    for measure in MEASURES:
        found = [_cell(e["measures"][measure], measure) for e in evaluations]
        best[measure] = max(filter(None, found), key=float, default="")
    rows: list[tuple[str, list[str]]] = []
    bold, raised = ("**{}**", "<sup>{}</sup>") if form == "md" else (r"\textbf{{{}}}", "$^{{{}}}$")
    spread = "±" if form == "md" else r"$\pm$"
    for name, evaluation, changes in zip(names, evaluations, changes_of, strict=True):
        cells = []
        for measure in MEASURES:
            value = evaluation["measures"][measure]["value"]
            if value is None:
                cells.append("")
                continue
            shown = format_value(measure, value)
            cell = bold.format(shown) if shown == best[measure] and len(evaluations) > 1 else shown
            if (sd := evaluation["measures"][measure].get("sd")) is not None:
                cell += f" {spread} {format_value(measure, sd)}"
            mark = _mark(changes.get(measure))
            cells.append(cell + (raised.format(mark) if mark else ""))
        rows.append((name, cells))
    if baselines:
        for kind in ("random", "uniform"):
            row = [_cell(evaluations[0]["baselines"][kind][measure], measure) for measure in MEASURES]
            rows.append((kind, row))
    remarks = _remarks(evaluations, names, len(evaluations) > 1, baselines)
    return (_markdown if form == "md" else _tex)(caption(evaluations), rows, remarks)


def _mark(difference: Mapping[str, Any] | None) -> str:
    if difference is None or difference["low"] <= 0 <= difference["high"]:
        return ""
    return "+" if difference["value"] > 0 else "-"


def _cell(cell: Mapping[str, Any], measure: str) -> str:
    return "" if cell["value"] is None else format_value(measure, cell["value"])


def _baselines(evaluation: Mapping[str, Any], measure: str) -> list[str]:
    return [_cell(evaluation["baselines"][kind][measure], measure) for kind in ("random", "uniform")]


def _remarks(
    evaluations: Sequence[Mapping[str, Any]], names: Sequence[str], several: bool, baselines: bool
) -> list[str]:
    remarks = []
    if several:
        remarks.append(
            f"Bold: the best model. + or -: better or worse than {names[0]} beyond chance "
            "(paired bootstrap over videos, and over trainings where a row has several, 95%)."
        )
    if seeds := {name: len(e[MEMBERS]) for name, e in zip(names, evaluations, strict=True) if len(e[MEMBERS]) > 1}:
        counted = ", ".join(f"{name} {count}" for name, count in seeds.items())
        remarks.append(f"±: standard deviation over trainings of other seeds ({counted}).")
    if baselines:
        remarks.append(
            "random: random scores, and another video's text, averaged over draws. uniform: evenly spaced frames, "
            "as many as the first model chose, without an order or a text; its VT-CLIPScore is with that model's text."
        )
    for measure in MEASURES:
        reasons = {e["measures"][measure].get("reason") for e in evaluations} - {None}
        remarks += [f"{TITLES[measure]} was not computed: {reason}." for reason in sorted(reasons)]
    return remarks


def _markdown(heading: str, rows: Sequence[tuple[str, list[str]]], remarks: Sequence[str]) -> str:
    lines = [markdown(heading), "", "| | " + " | ".join(TITLES[m] for m in MEASURES) + " |"]
    lines.append("|---|" + "---:|" * len(MEASURES))
    lines += [f"| {markdown(name)} | " + " | ".join(cells) + " |" for name, cells in rows]
    return "\n".join([*lines, "", *map(markdown, remarks)]).rstrip() + "\n"


def _tex(heading: str, rows: Sequence[tuple[str, list[str]]], remarks: Sequence[str]) -> str:
    titles = [_TEX_TITLES.get(m, tex(TITLES[m])) for m in MEASURES]
    lines = [r"\begin{table}", r"\centering", r"\begin{tabular}{l" + "r" * len(MEASURES) + "}", r"\hline"]
    lines += [" & ".join(["", *titles]) + r" \\", r"\hline"]
    signed = [(name, [re.sub("-(?=[0-9])", "$-$", cell) for cell in cells]) for name, cells in rows]
    lines += [" & ".join([tex(name), *cells]) + r" \\" for name, cells in signed]
    text = tex(" ".join([heading, *remarks]))
    return "\n".join([*lines, r"\hline", r"\end{tabular}", rf"\caption{{{text}}}", r"\end{table}"]) + "\n"


def _csv(
    evaluations: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    changes_of: Sequence[Mapping[str, Mapping[str, float | None]]],
    baselines: bool,
) -> str:
    """Every figure as it is in the file, not multiplied; empty where not computed."""
    out = io.StringIO()
    parts = ("value", "low", "high")
    own, tests = (*parts, "sd"), ("p_videos", "p_seeds")
    head = [f"{m}{'' if p == 'value' else '_' + p}" for m in MEASURES for p in own]
    change = [f"{m}_difference{'' if p == 'value' else '_' + p}" for m in MEASURES for p in (*parts, *tests)]
    writer = csv.writer(out, lineterminator="\n")
    about = ["name", "protocol", _REVISION, "split", "data", "videos", "caption_tokenizer", "trainings"]
    writer.writerow([*about, *head, *change])
    for name, e, changes in zip(names, evaluations, changes_of, strict=True):
        facts = _facts(e)
        values = [e["measures"][m].get(p) for m in MEASURES for p in own]
        told = [changes.get(m, {}).get(p) for m in MEASURES for p in (*parts, *tests)]
        writer.writerow([csv_cell(name), *facts, len(e[MEMBERS]), *values, *told])
    for kind in ("random", "uniform") if baselines else ():
        e = evaluations[0]
        facts = _facts(e)
        values = [e["baselines"][kind][m].get(p) for m in MEASURES for p in own]
        writer.writerow([kind, *facts, None, *values, *[None] * len(change)])
    return out.getvalue()


def _facts(e: Mapping[str, Any]) -> list[Any]:
    tokenizer = e["settings"]["caption_tokenizer"]
    facts = [e["protocol"], e.get(_REVISION), e["split"], e["data"]["path"], len(e["videos"]), tokenizer]
    return [csv_cell(fact) for fact in facts]
