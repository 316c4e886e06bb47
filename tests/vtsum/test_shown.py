"""Text from elsewhere: what a terminal obeys and nobody sees goes, and every script stays as it is."""

from __future__ import annotations

import json
import pickle
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtsum.errors import VTSumError
from vtsum.shown import LONGEST, clean, cleaned, escaped, one_line, without_secrets

UNFIT = {
    "colour": ("a\x1b[31mb", "a [31mb"),
    "terminal title": ("\x1b]0;owned\x07x", " ]0;owned x"),
    "C1 control sequence": ("a\x9b2Jb\x85", "a 2Jb "),
    "lines": ("a\r\nb\u2028c\u2029d\x0b\x0ce", "a  b c d  e"),
    "NUL": ("a\0b\x7f", "a b "),
    "order": ("gpj\u202e.exe\u2066x\u2069\u200e\u200f\u061c", "gpj.exex"),
    "no width": ("pay\u200bpal\u2060\ufeff\u2063", "paypal"),
    "joiners in Latin": ("ad\u200dmin\u200c", "admin"),
    "joiner behind a tag": ("\U000e0001\u200c\n\u200cok", " ok"),
    "hidden tags": ("ok\U000e0069\U000e0067\U000e007f", "ok"),
    "bytes that are no UTF-8": ("t\udcff.srt \ud800", "t?.srt ?"),
}
FIT = [
    "Größe, naïve, e\u0301, ñ, Ő",
    "שלום עולם",
    "مرحبا بالعالم",
    "می\u200cخواهم",
    "क्\u200dष श्री\u200c",
    "ไทย สวัสดี",
    "한국어",
    "日本語のテスト",
    "中文，测试。",
    "👩\u200d💻 👨\u200d👩\u200d👧\u200d👦 ❤️\u200d🔥 🏳️\u200d🌈 🇩🇪 👍🏽 1️⃣",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "two  spaces, no\u00a0break, soft\u00adhyphen, [red]not markup[/red]",
    "♪ ½ € “quotes” … –",
]


@pytest.mark.parametrize("kind", UNFIT)
def test_what_is_unfit_to_be_shown_goes(kind: str) -> None:
    text, expected = UNFIT[kind]
    assert clean(text) == expected


@pytest.mark.parametrize("text", FIT)
def test_scripts_marks_and_emoji_stay(text: str) -> None:
    assert clean(text) == text


@given(st.text(st.characters(codec=None), max_size=20))
def test_clean_text_is_valid_holds_no_control_and_stays_clean(text: str) -> None:
    found = clean(text)
    found.encode()
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") for c in found)
    assert not any(
        unicodedata.bidirectional(c) in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI") for c in found
    )
    assert clean(found) == found
    assert one_line(found) == " ".join(found.split())


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://admin:p@ss@10.0.0.1/cam", "rtsp://10.0.0.1/cam"),
        ("HTTPS://me:w@h:80/x@y", "HTTPS://h:80/x@y"),
        ("https://h/a?v=1&token=zz#f", "https://h/a?v=1&token=...#f"),
        ("https://h/a?X-Amz-Signature=c&x=1 z", "https://h/a?X-Amz-Signature=...&x=1 z"),
        ("https://h/a?sv=1&sig=c%3D", "https://h/a?sv=1&sig=..."),
        ("https://h/a?author=me", "https://h/a?author=me"),
        ("https://h/a.mp4;token=zz&b=1", "https://h/a.mp4;token=...&b=1"),
        ("https://h/a?x=1;sig=zz&b=1", "https://h/a?x=1;sig=...&b=1"),
        ("https://h/a#access_token=zz", "https://h/a#access_token=..."),
        ("https://h/a?v=1&%73ig=zz&p%61ss=b", "https://h/a?v=1&%73ig=...&p%61ss=..."),
        ("https://h/a?in%5B0%5D=b&Policy=zz", "https://h/a?in%5B0%5D=b&Policy=..."),
        ("https://h/a?jwt=z.z.z&hdnts=exp=1~hmac=z", "https://h/a?jwt=...&hdnts=..."),
        ("s3://talks/a@b.mp4", "s3://talks/a@b.mp4"),
        ("talks/a?token=b.mp4", "talks/a?token=b.mp4"),
        ("a b@c", "a b@c"),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_what_lets_in(address: str, shown: str) -> None:
    assert without_secrets(address) == shown
    assert without_secrets(f"x: {address} y") == f"x: {shown} y"


def test_texts_within_lists_and_objects_are_cleaned() -> None:
    assert cleaned({"a\x1b": ["b\u202e", 1, None, {"c": True}]}) == {"a ": ["b", 1, None, {"c": True}]}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_json_keeps_its_value_and_shows_what_is_hidden(text: str) -> None:
    written = escaped(json.dumps({"name": text}, ensure_ascii=False))
    assert json.loads(written) == {"name": text}
    assert not any(c in written for c in "\x9b\u202e\u2028\x1b\x7f")


def test_an_error_is_one_clean_line_of_bounded_length() -> None:
    error = VTSumError("read: a\x1b]0;x\x07\nb\u202e " + "9" * 10**6 + " end")
    assert str(error).startswith("read: a ]0;x  b 99999")
    assert str(error).endswith("9 end")
    assert len(str(error)) < LONGEST + 10
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_signs_beyond_16_bits_that_nobody_sees_are_written_as_their_numbers() -> None:
    flag = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    text = f"a\U000e0041b {flag} \U0001f33e"
    written = escaped(json.dumps({"name": text}, ensure_ascii=False))
    assert written == '{"name": "a\\udb40\\udc41b ' + flag + ' \U0001f33e"}'
    assert json.loads(written) == {"name": text}
