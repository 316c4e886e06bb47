"""Videos in object stores, as s3fs reads them from a store on this machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vtsum
from tests import forked
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import ENVIRONMENT
from tests.vtsum.store_server import serving
from tests.vtsum.test_incoming import OPTIONS, of_file, spool
from vtsum.batches.inputs import find_videos
from vtsum.errors import VTSumError
from vtsum.video import incoming, stores

pytest.importorskip("s3fs")
pytestmark = pytest.mark.usefixtures("nobody_listens")
__all__ = ["of_file", "spool"]  # fixtures

ODD = "2026/a b#1 [x]?.mp4"
"""A name in a store may hold what means something in an address or a pattern."""


@pytest.fixture
def store(clip, monkeypatch) -> Iterator[list[str]]:
    """What a store was asked for that holds these objects, to which the environment leads."""
    content = Path(clip).read_bytes()
    objects = {ODD: content, "2026/deep/b.MKV": content, "2026/notes.txt": b"x", "empty.mp4": b""}
    with serving(objects) as (address, asked):
        for name, value in environment(address).items():
            monkeypatch.setenv(name, value)
        forget()
        yield asked


def forget() -> None:
    """Let what s3fs keeps of another store, of the test before, be forgotten."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


def environment(address: str) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}
    return {**keys, "AWS_ENDPOINT_URL": address, "AWS_CONFIG_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}


def test_an_object_is_summarised_as_its_file(store, spool, of_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stores, "_PIECE", 20_000)
    told: list[tuple[str, float]] = []
    note = lambda stage, done: told.append((stage, done))  # noqa: E731
    made = vtsum.summarize(f"s3://talks/{ODD}", model=ColourModel(), progress=note, **OPTIONS)
    assert made.shots == of_file.shots
    assert made.data["source"]["name"] == "a b#1 [x]?.mp4"
    assert made.output == tmp_path / "a b#1 [x]?_summary"
    shares = [done for stage, done in told if stage == "fetch"]
    assert (shares, shares[0], shares[-1]) == (sorted(shares), 0, 1)
    assert len({share for share in shares if 0 < share < 1}) > 3
    assert sum(line.startswith("GET") and "bytes=" in line for line in store) > 3  # in pieces
    again = vtsum.recut(made.output, tmp_path / "r", video=f"s3://talks/{ODD}", budget="2s")
    assert again.duration <= 2.05
    assert os.listdir(spool) == []


def test_folders_and_patterns_of_a_store(store):
    odd, deep = f"s3://talks/{ODD}", "s3://talks/2026/deep/b.MKV"
    for given, wanted in {
        "s3://talks/2026/": [odd, deep],
        "s3://talks/": [odd, deep, "s3://talks/empty.mp4"],
        "s3://talks/2026/*": [odd, "s3://talks/2026/notes.txt"],
        "s3://talks/**/*.mp4": [odd, "s3://talks/empty.mp4"],
        "s3://talks/2026/a b#1 [x]?*": [odd],
        odd: [odd],
    }.items():
        assert [str(video) for video in find_videos([given], "batch")] == wanted, given
    for given in ("2026/a?*", "2026/[ab]*", "2026/de*", f"**/{'*a' * 30}*"):
        with pytest.raises(VTSumError, match=r"must hold videos, got none there"):
            find_videos([f"s3://talks/{given}"], "batch")


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("t/*.mp4", "t/a.mp4", True),
        ("t/*.mp4", "t/b/a.mp4", False),
        ("t/**/*.mp4", "t/a.mp4", True),
        ("t/**/*.mp4", "t/b/c/a.mp4", True),
        ("t/**", "t/b/c/a.mp4", True),
        ("**/c/**/a*", "t/b/c/a.mp4", True),
        ("t/**/y/*", "t/x/z/y", False),
        ("t/**/**/a", "t/a", True),
        ("t/[x]?*", "t/[x]?a", True),
        ("t/[x]?*", "t/xya", False),
        (f"t/{'*a' * 30}b", f"t/{'a' * 1000}", False),
    ],
)
def test_a_pattern_fits_names_in_linear_time(pattern, name, fits):
    assert stores._fits(name.split("/"), pattern.split("/")) == fits


def test_what_an_address_in_a_store_cannot_be(store, spool, tmp_path, monkeypatch):
    for place, reason in {
        "talks/none.mp4": "must be an address that can be read, got: no such object",
        "talks/closed/a.mp4": "must be an address that can be read, got: ",
        "other/a.mp4": "must be an address that can be read, got: ",
        "talks/empty.mp4": "must be a video file, got an empty file",
        "talks/2026/notes.txt": "must be a video file",
    }.items():
        with pytest.raises(VTSumError, match=reason) as told:
            vtsum.summarize(f"s3://{place}", tmp_path / "o", model=ColourModel(), **OPTIONS)
        assert f"s3://{place}" in str(told.value)
        assert str(spool) not in str(told.value)
        assert "\n" not in str(told.value)
    for place, reason in {
        "s3://talks/none/": "batch: s3://talks/none/ must hold videos, got none there",
        "s3://other/": "batch: s3://other/ must be an address that can be read, got: ",
        "s3://": "batch: s3:// must be an address that can be read, got: ",
    }.items():
        with pytest.raises(VTSumError, match=reason):
            find_videos([place], "batch")
    monkeypatch.setattr(incoming, "LIMIT", 10_000)
    with pytest.raises(VTSumError, match="must have at most 10,000 bytes, got more"):
        vtsum.summarize(f"s3://talks/{ODD}", tmp_path / "o", model=ColourModel(), **OPTIONS)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(VTSumError, match=r"s3://talks/a.mp4: s3fs must be installed: pip install s3fs"):
        vtsum.summarize("s3://talks/a.mp4", tmp_path / "o", model=ColourModel(), **OPTIONS)
    assert os.listdir(spool) == []
    assert not (tmp_path / "o").exists()


def test_an_address_leads_to_no_other_file_system(store, spool, tmp_path):
    """Where fsspec reads an address itself, "::" chains one to the next."""
    secret = tmp_path / "secret.mp4"
    secret.write_text("this is nobody's business")
    for address in (f"s3://talks/x::file://{secret}", f"s3://file://{secret}", f"s3://talks/../..{secret}"):
        with pytest.raises(VTSumError, match="must be an address that can be read"):
            vtsum.summarize(address, tmp_path / "o", model=ColourModel(), **OPTIONS)
    with pytest.raises(VTSumError, match=r"no such file|must be a file on this machine"):
        vtsum.summarize(f"simplecache::s3://talks/{ODD}", tmp_path / "o", model=ColourModel(), **OPTIONS)


def test_an_object_that_grew_after_it_was_listed_comes_whole(monkeypatch):
    objects = {"2026/a.mp4": b"a" * 1000}
    with serving(objects) as (address, _):
        for name, value in environment(address).items():
            monkeypatch.setenv(name, value)
        forget()
        assert find_videos(["s3://talks/2026/*.mp4"], "batch") == ["s3://talks/2026/a.mp4"]
        objects["2026/a.mp4"] = b"b" * 3000
        assert list(stores.pieces("s3://talks/2026/a.mp4", "here")) == [(b"b" * 3000, 3000)]


def test_a_list_without_end_is_one_line(tmp_path):
    objects = {f"{number}.mp4": b"" for number in range(1000)}
    code = (
        "import sys; from vtsum.video import stores; from vtsum.cli import main; stores._LISTED = 3; sys.exit(main())"
    )
    with serving(objects, ends=False) as (address, _):
        for given in ("s3://talks/", "s3://talks/**/*.mp4", "s3://talks/*.mp4"):
            words = ["batch", given, "-o", tmp_path / "out", "--dry-run"]
            done = forked.run(
                [sys.executable, "-c", code, *words], env={**ENVIRONMENT, **environment(address)}, timeout=120
            )
            assert done.returncode == 2, done.stderr
            assert (
                done.stderr
                == f"vtsum: batch: {given} must be listed within 3 s, got more and more; name a part of it\n"
            )


def test_an_object_that_stalls_is_one_line_that_says_so(tmp_path, spool):
    code = (
        "import sys, s3fs; from vtsum.cli import main; "
        "s3fs.S3FileSystem.read_timeout = 1; s3fs.S3FileSystem.retries = 2; sys.exit(main())"
    )
    with serving({"stalled/a.mp4": b"a" * 1000}) as (address, _):
        words = ["summarize", "s3://talks/stalled/a.mp4", "-o", tmp_path / "out"]
        ours = {**ENVIRONMENT, **environment(address), "TMPDIR": str(spool)}
        done = forked.run([sys.executable, "-c", code, *words], env=ours, timeout=120)
    assert done.returncode == 2, done.stderr
    begin = "vtsum: summarize: s3://talks/stalled/a.mp4 must be an address that can be read, got: "
    assert done.stderr.startswith(begin)
    assert "time" in done.stderr.removeprefix(begin).lower()
    assert len(done.stderr.splitlines()) == 1
    assert [name for name in os.listdir(spool) if name.startswith("vtsum-")] == []


def test_a_batch_takes_a_folder_of_a_store(store, spool, tmp_path):
    model = ["--model", "tests.vtsum.batch_models:Poisoned", "--captioner", "none", "--no-speech", "--no-ocr"]
    words = ["batch", "s3://talks/2026/", "s3://talks/none.mp4", "-o", str(tmp_path / "out"), "-f", "json", *model]
    run = [sys.executable, "-m", "vtsum.cli", *words, "--budget", "2s", "--json"]
    ours = {**ENVIRONMENT, "TMPDIR": str(spool), **{k: v for k, v in os.environ.items() if k.startswith("AWS_")}}
    done = forked.run(run, env=ours)
    assert done.returncode == 2, done.stderr
    rows = {row["source"]: row for row in json.loads(done.stdout)}
    assert {source: row["status"] for source, row in rows.items()} == {
        f"s3://talks/{ODD}": "done",
        "s3://talks/2026/deep/b.MKV": "done",
        "s3://talks/none.mp4": "failed",
    }
    assert (tmp_path / "out" / "a b#1 [x]?" / "summary.json").exists()
    assert (tmp_path / "out" / "b" / "summary.json").exists()
    again = forked.run(run, env=ours)
    assert sorted(row["status"] for row in json.loads(again.stdout)) == ["failed", "skipped", "skipped"]
    assert [name for name in os.listdir(spool) if name.startswith("vtsum-")] == []
