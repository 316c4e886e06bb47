"""Pictures whose bytes cannot be what their codec writes, where its decoder says nothing."""

from __future__ import annotations

import re
from collections.abc import Callable

from av.packet import Packet

from vtsum.video.checksum import checksum

_ZEROS = 256  # bytes
_DV_BLOCK, _DV_KINDS = 80, bytes([0, 1, 1, 2, 2, 2, *9 * [3, *15 * [4]]])
_OTHER = re.compile(rb"[^\0]")


def spoilt_check(codec: str) -> Callable[[Packet], bool]:
    """What tells, packet by packet of a stream, whether a picture's bytes cannot be what its codec writes: H.264 and
    HEVC with a part replaced by zeros, as where a download left a hole, DV whose blocks are out of order, and FFV1
    whose checksums are wrong.

    Args:
        codec: libav's name.
    """
    known = {"h264": _is_zeroed, "hevc": _is_zeroed, "dvvideo": _is_no_dv, "ffv1": Slices().damaged}
    return known.get(codec, lambda _: False)


def _is_no_dv(packet: Packet) -> bool:
    """Whether sequences of 150 blocks hold anything but a header, two of subcode, three about the video, and nine times
    one of sound and fifteen of pictures (IEC 61834-2, 314M of SMPTE)."""
    kinds = bytes(byte >> 5 for byte in bytes(packet)[::_DV_BLOCK])
    count, rest = divmod(packet.size, _DV_BLOCK * len(_DV_KINDS))
    return bool(rest) or kinds != _DV_KINDS * count


def _is_zeroed(packet: Packet) -> bool:
    """Inside these codecs' units there are no three zeros in a row; behind one, and before the next, there may be any
    number (ITU-T H.264, 7.4.1, and H.265, 7.4.2)."""
    if packet.size < _ZEROS:
        return False
    data = bytes(packet)
    at = data.find(bytes(_ZEROS))
    while at >= 0:
        behind = _OTHER.search(data, at)
        if behind is None:
            return at == 0
        if behind[0] != b"\1":
            return True
        at = data.find(bytes(_ZEROS), behind.end())
    return False


class Slices:
    """Checksums of FFV1's slices (RFC 9043, section 4.9): its decoder shows the picture before in a wrong one's place.

    Whether a file has any is coded within its header; here the first slice tells whose sum is right.
    """

    _FOOTER = 8  # bytes: three of the slice's length without them, one of its state, four of the sum
    _MOST = 1024  # slices of a picture that libav reads

    def __init__(self) -> None:
        self._has_sums = False

    def damaged(self, packet: Packet) -> bool:
        data, count = bytes(packet), 0
        end = len(data)
        while end and count < self._MOST:
            stated = int.from_bytes(data[max(end - self._FOOTER, 0) : end - self._FOOTER + 3], "big")
            begin = end - self._FOOTER - stated
            if begin < 0 or not stated or checksum(data[begin:end]):
                break
            self._has_sums, count, end = True, count + 1, begin
        return self._has_sums and end > 0
