"""What an optional part of VTSum needs, and the line that says how to get it."""

from __future__ import annotations

from importlib import metadata, util

from vtsum.errors import VTSumError

# Module -> distribution, by extra. The reason for each is in pyproject.toml.
EXTRAS: dict[str, dict[str, str]] = {
    "video": {
        "numpy": "numpy",
        "av": "av",
        "PIL": "pillow",
        "safetensors": "safetensors",
        "transformers": "transformers",
        "typer": "typer",
        "rich": "rich",
        "jinja2": "Jinja2",
        "yaml": "PyYAML",
        "pocketsphinx": "pocketsphinx",
    },
    "train": {
        "deepspeed": "deepspeed",
        "h5py": "h5py",
        "matplotlib": "matplotlib",
        "scipy": "scipy",
        "tensorboard": "tensorboard",
    },
    "eval": {"h5py": "h5py", "matplotlib": "matplotlib", "scipy": "scipy", "pycocoevalcap": "pycocoevalcap"},
    "models": {"timm": "timm"},
    "speech": {"faster_whisper": "faster-whisper"},
}


def require(extra: str, function: str) -> None:
    """Raise VTSumError, naming the packages and the command that installs them, if an extra is not complete."""
    missing = [dist for module, dist in EXTRAS[extra].items() if util.find_spec(module) is None]
    if missing:
        raise VTSumError(f"{function}: {', '.join(missing)} must be installed: pip install vtsum[{extra}]")


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
