"""Modules under the names they had in 0.1: they still work, say where they are now, and go with the next release."""

from __future__ import annotations

import sys
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    f"{old}.{name}": f"{new}.{name}"
    for old, new, names in (
        ("vtsum", "vtsum.summary", "document listening planning progress report schema staging text watching"),
        ("vtsum", "vtsum.batches", "extract"),
        ("vtsum.data", "vtsum.batches", "extract"),
        ("vtsum.data", "vtsum.recipes", "film film_scenes procedural synthetic synthetic_scenes"),
        ("vtsum.training", "vtsum.recipes", "boundaries distill embedded joint tiny_clip words"),
    )
    for name in names.split()
}


class _OldNames(InspectLoader):
    """Finds an old name where no other finder does, and makes it a second name of the module that took its place."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "vtsum.summarize":  # a module here would hide the function of this name
            raise ModuleNotFoundError("vtsum.summarize is a function; write: from vtsum import summarize", name=name)
        return ModuleSpec(name, self, origin=MOVED[name]) if name in MOVED else None

    def get_source(self, name: str) -> str:
        # As source, since that serves `import` and `python -m` alike. Under the latter no warning would be shown.
        new = MOVED[name]
        message = f"{name} is now {new}; the old name goes with the next release"
        return (
            f"import importlib, runpy, sys, warnings\n"
            f"if __name__ == '__main__':\n"
            f"    print({message!r}, file=sys.stderr)\n"
            f"    runpy.run_module({new!r}, run_name='__main__', alter_sys=True)\n"
            f"else:\n"
            f"    warnings.warn({message!r}, DeprecationWarning, stacklevel=2)\n"
            f"    sys.modules[__name__] = importlib.import_module({new!r})\n"
        )


def serve_old_names() -> None:
    """Let the import system find the old names."""
    sys.meta_path.append(_OldNames())
