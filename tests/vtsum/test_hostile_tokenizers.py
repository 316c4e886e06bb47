"""Tokenizers of a stranger that would make so much of a few letters that memory, or time, ended: each is one line."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.vtsum.hostile import changed_json
from tests.vtsum.image_text_checkpoints import make_instruct
from tests.vtsum.speech_checkpoints import make_tokenizer
from tests.vtsum.test_hostile_words import written_by
from vtsum.errors import VTSumError
from vtsum.model.pretrained import check_folder

STEPS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
TABLE = base64.b64encode(b"\4\0\0\0" + b"\0" * 4 + b"a\0" + b"b" * 500 + b"\0").decode()
"""SentencePiece's, with an index of one entry and two texts."""


def replaced(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def template(pieces: list[str], ids: int = 1) -> dict[str, Any]:
    """A post-processor that has these: "A" the text, "<s>" a token that stands for so many."""
    kinds = {"A": "Sequence", "<s>": "SpecialToken"}
    single = [{kinds[piece]: {"id": piece, "type_id": 0}} for piece in pieces]
    special = {"<s>": {"id": "<s>", "ids": [0] * ids, "tokens": ["a"] * ids}}
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special}


@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("normalizer", replaced({"Regex": "."}, "ab")),
        ("normalizer", replaced({"Regex": "(?=.)"}, "a")),  # between all letters
        ("normalizer", replaced({"String": ""}, "a")),
        ("normalizer", {"pattern": {"String": "a"}, "content": "aa"}),
        ("normalizer", {"type": "ByteLevel"}),
        ("normalizer", {"type": "Prepend", "prepend": "a" * 100}),
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": TABLE}),
        ("pre_tokenizer", BYTES),
        ("decoder", replaced({"String": "a"}, "aa")),
        ("decoder", {"suffix": ""}),
        ("decoder", {"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": True}),
    ],
)
def test_a_tokenizer_that_doubles_a_text_again_and_again_is_refused(
    part: str, step: dict[str, Any], tmp_path: Path
) -> None:
    """It took the memory there was."""
    for count, refused in ((1, False), (40, True)):
        (tmp_path / "tokenizer.json").write_text(json.dumps({part: {"type": "Sequence", STEPS[part]: [step] * count}}))
        if refused:
            with pytest.raises(VTSumError, match=rf"json must make at most 1000 letters of one, its {part} makes more"):
                check_folder(tmp_path, "load")
        else:
            check_folder(tmp_path, "load")


@pytest.mark.parametrize(
    "changed",
    [
        {"normalizer": {"type": "Sequence", "normalizers": [replaced({"String": ""}, "a")] * 40}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 40}},
        {"post_processor": {"type": "Sequence", "processors": [template(["A"] * 40)] * 2}},
        {"post_processor": template(["<s>"] * 3000 + ["A"], ids=3000)},
        {
            "normalizer": replaced({"Regex": "."}, "a" * 90),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 2},
        },
    ],
)
def test_a_command_refuses_a_tokenizer_that_makes_a_request_endless(changed: dict[str, Any], tmp_path: Path) -> None:
    """A request became a million tokens, and the command did not end or was ended by a signal."""
    folder = make_instruct(tmp_path / "model")
    changed_json(folder, "tokenizer.json", **changed)
    done = written_by(folder, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    told = f"tokenizer.json must make at most 1000 letters of one, its {list(changed)[-1]} makes more"
    assert told in done.stderr


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_command_reads_no_words_that_a_tokenizer_names_elsewhere(name: str, tmp_path: Path) -> None:
    """Of a pipe, it did not end."""
    folder = make_instruct(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    changed_json(folder, "tokenizer_config.json", tokenizer_class="BertTokenizer")
    os.mkfifo(tmp_path / "words")
    (folder / "special_tokens_map.json").write_text("{}")
    changed_json(folder, name, vocab=str(tmp_path / "words"))
    done = written_by(folder, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"{name} must name no other file or checkpoint, got vocab '{tmp_path}" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        {"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a" * 10**6, -1.0]], "unk_id": 0}},
        {"model": {"type": "WordLevel", "vocab": {"a" * 10**6: 0}, "unk_token": "a"}},
        {"added_tokens": [{"id": 0, "content": "a" * 10**6}]},
    ],
)
def test_a_word_without_end_is_refused(words: dict[str, Any], tmp_path: Path) -> None:
    """A Unigram's ended the process, by a signal."""
    folder = make_instruct(tmp_path / "model")
    changed_json(folder, "tokenizer.json", **words)
    done = written_by(folder, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert (
        f"{folder / 'tokenizer.json'} must have words of at most 10000 letters, got 'aaaaaaaaaaaaaaaaaaaa'"
        in done.stderr
    )


@pytest.mark.parametrize("padding", [{"strategy": {"Fixed": 2**30}}, {"pad_to_multiple_of": 2**30}])
def test_a_tokenizer_that_fills_texts_up_without_end_is_refused(padding: dict[str, Any], tmp_path: Path) -> None:
    """A SmolVLM was ended by a signal, after gigabytes of memory."""
    folder = make_instruct(tmp_path / "model")
    usual = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 0, "pad_type_id": 0}
    changed_json(folder, "tokenizer.json", padding={**usual, "pad_token": "x"})
    check_folder(folder, "load")
    changed_json(folder, "tokenizer.json", padding={**usual, "pad_token": "x", **padding})
    done = written_by(folder, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "tokenizer.json must pad a text to at most 200000 tokens, got 1073741824" in done.stderr


def test_tokenizers_as_they_are_published_are_taken(tmp_path: Path) -> None:
    """Whisper's, and ALBERT's rules, of which there are the most."""
    make_tokenizer().save_pretrained(tmp_path)
    check_folder(tmp_path, "load")
    quotes = [replaced({"String": two}, '"') for two in ("``", "''")]
    longest = base64.b64encode(b"\0" * 4 + "صلى الله عليه وسلم".encode() + b"\0").decode()
    rules = [{"type": kind} for kind in ("NFKD", "StripAccents", "Lowercase")]
    rules += [{"type": "Precompiled", "precompiled_charsmap": longest}, replaced({"Regex": " {2,}"}, " ")]
    albert = {
        "normalizer": {"type": "Sequence", "normalizers": quotes + rules},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Metaspace"}]},
        "post_processor": template(["<s>", "A", "<s>"]),
        "decoder": {"type": "Metaspace"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(albert))
    check_folder(tmp_path, "load")


@pytest.mark.parametrize(
    "nonsense",
    [
        {"normalizer": [5, {"type": [1], "pattern": 5, "content": {}}], "model": [], "added_tokens": 5},
        {"normalizer": {"precompiled_charsmap": "=x"}, "decoder": {"prepend": None}, "model": {"vocab": [[], 5, None]}},
        {"post_processor": {"single": [5, {"SpecialToken": {"id": [1]}}], "pair": {}, "special_tokens": [1]}},
    ],
)
def test_what_is_no_tokenizer_is_left_to_tokenizers_to_refuse(nonsense: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(nonsense))
    check_folder(tmp_path, "load")


def _added(count: int) -> list[dict[str, Any]]:
    more = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": number + 300, "content": f"t{number}", **more} for number in range(count)]


MANY = 20_001


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("tokenizer.json", {"added_tokens": _added(MANY)}),
        ("tokenizer_config.json", {"added_tokens_decoder": {str(word.pop("id")): word for word in _added(MANY)}}),
        ("tokenizer_config.json", {"additional_special_tokens": [f"t{number}" for number in range(MANY)]}),
        ("tokenizer_config.json", {"extra_special_tokens": {f"t{number}": "x" for number in range(MANY)}}),
        ("special_tokens_map.json", {"additional_special_tokens": [f"t{number}" for number in range(MANY)]}),
        ("added_tokens.json", {f"t{number}": number for number in range(MANY)}),
    ],
)
def test_added_words_without_end_are_refused(name: str, changed: dict[str, Any], tmp_path: Path) -> None:
    """A million took minutes, and a hundred thousand special ones too."""
    folder = make_instruct(tmp_path / "model")
    if not (folder / name).exists():
        (folder / name).write_text("{}")
    changed_json(folder, name, **changed)
    with pytest.raises(VTSumError, match=rf"{name}.* must be at most 20,000 words, got 20,001"):
        check_folder(folder, "load")


def test_where_a_tokenizer_panics_is_not_printed(tmp_path: Path) -> None:
    """Three lines, or a list of all calls, stood before the one."""
    folder = make_instruct(tmp_path / "model")
    changed_json(folder, "tokenizer.json", normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})
    done = written_by(folder, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "Cannot parse precompiled_charsmap" in done.stderr


def test_what_is_generated_by_code_of_the_hubs_is_one_line(tmp_path: Path) -> None:
    folder = make_instruct(tmp_path / "model")
    changed_json(folder, "generation_config.json", dola_layers="high")
    done = written_by(folder, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "must be a whole checkpoint whose parts fit, got: Dola Generation requires" in done.stderr
