"""Folders of a stranger for what hears and writes words: recognisers, denoisers, writers. What is wrong is one line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT, ROOT, changed_json, refused
from tests.vtsum.image_text_checkpoints import make_instruct
from tests.vtsum.samples import small_clip
from tests.vtsum.speech_checkpoints import convert, make_whisper
from vtsum.enhance.speech.activity import Stretch
from vtsum.enhance.speech.denoise_seq2seq import Seq2SeqDenoiser
from vtsum.enhance.speech.recognisers.faster_whisper import FasterWhisper
from vtsum.enhance.speech.recognisers.whisper import Whisper
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word
from vtsum.errors import VTSumError
from vtsum.model.chat_template import around
from vtsum.model.pretrained import at_work
from vtsum.model.tokenizer_file import MOST_PADDING
from vtsum.model.writers import ChatWriter
from vtsum.shown import clean


def written_by(folder: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """`vtsum summarize` of something said, with a folder that is to write the text."""
    (tmp_path / "t.srt").write_text("1\n00:00:00,000 --> 00:00:05,000\nHello there, this is about green apples.\n")
    clip = small_clip(tmp_path / "clip.mp4").path
    words = ["summarize", clip, "-o", tmp_path / "o", "--transcript", tmp_path / "t.srt", "--no-ocr", "-f", "txt", "-q"]
    return forked.run(
        [sys.executable, "-m", "vtsum.cli", *words, "--writer", folder],
        cwd=ROOT,
        env=ENVIRONMENT,
    )


LOOPS = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('no\x1b[31m') }}", "no [31m"),
        ("{% for", "unexpected 'end of template'"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "access to attribute '__init__'"),
        ("{% for i in range(10 ** 9) %}a{% endfor %}", "Range too big"),
        ("Hello", "a chat template that says the text of a turn 0 times"),
        ("{{ messages[0].content }}{{ 'a' * 200000 }}", "a chat template that takes more than 5 s"),
        ("{{ 1 // 0 }}", "integer division or modulo by zero"),
    ],
)
def test_a_chat_template_that_fails_is_one_line(template: str, told: str, tmp_path: Path) -> None:
    folder = make_instruct(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(VTSumError, match=r"^writer: .*must be a whole checkpoint whose parts fit, got: ") as caught:
        ChatWriter(str(folder)).write("Hello")
    assert told in str(caught.value)


LIMITS = "a chat template that takes more than 5 s, 1024 MiB or 100000 characters"


@pytest.mark.parametrize(("template", "told"), [("{{ raise_exception('no') }}", "no"), (LOOPS, LIMITS)])
def test_a_command_tells_of_a_chat_template_that_fails_in_one_line(template: str, told: str, tmp_path: Path) -> None:
    """One of loops in loops did not end."""
    folder = make_instruct(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template)
    done = written_by(folder, tmp_path)
    told = f"vtsum: writer: '{folder}' must be a whole checkpoint whose parts fit, got: {told}\n"
    assert (done.returncode, done.stderr) == (2, told)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("tokenizer_config.json", {"chat_template": 5}, "must have a chat template that is text, got 5"),
        ("generation_config.json", {"eos_token_id": [[1]]}, "must be a whole checkpoint whose parts fit, got: unhash"),
    ],
)
def test_nonsense_in_what_a_chat_is_kept_by_is_one_line(
    name: str, fields: dict[str, Any], told: str, tmp_path: Path
) -> None:
    """It was an error that nobody foresaw, with status 70."""
    folder = make_instruct(tmp_path / "model")
    if "chat_template" in fields:
        (folder / "chat_template.jinja").unlink()
    changed_json(folder, name, **fields)
    done = written_by(folder, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"vtsum: writer: '{folder}' {told}")
    assert not (tmp_path / "o").exists()


def test_a_chat_template_that_doubles_a_text_again_and_again_is_ended() -> None:
    """It took the memory there was."""
    template = "{% set ns = namespace(a='ab') %}{% for i in range(40) %}{% set ns.a = ns.a * 2 %}{% endfor %}"
    with pytest.raises(ValueError, match=LIMITS):
        around(template, 0, {})


def test_a_panic_of_tokenizers_is_one_line() -> None:
    """As of a pattern without end. It is no Exception: it was a traceback."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE({"a": 0}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+b"), "isolated")
    with (
        pytest.raises(VTSumError, match=r"^op: 'x' must be a whole checkpoint .*got: .*retry-limit"),
        at_work("x", "op"),
    ):
        tokenizer.encode("a" * 60)
    with pytest.raises(KeyboardInterrupt), at_work("x", "op"):
        raise KeyboardInterrupt


def test_a_refusal_stands_alone(tmp_path: Path) -> None:
    """transformers remarked on the configuration while the tokenizer was read, before its model was refused."""
    folder = make_instruct(tmp_path / "model")
    changed_json(folder, "config.json", vocab_size=5)
    done = written_by(folder, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("vtsum: writer: checkpoint must be a transformers checkpoint")


@pytest.mark.parametrize("settings", [{"suppress_tokens": ["x"]}, {"eos_token_id": "x"}, {"alignment_heads": [[9, 9]]}])
def test_nonsense_in_what_whisper_generates_by_is_one_line(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = make_whisper(tmp_path / "model")
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    sound = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    with pytest.raises(VTSumError, match=r"^Whisper: .*must be a whole checkpoint whose parts fit, got: "):
        list(Whisper(str(folder)).recognise([Stretch(0.0, sound)]))


def _spoilt(folder: Path) -> Path:
    weights = load_file(folder / "model.safetensors")
    save_file({name: torch.full_like(v, torch.nan) for name, v in weights.items()}, folder / "model.safetensors")
    return folder


def test_words_of_scores_that_are_no_numbers_are_not_taken(tmp_path: Path) -> None:
    """Nothing was heard, or written, in silence."""
    told = "must be a whole checkpoint whose parts fit, got: scores of tokens that are no numbers (NaN)"
    done = written_by(_spoilt(make_instruct(tmp_path / "writer")), tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert told in done.stderr
    sound = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    with pytest.raises(VTSumError, match=re.escape(told)):
        list(Whisper(str(_spoilt(make_whisper(tmp_path / "whisper")))).recognise([Stretch(0.0, sound)]))


def test_a_whisper_hears_greedily_whatever_its_folder_says(tmp_path: Path) -> None:
    """Fifty answers of fifty beams took eight gigabytes, and the scores of one row were another one's."""
    folder = make_whisper(tmp_path / "model")
    path = folder / "generation_config.json"
    more = {"num_beams": 5, "num_return_sequences": 3, "do_sample": True}
    sound = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    before = list(Whisper(str(folder)).recognise([Stretch(0.0, sound)]))
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    assert list(Whisper(str(folder)).recognise([Stretch(0.0, sound)])) == before


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("config.json", {"suppress_ids": [10**9]}, "the number 1000000000 of a token of "),  # ended the process
        ("config.json", {"suppress_ids_begin": None}, "no list suppress_ids_begin in its config.json"),
        ("preprocessor_config.json", {"feature_size": 128}, "Invalid input features shape"),
        ("tokenizer.json", {"post_processor": None, "added_tokens": []}, "of a token of |not found|NoneType"),
    ],
)
def test_a_converted_whisper_whose_parts_do_not_fit_is_one_line(
    name: str, fields: dict[str, Any], told: str, tmp_path: Path
) -> None:
    pytest.importorskip("faster_whisper")
    folder = convert(make_whisper(tmp_path / "model"), tmp_path / "converted")
    changed_json(folder, name, **fields)
    program = (
        "import sys, numpy as np\n"
        "from vtsum.enhance.speech.activity import Stretch\n"
        "from vtsum.enhance.speech.recognisers.faster_whisper import FasterWhisper\n"
        "from vtsum.errors import VTSumError\n"
        "sound = np.random.default_rng(0).standard_normal(16000).astype(np.float32)\n"
        "try:\n"
        "    list(FasterWhisper(sys.argv[1]).recognise([Stretch(0.0, sound)]))\n"
        "except VTSumError as error:\n"
        "    print(error)\n"
    )
    done = forked.run([sys.executable, "-c", program, folder], cwd=ROOT, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        rf"FasterWhisper: '{folder}' must be a whole checkpoint whose parts fit, got: .+\n", done.stdout
    )
    assert re.search(told, done.stdout)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"],
                   "continuing_subword_prefix": "x" * 9000}},
        None,
    ],
)  # fmt: skip
def test_a_converted_whispers_tokenizer_that_cannot_be_read_is_one_line(
    change: dict[str, Any] | None, tmp_path: Path
) -> None:
    """A panic of tokenizers ended the command with its traceback; what the hub's client tells of a tokenizer that is
    missing stood beside the refusal."""
    pytest.importorskip("faster_whisper")
    folder = convert(make_whisper(tmp_path / "whisper"), tmp_path / "converted")
    if change is None:
        (folder / "tokenizer.json").unlink()
    else:
        changed_json(folder, "tokenizer.json", **change)
    small_clip(video := tmp_path / "clip.mp4")
    recogniser = f"faster-whisper:{folder}"
    words = ["summarize", str(video), "-o", str(tmp_path / "out"), "--no-ocr", "--recogniser", recogniser]
    assert "FasterWhisper: source must be a converted Whisper model in a folder" in refused(*words, names=folder)


def test_padding_that_a_converted_whispers_tokenizer_asks_for_is_left_out(tmp_path: Path) -> None:
    """Each text was to be as long as it says."""
    pytest.importorskip("faster_whisper")
    folder = convert(make_whisper(tmp_path / "model"), tmp_path / "converted")
    sound = np.random.default_rng(0).standard_normal(16000).astype(np.float32)

    def heard() -> list[str]:  # how sure it is, and when of noise, varies by itself
        said = FasterWhisper(str(folder)).recognise([Stretch(0.0, sound)])
        return [word.text for utterance in said for word in utterance.words]

    before = heard()
    padding = {"strategy": {"Fixed": MOST_PADDING}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    truncation = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    changed_json(
        folder, "tokenizer.json", padding={**padding, "pad_type_id": 0, "pad_token": "x"}, truncation=truncation
    )
    assert heard() == before
    assert before


@pytest.mark.parametrize("changed", [{"model_max_length": "x"}, {"model_max_length": -5}])
def test_nonsense_in_what_a_denoiser_takes_is_one_line(changed: dict[str, Any], tmp_path: Path) -> None:
    from transformers import BartConfig, BartForConditionalGeneration

    BartForConditionalGeneration(
        BartConfig(vocab_size=300, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
                   decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8)
    ).save_pretrained(tmp_path)  # fmt: skip
    make_instruct(tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "other" / name, tmp_path)
    changed_json(tmp_path, "tokenizer_config.json", **changed)
    said = Transcript((Utterance((Word("hello", 0.0, 1.0, 1.0),)),), "test", "en", ())
    with pytest.raises(VTSumError, match=r"^Seq2SeqDenoiser: .*must be a whole checkpoint whose parts fit, got: "):
        Seq2SeqDenoiser(tmp_path)(said)


def test_names_of_weights_command_no_terminal(tmp_path: Path) -> None:
    """transformers tells of weights that it does not know by their names, as they are."""
    folder = make_instruct(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["\x1b]0;owned\x07\u202eextra"] = torch.zeros(1)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    done = written_by(folder, tmp_path)
    assert done.returncode == 0, done.stderr
    assert " ]0;owned extra" in done.stderr
    assert all(clean(line) == line for line in done.stderr.split("\n"))
