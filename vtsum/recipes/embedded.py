"""Make the embedded model: one command from real video to the folder that ships in the package.

    python -m vtsum.recipes.embedded --shared ../shared --out runs/embedded --install

The stages, each kept in `--out` and not done again when it is there: the frame encoder is distilled (`distill`); all
frames are embedded; the text decoder learns words (`words`); saliency and captions are trained jointly (`joint`), first
with a fifth of the training videos set aside to choose the number of epochs, then on all training videos; the boundary
head is trained on top, everything else frozen (`boundaries`), and the ridge that gives saliency is fitted (`saliency`);
the figures are computed on the ten held-out videos; the model folder is written. `--install` copies it to
vtsum/assets/embedded.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtsum.config import TextConfig, VTSumConfig
from vtsum.data.activitynet import load_activitynet_captions
from vtsum.data.frames import FRAME_INDEX_RATE, read_frames, read_teacher
from vtsum.data.tvsum import TVSumVideo, load_captions, load_folds
from vtsum.errors import VTSumError
from vtsum.evaluation.baselines import evaluate_features, evaluate_random, every_fifth, paired_difference
from vtsum.evaluation.features import color_histogram
from vtsum.files import check_inputs, check_new, make_folder, plain, replacing
from vtsum.model.checkpoint import CONFIG, VOCABULARY, WEIGHTS, config_text, load_tokenizer, pack
from vtsum.model.embedded_encoder import EMBEDDING_DIM, EmbeddedEncoder
from vtsum.model.files import read_safetensors, write_safetensors
from vtsum.model.text_decoder import TextDecoder
from vtsum.model.vtsum import VTSum
from vtsum.reading import read_json
from vtsum.recipes.boundaries import BoundarySettings, add_boundaries, install
from vtsum.recipes.command import FEATURES, check_model, status, tvsum, watched_of, whole
from vtsum.recipes.distill import distill, encode_all
from vtsum.recipes.embeddings import embeddings, fingerprint
from vtsum.recipes.joint import RATERS, Example, JointSettings, caption_nll, evaluate, train_joint
from vtsum.recipes.saliency import add_saliency
from vtsum.recipes.words import clean, learn_words, vocabulary

ENCODER, LEARNED = "encoder.safetensors", "words.safetensors"
STAGES = {"encoder.json": (ENCODER,), "words.json": (VOCABULARY, LEARNED)}
"""What stages keep in --out beside the records by which they are known to be done."""
DISTILLED = ("cosine", "cosine_of_mean", "centred_cosine", "epochs", "minutes")
"""Figures of the distillation that the model's facts have."""
VOCABULARY_SIZE = 3000
WORD_EPOCHS = 6
TEXT = TextConfig(
    vocab_size=VOCABULARY_SIZE,
    hidden_size=192,
    num_layers=2,
    num_heads=4,
    intermediate_size=384,
    max_positions=40,
    dropout=0.1,
    prompt="",
)
CONFIGURATION = VTSumConfig(
    frame_encoder="embedded",
    width=EMBEDDING_DIM,
    num_heads=4,
    depth=1,
    mlp_ratio=2,
    kernel_size=5,
    memory_slots=64,
    dropout=0.3,
    loss_mean="released",  # what the weights that ship were trained with
    text=TEXT,
)


def check_stages(out: Path, overwrite: bool) -> None:
    """`check_new` of what the stages that are not done will keep: without its record it is no stage's of ours."""
    for record, names in STAGES.items():
        for name in () if (out / record).is_file() else (record, *names):
            check_new("embedded", out / name, overwrite)


def words(
    shared: Path, out: Path, train_captions: list[str], overwrite: bool = True
) -> tuple[list[str], dict[str, float]]:
    """The vocabulary and the decoder's first training; returns ActivityNet's sentences and the figures."""
    videos = load_activitynet_captions(shared / "activitynet" / "train.json.gz")
    sentences = [c for v in videos for s in v.sentences if (c := clean(s)) is not None]
    unseen = [
        c
        for v in load_activitynet_captions(shared / "activitynet" / "val_1.json.gz")[:300]
        for s in v.sentences
        if (c := clean(s)) is not None
    ]
    if not sentences or not unseen:
        raise VTSumError(f"embedded: {shared / 'activitynet'} must have sentences to learn and to test, got none")
    record = out / "words.json"
    if not record.is_file():
        with replacing(out) as part:  # all at once: what is killed meanwhile leaves nothing under these names
            part(VOCABULARY).write_text(vocabulary(sentences + train_captions, VOCABULARY_SIZE), encoding="utf-8")
            decoder = TextDecoder(TEXT, EMBEDDING_DIM, load_tokenizer(part(VOCABULARY)))
            perplexity = learn_words(decoder, sentences, unseen, epochs=WORD_EPOCHS, width=EMBEDDING_DIM)
            check_stages(out, overwrite)  # somebody may have put something there meanwhile
            state = decoder.state_dict()
            del state["lm.cls.predictions.decoder.weight"]  # tied to the word embeddings
            state.pop("lm.cls.predictions.decoder.bias", None)  # tied to the predictions' own bias
            write_safetensors(state, part(LEARNED))
            figures = {"held_out_perplexity": perplexity, "sentences": len(sentences)}
            part(record.name).write_text(json.dumps(figures), encoding="utf-8")
    return sentences, read_json(record, dict, "embedded")


def load_weights(module: torch.nn.Module, path: Path, tied: str = "\n") -> None:
    """What a stage has kept, into its module. tied: of weights that the file leaves out, a part of the names.

    Raises:
        VTSumError: the file is broken, or holds something else.
    """
    state = read_safetensors(path, "embedded")
    try:
        missing = [name for name in module.load_state_dict(state, strict=False).missing_keys if tied not in name]
    except RuntimeError:  # of other shapes
        missing = list(state)
    if missing:
        raise VTSumError(f"embedded: {plain(path)} must hold what its stage keeps there, got other weights; remove it")


def new_model(out: Path, seed: int) -> VTSum:
    torch.manual_seed(seed)
    model = VTSum(CONFIGURATION, load_tokenizer(out / VOCABULARY))
    assert model.text_decoder is not None
    load_weights(model.text_decoder, out / LEARNED, tied="predictions.decoder")
    model.text_decoder.lm.tie_weights()
    return model


def best_epoch(values: list[float], reach: int = 2) -> int:
    """1 + the index where the mean over `reach` neighbours to either side is highest: single epochs are noise."""
    means = [float(np.mean(values[max(i - reach, 0) : i + reach + 1])) for i in range(len(values))]
    return 1 + int(np.argmax(means))


def make(shared: Path, out: Path, settings: JointSettings, overwrite: bool = True) -> dict[str, Any]:
    """Every stage; returns the facts that go into config.json. Without `overwrite` no model that is there in the end is
    replaced, and nothing in the place of what a stage keeps."""
    make_folder(out)
    videos = tvsum("embedded", shared)
    folds = load_folds(shared / "tvsum" / "splits.json", "disjoint_folds", videos)  # before hours of work
    if odd := [video.key for video in videos if len(video.user_summary) != RATERS]:
        raise VTSumError(
            f"embedded: {shared}: videos must have {RATERS} raters, as TVSum's, got another number for {odd[0]}"
        )
    captions = load_captions(shared / "tvsum" / "captions.json")
    if missing := [video.key for video in videos if video.key not in captions]:
        raise VTSumError(f"embedded: {shared}: captions.json must have every video, got none of {missing[:3]}")
    split = every_fifth(videos)
    torch.manual_seed(settings.seed)
    encoder_path = out / ENCODER
    if not encoder_path.with_suffix(".json").is_file():
        distill(shared, encoder_path, overwrite=overwrite)
    record = encoder_path.with_suffix(".json")
    distilled = read_json(record, dict, "embedded")
    if missing := sorted(set(DISTILLED) - distilled.keys()):
        raise VTSumError(f"embedded: {plain(record)} must have {', '.join(DISTILLED)}, got no {missing[0]}")
    encoder = EmbeddedEncoder()
    load_weights(encoder, encoder_path)
    encoder.eval()
    whose = fingerprint("embedded", encoder.state_dict())
    arrays = embeddings(out / FEATURES, whose, shared, videos, lambda images: encode_all(encoder.embed, images))
    examples = {
        v.key: Example.make(v, arrays[f"{v.key}/features"], arrays[f"{v.key}/index"], captions[v.key]) for v in videos
    }
    train_captions = [c.text for key in split.train for c in examples[key].captions]
    sentences, word_facts = words(shared, out, train_captions, overwrite)

    watched = watched_of(split)
    rest = [k for k in split.train if k not in watched]
    _, history = train_joint(
        new_model(out, settings.seed), [examples[k] for k in rest], sentences, settings, [examples[k] for k in watched]
    )
    epochs = best_epoch([h["tau"] for h in history[: settings.epochs]])
    tested = [examples[k] for k in split.test]
    average, _ = train_joint(
        new_model(out, settings.seed),
        [examples[k] for k in split.train],
        sentences,
        dataclasses.replace(settings, epochs=epochs),
    )
    average, boundary_facts = add_boundaries(average, examples, BoundarySettings(seed=settings.seed))
    ridge, saliency_facts = add_saliency(average, examples, folds)
    facts = {
        "trained": time.strftime("%Y-%m-%d"),
        "data": "40 TVSum videos (frames, 20 raters, captions), ActivityNet Captions (words)",
        "held_out": list(split.test),
        "encoder": {k: distilled[k] for k in DISTILLED},
        "words": word_facts,
        "joint": {
            "epochs": epochs,
            "text_epochs": settings.text_epochs,
            "watched_tau": history[epochs - 1]["tau"],
            "watched_rho": history[epochs - 1]["rho"],
            "watched_caption_nll": history[-1]["nll"],
        },
        "held_out_figures": figures(average, tested, videos, arrays, shared),
        "boundaries": boundary_facts,
        "saliency": saliency_facts,
    }
    folder = out / "model"
    check_model("embedded", out, overwrite)  # somebody may have put it there meanwhile
    with replacing(folder) as part:
        write_safetensors(pack(average, encoder, ridge=ridge), part(WEIGHTS))
        shutil.copyfile(out / VOCABULARY, part(VOCABULARY))
        part(CONFIG).write_text(config_text(average.config, facts), encoding="utf-8")
    VTSum.load_checkpoint(folder)
    return facts


def figures(
    model: VTSum, tested: list[Example], videos: list[TVSumVideo], arrays: dict[str, Any], shared: Path
) -> dict[str, Any]:
    """On the held-out videos: the model's tau and rho beside ridge on three kinds of features and chance."""
    split = every_fifth(videos)
    ours, teacher, colours = {}, {}, {}
    for video in videos:
        index = arrays[f"{video.key}/index"]
        times = index / FRAME_INDEX_RATE
        ours[video.key] = (times, arrays[f"{video.key}/features"])
        teacher[video.key] = (times, read_teacher(shared / "tvsum" / "teacher" / f"{video.name}.npz")[1])
        colours[video.key] = (times, color_histogram(read_frames(shared / "tvsum" / "frames" / f"{video.name}.zip")[1]))
    result = evaluate(model, tested)
    rows = {"model": result, "random": evaluate_random([e.video for e in tested])}
    for name, features in (("ridge_encoder", ours), ("ridge_teacher", teacher), ("ridge_colours", colours)):
        rows[name] = evaluate_features(features, videos, split.train, split.test)
    out: dict[str, Any] = {name: {"tau": r.tau, "rho": r.rho, "f": r.mean("f")} for name, r in rows.items()}
    for name in ("ridge_encoder", "ridge_colours", "random"):
        difference = paired_difference(result, rows[name], "tau")
        out[f"model_minus_{name}_tau"] = [difference.mean, difference.standard_error]
    out["caption_nll"] = caption_nll(model, tested)
    out["caption_nll_other_video"] = caption_nll(model, tested, blind=True)
    return out


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder that holds tvsum/ and activitynet/")
    parser.add_argument("--out", type=Path, default=Path("runs/embedded"))
    parser.add_argument("--epochs", type=whole(1), default=JointSettings.epochs, help="of the joint training, at most")
    parser.add_argument(
        "--text-epochs", type=whole(0), default=JointSettings.text_epochs, help="of the text decoder alone"
    )
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--install", action="store_true", help="copy the model into vtsum/assets/embedded")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an older model, and files in the place of a stage's"
    )
    a = parser.parse_args(arguments)

    def work() -> None:
        check_inputs("embedded", a.out / "model", [a.shared])
        check_model("embedded", a.out, a.overwrite)
        check_stages(a.out, a.overwrite)
        settings = JointSettings(epochs=a.epochs, text_epochs=a.text_epochs, seed=a.seed)
        print(json.dumps(make(a.shared, a.out, settings, a.overwrite), indent=1))
        if a.install:
            install(a.out / "model")

    return status(work)


if __name__ == "__main__":
    sys.exit(main())
