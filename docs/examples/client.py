#!/usr/bin/env python3
"""A client of Ostrakon in Python, with the standard library alone, written from docs/wire.md.

It shows what a client has to do: frames and tables, the hello, timestamps, writes that are sent again until there is an
answer and yet happen once, scans in pages, errors. One connection, one request at a time.

    python3 docs/examples/client.py 127.0.0.1:5750     runs through all of it against a node
"""

import secrets
import socket
import struct
import sys
import time

HEADER = struct.Struct("<IIQQHHI")  # body_bytes, checksum, request_id, timestamp, kind, flags, reserved
FLAG_TIMINGS = 1
TIMINGS_BYTES = 40
ANSWER_BODY_BYTES_MAX = 40 * 1024 * 1024 - HEADER.size

HELLO, PING, GET, PUT, DELETE, SCAN, ADD = 1, 2, 3, 4, 5, 6, 9
REPLY = {HELLO: 0x8001, PING: 0x8002, GET: 0x8003, PUT: 0x8004, DELETE: 0x8004, SCAN: 0x8006, ADD: 0x8009}
ERROR = 0xFFFF
PUSHED = range(0xC000, 0xFFFF)

NONE, ABSENT, PRESENT, VERSION, VALUE = range(5)  # conditions

# Refused in this sending; the same write may be sent again.
BUSY, DISK_FULL, SHUTTING_DOWN, CORE_FAILED, TOO_MANY_CONNECTIONS = 5, 7, 8, 9, 13
MAY_PASS = {BUSY, DISK_FULL, SHUTTING_DOWN, TOO_MANY_CONNECTIONS}
NOT_A_NUMBER = 16


class ServerError(Exception):
    """The server refused a request, or said why it closes the connection."""

    def __init__(self, code, message, retry_after_ms):
        super().__init__(f"error {code}: {message}")
        self.code, self.retry_after_ms = code, retry_after_ms


class Lost(Exception):
    """The connection is of no use any more; whether a request was executed is not known."""


class OutcomeUnknown(Exception):
    """A write may have been executed or not, and nobody will find out by asking again."""


def crc32c_table():
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        yield byte


CRC32C = list(crc32c_table())


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def table(*fields):
    """A body of one table. Each field is None (absent), bytes (a vector), str, or (format of struct, numbers...)."""
    vtable_bytes = 4 + 2 * len(fields)
    start = -(-(4 + vtable_bytes) // 8) * 8  # of the table: behind the offset of the root and the vtable
    content, slots, vectors = bytearray(4), [], []
    for field in fields:
        if field is None:
            slots.append(0)
            continue
        is_vector = isinstance(field, (bytes, str))
        fixed = bytes(4) if is_vector else struct.pack("<" + field[0], *field[1:])
        content += bytes(-len(content) % min(len(fixed), 8))
        slots.append(len(content))
        if is_vector:
            vectors.append((len(content), field))
        content += fixed
    table_bytes = len(content)
    content += bytes(-len(content) % 4)
    for place, field in vectors:
        data, end = (field.encode(), b"\0") if isinstance(field, str) else (field, b"")
        struct.pack_into("<I", content, place, len(content) - place)
        content += struct.pack("<I", len(data)) + data + end
        content += bytes(-len(content) % 4)
    struct.pack_into("<i", content, 0, vtable_bytes)  # the vtable ends where the table starts
    vtable = struct.pack(f"<HH{len(slots)}H", vtable_bytes, table_bytes, *slots)
    return struct.pack("<I", start) + bytes(start - vtable_bytes - 4) + vtable + content


class Table:
    """A table that was received. Whoever can't trust the server checks more than Python's own bounds."""

    def __init__(self, body, start=None):
        self.body = body
        self.start = self.number("I", 0) if start is None else start
        self.vtable = self.start - self.number("i", self.start)

    def number(self, kind, at):
        return struct.unpack_from("<" + kind, self.body, at)[0]

    def place(self, field):
        """Where a field is, or None."""
        if 4 + 2 * field >= self.number("H", self.vtable):
            return None
        offset = self.number("H", self.vtable + 4 + 2 * field)
        return self.start + offset if offset else None

    def get(self, field, kind, default=0):
        place = self.place(field)
        return default if place is None else self.number(kind, place)

    def bytes(self, field):
        place = self.place(field)
        if place is None:
            return None
        vector = place + self.number("I", place)
        length = self.number("I", vector)
        if vector + 4 + length > len(self.body):
            raise Lost("a vector reaches beyond its frame")
        return bytes(self.body[vector + 4:vector + 4 + length])

    def text(self, field):
        return (self.bytes(field) or b"").decode(errors="replace")

    def tables(self, field):
        place = self.place(field)
        if place is None:
            return
        vector = place + self.number("I", place)
        for at in range(vector + 4, vector + 4 + 4 * self.number("I", vector), 4):
            yield Table(self.body, at + self.number("I", at))


class Connection:
    """One connection, opened by its hello. `clock` is shared by all connections of a client."""

    def __init__(self, address, clock):
        self.clock, self.requests, self.received = clock, 0, bytearray()
        try:
            self.socket = socket.create_connection(address, timeout=10)
        except OSError as error:
            raise Lost(str(error)) from error
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        magic = int.from_bytes(b"OSTRAKON", "little")
        hello = table(("Q", magic), ("H", 1), ("H", 1), None, None, None, "example.py/1")
        reply = self.ask(HELLO, hello)
        self.frame_bytes_max = reply.get(10, "I")
        self.multi_max = reply.get(12, "I")  # 0: a server that knows no sessions yet

    def ask(self, kind, body):
        """Sends a request and waits for its answer: a table, or an error. A hello has the id 0."""
        request_id, self.requests = self.requests, self.requests + 1
        rest = struct.pack("<QQHHI", request_id, self.clock.highest, kind, 0, 0) + body
        try:
            self.socket.sendall(struct.pack("<II", len(body), crc32c(rest)) + rest)
            while True:
                answered, answer, reply = self.frame()
                if answer in PUSHED:
                    continue
                if answer == ERROR:
                    error = ServerError(reply.get(0, "H"), reply.text(1), reply.get(2, "I"))
                    if answered == 0:  # of the connection as a whole: it is being closed
                        raise Lost(str(error)) if kind != HELLO or error.code in MAY_PASS else error
                    raise error
                if answered != request_id or answer != REPLY[kind]:
                    raise Lost(f"an answer of kind {answer:#x} to request {answered}, which was not asked")
                return reply
        except (OSError, struct.error) as error:
            raise Lost(str(error)) from error

    def frame(self):
        length, checksum, request_id, timestamp, kind, flags, reserved = HEADER.unpack(self.take(HEADER.size))
        if length > ANSWER_BODY_BYTES_MAX:
            raise Lost("a frame longer than the protocol allows")
        body = self.take(length)
        rest = struct.pack("<QQHHI", request_id, timestamp, kind, flags, reserved) + body
        if checksum != crc32c(rest) or flags & ~FLAG_TIMINGS or reserved:
            raise Lost("a frame that is damaged, or of a newer protocol")
        self.clock.saw(timestamp)
        if flags & FLAG_TIMINGS:
            body = body[TIMINGS_BYTES:]
        return request_id, kind, Table(body) if body else None

    def take(self, count):
        while len(self.received) < count:
            more = self.socket.recv(1 << 16)
            if not more:
                raise Lost("the server closed the connection")
            self.received += more
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken


class Clock:
    """The highest timestamp seen, and the server's clock as far as the own monotonic clock can tell."""

    highest, seen_at, estimated = 0, 0.0, 0

    def saw(self, timestamp):
        if timestamp > self.highest:
            self.highest, self.seen_at = timestamp, time.monotonic()

    def estimate(self):
        elapsed_us = int((time.monotonic() - self.seen_at) * 1e6)
        self.estimated = max(self.estimated, self.highest + (elapsed_us << 12))  # it never falls
        return self.estimated


class Client:
    """Reads and writes; each call ends with an answer, or with an error after `patience` seconds."""

    def __init__(self, host, port, patience=30):
        self.address, self.patience, self.clock, self.connection = (host, port), patience, Clock(), None
        self.session, self.sequence = secrets.token_bytes(16), 0

    def call(self, kind, body, is_write=False):
        """Asks until there is an answer. `body` makes the request's table from its `retry`, which is None for reads."""
        deadline, pause, retry, was_sent = time.monotonic() + self.patience, 0.01, None, False
        while True:
            try:
                self.connection = self.connection or Connection(self.address, self.clock)
                if is_write and retry is None and self.connection.multi_max:
                    # One request at a time: all sequences below this one are answered or given up.
                    self.sequence += 1
                    high, low = struct.unpack("<QQ", self.session)
                    retry = ("5Q", high, low, self.sequence, self.sequence, self.clock.estimate())
                request = body(retry)
                if HEADER.size + len(request) > self.connection.frame_bytes_max:
                    raise ValueError("key and value are too long for a frame")
                was_sent = is_write
                return self.connection.ask(kind, request)
            except Lost as lost:
                self.connection, problem = None, lost
                if was_sent and retry is None:
                    raise OutcomeUnknown(str(lost)) from lost  # sent again it might happen twice
            except ServerError as error:
                problem = error
                if error.code == CORE_FAILED and is_write or error.code == 14:
                    raise OutcomeUnknown(str(error)) from error
                if error.code not in MAY_PASS:
                    raise
                if error.code == SHUTTING_DOWN:
                    self.connection = None
                pause = max(pause, error.retry_after_ms / 1000)
            if time.monotonic() + pause > deadline:
                raise OutcomeUnknown(str(problem)) if was_sent else problem
            time.sleep(pause)
            pause = min(2 * pause, 1)

    def get(self, key):
        """(value, version, expires), or None."""
        reply = self.call(GET, lambda _: table(key))
        return (reply.bytes(2), reply.get(1, "Q"), reply.get(3, "Q")) if reply.get(0, "?", False) else None

    def put(self, key, value, condition=NONE, expected_version=0, expected_value=None, ttl_ms=0):
        """(applied, version)"""
        reply = self.call(PUT, lambda retry: table(
            key, value, ("B", condition), ("Q", expected_version), expected_value, ("Q", ttl_ms), retry), is_write=True)
        return reply.get(0, "?", False), reply.get(1, "Q")

    def delete(self, key, condition=NONE, expected_version=0, expected_value=None):
        """(applied, version)"""
        reply = self.call(DELETE, lambda retry: table(
            key, ("B", condition), ("Q", expected_version), expected_value, retry), is_write=True)
        return reply.get(0, "?", False), reply.get(1, "Q")

    def add(self, key, delta, ttl_ms=0):
        """(sum, version)"""
        reply = self.call(ADD, lambda retry: table(key, ("q", delta), ("Q", ttl_ms), retry), is_write=True)
        return reply.get(1, "q"), reply.get(0, "Q")

    def scan(self, start=b"", end=None, page=0, prefix=None, reverse=False):
        """Yields (key, value, version) of one snapshot, page by page."""
        snapshot = 0
        while True:
            reply = self.call(SCAN, lambda _: table(
                start, end, ("I", page), ("Q", snapshot), None, prefix, ("?", reverse)))
            for entry in reply.tables(1):
                yield entry.bytes(0), entry.bytes(1) or b"", entry.get(2, "Q")
            if not reply.get(2, "?", False):
                return
            snapshot, resume_key = reply.get(0, "Q"), reply.bytes(3)
            start, end = (start, resume_key) if reverse else (resume_key, end)


def main(address):
    host, port = address.rsplit(":", 1)
    client = Client(host, int(port))
    keys = [b"example/%02d" % number for number in range(25)]
    for key in keys:
        assert client.put(key, b"value of " + key)[0]
    value, version, expires = client.get(keys[3])
    assert (value, expires) == (b"value of example/03", 0)
    assert client.put(keys[3], b"new", ABSENT) == (False, version)
    assert client.put(keys[3], b"new", VERSION, version)[0]
    assert client.delete(keys[4], PRESENT)[0] and client.get(keys[4]) is None
    scanned = list(client.scan(b"example/", b"example0", page=10))
    assert [key for key, _, _ in scanned] == keys[:4] + keys[5:]
    try:
        client.get(b"")
        raise AssertionError("a key of no bytes was accepted")
    except ServerError as error:
        assert error.code == 2, error
    if client.connection.multi_max:
        sessions(client, keys)
    for key in keys:
        client.delete(key)
    print("ok" if client.connection.multi_max else "ok, but the server knows no sessions, numbers and expiry")


def sessions(client, keys):
    """What came with sessions: numbers, retries, values as conditions, expiry, scans by prefix and in reverse."""
    client.delete(b"example/visits")
    assert client.add(b"example/visits", 40)[0] == 40
    assert client.add(b"example/visits", 2)[0] == 42
    assert client.get(b"example/visits")[0] == b"42"
    # The connection breaks before an answer: the same write goes out again, and yet is done once.
    client.connection.socket.shutdown(socket.SHUT_RDWR)
    assert client.add(b"example/visits", 1)[0] == 43
    retry = ("5Q", 1, secrets.randbits(64), 7, 7, client.clock.estimate())
    again = [client.connection.ask(ADD, table(b"example/visits", ("q", 1), None, retry)) for _ in range(3)]
    assert [reply.get(1, "q") for reply in again] == [44, 44, 44]
    try:
        client.add(keys[0], 1)
        raise AssertionError("a text was taken for a number")
    except ServerError as error:
        assert error.code == NOT_A_NUMBER, error
    assert not client.put(keys[3], b"other", VALUE, expected_value=b"old")[0]
    assert client.put(keys[3], b"other", VALUE, expected_value=b"new")[0]
    version = client.put(keys[4], b"short-lived", ttl_ms=600_000)[1]
    assert client.get(keys[4])[2] > version
    reverse = [key for key, _, _ in client.scan(prefix=b"example/0", page=3, reverse=True)]
    assert reverse == keys[9::-1], reverse
    client.delete(b"example/visits")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5750")
