"""Reads a GGUF file's metadata and rewrites it: for models that tests need and nobody ships. Tensors are kept as they are."""

import pathlib
import struct

TINY = pathlib.Path(__file__).resolve().parents[2] / "engine" / "models" / "ir-tiny" / "ir-tiny-q4_0.gguf"

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
TEXT, ARRAY = 8, 9
ALIGNMENT = 32


class Reader:
    """Takes a file's parts one after the other."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize(form)))[0]

    def text(self):
        return self.take(self.number("Q"))

    def value(self, kind):
        """A value: bytes of a text, a list of texts, or anything else as it stands in the file."""
        start = self.at
        if kind == TEXT:
            return self.text()
        if kind == ARRAY:
            item, n = self.number("I"), self.number("Q")
            if item == TEXT:
                return [self.text() for _ in range(n)]
            self.take(n * SIZES[item])
        else:
            self.take(SIZES[kind])
        return self.data[start : self.at]

    def keys(self, n):
        """So many keys: their kinds and their values."""
        kinds, meta = {}, {}
        for _ in range(n):
            key = self.text().decode()
            kinds[key] = self.number("I")
            meta[key] = self.value(kinds[key])
        return kinds, meta


def read(data):
    """The metadata of a file: texts are bytes, everything else but lists of texts is as it stands in the file."""
    file = Reader(data)
    file.take(16)
    return file.keys(file.number("Q"))[1]


def packed_text(text):
    return struct.pack("<Q", len(text)) + text


def packed(kind, value):
    if kind == TEXT:
        return packed_text(value)
    if isinstance(value, list):
        return struct.pack("<IQ", TEXT, len(value)) + b"".join(map(packed_text, value))
    return value


def edit(data, change):
    """The file with `change` applied to its metadata: from keys to texts (bytes) and lists of texts."""
    file = Reader(data)
    head = file.take(8)
    n_tensors, n_keys = file.number("Q"), file.number("Q")
    kinds, meta = file.keys(n_keys)
    assert "general.alignment" not in meta and n_tensors > 0
    start = file.at
    for _ in range(n_tensors):
        file.text()
        file.take(8 * file.number("I") + 4 + 8)
    tensors = data[start : file.at]
    change(meta)
    out = head + struct.pack("<QQ", n_tensors, len(meta))
    for key, value in meta.items():
        out += packed_text(key.encode()) + struct.pack("<I", kinds[key]) + packed(kinds[key], value)
    out += tensors
    return out + bytes(-len(out) % ALIGNMENT) + data[file.at + -file.at % ALIGNMENT :]


def renamed(texts):
    """A change of tokens' texts. A token that changes its text is no longer made by merging, but found by itself."""
    old = {before.encode(): after.encode() for before, after in texts.items()}

    def change(meta):
        # An array's head has 12 bytes, and each type 4; 4 is a token of the user's.
        types = bytearray(meta["tokenizer.ggml.token_type"])
        for i, text in enumerate(meta["tokenizer.ggml.tokens"]):
            if text in old:
                types[12 + 4 * i] = 4
        meta["tokenizer.ggml.token_type"] = bytes(types)
        meta["tokenizer.ggml.tokens"] = [old.get(t, t) for t in meta["tokenizer.ggml.tokens"]]
        merges = meta["tokenizer.ggml.merges"]
        made = [m for m in merges if m.replace(b" ", b"") not in old and not set(m.split(b" ")) & set(old)]
        meta["tokenizer.ggml.merges"] = made

    return change
