"""An image for clients to read: a red square of eight by eight, as PNG."""

import struct
import zlib


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


HEADER = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
PIXELS = zlib.compress((b"\0" + b"\xff\0\0" * 8) * 8)
DOT = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", HEADER) + chunk(b"IDAT", PIXELS) + chunk(b"IEND", b"")
