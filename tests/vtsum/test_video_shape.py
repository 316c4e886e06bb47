"""Pictures of odd shape: turned, mirrored, interlaced, of changing or extreme size, and files that hold stills."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

import vtsum
from tests.vtsum.clips import number_picture, numbered_clip, write_clip
from vtsum.errors import VTSumError
from vtsum.video import FrameSampler, cut, probe
from vtsum.video.coding import Coding


def corners(_number: int, _time: float) -> np.ndarray:
    """160 x 96: top left 220, top right 160, bottom left 100, bottom right 40."""
    return np.kron(np.array([[220, 160], [100, 40]], np.uint8), np.ones((48, 80), np.uint8))[..., None].repeat(3, 2)


def quarters(image: np.ndarray) -> list[list[int]]:
    """Which of the four levels stands in each quarter, as tens."""
    h, w = image.shape[0] // 4, image.shape[1] // 4
    grey = image.reshape(*image.shape[:2], -1).mean(-1)
    found = [[grey[y, x] for x in (w, 3 * w)] for y in (h, 3 * h)]
    return [[min((220, 160, 100, 40), key=lambda level: abs(level - value)) for value in row] for row in found]


def first_grey(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="gray")


# a, b, c, d of the display matrix: x' = a x + c y, y' = b x + d y; and what is seen then.
MATRICES = [
    ((1, 0, 0, 1), 0, [[220, 160], [100, 40]]),
    ((0, 1, -1, 0), 90, [[100, 220], [40, 160]]),
    ((-1, 0, 0, -1), 180, [[40, 100], [160, 220]]),
    ((0, -1, 1, 0), 270, [[160, 40], [220, 100]]),
    ((-1, 0, 0, 1), 0, [[160, 220], [40, 100]]),
    ((1, 0, 0, -1), 180, [[100, 40], [220, 160]]),
    ((0, 1, 1, 0), 90, [[220, 100], [160, 40]]),
    ((0, -1, -1, 0), 270, [[40, 160], [100, 220]]),
]


@pytest.mark.parametrize(("matrix", "rotation", "seen"), MATRICES)
def test_every_display_matrix(tmp_path, matrix, rotation, seen):
    """All eight: front cameras store their pictures mirrored."""
    data = bytearray(write_clip(tmp_path / "plain.mp4", [0, 0.04, 0.08], corners).read_bytes())
    at = data.find(b"tkhd") + 44
    a, b, c, d = (value * 65536 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(data)
    info = probe(path)
    assert info.rotation == rotation
    image = next(iter(FrameSampler(path))).image
    assert image.shape[:2] == ((160, 96) if rotation % 180 else (96, 160)) == (info.height, info.width)
    assert quarters(image) == seen
    assert quarters(first_grey(cut(path, [(0, 0.1)], tmp_path / "cut.mp4").path)) == seen


def test_a_size_that_changes_midway_gets_bars(tmp_path):
    for number, (width, height) in enumerate(((160, 90), (90, 160), (320, 180))):
        write_clip(
            tmp_path / f"{number}.ts",
            [i / 25 for i in range(50)],
            lambda _n, _t, w=width, h=height: np.full((h, w, 3), 200, np.uint8),
        )
    path = tmp_path / "sizes.ts"
    path.write_bytes(b"".join((tmp_path / f"{number}.ts").read_bytes() for number in range(3)))
    made = vtsum.summarize(path, tmp_path / "out", budget="100%", speech=None, ocr=False)
    assert (made.data["summary"]["width"], made.data["summary"]["height"]) == (320, 180)  # the largest
    with av.open(str(made.files["mp4"])) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    small, upright, large = frames[25], frames[75], frames[125]
    assert small.min() > 150  # of the same shape: fills it
    assert upright[:, :100].max() < 40
    assert upright[:, 220:].max() < 40
    assert upright[10:170, 120:200].min() > 150
    assert large.min() > 150
    images = [frame.image for frame in FrameSampler(path)]
    assert {image.shape for image in images} == {(90, 160, 3)}
    assert images[2][:, :50].max() < 40


def test_moving_interlaced_pictures_are_deinterlaced(tmp_path):
    source = "testsrc2=s=720x576:r=50:d=1,interlace=scan=tff:lowpass=off"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-flags", "+ildct+ilme", "-c:v", "mpeg2video"]
    subprocess.run([*command, "-b:v", "8M", str(tmp_path / "i.ts")], check=True)
    cut(tmp_path / "i.ts", [(0, 1)], tmp_path / "cut.mp4")
    with av.open(str(tmp_path / "cut.mp4")) as container:
        grey = list(container.decode(video=0))[12].to_ndarray(format="gray").astype(float)
    beside, next_but_one = np.abs(grey[1:-1] - grey[:-2]).mean(), np.abs(grey[2:] - grey[:-2]).mean()
    assert beside < 0.8 * next_but_one


def test_still_lines_of_interlaced_pictures_are_kept(tmp_path):
    """What is coded in two fields and does not move loses nothing: single lines stay."""
    lines = np.zeros((96, 160, 3), np.uint8) + 60
    lines[1::2] = 90
    lines[::4] = 140
    path = write_clip(
        tmp_path / "i.mkv", [i / 25 for i in range(10)], lambda *_: lines, options={"flags": "+ildct", "qp": "0"}
    )
    with av.open(str(cut(path, [(0, 0.4)], tmp_path / "cut.mp4", coding=Coding(crf=0)).path)) as container:
        grey = next(container.decode(video=0)).to_ndarray(format="gray").astype(float)
    assert abs(grey[4] - grey[5]).mean() > 20


@pytest.mark.parametrize("size", [(20_000, 32), (32, 10_000), (64, 2)])
def test_extreme_sizes(tmp_path, size):
    width, height = size
    path = write_clip(
        tmp_path / "wide.mkv", [0, 0.04], lambda *_: np.full((height, width, 3), 90, np.uint8), codec="ffv1"
    )
    result = cut(path, [(0, 0.08)], tmp_path / "cut.mp4")
    assert max(result.width, result.height) <= 8192
    assert first_grey(result.path).mean() == pytest.approx(90, abs=6)


def test_what_cannot_be_encoded_is_told_rightly(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", 5)
    with pytest.raises(VTSumError, match=r"preset must be one of ultrafast, superfast, .*, got 'quick'"):
        cut(path, [(0, 0.1)], tmp_path / "cut.mp4", coding=Coding(preset="quick"))


def test_high_dynamic_range_is_told(tmp_path):
    source = tmp_path / "hdr.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p10le"
        stream.codec_context.color_trc = 18  # HLG
        for n in range(3):
            frame = av.VideoFrame(160, 96, "yuv420p10le")
            frame.pts, frame.color_trc = n, 18
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    sampler = FrameSampler(source)
    list(sampler)
    assert sampler.warnings == ["the pictures are HDR: their brightness was brought to the ordinary range"]


def test_still_pictures_and_animations_in_containers(tmp_path):
    clip = numbered_clip(tmp_path / "clip.mp4", 10, rate=10)
    made = {
        "still.avif": ["-frames:v", "1", "-c:v", "libaom-av1", "-still-picture", "1", "-cpu-used", "8"],
        "moving.avif": ["-c:v", "libaom-av1", "-cpu-used", "8"],
        "moving.webp": ["-c:v", "libwebp_anim"],
    }
    for name, options in made.items():
        subprocess.run(["ffmpeg", "-v", "error", "-i", str(clip), *options, str(tmp_path / name)], check=True)
    with pytest.raises(VTSumError, match="must be a video file, found a still picture"):
        probe(tmp_path / "still.avif")
    with pytest.raises(VTSumError, match="found an animated WebP, which FFmpeg does not decode"):
        probe(tmp_path / "moving.webp")
    sampler = FrameSampler(tmp_path / "moving.avif", fps=10)
    assert len(list(sampler)) == 10


def test_an_encrypted_file_that_cannot_be_opened(tmp_path):
    """Fragmented, as ClearKey streams are: libav finds nothing in it."""
    data = bytearray(
        numbered_clip(tmp_path / "c.mp4", 10, container_options={"movflags": "+frag_keyframe"}).read_bytes()
    )
    data = data.replace(b"avc1", b"encv").replace(b"avcC", b"sinf")
    (tmp_path / "drm.mp4").write_bytes(data)
    with pytest.raises(VTSumError, match=r"is encrypted \(DRM\) and cannot be decoded"):
        probe(tmp_path / "drm.mp4")


def test_a_name_of_many_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    numbered_clip(tmp_path / "z.mp4", 50).rename(tmp_path / ("\N{CLAPPER BOARD}" * 62 + ".mp4"))
    made = vtsum.summarize("\N{CLAPPER BOARD}" * 62 + ".mp4", speech=None, ocr=False)
    assert made.output.name == "\N{CLAPPER BOARD}" * 25 + "_summary"


def test_a_rate_that_no_clock_has(tmp_path):
    """Matroska without a default duration, of pictures that libav takes for a thousand a second."""
    times = [round(n * 1001 / 30) / 1000 for n in range(60)]
    path = write_clip(tmp_path / "c.mkv", times, lambda n, _: number_picture(n, 160, 90), rate=1000)
    assert probe(path).fps == pytest.approx(29.97, abs=0.05)
