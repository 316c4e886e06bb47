"""The tables and the picture of voice activity and recognition, from their records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.kit.plot import pyplot, save
from bench.kit.tables import Records, Tables, newest, records, table

DETECTORS = {"vtsum": "VTSum", "silero": "Silero (faster-whisper)", "webrtc": "WebRTC (pocketsphinx)"}
NOISES = {
    "clean": "none", "clipped": "none, clipped at a tenth", "white": "white", "hum": "hum and pink",
    "babble": "six other voices", "music": "music",
}  # fmt: skip


def speech_activity() -> str:
    """Recall and precision of each detector, by noise and level."""
    found = newest(records("speech"), "detector", "noise", "snr_db", op="voice_activity")
    tools = [name for name in DETECTORS if any(key[0] == name for key in found)]
    levels = sorted({key[1:] for key in found}, key=lambda k: (list(NOISES).index(k[0]), -(k[1] or 0)))
    rows = []
    for noise, level in levels:
        row = [NOISES[noise] + ("" if level is None else f", {level} dB")]
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
    """Word error rate and cost of PocketSphinx, by clip and setting."""
    found = newest(records("speech"), "clip", "speed", op="recognition")
    speeds = [speed for speed in ("fast", "balanced", "accurate") if any(key[1] == speed for key in found)]
    rows = []
    for clip in dict.fromkeys(key[0] for key in found):
        lines = [found.get((clip, speed)) for speed in speeds]
        some = next(line for line in lines if line is not None)
        cells = ["" if line is None else f"{100 * line['wer']:.0f}% ({line['real_time_factor']:.2f})" for line in lines]
        rows.append([clip, str(some["words"]), f"{some['voiced_s']:.0f} s", *cells])
    head = ["clip", "words", "voice", *(f"{speed}: WER (real-time factor)" for speed in speeds)]
    return table(head, rows, _where(found))


def _where(found: dict[tuple[Any, ...], dict[str, Any]]) -> str:
    if not found:
        return ""
    last = list(found.values())[-1]
    versions = last["versions"]
    return (
        f"{last['device']}, one process, CPU time under load {last['load_before']:.0f}, "
        f"pocketsphinx {versions['pocketsphinx']}, commit {last['commit']}."
    )


TABLES: Tables = {"speech_activity": speech_activity, "speech_recognition": speech_recognition}


def draw(path: Path, lines: Records) -> None:
    """Recall and precision of each detector under noise; word errors against cost. Needs both parts' records."""
    activity = newest(lines, "detector", "noise", "snr_db", op="voice_activity")
    recognition = newest(lines, "clip", "speed", op="recognition")
    if not activity or not recognition:
        return
    figure, (left, middle, right) = pyplot().subplots(1, 3, figsize=(13, 4), layout="constrained")
    tools = [name for name in DETECTORS if any(key[0] == name for key in activity)]
    cases = [(n, s) for n in ("clean", "white", "hum", "babble", "music") for s in (None, 10, 0)]
    cases = [case for case in cases if any(key[1:] == case for key in activity)]
    for axis, value in ((left, "recall"), (middle, "precision")):
        for index, tool in enumerate(tools):
            rows_ = [i + 0.27 * (index - (len(tools) - 1) / 2) for i in range(len(cases))]
            axis.barh(rows_, [100 * activity[(tool, *case)][value] for case in cases], 0.25, label=DETECTORS[tool])
        axis.set_yticks(range(len(cases)), [n if s is None else f"{n}, {s} dB" for n, s in cases])
        axis.invert_yaxis()
        axis.set_xlabel(f"{value} of speech, %")
        axis.grid(axis="x", alpha=0.3)
    left.set_title("Voice activity: speech that is found")
    middle.set_title("Voice activity: what is found is speech")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=8, frameon=False)
    for clip in dict.fromkeys(key[0] for key in recognition):
        lines = [line for key, line in recognition.items() if key[0] == clip]
        lines.sort(key=lambda line: line["real_time_factor"])
        right.plot(
            [line["real_time_factor"] for line in lines], [100 * line["wer"] for line in lines], "o-", label=clip
        )
    right.set_title("PocketSphinx: fast, balanced, accurate")
    right.set_xlabel("CPU seconds for a second with voice")
    right.set_ylabel("word error rate, %")
    right.set_ylim(bottom=0)
    right.grid(alpha=0.3)
    right.legend(fontsize=7)
    save(figure, path, 80)
