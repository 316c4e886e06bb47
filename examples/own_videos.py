"""Train on videos of one's own: what viewers would keep of each, and a text, become a corpus in VideoXum's layout.

vtsum extract my_videos/ -o corpus/feat/blip
python examples/own_videos.py kept.csv texts.csv corpus
vtsum data check corpus
vtsum train --config configs/synthetic.yaml --data corpus --output_dir runs/mine --val_every 5 --best_by f1
vtsum summarize talk.mp4 --model runs/mine/best

kept.csv has the columns video, viewer, start, end: a line for each stretch, in seconds, that a viewer would keep.
texts.csv has the columns video, text. A video's name is its file's, without the ending. Every fifth video is for
testing, the one after it for validation.
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from vtsum.recipes.words import vocabulary


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main(kept, texts, corpus):
    stretches = defaultdict(list)
    for row in read(kept):
        stretches[row["video"], row["viewer"]].append((float(row["start"]), float(row["end"])))
    splits = {"train": [], "val": [], "test": []}
    for number, row in enumerate(read(texts)):
        video = row["video"]
        with np.load(corpus / "feat" / "blip" / f"{video}.npz") as file:
            frames = len(file["features"])  # one a second
        seconds = np.arange(frames)
        labels = []  # a row for each viewer: 1 where a frame is kept
        for who in sorted(viewer for name, viewer in stretches if name == video):
            found = [(start <= seconds) & (seconds < end) for start, end in stretches[video, who]]
            labels.append(np.any(found, axis=0).astype(int).tolist())
        entry = {"video_id": video, "duration": float(frames), "sampled_frames": frames, "timestamps": [[0, frames]]}
        split = {0: "test", 1: "val"}.get(number % 5, "train")
        splits[split].append({**entry, "tsum": [row["text"]], "vsum_onehot": labels})
    (corpus / "anno").mkdir(parents=True, exist_ok=True)
    for split, entries in splits.items():
        (corpus / "anno" / f"{split}_videoxum.json").write_text(json.dumps(entries), encoding="utf-8")
    sentences = [sentence for e in splits["train"] for sentence in e["tsum"]]
    (corpus / "vocab.txt").write_text(vocabulary(sentences, 3000), encoding="utf-8")
    print(", ".join(f"{split}: {len(entries)} videos" for split, entries in splits.items()))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
