"""Writes a database as rpm has them: rpmdb.py FILE PAGE_SIZE PADDING. Package N owns /usr/lib/pN/ and what is below it."""
import random
import sqlite3
import struct
import sys

INT32, STRING, STRING_ARRAY, BINARY = 4, 6, 8, 7


def header(tags):
    index, data = b"", b""
    for tag, kind, values in sorted(tags):
        if kind == INT32:
            data += b"\0" * (-len(data) % 4)
            body = b"".join(struct.pack(">I", value) for value in values)
        elif kind == BINARY:
            body = values[0]
        else:
            body = b"".join(value.encode() + b"\0" for value in values)
        index += struct.pack(">IIII", tag, kind, len(data), len(body) if kind == BINARY else len(values))
        data += body
    return struct.pack(">II", len(tags), len(data)) + index + data


def main(path, page_size, padding):
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA page_size = {page_size}")
    db.execute("CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)")
    db.execute("CREATE TABLE 'Basenames' (key 'TEXT' NOT NULL, hnum INTEGER NOT NULL, idx INTEGER NOT NULL)")
    db.execute("CREATE INDEX 'Basenames_key_idx' ON 'Basenames'(key ASC)")
    noise = random.Random(1)
    for number in range(1, 41):
        files = [(0, "tool-%d" % number), (1, "LICENSE")] + [(1, "file-%d" % index) for index in range(60)]
        blob = header([
            (1000, STRING, ["package-%d" % number]),
            (1001, STRING, ["1.%d" % number]),
            (1002, STRING, ["7.el9"]),
            (1003, INT32, [number % 2]),
            (1116, INT32, [directory for directory, _ in files]),
            (1117, STRING_ARRAY, [name for _, name in files]),
            (1118, STRING_ARRAY, ["/usr/bin/", "/usr/lib/p%d/" % number]),
            (5000, BINARY, [noise.randbytes(padding)]),
        ])
        db.execute("INSERT INTO Packages VALUES (?, ?)", (number, blob))
        db.executemany("INSERT INTO Basenames VALUES (?, ?, ?)", [(name, number, index) for index, (_, name) in enumerate(files)])
    db.commit()
    db.close()


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
