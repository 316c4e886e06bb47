"""A checkpoint's chat template, rendered by a process of its own: it is a stranger's program, and the sandbox of
transformers keeps it from files, but neither from loops without end nor from all of the memory. Run as a script, this
file is that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

SECONDS, MEMORY, LONGEST = 5, 1 << 30, 100_000  # of computing; bytes; characters
_WAIT = 120  # seconds by the clock, on a machine that has other things to do
_TOO_MUCH = f"a chat template that takes more than {SECONDS} s, {MEMORY >> 20} MiB or {LONGEST} characters"
_TEXT = "\ue000"  # stands for what is said; of private use, no template says it itself


def around(template: str, pictures: int, values: Mapping[str, Any]) -> tuple[str, str]:
    """What stands before and after the text of a turn with so many pictures before it, by transformers' own rules.

    values: what else the template may ask for, the tokenizer's special tokens.

    Raises:
        ValueError: the template fails, takes more than SECONDS, MEMORY or LONGEST, or does not say the text once.
    """
    content: Any = _TEXT
    if pictures:
        content = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": _TEXT}]
    asked = {**values, "chat_template": template, "conversations": [[{"role": "user", "content": content}]]}
    try:
        done = subprocess.run(
            [sys.executable, "-P", __file__],
            input=json.dumps({**asked, "add_generation_prompt": True}, default=str).encode(),
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            timeout=_WAIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(_TOO_MUCH) from None
    if done.returncode < 0:  # a signal, of its limits
        raise ValueError(_TOO_MUCH)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise ValueError(f"a chat template whose process ended with status {done.returncode}: {last[:300]}") from None
    if "failed" in found:
        raise ValueError(found["failed"])
    before, *after = found["text"].split(_TEXT)
    if len(after) != 1:
        raise ValueError(f"a chat template that says the text of a turn {len(after)} times")
    return before, after[0]


def _main() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    from vtsum.memory import limit

    asked = json.load(sys.stdin)
    limit(SECONDS, MEMORY)
    try:
        text = render_jinja_template(**asked)[0][0]
        told = {"text": text} if len(text) <= LONGEST else {"failed": _TOO_MUCH}
    except MemoryError:
        told = {"failed": _TOO_MUCH}
    except Exception as error:  # whatever a template raises
        told = {"failed": (str(error).strip() or type(error).__name__).splitlines()[0][:1000]}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    _main()
