"""PySceneDetect's detectors on video files, for a Python environment of its own (its OpenCV has no place in ours).

    PYTHON bench/scenedetect_rival.py VIDEO ...        # pip install 'scenedetect==0.7' opencv-python-headless

Prints one JSON object: {"version", "videos": {VIDEO: {DETECTOR: {"seconds", "cuts": [seconds]}}}}. Every detector as it
comes, without settings.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> None:
    import scenedetect
    from scenedetect import detectors

    names = ("ContentDetector", "AdaptiveDetector", "HashDetector", "HistogramDetector")
    videos: dict[str, Any] = {}
    for path in sys.argv[1:]:
        videos[path] = {}
        for name in names:
            began = time.perf_counter()
            scenes = scenedetect.detect(path, getattr(detectors, name)())
            videos[path][name] = {
                "seconds": round(time.perf_counter() - began, 3),
                "cuts": [start.get_seconds() for start, _ in scenes[1:]],
            }
    print(json.dumps({"version": scenedetect.__version__, "videos": videos}))


if __name__ == "__main__":
    main()
