"""The tables and the picture of voice activity and recognition, from their records: also of those that are no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.kit.plot import pyplot, save
from bench.kit.tables import Records, Tables, newest, records, table

DETECTORS = {
    "silero, own settings": "Silero",
    "silero": "Silero as faster-whisper sets it",
    "webrtc": "WebRTC",
    "vtsum": "VTSum's own, deleted",
}
RECOGNISERS = {
    ("faster-whisper:tiny.en", "silero, own settings"): "tiny.en",
    ("faster-whisper:tiny.en", "vtsum"): "tiny.en with VTSum's own detector",
    ("pocketsphinx", "vtsum"): "PocketSphinx, deleted",
}
NOISES = {
    "clean": "none", "clipped": "none, clipped at a tenth", "white": "white", "hum": "hum and pink",
    "babble": "six other voices", "music": "music",
}  # fmt: skip


def _noise(kind: str, level: int | None) -> str:
    return NOISES[kind] + ("" if level is None else f", {level} dB")


def _activity(lines: Records) -> dict[tuple[Any, ...], dict[str, Any]]:
    return newest(lines, "detector", "noise", "snr_db", op="voice_activity")


def _recognition(lines: Records) -> dict[tuple[Any, ...], dict[str, Any]]:
    return newest(lines, "recogniser", "vad", "clip", "noise", "snr_db", op="recognition")


def speech_activity() -> str:
    """Recall and precision of each detector, by noise and level."""
    found = _activity(records("speech"))
    tools = [name for name in DETECTORS if any(key[0] == name for key in found)]
    levels = sorted({key[1:] for key in found}, key=lambda k: (list(NOISES).index(k[0]), -(k[1] or 0)))
    rows = []
    for noise, level in levels:
        row = [_noise(noise, level)]
        for tool in tools:
            line = found.get((tool, noise, level))
            row.append("" if line is None else f"{100 * line['recall']:.1f} / {100 * line['precision']:.1f}")
        rows.append(row)
    costs = [next(line["cpu_s_per_s"] for key, line in found.items() if key[0] == tool) for tool in tools]
    if rows:
        rows.append(["CPU seconds for an hour", *(f"{3600 * cost:.0f}" for cost in costs)])
    head = ["noise", *(f"{DETECTORS[tool]}, recall / precision %" for tool in tools)]
    return table(head, rows, _where(found))


def speech_recognition() -> str:
    """Word error rate and cost of each recogniser, by clip and noise."""
    found = _recognition(records("speech"))
    tools = [key for key in RECOGNISERS if any(one[:2] == key for one in found)]
    rows = []
    for clip, noise, level in dict.fromkeys(key[2:] for key in found):
        lines = [found.get((*tool, clip, noise, level)) for tool in tools]
        some = next(line for line in lines if line is not None)
        cells = ["" if line is None else f"{100 * line['wer']:.0f}% ({line['real_time_factor']:.2f})" for line in lines]
        rows.append([f"{clip}, {some['words']} words", _noise(noise, level), *cells])
    head = ["clip", "noise", *(f"{RECOGNISERS[tool]}: WER (real-time factor)" for tool in tools)]
    return table(head, rows, _where(found))


def second_hearing() -> str:
    """Sentences heard once and heard again, and how many of them are true, by noise."""
    found = newest(records("speech"), "recogniser", "clip", "noise", "snr_db", op="second_hearing")
    rows = []
    for noise, level in dict.fromkeys(key[2:] for key in found):
        lines = [line for key, line in found.items() if key[2:] == (noise, level)]
        rows.append([_noise(noise, level), *(_true(lines, which) for which in ("once", "again"))])
    if rows:
        rows.append(["all", *(_true(list(found.values()), which) for which in ("once", "again"))])
    return table(["noise", "heard once: true of all", "heard again: true of all"], rows, _where(found))


def _true(lines: Records, which: str) -> str:
    said, true = (sum(line[key] for line in lines) for key in (which, f"{which}_true"))
    return f"{true} of {said}" + (f" ({100 * true / said:.0f}%)" if said else "")


def _where(found: dict[tuple[Any, ...], dict[str, Any]]) -> str:
    if not found:
        return ""
    loads = [line["load_before"] for line in found.values()]
    last = list(found.values())[-1]
    commits = ", ".join(dict.fromkeys(line["commit"] for line in found.values()))
    return f"{last['device']}, CPU time under load {min(loads):.0f} to {max(loads):.0f}, commits {commits}."


TABLES: Tables = {
    "speech_activity": speech_activity,
    "speech_recognition": speech_recognition,
    "second_hearing": second_hearing,
}


def draw(path: Path, lines: Records) -> None:
    """Recall and precision of each detector under noise; word errors by clip. Needs both parts' records."""
    activity, recognition = _activity(lines), _recognition(lines)
    if not activity or not recognition:
        return
    figure, (left, middle, right) = pyplot().subplots(1, 3, figsize=(13, 4.6), layout="constrained")
    tools = [name for name in DETECTORS if any(key[0] == name for key in activity)]
    cases = [(n, s) for n in ("clean", "white", "hum", "babble", "music") for s in (None, 10, 0)]
    cases = [case for case in cases if any(key[1:] == case for key in activity)]
    for axis, value in ((left, "recall"), (middle, "precision")):
        shares = {
            DETECTORS[t]: [100 * activity[t, *case][value] if (t, *case) in activity else 0 for case in cases]
            for t in tools
        }
        _bars(axis, shares, [_noise(*case) for case in cases], f"{value} of speech, %")
    left.set_title("Voice activity: speech that is found")
    middle.set_title("Voice activity: what is found is speech")
    clips = list(dict.fromkeys(key[2:] for key in recognition))
    errors = {
        name: [100 * recognition[*key, *clip]["wer"] if (*key, *clip) in recognition else 0 for clip in clips]
        for key, name in RECOGNISERS.items()
        if any(one[:2] == key for one in recognition)
    }
    _bars(right, errors, [f"{clip}: {_noise(*case)}" for clip, *case in clips], "word error rate, %")
    right.set_title("Words heard wrongly")
    right.tick_params(axis="y", labelsize=6)
    right.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=4, fontsize=8, frameon=False)
    save(figure, path, 80)


def _bars(axis: Any, values: dict[str, list[float]], labels: list[str], title: str) -> None:
    """A group of bars for each label, one of them for each series."""
    width = 0.8 / len(values)
    for index, (name, row) in enumerate(values.items()):
        places = [i + width * (index - (len(values) - 1) / 2) for i in range(len(row))]
        axis.barh(places, row, width, label=name)
    axis.set_yticks(range(len(labels)), labels)
    axis.invert_yaxis()
    axis.set_xlabel(title)
    axis.grid(axis="x", alpha=0.3)
