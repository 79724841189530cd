"""ONC RPC over TCP (RFC 5531) with AUTH_SYS: one connection, calls in and replies out as bytes."""

import itertools
import socket

from xdr import Reader, array, opaque, u32

PROGRAM, VERSION = 100003, 4
XIDS = itertools.count(0x41000001)


class Refused(Exception):
    """The call was not accepted, or not executed; `args` are reply status and accept or reject status."""


class Connection:
    """A connection to the server. `uid` and `gid` are whose calls these are. Calls of the server that come meanwhile wait in `calls`."""

    def __init__(self, port, uid=0, gid=0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.calls = []
        credential = u32(0) + opaque(b"own-suite") + u32(uid) + u32(gid) + array([])
        self.credential = u32(1) + opaque(credential) + u32(0) + opaque(b"")

    def close(self):
        self.socket.close()

    def send(self, arguments, procedure=1, xid=None):
        """Sends a call and returns its transaction id."""
        xid = next(XIDS) if xid is None else xid
        call = u32(xid) + u32(0) + u32(2) + u32(PROGRAM) + u32(VERSION) + u32(procedure)
        record = call + self.credential + arguments
        self.socket.sendall(u32(1 << 31 | len(record)) + record)
        return xid

    def _exactly(self, length):
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise ConnectionError("the server closed the connection")
            data += more
        return data

    def _record(self):
        record, last = b"", False
        while not last:
            header = Reader(self._exactly(4)).u32()
            last = header >> 31 == 1
            record += self._exactly(header & 0x7fffffff)
        return record

    def receive(self):
        """The next reply: its transaction id and results."""
        while True:
            reader = Reader(self._record())
            xid, kind, status = reader.u32(), reader.u32(), reader.u32()
            if kind == 1:
                break
            self._called(xid, status, reader)
        if status != 0:
            raise Refused(status, reader.u32())
        reader.u32()
        reader.opaque()
        accepted = reader.u32()
        if accepted != 0:
            raise Refused(0, accepted)
        return xid, reader.rest()

    def _called(self, xid, version, reader):
        program, _, procedure = reader.u32(), reader.u32(), reader.u32()
        assert (version, program, procedure) == (2, 0x40000000, 1), "CB_COMPOUND"
        for _ in ("credential", "verifier"):
            reader.u32()
            reader.opaque()
        self.calls.append((xid, reader.rest()))

    def next_call(self):
        """The next call of the server: its transaction id and arguments. No reply may be outstanding."""
        while not self.calls:
            reader = Reader(self._record())
            xid, kind, version = reader.u32(), reader.u32(), reader.u32()
            assert kind == 0, "a call"
            self._called(xid, version, reader)
        return self.calls.pop(0)

    def reply(self, xid, results):
        """Answers a call of the server."""
        record = u32(xid) + u32(1) + u32(0) + u32(0) + opaque(b"") + u32(0) + results
        self.socket.sendall(u32(1 << 31 | len(record)) + record)

    def call(self, arguments, procedure=1, xid=None):
        """Sends a call and waits for its results."""
        sent = self.send(arguments, procedure, xid)
        got, results = self.receive()
        assert got == sent, "one call at a time"
        return results


