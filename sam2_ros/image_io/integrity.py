"""Checks of a JPEG or PNG before it is decoded: the size of the image, and whether the data are complete.

A decoder allocates the memory that the header asks for, and some silently fill missing data with gray.
"""

from __future__ import annotations

import re

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 36_000_000  # what cameras send: 8K video has 33 million
# Of a progressive JPEG, each of which goes through the whole image; encoders write about ten.
_MAX_SCANS = 100
# Compressed data have only stuffed zeros and restart markers (0xD0 to 0xD7) behind 0xFF.
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_SCAN, _END, _STANDALONE = 0xDA, 0xD9, (0x01, 0xD8)
_FRAMES = [kind for kind in range(0xC0, 0xD0) if kind not in (0xC4, 0xC8, 0xCC)]  # these three are tables


def complaint_about(content: bytes, max_pixels: int | None = None) -> str:
    """Why a JPEG or PNG must not be decoded, to follow "<its name> "; empty when it may be, or is something else.

    ``max_pixels``: None = any number.
    """
    if content.startswith(JPEG_START):
        (width, height), scans, is_whole = _read_jpeg(content)
    elif content.startswith(PNG_START):
        width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
        scans, is_whole = 1, _png_is_whole(content)
    else:
        return ""
    if max_pixels is not None and width * height > max_pixels:
        return f"is too large or damaged: its header says {width} x {height} px, expected at most {max_pixels} pixels"
    if scans > _MAX_SCANS:
        return f"is damaged: it has {scans} scans, expected at most {_MAX_SCANS}"
    return "" if is_whole else f"is cut off: {len(content)} bytes that have no end"


def _read_jpeg(content: bytes) -> tuple[tuple[int, int], int, bool]:
    """(width, height), zeros without a header; the number of scans; whether the end mark is there.

    Data behind the end are ignored: drivers send their whole buffer, and phones append a video.
    """
    size, scans, position = (0, 0), 0, 2
    while marker := _JPEG_MARKER.search(content, position):
        kind, body = marker[1][0], marker.end()
        if kind == _END:
            return size, scans, scans > 0
        if kind in _FRAMES and body + 7 <= len(content):
            height, width = content[body + 3 : body + 5], content[body + 5 : body + 7]
            size = int.from_bytes(width, "big"), int.from_bytes(height, "big")
        scans += kind == _SCAN
        position = body if kind in _STANDALONE else body + int.from_bytes(content[body : body + 2], "big")
    return size, scans, False


def _png_is_whole(content: bytes) -> bool:
    """Whether the chunks follow each other up to the end mark. OpenCV allocates the memory of a chunk before it checks
    whether its data exist: one flipped bit in a length cost gigabytes, and seconds."""
    position = len(PNG_START)
    while position + 12 <= len(content):
        if content[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + int.from_bytes(content[position : position + 4], "big")
    return False
