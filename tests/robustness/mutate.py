"""Damaging files of the formats that are read, also where checksums and compression guard what is inside.

Every function takes the bytes of a valid file and a random.Random, and returns what is to be read instead.
"""

import contextlib
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable

Mutator = Callable[[bytes, random.Random], bytes]

_LENGTHS = [0, 1, 2, 127, 255, 256, 0x7FFF, 0xFFFF, 1 << 24, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF]
_NUMBERS = [
    0,
    -1,
    1,
    2,
    25,
    255,
    256,
    2**31,
    2**63,
    -(2**63),
    10**30,
    10**4000,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
]
_TEXTS = [
    "",
    "\0",
    "a" * 300,
    "..",
    "../../x",
    "/etc/passwd",
    "\ud800",
    "\u202e",
    "1" * 500,
    "é\n",
    "%s{0}",
    "nan",
]
_WORDS = [
    b"\0",
    b"\xff" * 8,
    b'"',
    b",",
    b"\n",
    b"\r",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"-1",
    b"1e999",
    b"9" * 5000,
    b"null",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"../",
    b"-1_c1",
    b"NaN",
]


def raw(data: bytes, rng: random.Random) -> bytes:
    """One to four damages of any file."""
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(_DAMAGES)(data, rng)
    return data


def png(data: bytes, rng: random.Random) -> bytes:
    """A chunk damaged, left out, doubled or moved, the pixels in their compressed form; CRCs are right."""
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += length + 12
    k = rng.randrange(len(chunks))
    kind, body = chunks[k]
    how = rng.randrange(6)
    if how == 0:
        del chunks[k]
    elif how == 1:
        chunks.insert(rng.randrange(len(chunks)), chunks[k])
    elif how == 2:
        chunks.insert(1, (rng.choice([b"zTXt", b"iCCP", b"iTXt"]), b"x\0\0" + zlib.compress(bytes(1 << 22))))
    elif kind == b"IDAT":
        chunks[k] = kind, _deflated(body, rng)
    elif kind == b"IHDR":
        fields = list(struct.unpack(">IIBBBBB", body))
        which = rng.randrange(len(fields))
        fields[which] = rng.choice(_LENGTHS) if which < 2 else rng.randrange(256)
        chunks[k] = kind, struct.pack(">IIBBBBB", *fields)
    else:
        chunks[k] = kind, raw(body, rng)
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return data[:8] + b"".join(parts)


def zipped(data: bytes, rng: random.Random) -> bytes:
    """A member damaged, left out, doubled, renamed or compressed, or all compressed; CRCs are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    pickles = [k for k, (name, _) in enumerate(members) if name.endswith(("pkl", "json"))]
    k = rng.choice(pickles) if pickles and rng.random() < 0.6 else rng.randrange(len(members))
    name, body = members[k]
    how = rng.randrange(8)
    if how == 0:
        del members[k]
    elif how == 1:
        members.append((name, raw(body, rng)))
    elif how == 2:
        members[k] = name + rng.choice(["x", "/../y", "\0"]), body
    elif how == 3:
        members[k] = name, body + bytes(rng.choice([1, 1 << 20, 1 << 24]))
    else:
        members[k] = name, raw(body, rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice([0, 0, 0, zipfile.ZIP_DEFLATED])) as archive:
        for name, body in members:
            archive.writestr(zipfile.ZipInfo(name), body, archive.compression)
    return buffer.getvalue()


def mat5(data: bytes, rng: random.Random) -> bytes:
    """A compressed element of a MATLAB 5 file damaged inside."""
    elements, at = [], 128
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        elements.append((kind, data[at + 8 : at + 8 + length]))
        at += 8 + length
    k = rng.randrange(len(elements))
    kind, body = elements[k]
    elements[k] = kind, _deflated(body, rng) if kind == 15 else raw(body, rng)
    return data[:128] + b"".join(struct.pack("<II", kind, len(body)) + body for kind, body in elements)


def text(data: bytes, rng: random.Random) -> bytes:
    """Cells and lines of a text file exchanged, left out, or replaced by hostile words."""
    cells = data.replace(b"\n", b",\n,").split(b",")
    for _ in range(rng.randint(1, 4)):
        k = rng.randrange(len(cells))
        how = rng.randrange(4)
        if how == 0:
            cells[k] = rng.choice(_WORDS)
        elif how == 1:
            cells[k] = cells[rng.randrange(len(cells))]
        elif how == 2 and len(cells) > 1:
            del cells[k]
        else:
            cells[k] = raw(cells[k], rng)
    return b",".join(cells).replace(b",\n,", b"\n")


def json_text(data: bytes, rng: random.Random) -> bytes:
    """One to three values of a JSON text replaced, left out or doubled: it is still JSON."""
    content = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        content = _changed(content, rng)
    return json.dumps(content).encode()


def json_lines(data: bytes, rng: random.Random) -> bytes:
    """As json_text, in a file that is a JSON text, or has one in each line."""
    with contextlib.suppress(json.JSONDecodeError):
        return json_text(data, rng)
    lines = data.splitlines(keepends=True)
    k = rng.randrange(len(lines))
    lines[k] = json_text(lines[k], rng) + b"\n"
    return b"".join(lines)


def safetensors(data: bytes, rng: random.Random) -> bytes:
    """The header changed as JSON; its length is right."""
    (length,) = struct.unpack_from("<Q", data)
    header = json_text(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _deflated(body: bytes, rng: random.Random) -> bytes:
    """The inside of a zlib stream damaged, or a bomb in its place."""
    if rng.random() < 0.05:
        return zlib.compress(bytes(1 << 26))
    return zlib.compress(raw(zlib.decompress(body), rng), 1)


def _changed(content: object, rng: random.Random) -> object:
    """The content with one value somewhere in it changed."""
    if isinstance(content, dict) and content and rng.random() < 0.9:
        key = rng.choice(list(content))
        how = rng.random()
        if how < 0.1:
            return {name: value for name, value in content.items() if name != key}
        if how < 0.15:
            return {**content, rng.choice(_TEXTS): content[key]}
        return {**content, key: _changed(content[key], rng)}
    if isinstance(content, list) and content and rng.random() < 0.9:
        k = rng.randrange(len(content))
        how = rng.random()
        if how < 0.1:
            return content[:k] + content[k + 1 :]
        if how < 0.15:
            return content + [content[k]] * rng.choice([1, 3, 300])
        return content[:k] + [_changed(content[k], rng)] + content[k + 1 :]
    deep: list = []
    for _ in range(rng.choice([1, 50])):
        deep = [deep]
    return rng.choice([None, True, [], {}, deep, [content], {"a": 1}, *_NUMBERS, *_TEXTS])


def _flip(data: bytes, rng: random.Random) -> bytes:
    bits = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 3, 8])):
        if bits:
            bits[rng.randrange(len(bits))] ^= 1 << rng.randrange(8)
    return bytes(bits)


def _byte(data: bytes, rng: random.Random) -> bytes:
    k = rng.randrange(len(data) + 1)
    return data[:k] + bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])]) + data[k + 1 :]


def _length(data: bytes, rng: random.Random) -> bytes:
    """A length field blown up, of either byte order."""
    k, kind = rng.randrange(len(data) + 1), rng.choice(["<H", ">H", "<I", ">I", "<Q", ">Q"])
    size = struct.calcsize(kind)
    value = rng.choice([*_LENGTHS, len(data), 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
    return data[:k] + struct.pack(kind, value & ((1 << 8 * size) - 1)) + data[k + size :]


def _number(data: bytes, rng: random.Random) -> bytes:
    """A decimal number blown up."""
    digits = [k for k, byte in enumerate(data[:4096]) if chr(byte).isdigit()]
    k = rng.choice(digits) if digits else 0
    return data[:k] + str(rng.choice(_NUMBERS)).encode() + data[k + 1 :] if digits else data


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _block(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice([1, 2, 4, 8, 16, 64, 512]))


def _drop(data: bytes, rng: random.Random) -> bytes:
    start, end = _block(data, rng)
    return data[:start] + data[end:]


def _double(data: bytes, rng: random.Random) -> bytes:
    start, end = _block(data, rng)
    return data[:end] + data[start:end] * rng.choice([1, 1, 2, 50]) + data[end:]


def _copy(data: bytes, rng: random.Random) -> bytes:
    """A block over another place."""
    start, end = _block(data, rng)
    k = rng.randrange(len(data) + 1)
    return data[:k] + data[start:end] + data[k + end - start :]


def _word(data: bytes, rng: random.Random) -> bytes:
    k = rng.randrange(len(data) + 1)
    return data[:k] + rng.choice([*_WORDS, rng.randbytes(8)]) + data[k:]


_DAMAGES: list[Mutator] = [
    _flip,
    _flip,
    _byte,
    _byte,
    _length,
    _length,
    _number,
    _cut,
    _drop,
    _double,
    _copy,
    _word,
]
