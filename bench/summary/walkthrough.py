"""The way of docs/train_and_evaluate.md from nothing to a table of results: how long it takes, and what it comes to.

    python -m bench.summary.walkthrough [--stop-after 60]

Every line between its `walkthrough` marks is run as it stands, in a folder of its own; the first training is
stopped by SIGTERM after `--stop-after` seconds, as a reader may, and the next line resumes it. One JSON line goes to
results/walkthrough.jsonl, the two evaluations go to results/synthetic_*.json, where its table comes from, and
what each protocol makes of them to results/protocols.jsonl.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.kit.command import keep, parser
from bench.kit.record import ROOT, machine
from bench.summary.protocols import compare
from vtsum.evaluation.videoxum_file import read_evaluation

STOPPED = 128 + signal.SIGTERM
LONGEST = 1200.0  # seconds for a line; the slowest takes a tenth of it


def walkthrough_lines() -> list[list[str]]:
    """The words of each line of the walkthrough."""
    text = (ROOT / "docs" / "train_and_evaluate.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- walkthrough -->\n```\n(.*?)```", text, re.DOTALL)
    if block is None:
        raise SystemExit("walkthrough: docs/train_and_evaluate.md must hold a walkthrough between its marks, got none")
    return [shlex.split(line) for line in block[1].splitlines()]


def follow(
    folder: Path, stop: Callable[[Path], bool], more: Mapping[str, Sequence[str]], environment: Mapping[str, str]
) -> list[float]:
    """Run the walkthrough in `folder`: seconds a line.

    Args:
        folder: empty.
        stop: asked again and again, with the metrics' file of the first training, whether to end that training now.
        more: further words for a command, by the command's name.
        environment: added to the process's own.
    Raises:
        SystemExit: a line that failed, or a first training that ended before it was stopped; with what it printed.
    """
    (folder / "configs").symlink_to(ROOT / "configs")
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    taken: list[float] = []
    trained = False
    for words in walkthrough_lines():
        name = words[2] if words[1] == "data" else words[1]
        command = [sys.executable, "-m", "vtsum.cli", *words[1:], *more.get(name, ())]
        began = time.monotonic()
        interrupt = name == "train" and not trained
        with (
            tempfile.TemporaryFile("w+") as said,  # a pipe that nobody reads would fill up and stop the training
            subprocess.Popen(
                command, cwd=folder, env={**os.environ, **paths, **environment}, stdout=said, stderr=subprocess.STDOUT
            ) as process,
        ):
            if interrupt:
                metrics = folder / words[words.index("--output_dir") + 1] / "metrics.jsonl"
                while process.poll() is None and not stop(metrics):
                    time.sleep(0.05)
                process.send_signal(signal.SIGTERM)
                trained = True
            try:
                process.wait(LONGEST)
            except subprocess.TimeoutExpired:
                process.kill()
            taken.append(time.monotonic() - began)
            if process.wait() != (STOPPED if interrupt else 0):
                said.seek(0)
                raise SystemExit(f"walkthrough: {shlex.join(words)} ended with {process.returncode}:\n{said.read()}")
    return taken


def main() -> None:
    given = parser(__doc__, "walkthrough")
    given.add_argument("--stop-after", type=float, default=60.0, help="seconds of the first training")
    options = given.parse_args()
    facts = machine(("torch", "transformers"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began: list[float] = []

        def stop(metrics: Path) -> bool:
            began.append(time.monotonic())
            return began[-1] - began[0] >= options.stop_after and metrics.exists()

        taken = follow(folder, stop, {}, {})
        evaluations = {model: folder / "runs" / f"{model}.json" for model in ("tt_ca", "memory")}
        for model, path in evaluations.items():
            shutil.copyfile(path, options.results.parent / f"synthetic_{model}.json")
        compared = compare(folder / "corpus", [read_evaluation(path) for path in evaluations.values()])
        keep(options.results.with_name("protocols.jsonl"), {"op": "protocols", **facts}, [compared])
    commands = [" ".join(words[: 3 if words[1] == "data" else 2]) for words in walkthrough_lines()]
    lines_s = [[command, round(seconds, 1)] for command, seconds in zip(commands, taken, strict=True)]
    line = {"stop_after_s": options.stop_after, "lines_s": lines_s, "total_s": round(sum(taken), 1)}
    keep(options.results, {"op": "walkthrough", **facts}, [line])


if __name__ == "__main__":
    main()
