"""`python cli_with_fake_model.py summarize ...`: the real command with the stand-in model, for tests of the command."""

import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

import pytest  # noqa: E402

from tests.vtsum.fakes import ColourModel, deafen  # noqa: E402
from vtsum.cli import main  # noqa: E402
from vtsum.summary import pipeline  # noqa: E402


class SlowModel(ColourModel):
    """Takes long enough for a test to interrupt it."""

    def encode(self, images):
        print("encoding", file=sys.stderr, flush=True)
        time.sleep(30)
        return super().encode(images)


if __name__ == "__main__":
    slow = "--slow" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--slow"]
    deafen(pytest.MonkeyPatch())
    pipeline.load_model = lambda model, **_: SlowModel() if slow else ColourModel()
    sys.exit(main(arguments))
