"""JPEGs and PNGs that are cheap to send and dear to decode are refused by their markers and chunks alone."""

import re
import struct
import zlib

import cv2
import numpy as np
import pytest

from sac_ae_ros.core import codestream
from sac_ae_ros.core.codestream import (
    DEFLATE_RATIO,
    MAX_INFLATED_BYTES,
    MAX_SCAN_PIXELS,
    MAX_SCANS,
    MAX_TEXT_BYTES,
    Codestream,
    read_codestream,
)
from sac_ae_ros.core.compressed import CompressedImage, decode_compressed, read_header
from sac_ae_ros.core.errors import ImageError

HEIGHT, WIDTH = 48, 64
PICTURE = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8), (WIDTH, HEIGHT))


def jpeg(picture: np.ndarray = PICTURE, *options: int) -> bytes:
    return cv2.imencode(".jpg", picture, options)[1].tobytes()


BASELINE = jpeg()
PROGRESSIVE = jpeg(PICTURE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
RESTARTS = jpeg(PICTURE, cv2.IMWRITE_JPEG_RST_INTERVAL, 1)


def read(data: bytes) -> Codestream:
    return read_codestream(memoryview(data))


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


def last_scan(data: bytes) -> tuple[int, int]:
    """Where the last scan begins, and where its data end."""
    return data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")


def with_scans(data: bytes, more: int) -> bytes:
    start, end = last_scan(data)
    return data[:end] + data[start:end] * more + data[end:]


def with_size(data: bytes, height: int, width: int) -> bytes:
    at = re.search(rb"\xff[\xc0-\xc2]\0.\x08", data).start() + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize("data", [BASELINE, PROGRESSIVE, RESTARTS], ids=["baseline", "progressive", "restarts"])
def test_what_cameras_send_is_read(data):
    assert read(data) == Codestream("jpeg", HEIGHT, WIDTH, 3, 8)


@pytest.mark.parametrize(
    ("height", "width", "channels", "bits"), [(48, 64, 3, 8), (1, 1, 1, 8), (3, 5, 1, 16), (3, 5, 3, 16), (3, 5, 4, 8)]
)
def test_a_png_is_read(height, width, channels, bits):
    picture = np.zeros((height, width, channels), np.uint8 if bits == 8 else np.uint16)
    data = cv2.imencode(".png", picture)[1].tobytes()
    assert read(data) == Codestream("png", height, width, min(channels, 3), bits)


def test_a_progressive_jpeg_may_have_a_hundred_scans_and_no_more():
    scans = PROGRESSIVE.count(b"\xff\xda")
    assert scans == 10
    assert read(with_scans(PROGRESSIVE, MAX_SCANS - scans)).width == WIDTH
    for more in (MAX_SCANS - scans + 1, 3000):
        with pytest.raises(
            ImageError, match="expected at most 100 scans in a JPEG of 48x64, got more; have the camera"
        ):
            read(with_scans(PROGRESSIVE, more))


def test_the_scans_of_a_large_jpeg_are_bounded_by_its_pixels():
    assert read(with_size(PROGRESSIVE, 4000, 6000)).height == 4000  # 24 Mpx, 10 scans
    assert read(with_size(BASELINE, 8000, 8000)).height == 8000
    for height, width in ((8000, 8000), (5000, 6000)):
        most = MAX_SCAN_PIXELS // (height * width)
        with pytest.raises(ImageError, match=f"at most {most} scans in a JPEG of {height}x{width}"):
            read(with_size(PROGRESSIVE, height, width))


@pytest.mark.parametrize(
    "between", [b"", b"\0" * 9, b"\xff\xff\xff", b"\xff\x01", b"\xff\xd3", segment(0xFE, b"\xff\xda")]
)
def test_scans_are_counted_past_whatever_lies_between(between):
    start, end = last_scan(PROGRESSIVE)
    data = PROGRESSIVE[:end] + (between + PROGRESSIVE[start:end]) * 100 + PROGRESSIVE[end:]
    with pytest.raises(ImageError, match="at most 100 scans"):
        read(data)


def test_what_looks_like_scans_in_a_thumbnail_does_not_count():
    thumbnail = segment(0xE1, b"Exif\0\0" + b"\xff\xda\0\2" * 200)
    assert read(BASELINE[:2] + thumbnail + BASELINE[2:]).width == WIDTH
    assert read(BASELINE + BASELINE * 200).width == WIDTH  # behind the end: USB cameras pad, phones add pictures


def test_a_second_frame_header_is_refused():
    at = PROGRESSIVE.rindex(b"\xff\xda")
    frame = segment(0xC2, struct.pack(">BHHB", 8, 9, 9, 1) + b"\x01\x11\x00")
    for data in (PROGRESSIVE[:at] + frame + PROGRESSIVE[at:], BASELINE[:2] + frame + BASELINE[2:]):
        with pytest.raises(ImageError, match="expected one frame header in a JPEG, got two"):
            read(data)


@pytest.mark.parametrize("components", [0, 2, 5, 10])
def test_a_jpeg_has_one_three_or_four_components(components):
    frame = segment(0xC0, struct.pack(">BHHB", 8, 9, 9, components) + b"\x01\x11\x00" * components)
    with pytest.raises(ImageError, match=f"1, 3 or 4 components, got 8 and {components}"):
        read(BASELINE[:2] + frame + BASELINE[2:])


def test_segments_are_bounded():
    assert read(BASELINE[:2] + segment(0xFE, b"") * 60_000 + BASELINE[2:]).width == WIDTH
    with pytest.raises(ImageError, match="at most 65536 segments in a JPEG"):
        read(BASELINE[:2] + segment(0xFE, b"") * 70_000 + BASELINE[2:])


def test_long_scans_are_searched_piece_by_piece(monkeypatch):
    """The end lies before, on and behind the border of a piece."""
    start, end = last_scan(BASELINE)
    for piece in (end - start - 20, *range(end - start - 18, end - start + 3)):
        monkeypatch.setattr(codestream, "_PIECE", piece)
        assert read(BASELINE).width == WIDTH
        with pytest.raises(ImageError, match="without its end"):
            read(BASELINE[:-1])


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def png(before: bytes = b"", idat: bytes | None = None, size: tuple[int, int] = (8, 8), kind: int = 2) -> bytes:
    """8 bits of colour and no interlacing."""
    header = struct.pack(">IIBBBBB", size[1], size[0], 8, kind, 0, 0, 0)
    rows = (b"\0" + bytes(3 * size[1])) * size[0]
    idat = chunk(b"IDAT", zlib.compress(rows)) if idat is None else idat
    return codestream.PNG_SIGNATURE + chunk(b"IHDR", header) + before + idat + chunk(b"IEND", b"")


BOMB = zlib.compress(bytes(8_000_000), 9)  # libpng inflates up to 8 MB of each


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_text_that_inflates_is_bounded(kind):
    content = b"k\0\0" + BOMB if kind != b"iTXt" else b"k\0\1\0\0\0" + BOMB
    assert read(png(chunk(kind, content) * 8)).width == 8
    with pytest.raises(ImageError, match="at most 65536 bytes of text and colour profile in a PNG, got more"):
        read(png(chunk(kind, content) * 9))


def test_data_that_inflate_to_more_than_the_pixels_are_refused(monkeypatch):
    """OpenCV inflates all of it, whatever the size of the picture."""
    monkeypatch.setattr(codestream, "MAX_INFLATED_BYTES", 10_000_000)
    assert read(png(idat=chunk(b"IDAT", zlib.compress(bytes(9_000_000), 9)))).width == 8
    bomb = zlib.compress(bytes(11_000_000), 9)
    halves = [chunk(b"IDAT", bomb[: len(bomb) // 2]), chunk(b"IDAT", bomb[len(bomb) // 2 :])]
    for idat in (chunk(b"IDAT", bomb), b"".join(halves)):
        with pytest.raises(ImageError, match=r"expected a PNG of at most \d+ bytes of pixels, got more"):
            read(png(idat=idat))


def test_a_large_png_that_needs_its_data_passes():
    picture = np.random.default_rng(0).integers(0, 256, (900, 800, 3), dtype=np.uint8)
    data = cv2.imencode(".png", picture)[1].tobytes()
    assert len(data) * DEFLATE_RATIO > MAX_INFLATED_BYTES  # so that it is inflated here
    assert read(data).width == 800


def test_chunks_are_bounded():
    assert read(png(chunk(b"tEXt", b"k\0") * 60_000)).width == 8
    with pytest.raises(ImageError, match="at most 65536 chunks in a PNG"):
        read(png(chunk(b"tEXt", b"k\0") * 70_000))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (png()[:-12], "without its end; is it cut"),
        (png(b"\xff\xff\xff\xfftEXt"), "without its end; is it cut"),
        (png(kind=5), "colour type, bits and interlacing, got 5, 8 and 0"),
        (png()[:12] + b"tEXt" + png()[16:], "expected JPEG or PNG"),
        (png(size=(9000, 9000), idat=b""), "at most 64000000 pixels, got 9000x9000"),
    ],
)
def test_a_malformed_png_says_what_is_wrong(data, says):
    with pytest.raises(ImageError, match=says):
        read(data)


PARTS = [
    *(
        b"\xff\xda",
        b"\xff\xd9",
        b"\xff\xd8",
        b"\xff\xc2",
        b"\xff\xc0",
        b"\xff\xc4",
        b"\xff\xd0",
        b"\xff\x01",
        b"\xff\xff",
    ),
    *(b"\0\0", b"\xff", b"IDAT", b"IEND", b"zTXt", b"IHDR"),
]


def mutant(rng: np.random.Generator) -> bytes:
    """One of the files above with pieces changed, cut out, put in, repeated or moved."""
    data = bytearray((BASELINE, PROGRESSIVE, RESTARTS, png(), png(chunk(b"zTXt", b"k\0\0" + BOMB)))[rng.integers(5)])
    for _ in range(rng.integers(1, 6)):
        at, length = int(rng.integers(len(data) + 1)), int(rng.integers(0, 40))
        way = rng.integers(6)
        if way == 0:
            data[at : at + 4] = rng.bytes(4)
        elif way == 1:
            del data[at : at + length]
        elif way == 2:
            data[at:at] = PARTS[rng.integers(len(PARTS))]
        elif way == 3:
            data[at : at + 2] = PARTS[rng.integers(len(PARTS))]
        elif way == 4:
            start, end = max(data.rfind(b"\xff\xda"), 0), len(data) - 2
            data[end:end] = data[start:end] * int(rng.integers(1, 200)) if len(data) < 100_000 else b""
        else:
            data[at:at] = data[at // 2 : at // 2 + length] * int(rng.integers(1, 9))
    return bytes(data)


def scans_by_hand(data: bytes) -> int:
    """How often a decoder may begin a scan, byte by byte: every SOS that follows the frame header, up to the end."""
    at, scans = 2, 0
    while at + 3 < len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD7:
            at += 1
            continue
        if marker == 0xD9:
            break
        scans += marker == 0xDA
        at += 2 + max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
    return scans


def inflated_by_hand(data: bytes) -> int:
    """Bytes that text and pixels of a PNG inflate to, as far as they do."""
    at, pixels, total = 8, zlib.decompressobj(), 0
    while data[at + 4 : at + 8] not in (b"IEND", b""):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        content = data[at + 8 : at + 8 + length]
        try:
            if kind == b"IDAT" and not pixels.eof:
                total += len(pixels.decompress(content))
            elif kind == b"zTXt":
                total += len(zlib.decompress(content.partition(b"\0")[2][1:]))
        except zlib.error:
            pass
        at += 12 + length
    return total


def test_no_mutant_gets_past_the_bounds():
    """Work is counted, not timed: scans times pixels of a JPEG, inflated bytes of a PNG."""
    rng = np.random.default_rng(11)
    decoded, refusals = 0, []
    for _ in range(1500):
        image = CompressedImage(mutant(rng))
        try:
            header = read_header(image)
            pixels = header.height * header.width
            if header.reducible:
                scans = scans_by_hand(image.data)
                assert 1 <= scans <= MAX_SCANS
                assert scans * pixels <= MAX_SCAN_PIXELS
            else:
                assert inflated_by_hand(image.data) <= MAX_INFLATED_BYTES + MAX_TEXT_BYTES * DEFLATE_RATIO
            if pixels <= 1_000_000:
                assert decode_compressed(image, header).shape == (header.height, header.width, 3)
                decoded += 1
        except ImageError as error:
            refusals.append(str(error))
    assert decoded > 150
    assert len(refusals) > 150
    assert not [text for text in refusals if "\n" in text or not text.startswith("compressed image: ")]
