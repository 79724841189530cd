"""Copies that go on behind their COPY: OFFLOAD_STATUS, OFFLOAD_CANCEL, CB_OFFLOAD (RFC 7862 §4, §15.2, §15.8, §15.9, §16.1).

What one command copies is 8192 extents, so the source has more: bytes that stand alone, cloned one behind the other."""

import json
import os
import subprocess
import time

import nfs4
from case import Case, Session41, unique
from nfs4 import Callback, Reply

BACK = 3  # CREATE_SESSION4_FLAG_PERSIST, CREATE_SESSION4_FLAG_CONN_BACK_CHAN
LIMIT = 60
STRIDE = 8192
BYTES = 4096
PART = BYTES * STRIDE
PARTS = 12
SIZE = PART * PARTS
WRITES = 60


class Copies(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.source = None

    def client(self, flags=BACK):
        return Session41(self, unique(b"client"), minor=2, flags=flags, operations=64)

    def file(self, s):
        handle, stateid = s.open(unique())
        self.ok(s.send([nfs4.putfh(handle), nfs4.close(0, stateid)]))
        return handle

    def fragmented(self, s):
        """The handle of a file in 49152 pieces; of each part the last byte says which it is."""
        if type(self).source is None:
            part, whole = self.file(s), self.file(s)
            for first in range(0, BYTES, WRITES):
                some = range(first, min(first + WRITES, BYTES))
                writes = [nfs4.write(nfs4.ANONYMOUS, n * STRIDE, bytes([n % 251 + 1]), nfs4.UNSTABLE) for n in some]
                self.ok(s.send([nfs4.putfh(part), *writes]))
            self.ok(s.send([nfs4.putfh(part), nfs4.commit()]))
            self.ok(s.send([nfs4.putfh(part), nfs4.setattr(nfs4.ANONYMOUS, {nfs4.SIZE: nfs4.u64(PART)})]))
            for n in range(PARTS):
                self.ok(s.send([nfs4.putfh(part), nfs4.savefh(), nfs4.putfh(whole), nfs4.clone(target=n * PART)]))
                self.ok(s.send([nfs4.putfh(whole), nfs4.write(nfs4.ANONYMOUS, (n + 1) * PART - 1, bytes([n + 1]))]))
            type(self).source = whole
        return self.source

    def ops(self, source, target, **how):
        return [nfs4.putfh(source), nfs4.savefh(), nfs4.putfh(target), nfs4.copy(**how)]

    def begin(self, s, source, target):
        """A COPY that goes on; its stateid."""
        copy = self.ok(s.send(self.ops(source, target)))[4]
        self.assertEqual((copy["count"], copy["committed"], copy["consecutive"], copy["synchronous"]), (0, nfs4.FILE_SYNC, True, False))
        (stateid,) = copy["stateid"]
        self.assertNotEqual(stateid[:4], bytes(4), "§4.8")
        return stateid

    def size(self, s, handle):
        value = self.ok(s.send([nfs4.putfh(handle), nfs4.getattr(nfs4.SIZE)]))[2][1]
        return int.from_bytes(value, "big")

    def status(self, s, handle, stateid):
        return s.send([nfs4.putfh(handle), nfs4.offload_status(stateid)])

    def listed(self, owner):
        """What `atoll copy list` shows of a client."""
        command = [self.server.binary, "copy", "list", "--json", "--dir", os.path.join(self.server.directory, "data")]
        listing = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return [row for row in listing["rows"] if row["name"] == owner.decode()]

    def check_copied(self, s, target):
        self.assertEqual(self.size(s, target), SIZE)
        for n in range(PARTS):
            for at, byte in ((n * PART, 1), (n * PART + 77 * STRIDE, 78), (n * PART + 77 * STRIDE + 1, 0), ((n + 1) * PART - 1, n + 1)):
                self.assertEqual(self.ok(s.send([nfs4.putfh(target), nfs4.read(nfs4.ANONYMOUS, at, 1)]))[2][1], bytes([byte]))

    def check_forgotten(self, s, target, stateid):
        limit = time.monotonic() + LIMIT
        while (reply := self.status(s, target, stateid)).status == "OK":
            self.assertLess(time.monotonic(), limit)
        self.assertEqual(reply.status, "BAD_STATEID")

    def test_goes_on_and_is_told(self):
        s = self.client()
        source, target = self.fragmented(s), self.file(s)
        stateid = self.begin(s, source, target)
        counts = []
        limit = time.monotonic() + LIMIT
        while True:
            status = self.ok(self.status(s, target, stateid))[2]
            counts.append(status["count"])
            if status["complete"]:
                break
            self.assertLess(time.monotonic(), limit)
        self.assertEqual((status["complete"], counts[-1]), ([0], SIZE))
        self.assertEqual(counts, sorted(counts))
        told = s.told("offload")
        self.assertEqual((told["handle"], told["stateid"], told["status"]), (target, stateid, 0))
        self.assertEqual((told["count"], told["committed"]), (SIZE, nfs4.FILE_SYNC))
        self.check_forgotten(s, target, stateid)
        self.check_copied(s, target)

    def test_synchronous(self):
        """Who wants the reply when it is done, or cannot be called, is told how much it was."""
        s, deaf = self.client(), self.client(flags=1)
        source, target = self.fragmented(s), self.file(s)
        for who, synchronous in ((s, True), (deaf, False)):
            copy = self.ok(who.send(self.ops(source, target, synchronous=synchronous)))[4]
            self.assertEqual((copy["stateid"], copy["synchronous"]), ([], True))
            self.assertTrue(PART <= copy["count"] < SIZE)
        copy = self.ok(s.send(self.ops(source, target, length=PART)))[4]
        self.assertEqual((copy["stateid"], copy["count"]), ([], PART), "what fits is done")

    def test_cancelled(self):
        s, t = self.client(), self.client()
        source, target = self.fragmented(s), self.file(s)
        stateid = self.begin(s, source, target)
        for who, handle, named in ((t, target, stateid), (s, source, stateid), (s, target, bytes(4) + stateid[4:])):
            self.assertEqual(self.status(who, handle, named).status, "BAD_STATEID")
            self.assertEqual(who.send([nfs4.putfh(handle), nfs4.offload_cancel(named)]).status, "BAD_STATEID")
        cancel = s.request([nfs4.putfh(target), nfs4.offload_cancel(stateid)])
        first = Reply(s.connection.call(cancel))
        self.ok(first)
        change = self.ok(s.send([nfs4.putfh(target), nfs4.getattr(nfs4.CHANGE)])).data[-8:]
        size = self.size(s, target)
        self.assertEqual(self.status(s, target, stateid).status, "BAD_STATEID")
        self.server.restart()
        s.reconnect()
        self.assertEqual(self.status(s, target, stateid).status, "BAD_STATEID")
        self.assertEqual(self.ok(s.send([nfs4.putfh(target), nfs4.getattr(nfs4.CHANGE)])).data[-8:], change)
        self.assertEqual(self.size(s, target), size)

    def test_killed_in_the_middle(self):
        """The COPY is sent again after kill -9 and gets its first reply; what was left is copied, and the end told to who binds a connection."""
        s = self.client()
        source, target = self.fragmented(s), self.file(s)
        copy = s.request(self.ops(source, target))
        first = s.connection.call(copy)
        self.server.restart()
        s.rebind()
        self.assertEqual(s.connection.call(copy), first)
        (stateid,) = Reply(first)[4]["stateid"]
        told = s.hear()
        self.assertEqual((told.op, told.value["stateid"], told.value["status"], told.value["count"]), ("offload", stateid, 0, SIZE))
        # Not answered before it dies once more: told again, over whichever session there is.
        self.server.restart()
        s.reconnect()
        s.id, s.seqids, s.heard = s.create_session(flags=BACK, operations=64)["session"], {}, {}
        self.assertEqual(self.ok(self.status(s, target, stateid))[2], {"count": SIZE, "complete": [0]})
        (listed,) = self.listed(s.owner)
        self.assertEqual((listed["phase"], listed["copied"], listed["of"]), ("done", SIZE, SIZE))
        self.assertEqual(s.told("offload"), told.value)
        self.check_forgotten(s, target, stateid)
        self.check_copied(s, target)
        self.assertEqual(self.listed(s.owner), [])

    def test_told_again_on_another_connection(self):
        s = self.client()
        source, target = self.fragmented(s), self.file(s)
        stateid = self.begin(s, source, target)
        first = s.hear()
        s.rebind()
        again = Callback(*s.connection.next_call())
        self.assertEqual((again.slot, again.seqid, again.arguments), (first.slot, first.seqid, first.arguments))
        s.answer(again)
        self.check_forgotten(s, target, stateid)

    def test_stays_without_a_name(self):
        """Both files are removed while they are copied."""
        s = self.client()
        names = unique(), unique()
        handles = []
        for name in names:
            handle, stateid = s.open(name)
            self.ok(s.send([nfs4.putfh(handle), nfs4.close(0, stateid)]))
            handles.append(handle)
        source, target = handles
        whole = self.fragmented(s)
        for n in range(PARTS):
            self.ok(s.send([nfs4.putfh(whole), nfs4.savefh(), nfs4.putfh(source), nfs4.clone(PART, n * PART, n * PART)]))
        stateid = self.begin(s, source, target)
        self.ok(s.send([nfs4.putrootfh(), *map(nfs4.remove, names)]))
        told = s.hear()
        self.assertEqual((told.value["stateid"], told.value["status"], told.value["count"]), (stateid, 0, SIZE))
        self.check_copied(s, target)
        s.answer(told)
        limit = time.monotonic() + LIMIT
        while s.send([nfs4.putfh(target), nfs4.getattr(nfs4.SIZE)]).status == "OK":
            self.assertLess(time.monotonic(), limit)
