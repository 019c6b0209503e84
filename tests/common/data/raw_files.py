"""Image files written byte by byte, of kinds that Pillow does not write."""

import struct
import zlib

import numpy as np


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(values: np.ndarray, colours: int, bits: int, *extra: bytes) -> bytes:
    """A PNG of `bits` a value: `values` (H, W) or (H, W, channels), or (H, bytes) of packed bits; `extra` chunks."""
    height, width = values.shape[:2]
    if bits < 8:
        width *= 8 // bits
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2" if bits == 16 else "u1"))
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values: np.ndarray, kind: int = 1, photometric: int = 1, order: str = "<") -> bytes:
    """An uncompressed TIFF of `values` (H, W) or (H, W, channels); `kind` is 1 unsigned, 2 signed, 3 floating."""
    height, width = values.shape[:2]
    channels = values[0, 0].size
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = {
        256: (4, width), 257: (4, height), 258: (3, 8 * values.itemsize), 259: (3, 1), 262: (3, photometric),
        273: (4, 0), 277: (3, channels), 278: (4, height), 279: (4, len(data)), 339: (3, kind),
    }  # fmt: skip
    after = 8 + 2 + 12 * len(tags) + 4
    many = struct.pack(f"{order}{channels}H", *[8 * values.itemsize] * channels) if channels > 2 else b""
    tags[273] = (4, after + len(many))
    entries = b""
    for tag, (type_, value) in sorted(tags.items()):
        if tag == 258 and many:
            entries += struct.pack(f"{order}HHII", tag, type_, channels, after)
        elif type_ == 3:
            entries += struct.pack(f"{order}HHIHH", tag, type_, 1, value, 0)
        else:
            entries += struct.pack(f"{order}HHII", tag, type_, 1, value)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}IH", 8, len(tags)) + entries + struct.pack(f"{order}I", 0)
    return head + many + data
