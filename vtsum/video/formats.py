"""Which files are opened: formats that hold their media themselves, never one that names other files."""

from __future__ import annotations

import mimetypes
import os
import re

# libav's names of the demuxers that may open a file. Lists (HLS, DASH, concat, SDP, cue), picture sequences and folders
# of parts (image2, imf, mlv, vobsub) and generated media (lavfi, avisynth) follow names in the file: they are not here.
_VIDEO = """
    mov matroska avi mpegts mpegtsraw mpeg flv live_flv kux asf asf_o rm ogg gif apng nut mxf gxf dv wtv nsv nuv ty pva
    ivf obu av1 h264 hevc vvc evc h261 h263 m4v mpegvideo mjpeg mjpeg_2000 vc1 vc1test dirac cavsvideo avs2 avs3 dnxhd
    apv yuv4mpegpipe dhav swf vivo bink smk roq flic film_cpk cine r3d lxf psxstr thp mtv dxa webp_anim jpegxl_anim
"""
_SOUND = """
    wav w64 aiff au caf flac mp3 aac loas ac3 eac3 ac4 dts dtshd truehd mlp amr amrnb amrwb ape wv tta tak mpc mpc8 dsf
    qoa shn oma voc sox gsm
"""
_BARE = """
    h264 hevc vvc evc h261 h263 m4v mpegvideo mjpeg mjpeg_2000 vc1 vc1test dirac cavsvideo avs2 avs3 dnxhd apv obu
"""
BARE = frozenset(_BARE.split())
"""Pictures alone, which libav shows 25 a second where their codec states no rate."""
ALLOWED = tuple((_VIDEO + _SOUND).split())

_REFERRING = (
    *(b"#extm3u", b"ffconcat", b"[playlist]", b"[reference]", b"[internetshortcut]", b"v=0", b"rtsptext", b"asf http"),
    *(b"# vobsub", b'file "', b"rem ", b"file:", b"http:", b"https:", b"rtsp:", b"rtmp:", b"mms:", b"ftp:", b"<"),
)
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\0", b"MM\0*", b"8BPS", b"\0\0\1\0", b"\xff\x0a", b"P5", b"P6")
STILL = "a still picture"
HEAD = 4096  # bytes of a file's start that the functions here look at


def refers_elsewhere(head: bytes) -> bool:
    """Whether a file that starts so is a list, a manifest or a link: text that names other files."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_REFERRING)


_JOINT, _JOINTS = (
    b"\xff\xd9\xff\xd8\xff",
    8,
)  # of two JPEGs; a phone's picture has a few more behind it (previews, maps)
_SEARCHED = 1 << 26  # bytes


def is_motion_jpeg(path: str | os.PathLike[str], head: bytes) -> bool:
    """Whether a file is JPEG pictures one after the other, as some cameras write."""
    if not head.startswith(b"\xff\xd8\xff"):
        return False
    with open(path, "rb") as file:
        return file.read(min(_SEARCHED, os.fstat(file.fileno()).st_size)).count(_JOINT) >= _JOINTS


def is_pattern(name: str) -> bool:
    """Whether libav takes a file's name for those of many pictures, whatever is in the file."""
    kind, _ = mimetypes.guess_type(name)
    return (kind or "").startswith("image/") and re.search(r"%\d*d|[*?{]", name) is not None


def describe(head: bytes) -> str:
    """Say in words what a file seems to be that starts so and could not be opened."""
    if head[4:8] == b"ftyp":
        return "an MP4 or MOV whose index is missing or damaged (was the recording or the download cut short?)"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "a Matroska or WebM file whose header is damaged"
    if not any(head):
        return "zeros only at its start"
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and head[20:21] and head[20] & 2:
        return "an animated WebP, which FFmpeg does not decode; make a GIF or a video of it"
    if head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return STILL
    if not any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head):
        return "text"
    return "nothing playable"
