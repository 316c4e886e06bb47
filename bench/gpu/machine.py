"""What the GPU check finds before it begins: GPU, clocks, driver, versions, tools; and where its caches go."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.gpu.stage import Context
from bench.kit.record import ROOT, machine

PACKAGES = (
    *("torch", "triton", "transformers", "numpy", "deepspeed", "setuptools", "ninja", "pytest", "hypothesis"),
    *("pytest-xdist", "natten", "flash-attn", "nvidia-cudnn-frontend", "av"),
)
TOOLS = ("nvcc", "ninja", "c++", "cuobjdump", "compute-sanitizer", "nvidia-smi")
#: What nvidia-smi is asked for. Nothing is ever set.
CARD = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu", "power.limit")
#: Where what would be written elsewhere goes, in the scratch folder.
CACHES = {
    "TMPDIR": "tmp",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "CUDA_CACHE_PATH": "cuda",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "MPLCONFIGDIR": "matplotlib",
    "HF_HOME": "huggingface",
}
_TORCH = """
import json, torch
found = {"torch_cuda": torch.version.cuda, "gpu": None}
if torch.cuda.is_available():
    card = torch.cuda.get_device_properties(0)
    found |= {
        "gpu": card.name, "capability": f"{card.major}.{card.minor}", "multiprocessors": card.multi_processor_count,
        "l2_mib": card.L2_cache_size / 2**20, "memory_gib": round(card.total_memory / 2**30, 1),
        "cudnn": torch.backends.cudnn.version(),
    }
print("found", json.dumps(found))
"""


def environment(scratch: Path) -> dict[str, str]:
    """Variables for every program that the check starts: our code is found, nothing is written elsewhere, and nothing
    waits for a network."""
    path = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]  # where ninja lies, if pip brought it
    found = {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    if (home := cuda_home()) is not None:
        found["CUDA_HOME"] = str(home)
        programs.append(str(home / "bin"))
    for name, folder in CACHES.items():
        (scratch / folder).mkdir(parents=True, exist_ok=True)
        found[name] = str(scratch / folder)
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return {**found, **offline, "PATH": os.pathsep.join(filter(None, programs))}


def cuda_home() -> Path | None:
    """The toolkit's folder: an nvcc on the path may be a script or a link that lies elsewhere, without the headers."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    if nvcc := shutil.which("nvcc"):
        homes.append(str(Path(nvcc).resolve().parents[1]))
        said = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-c", os.devnull], capture_output=True, text=True).stderr
        homes += [str(Path(place.strip()).parent) for place in re.findall(r"_HERE_=(.+)", said)]
    for home in filter(None, [*homes, "/usr/local/cuda"]):
        if Path(home, "bin", "nvcc").is_file() and Path(home, "include", "cuda_runtime_api.h").is_file():
            return Path(home)
    return None


def facts(context: Context) -> dict[str, Any]:
    """What this machine is and has: `gpu` (None without one) and what _TORCH says; `card`, by CARD; `tools`, where each
    lies; `nvcc`, its release; and what every record says of its machine."""
    found: dict[str, Any] = {"gpu": None, **machine(PACKAGES)}
    found["tools"] = {name: shutil.which(name, path=context.environment["PATH"]) for name in TOOLS}
    said = context.call([sys.executable, "-c", _TORCH], min(context.left(), 120))
    answer = re.search(r"^found (.*)$", said.output, re.MULTILINE)
    if said.ok and answer:
        found |= json.loads(answer[1])
    else:
        context.log(said.output)
        found["torch_failed"] = said.why()
    found["card"] = card(context)
    nvcc = found["tools"]["nvcc"]
    release = re.search(r"release ([\d.]+)", context.call([nvcc, "--version"], 20).output) if nvcc else None
    found["nvcc"] = release[1] if release else None
    return found


def card(context: Context) -> dict[str, str]:
    """The card's driver, clocks and temperature just now; empty where nvidia-smi does not say."""
    said = context.call(["nvidia-smi", f"--query-gpu={','.join(CARD)}", "--format=csv,noheader", "--id=0"], 20)
    values = [value.strip() for value in said.output.partition("\n")[0].split(",")] if said.ok else []
    return dict(zip(CARD, values, strict=True)) if len(values) == len(CARD) else {}


def words(found: dict[str, Any]) -> list[str]:
    """The facts in a few lines."""
    gpu = "no GPU" + (f" (torch: {found['torch_failed']})" if "torch_failed" in found else "")
    if found["gpu"] is not None:
        gpu = f"{found['gpu']}, sm_{found['capability'].replace('.', '')}, {found['multiprocessors']} multiprocessors, "
        gpu += f"{found['l2_mib']:.0f} MiB of L2, {found['memory_gib']} GiB"
    clocks = ", ".join(f"{name} {value}" for name, value in found["card"].items()) or "nvidia-smi says nothing"
    versions = {**found["versions"], "CUDA": found.get("torch_cuda"), "nvcc": found["nvcc"]}
    missing = [name for name, known in {**versions, **found["tools"]}.items() if not known]
    return [
        f"GPU: {gpu}",
        f"card: {clocks}",
        f"CPU: {found['device']}, {os.cpu_count()} cores",
        f"commit: {found['commit'] or 'unknown (set VTSUM_COMMIT)'}",
        "versions: " + ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "not there: " + (", ".join(missing) or "nothing"),
    ]
