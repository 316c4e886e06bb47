"""A summary that runs beside a stream: `vtsum.stream`, and `vtsum summarize --live` as processes."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from av.video.frame import VideoFrame

import vtsum
from tests.vtsum.clips import numbered_scene, write_clip
from tests.vtsum.drawn_stream import drawn
from tests.vtsum.fakes import ColourModel
from tests.vtsum.rtsp_server import camera
from vtsum.enhance.event_segmentation import PictureChanges
from vtsum.enhance.summary_refinement import parse_budget, smooth_scores
from vtsum.errors import VTSumError
from vtsum.summary.live import running, shots, state
from vtsum.summary.live.document import validate_live
from vtsum.summary.live.shots import Shot, Store, Totals
from vtsum.summary.planning import Plan, make_plan
from vtsum.summary.watching import SMOOTHING, Watched, small_picture
from vtsum.video import VideoInfo
from vtsum.video.picture import Pictures

LIVE = [sys.executable, "-m", "vtsum", "summarize", "--live"]


def last_of(source, **options):
    for summary in vtsum.stream(source, **{"model": ColourModel(), "every": 3600, "rate": 1.0, **options}):
        validate_live(summary.data)
    assert summary.final
    return summary


def clips_of(summary) -> list[tuple[float, float]]:
    return [(moment["start"], moment["end"]) for moment in summary.moments]


def batch_of(seed: int, count: int, budget: str) -> tuple[Watched, Plan]:
    """What `summarize` chooses of a drawn film, each frame encoded."""
    model, changes, features = ColourModel(), PictureChanges(), []
    pictures = Pictures((model.image_size, model.image_size))
    for time_, picture in drawn(seed, count):
        frame = VideoFrame.from_ndarray(picture, format="rgb24")
        changes.note(time_, small_picture(frame).copy())
        features.append(model.encode(pictures.rgb(frame)[None])[0])
    x = np.stack(features)
    saliency = smooth_scores(np.clip(model.saliency(x), 0, 1), "gaussian", SMOOTHING).astype(np.float32)
    watched = Watched(x, x, saliency, float(count), None, [], changes, np.ones(count, bool))
    info = VideoInfo(Path("drawn"), float(count), 96, 54, 1.0, 0, False, "rawvideo", None, "drawn", None, 1)
    return watched, make_plan(watched, parse_budget(budget), info, 1.0)


def shown_by(plan: Plan) -> list[tuple[float, float]]:
    return [(clip.start / plan.rate, clip.end / plan.rate) for clip in plan.clips.values()]


def seconds_of(clips: list[tuple[float, float]]) -> set[int]:
    return {second for start, end in clips for second in range(round(start), round(end))}


@pytest.mark.parametrize(
    ("seed", "count", "budget"), [(0, 300, "30s"), (1, 512, "30s"), (2, 400, "1min"), (3, 20, "30s")]
)
def test_up_to_a_windows_length_the_choice_is_the_batchs(seed, count, budget):
    summary = last_of(drawn(seed, count), budget=budget)
    watched, plan = batch_of(seed, count, budget if count > 60 else f"{count}s")
    assert clips_of(summary) == shown_by(plan)
    assert summary.data["shots"] == {"settled": 0, "kept": 0, "given_up": 0.0}
    assert len(watched.saliency) == summary.data["frames"] == count


@pytest.mark.parametrize("seed", [0, 1])
def test_of_a_longer_film_the_choice_differs_little_from_the_batchs(seed):
    """Measured on ten films of 1,500 to 4,000 s: at least two thirds of the seconds are the same."""
    summary = last_of(drawn(seed, 1500), budget="30s")
    _, plan = batch_of(seed, 1500, "30s")
    ours, batchs = seconds_of(clips_of(summary)), seconds_of(shown_by(plan))
    assert len(ours) == len(batchs) == 30
    assert len(ours & batchs) >= 18
    assert summary.data["shots"]["settled"] > 60


def shot_at(rng: np.random.Generator, start: int, worth: float, change: float, kinds: np.ndarray) -> Shot:
    length = int(rng.integers(3, 12))
    mean = kinds[rng.integers(len(kinds))] + 0.2 * rng.normal(size=kinds.shape[1])
    saliency = np.full(length, worth, np.float32)
    return Shot(np.arange(start, start + length + 1), saliency, mean / np.linalg.norm(mean), change, start, b"x")


def some_shots(count: int, seed: int = 0) -> list[Shot]:
    """Shots of which the first two set the scales."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(12, 8))
    found, at = [], 0
    for number in range(count):
        worth = (0.0, 1.0)[number] if number < 2 else float(rng.random())
        change = (0.0, 30.0)[number] if number < 2 else float(rng.random() * 30)
        found.append(shot_at(rng, at, worth, change, kinds))
        at = found[-1].span[1]
    return found


def filled(found: list[Shot], budget: int = 30, at_once: int = 20) -> Store:
    store = Store(budget, 1.0)
    for first in range(0, len(found), at_once):
        part = found[first : first + at_once]
        rows = sum(shot.mean * len(shot.saliency) for shot in part)
        store.add(part, rows, float(sum(len(shot.saliency) for shot in part)))
    return store


def test_what_the_store_gives_up_is_bounded(monkeypatch):
    """f(all) <= f(store) + D, on fixed scales."""
    monkeypatch.setattr(shots, "LEAST_ROOM", 100.0)
    monkeypatch.setattr(shots, "ROOM", 3)
    monkeypatch.setattr(Totals, "scale", property(lambda self: 0.3))
    monkeypatch.setattr(Totals, "mean_value", property(lambda self: 2.0))
    for seed in range(5):
        found = some_shots(300, seed)
        store = filled(found)
        assert store.left_out == 300 - len(store.shots) > 0
        assert store.offers(store.shots).sum() <= 100

        def value(of: list[Shot], store: Store = store) -> float:
            return shots._value(store._quality(of, store.offers(of)), np.array([shot.mean for shot in of]), 0.3)

        assert value(store.shots) < value(found) <= value(store.shots) + store.lost + 1e-9
        assert store.given_up == pytest.approx(store.lost / (store.lost + value(store.shots)))


def test_the_scales_of_all_shots_are_known_though_most_are_given_up(monkeypatch):
    found = some_shots(300)
    whole = filled(found)
    assert whole.left_out > 0
    monkeypatch.setattr(shots, "LEAST_ROOM", 1e9)
    everything = filled(found)
    assert everything.left_out == 0
    worth = everything._worth(found, everything.totals) * everything.offers(found)
    assert whole.totals.mean_value == pytest.approx(worth.mean(), rel=1e-6)
    ours, best = (
        {i for shot, clip, _ in store.choose([], np.zeros(1), 0.0, 30) for i in range(clip.start, clip.end)}
        for store in (whole, everything)
    )
    assert len(ours & best) >= 0.8 * len(best)


def test_a_state_is_the_same_when_it_was_read_and_a_damaged_one_is_refused(tmp_path):
    store = filled(some_shots(300))
    arrays = state.shots_state(store)
    facts: state.Facts = {"format": state.FORMAT, "asked": {}, "rate": 1.0, "restarts": 0, "warnings": []}
    state.save(tmp_path / "live.npz", facts, arrays)
    read_facts, read = state.load(tmp_path / "live.npz")
    assert read_facts == facts
    again = state.shots_state(state.store_of(read, store.budget, store.rate))
    assert all(
        np.array_equal(again[name], value) and again[name].dtype == value.dtype for name, value in arrays.items()
    )
    for name, value in (
        ("saliency", read["saliency"] * 5 + 2),
        ("means", read["means"] * np.nan),
        ("sizes", read["sizes"] * 2),
        ("edges", read["edges"][::-1]),
        ("counts", -read["counts"]),
        ("frames", read["frames"] * 0),
    ):
        with pytest.raises(ValueError, match="must"):
            state.store_of({**read, name: value}, 30, 1.0)
    (tmp_path / "live.npz").write_bytes((tmp_path / "live.npz").read_bytes()[:2000])
    with pytest.raises(VTSumError, match=r"live\.npz"):
        state.load(tmp_path / "live.npz")


class Broken(Exception):
    pass


def test_stopped_and_gone_on_with_it_is_the_run_that_was_not_stopped(tmp_path):
    """Pictures again: a file, read anew. Stopped in the middle, also where shots were settled, and killed (the state is
    the last one that was written)."""
    film = tmp_path / "film.ts"
    pictures = [picture for _, picture in drawn(5, 700)]
    write_clip(film, [float(n) for n in range(700)], lambda n, _: pictures[n], rate=1, format="mpegts", gop=10)
    options = {"model": ColourModel(), "patience": 0.3, "every": 0.1}
    *_, through = vtsum.stream(film, output=tmp_path / "through", **options)
    for stop in (100, 600):
        out = tmp_path / f"stopped{stop}"
        summaries = vtsum.stream(film, output=out, **options)
        for summary in summaries:
            if summary.data["frames"] >= stop:
                break
        summaries.close()
        data = json.loads((out / "summary.json").read_text())
        if data["state"] != "ended":
            assert data["state"] == "stopped"
            assert (out / "live.npz").is_file()
        *_, again = vtsum.stream(film, output=out, overwrite=data["state"] == "ended", **options)
        assert again.moments == through.moments
        assert again.data["shots"] == through.data["shots"]
        assert again.data["frames"] == 700
        assert sorted(os.listdir(out)) == ["keyframes", "summary.json", "summary.mp4"]


def test_a_run_of_something_else_is_not_gone_on_with(tmp_path):
    def cut_short(count):
        yield from drawn(0, count)
        raise Broken

    with pytest.raises(Broken):
        for _ in vtsum.stream(cut_short(80), model=ColourModel(), output=tmp_path / "out"):
            pass
    data = validate_live(json.loads((tmp_path / "out" / "summary.json").read_text()))
    assert (data["state"], data["frames"]) == ("stopped", 79)  # the last picture's turn had not ended
    with pytest.raises(VTSumError, match="holds a run of another budget: '30 s', got '20 s'"):
        next(vtsum.stream(drawn(0, 90), model=ColourModel(), output=tmp_path / "out", budget="20s"))
    *_, on = vtsum.stream(drawn(1, 50), model=ColourModel(), output=tmp_path / "out", rate=1.0)
    assert on.data["frames"] == 79 + 50
    assert "stopped, and taken up again at 79.0 s; what came meanwhile is not in it" in on.data["warnings"]


def test_pictures_are_kept_of_chosen_shots_alone(tmp_path):
    out = tmp_path / "out"
    for summary in vtsum.stream(drawn(0, 900), model=ColourModel(), output=out, every=0.1, rate=1.0):
        named = {moment["keyframe"] for moment in summary.moments}
        assert {f"keyframes/{name}" for name in os.listdir(out / "keyframes")} == named == set(summary.pictures)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"budget": "10%"}, "budget must be a time or a count of frames, got '10%'"),
        ({"budget": "11min"}, "budget must be 1 s to 600 s, got '11min'"),
        ({"fps": 3.0}, "fps must be 0.0001 to 2, got 3.0"),
        ({"every": 0.0}, "every must be 0.1 to 3600 seconds, got 0.0"),
        ({"memory": "fifo"}, "memory must be None for a model without a memory bank, got 'fifo'"),
    ],
)
def test_what_a_stream_cannot_have_is_refused(options, rule):
    with pytest.raises(VTSumError, match=rule):
        last_of(drawn(0, 5), **options)


@pytest.mark.parametrize("source", ["gopher://x/y", "file:///etc/passwd", "concat://a|b"])
def test_addresses_of_other_kinds_are_refused(source):
    with pytest.raises(VTSumError, match="source must be a path, - or an address of http"):
        last_of(source)


def test_frames_are_written_to_a_copy_of_the_models_bank():
    from vtsum.model import load

    model = load("embedded", text=False)
    before = model.model.memory.memory.clone()
    asked = running._Asked("30s", 1.0, "joint", "fifo", 60.0, 10.0, 1.0)
    live = running._Stream(model, asked, 1.0)
    rng = np.random.default_rng(0)
    for _ in range(600):
        row = rng.normal(size=256).astype(np.float32)
        if live.window.is_full:
            live.store.add(*live.window.settle())
        live.window.see(row, b"x", [])
    bank = live.window.model.model.memory
    assert int((bank.counts[:-1] > 0).sum()) == len(bank.memory)
    assert not bank.memory.equal(before)
    assert model.model.memory.memory.equal(before)


def film_of(path: Path, seconds: int = 40, **options) -> Path:
    times = [n / 5 for n in range(5 * seconds)]
    return write_clip(path, times, lambda n, t: numbered_scene(n, t % 40), rate=5, format="mpegts", **options)


def run_live(*words: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*LIVE, *map(str, words)], capture_output=True, timeout=120, check=False, **options)


def test_a_pipe_a_file_and_an_address_give_the_same(tmp_path):
    film = film_of(tmp_path / "film.ts")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(film.read_bytes())

        threading.Thread(target=serve, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        by_address = run_live(address, "-o", tmp_path / "address", "--budget", "8s", "-q")
    by_file = run_live(film, "-o", tmp_path / "file", "--budget", "8s", "--patience", "0.5", "-q")
    by_pipe = run_live("-", "-o", tmp_path / "pipe", "--budget", "8s", "-q", input=film.read_bytes())
    found = {}
    for name, done in (("address", by_address), ("file", by_file), ("pipe", by_pipe)):
        assert done.returncode == 0, done.stderr
        found[name] = validate_live(json.loads((tmp_path / name / "summary.json").read_text()))
        assert found[name]["state"] == "ended"
        assert (found[name]["file"] is None) == (name != "file")
        assert (b"summary.mp4 is not made" in done.stderr) == (name != "file")
    assert found["address"]["moments"] == found["file"]["moments"] == found["pipe"]["moments"] != []
    assert (tmp_path / "file" / "summary.mp4").stat().st_size > 1000


def test_an_address_of_the_web_gives_what_the_file_gives(tmp_path):
    film = film_of(tmp_path / "film.ts")

    class Films(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Films, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://me:secret@127.0.0.1:{server.server_port}/film.ts"
        done = run_live(address, "-o", tmp_path / "address", "--budget", "8s", "-q")
        server.shutdown()
    assert done.returncode == 0, done.stderr
    by_file = run_live(film, "-o", tmp_path / "file", "--budget", "8s", "--patience", "0.5", "-q")
    assert by_file.returncode == 0, by_file.stderr
    texts = [(tmp_path / name / "summary.json").read_text() for name in ("address", "file")]
    ours, files = (validate_live(json.loads(text)) for text in texts)
    assert ours["moments"] == files["moments"] != []
    assert "secret" not in texts[0]


@pytest.mark.skipif(not Path("/proc/net/udp").exists(), reason="needs Linux's /proc to see who listens")
def test_datagrams_are_a_stream_until_none_come(tmp_path):
    film = film_of(tmp_path / "film.ts", 20, gop=5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [f"udp://127.0.0.1:{port}", "-o", tmp_path / "out", "--budget", "8s", "--patience", "3", "-q"]
    process = subprocess.Popen([*LIVE, *map(str, words)], stderr=subprocess.PIPE)
    whole, until = film.read_bytes(), time.monotonic() + 60
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while f"{port:04X}" not in Path("/proc/net/udp").read_text() and time.monotonic() < until:
            time.sleep(0.1)
        for at in range(0, len(whole), 1316):
            sender.sendto(whole[at : at + 1316], ("127.0.0.1", port))
            time.sleep(0.002)
    said = process.communicate(timeout=90)[1]
    assert process.returncode == 0, said
    data = validate_live(json.loads((tmp_path / "out" / "summary.json").read_text()))
    assert data["state"] == "ended"
    assert data["source"]["kind"] == "address"
    assert 15 <= data["frames"] <= 21
    assert data["moments"]


@pytest.mark.parametrize("breaks_off", [False, True])
def test_a_camera_is_a_stream_until_it_shows_nothing_more(tmp_path, breaks_off):
    film = film_of(tmp_path / "film.ts", 40, gop=5)
    with camera(film, breaks_off=breaks_off) as address:
        address = address.replace("rtsp://", "rtsp://me:secret@")
        done = run_live(address, "-o", tmp_path / "out", "--budget", "8s", "--patience", "3", "-q")
    assert done.returncode == 0, done.stderr
    assert b"secret" not in done.stderr
    text = (tmp_path / "out" / "summary.json").read_text()
    assert "secret" not in text
    data = validate_live(json.loads(text))
    assert data["state"] == "ended"
    assert data["source"]["kind"] == "address"
    assert data["moments"]
    assert abs(data["frames"] - (20 if breaks_off else 40)) <= 1
    if not breaks_off:
        by_file = run_live(film, "-o", tmp_path / "file", "--budget", "8s", "--patience", "0.5", "-q")
        assert by_file.returncode == 0, by_file.stderr
        assert data["moments"] == json.loads((tmp_path / "file" / "summary.json").read_text())["moments"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_file_that_grows_is_followed_and_a_signal_ends_it_well(tmp_path, number, status):
    film, growing, out = film_of(tmp_path / "film.ts"), tmp_path / "growing.ts", tmp_path / "out"
    whole = film.read_bytes()
    growing.write_bytes(whole[: len(whole) // 2])
    words = [growing, "-o", out, "--budget", "8s", "--every", "0.5", "--patience", "60", "-q"]
    process = subprocess.Popen([*LIVE, *map(str, words)], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not (out / "live.npz").is_file() and time.monotonic() < deadline:
            time.sleep(0.1)
        first = json.loads((out / "summary.json").read_text())
        assert first["state"] == "running"
        process.send_signal(number)
        assert process.wait(30) == status
    finally:
        process.kill()
        assert process.stderr is not None
        process.stderr.close()
    data = validate_live(json.loads((out / "summary.json").read_text()))
    assert data["state"] == ("running" if number == signal.SIGKILL else "stopped")
    assert 0 < data["frames"] < 40
    growing.write_bytes(whole)
    done = run_live(*words[:-2], "0.5", "-q")
    assert done.returncode == 0, done.stderr
    through = run_live(film, "-o", tmp_path / "through", "--budget", "8s", "--patience", "0.5", "-q")
    assert through.returncode == 0, through.stderr
    moments = [json.loads((folder / "summary.json").read_text())["moments"] for folder in (out, tmp_path / "through")]
    assert moments[0] == moments[1]
    again = run_live(*words)
    assert again.returncode == 2
    assert b"must not exist yet" in again.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--title", "x"], b"--title must be left out with --live"),
        (["--budget", "10%"], b"budget must be a time or a count of frames"),
    ],
)
def test_options_that_have_no_use_are_refused(tmp_path, words, told):
    done = run_live(film_of(tmp_path / "a.ts", 3), "-o", tmp_path / "out", *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "out").exists()


def test_options_of_a_stream_are_refused_without_it(tmp_path):
    film = film_of(tmp_path / "a.ts", 3)
    done = subprocess.run(
        [sys.executable, "-m", "vtsum", "summarize", str(film), "--every", "3"], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"--every must be given with --live alone" in done.stderr


def samples_of(count: int, timeout: float) -> list[int]:
    program = [sys.executable, "-m", "tests.vtsum.stream_memory", str(count)]
    root = Path(__file__).parents[2]
    done = subprocess.run(program, capture_output=True, text=True, timeout=timeout, cwd=root, check=True)
    *sizes, facts = done.stdout.splitlines()
    assert facts.split()[0] == str(count)
    return [int(size) for size in sizes]


NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc to read memory")


@NEEDS_PROC
def test_memory_does_not_grow_after_the_first_thousand_frames():
    sizes = samples_of(4500, 400)
    assert max(sizes[1:]) - sizes[0] < 16 << 10, sizes


@pytest.mark.slow
@NEEDS_PROC
def test_memory_does_not_grow_in_a_hundred_thousand_frames():
    sizes = samples_of(100_000, 1800)
    assert max(sizes[1:]) - sizes[0] < 24 << 10, sizes
