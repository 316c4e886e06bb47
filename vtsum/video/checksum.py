"""The checksum of Ogg's pages and FFV1's slices: CRC-32 over bits from the highest to the lowest, from 0."""

import zlib

_TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # zlib takes the lowest bit first


def checksum(data: bytes) -> int:
    """The sum of some bytes; 0 where they end with their own (RFC 3533, section 6; RFC 9043, section 4.9.3)."""
    found = zlib.crc32(data.translate(_TURNED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(found.to_bytes(4, "big").translate(_TURNED), "little")
