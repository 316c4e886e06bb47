"""What the compilers made of the kernels (registers, spills, shared memory), and what the card's counters say of them.

`resources` reads the compiled library; `counted` runs a few calls, as this module's own program, under Nsight Compute
where it is there and may read the counters. Clocks are left as they are.
"""

from __future__ import annotations

import csv
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gpu import child
from bench.gpu.plan import Planned, planned
from bench.gpu.stage import Context, Line
from bench.kit.kernels import Used
from bench.kit.record import OURS, ROOT

#: A call of a device function may keep its return address on the stack without spilling anything.
STACK = 8
#: Which comparisons' calls are looked at: of each name the first in the plan.
CALLS = (
    "window fwd+bwd bfloat16 B 8 T 8192 w 5",
    "window fwd+bwd bfloat16 B 8 T 8192 w 33",
    "memory gather fwd",
    "memory topk fwd",
)
TINY_CALLS = ("window fwd+bwd",)
METRICS = {
    "read": "dram__bytes_read.sum",
    "written": "dram__bytes_write.sum",
    "ns": "gpu__time_duration.sum",
    "memory": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "occupancy": "sm__warps_active.avg.pct_of_peak_sustained_active",
}
OUR_KERNELS = "regex:sliding_window|memory_|spin_kernel"
SPIN = "spin_kernel"
LEAST = 8.0


def kernel_name(symbol: str) -> str | None:
    """The function of ours that a mangled or plain symbol is an instance of: NAME_kernel."""
    for digits in re.finditer(r"\d+", symbol):
        for start in range(digits.start(), digits.end()):  # other names end with digits, too
            name = symbol[digits.end() : digits.end() + int(symbol[start : digits.end()])]
            if re.fullmatch(r"[a-z]\w*_kernel", name):
                return name
    plain = re.search(r"\w+_kernel\b", symbol)
    return plain[0] if plain else None


def read_resources(text: str) -> dict[str, list[Used]]:
    """From `cuobjdump --dump-resource-usage`: by kernel, what each of its instances takes."""
    found: dict[str, list[Used]] = {}
    for symbol, numbers in re.findall(r"Function (\S+):\s*\n\s*(REG:.*)", text):
        name = kernel_name(symbol)
        values = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", numbers)}
        if name is not None:
            stack = max(values.get("STACK", 0), values.get("LOCAL", 0))
            found.setdefault(name, []).append(Used(values.get("REG", 0), stack, values.get("SHARED", 0)))
    return found


def cuobjdump() -> str | None:
    """The toolkit's, or the one in Triton's package."""
    if (found := shutil.which("cuobjdump")) is not None:
        return found
    for folder in map(Path, sys.path):
        path = folder / "triton" / "backends" / "nvidia" / "bin" / "cuobjdump"
        if path.is_file():
            return str(path)
    return None


def resources(context: Context) -> Iterator[Line]:
    """Registers, spills and shared memory of the CUDA kernels as they were built."""
    check = "CUDA kernels' registers and spills"
    libraries = sorted((ROOT / "kernels" / "vtsum_kernels").glob("_cuda.*so"))
    program = cuobjdump()
    if program is None or not libraries:
        yield Line(check, "absent", "cuobjdump was not found" if libraries else "the CUDA kernels are not built")
        return
    done = context.call([program, "--dump-resource-usage", libraries[0]], min(60.0, context.left()))
    found = read_resources(done.output)
    if not done.ok or not found:
        yield Line(check, "failed", done.why() if not done.ok else f"{libraries[0].name} holds none of our kernels")
        return
    facts, line = told(check, found)
    context.note(cuda_kernels=facts)
    yield line


def told(check: str, found: Mapping[str, Sequence[Used]]) -> tuple[dict[str, Any], Line]:
    """What each kernel's largest instances take, for the facts; and a line for all."""
    facts = {
        name: {
            "instances": len(all_of),
            "registers": max(used.registers for used in all_of),
            "stack": max(used.stack for used in all_of),
            "shared": max(used.shared for used in all_of),
        }
        for name, all_of in found.items()
    }
    spilling = sorted(name for name, most in facts.items() if most["stack"] > STACK)
    registers, widest = max((most["registers"], name) for name, most in facts.items())
    detail = f"{sum(map(len, found.values()))} kernels, at most {registers} registers ({widest})"
    if spilling:
        return facts, Line(check, "failed", f"{detail}; on the stack: {', '.join(spilling)}")
    return facts, Line(check, "ok", f"{detail}, none spills")


def counted(context: Context, environment: Mapping[str, str]) -> Iterator[Line]:
    """What Nsight Compute counts; in a dry run the calls are made without it."""
    if context.dry_run:
        until = time.monotonic() + max(0.5 * context.left(), LEAST)
        yield from child.follow(context, "bench.gpu.counters", until=until, environment=environment)
        return
    ncu = shutil.which("ncu")
    if ncu is None:
        yield Line("counters", "absent", "ncu was not found")
        return
    if context.left() < LEAST:
        yield Line("counters", "skipped", "no time was left")
        return
    table = context.scratch / "ncu.csv"
    table.unlink(missing_ok=True)
    command = [ncu, "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none"]
    command += ["--profile-from-start", "off", "--metrics", ",".join(METRICS.values()), "--kernel-name", OUR_KERNELS]
    command += ["--target-processes", "all", "--force-overwrite", "--log-file", str(table)]
    until = context.deadline - child.GRACE
    lines = child.follow(context, "bench.gpu.counters", until=until, environment=environment, command=command)
    failed = [line for line in lines if line.result == "failed"]
    text = table.read_text(errors="replace") if table.exists() else ""
    context.log(f"== ncu\n{text[-20_000:]}")
    calls = by_call(read_table(text))
    if not calls:
        said = [line for line in text.splitlines() if line.startswith("==ERROR==")]
        why = said[0].removeprefix("==ERROR==").strip() if said else failed[0].detail if failed else "it wrote no table"
        yield Line("counters", "absent", f"ncu: {why}")
        return
    names = context.facts.get("counted_calls", [])
    for title, kernels in zip(names, calls, strict=False):
        yield counter_line(title["title"], int(title["moved"]), kernels)


def read_table(text: str) -> list[dict[str, str]]:
    """ncu's CSV: a row a kernel, by column; the row of units is left out."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        return []
    rows = csv.DictReader(lines[start:])
    return [row for row in rows if (row["ID"] or "").isdecimal()]


def by_call(rows: Sequence[dict[str, str]]) -> list[list[dict[str, Any]]]:
    """The kernels of each call: a spinning kernel stands before each."""
    calls: list[list[dict[str, Any]]] = []
    for row in rows:
        name = row["Kernel Name"]
        if SPIN in name:
            calls.append([])
        elif calls:
            values = {key: float(row[metric].replace(",", "")) for key, metric in METRICS.items() if row.get(metric)}
            calls[-1].append({"kernel": kernel_name(name) or name, **values})
    return calls


def counter_line(title: str, moved: int, kernels: Sequence[Mapping[str, Any]]) -> Line:
    """The bytes that really moved against those that were counted, and each kernel's speed."""
    check = f"counters: {title}"
    if not kernels:
        return Line(check, "failed", "none of our kernels ran")
    real = sum(kernel.get("read", 0.0) + kernel.get("written", 0.0) for kernel in kernels)
    said = [f"{real / 1e6:.4g} MB, {real / moved:.3g} times what was counted"]
    for kernel in kernels[:6]:
        speed = (kernel.get("read", 0.0) + kernel.get("written", 0.0)) / max(kernel.get("ns", 0.0), 1.0) / 1e3
        name = str(kernel["kernel"]).removesuffix("_kernel").removeprefix("sliding_window_attention_")
        peak, busy = kernel.get("memory", 0.0), kernel.get("occupancy", 0.0)
        said.append(
            f"{name} {kernel.get('ns', 0.0) / 1e3:.4g} us {speed:.3g} TB/s, {peak:.0f}% of peak, {busy:.0f}% warps"
        )
    return Line(check, "ok", "; ".join(said))


def main() -> int:
    """Makes the calls once to set up, and once more between ncu's marks."""
    chosen = child.parser(__doc__).parse_args()
    import torch

    teller, plans = child.Teller(chosen.tell), planned(chosen.dry_run)
    wanted = TINY_CALLS if chosen.dry_run else CALLS
    calls: list[tuple[Planned, int, Any]] = []
    for words in wanted:
        plan = next(plan for plan in plans if plan.title.startswith(words))
        calls.append((plan, plan.comparison().moved, plan.entry(OURS).start()))
    for _, _, made in calls:
        made(0)
    if chosen.device == "cpu":
        teller.line(Line("counters", "ok", f"{len(calls)} calls made, not counted"))
        return 0
    torch.cuda.synchronize()
    teller.facts(counted_calls=[{"title": plan.title, "moved": moved} for plan, moved, _ in calls])
    runtime: Any = torch.cuda.cudart()
    runtime.cudaProfilerStart()
    for _, _, made in calls:
        torch.cuda._sleep(1000)
        made(0)
    torch.cuda.synchronize()
    runtime.cudaProfilerStop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
