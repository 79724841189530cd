"""COMPOUNDs that do not decode, are too long, or stand in the wrong order (RFC 8881 §16.2.3, §18.46.3; RFC 7530 §15.2)."""

import nfs4
from case import Case, unique
from nfs4 import ANONYMOUS, Reply, compound, u32
from rpc import Refused

STATEID = u32(1) + b"abcdefghijkl"

# Operations of both versions, with whole arguments.
COMMON = [
    nfs4.access(1), nfs4.close(1, STATEID), nfs4.commit(), nfs4.create_dir(b"name"), nfs4.getattr(1, 33), nfs4.link(b"name"),
    nfs4.new_lock(1, 0, 1, 1, STATEID, 1, b"owner"), nfs4.more_lock(1, 0, 1, STATEID), nfs4.lockt(1, 0, 1, b"owner"),
    nfs4.locku(0, 1, STATEID), nfs4.lookup(b"name"), nfs4.nverify(0), nfs4.open_file(b"name", b"owner", create="guarded"),
    nfs4.open_file(b"name", b"owner", create=b"verifier"), nfs4.open_downgrade(STATEID, 1, 1, 0), nfs4.putfh(b"handle"),
    nfs4.read(ANONYMOUS, 0, 1), nfs4.readdir(1), nfs4.remove(b"name"), nfs4.rename(b"name", b"other"), nfs4.secinfo(b"name"),
    nfs4.setattr(ANONYMOUS, {nfs4.SIZE: bytes(8)}), nfs4.write(ANONYMOUS, 0, b"data"),
]
ONLY_40 = [
    nfs4.open_confirm(STATEID, 1), nfs4.renew(1), nfs4.setclientid(b"verifier", b"name"),
    nfs4.setclientid_confirm(1, b"verifier"), nfs4.release_lockowner(1, b"owner"),
]
ONLY_41 = [
    nfs4.bind_conn_to_session(bytes(16)), nfs4.exchange_id(b"verifier", b"name"), nfs4.create_session(1, 1),
    nfs4.destroy_session(bytes(16)), nfs4.free_stateid(STATEID), nfs4.sequence(bytes(16), 1, 0),
    nfs4.test_stateid(STATEID), nfs4.destroy_clientid(1), nfs4.reclaim_complete(),
]


class Malformed(Case):
    def cuts(self, op):
        """The operation without its end, cut at every word."""
        whole = op.encode()
        return [whole[:length] for length in range(4, len(whole), 4)]

    def test_v40_at_each_boundary(self):
        c = self.client40()
        for op in COMMON + ONLY_40:
            for cut in self.cuts(op):
                reply = c.send([nfs4.putrootfh(), nfs4.getfh(), cut])
                self.assertEqual(reply.statuses(), ["OK", "OK", "BADXDR"], (op.number, len(cut)))
                self.assertEqual(reply.results[2].op, op.number)
        self.ok(c.send([nfs4.renew(c.id)]))

    def test_v41_at_each_boundary(self):
        s = self.session()
        for op in COMMON + ONLY_41:
            for cut in self.cuts(op):
                reply = s.send([nfs4.putrootfh(), cut])
                self.assertEqual(reply.statuses(), ["OK", "OK", "BADXDR"], (op.number, len(cut)))
                self.assertEqual(reply.results[2].op, op.number)
        self.ok(s.send([nfs4.putrootfh()]))

    def test_lengths_that_cannot_be(self):
        s, c = self.session(), self.client40()
        for length in (0x7fffffff, 0xffffffff, 0x80000000):
            for number in (15, 22, 28):
                op = u32(number) + u32(length) + b"name"
                self.assertEqual(s.send([nfs4.putrootfh(), op]).status, "BADXDR")
                self.assertEqual(c.send([nfs4.putrootfh(), op]).status, "BADXDR")

    def test_a_malformed_sequence(self):
        s = self.session()
        for cut in self.cuts(nfs4.sequence(s.id, 2, 0)):
            self.assertEqual(s.raw([cut]).statuses(), ["BADXDR"])
        self.ok(s.send([nfs4.putrootfh()]))

    def test_what_came_before_is_done_and_remembered(self):
        s, name = self.session(), unique()
        arguments = s.request([nfs4.putrootfh(), nfs4.create_dir(name), u32(15) + u32(400)])
        first = s.connection.call(arguments)
        self.assertEqual(Reply(first).statuses(), ["OK", "OK", "OK", "BADXDR"])
        self.assertEqual(s.connection.call(arguments), first)
        self.server.restart()
        s.reconnect()
        self.assertEqual(s.connection.call(arguments), first)
        self.ok(s.send([nfs4.putrootfh(), nfs4.lookup(name)]))

    def test_what_came_before_is_done_in_v40(self):
        c, name = self.client40(), unique()
        arguments = compound([nfs4.putrootfh(), nfs4.create_dir(name), u32(15) + u32(400)], 0)
        first = c.connection.call(arguments, xid=99)
        self.assertEqual(Reply(first).statuses(), ["OK", "OK", "BADXDR"])
        self.server.restart()
        c.reconnect()
        self.assertEqual(c.connection.call(arguments, xid=99), first)

    def test_no_such_operation(self):
        s, c = self.session(), self.client40()
        for number in (0, 1, 2, 77, 10044, 0xffffffff):
            for reply in (s.send([nfs4.putrootfh(), u32(number)]), c.send([nfs4.putrootfh(), u32(number)])):
                self.assertEqual(reply.status, "OP_ILLEGAL", number)
                self.assertEqual(reply.results[-1].op, 10044)
        # Those of the other minor version.
        self.assertEqual(c.send([nfs4.sequence(bytes(16), 1, 0)]).status, "OP_ILLEGAL")
        self.assertEqual(s.send([nfs4.renew(s.client)]).status, "NOTSUPP")

    def test_the_frame(self):
        connection = self.connect()
        with self.assertRaises(Refused) as refused:
            connection.call(u32(5) + b"ab")
        self.assertEqual(refused.exception.args, (0, 4), "GARBAGE_ARGS")
        reply = Reply(connection.call(compound([nfs4.putrootfh()], 3)))
        self.assertEqual((reply.status, reply.results), ("MINOR_VERS_MISMATCH", []))
        reply = Reply(connection.call(compound([], 0, tag=b"empty")))
        self.assertEqual((reply.status, reply.tag, reply.results), ("OK", b"empty", []))
        # Fewer operations than announced.
        reply = Reply(connection.call(compound([nfs4.putrootfh()], 0, announced=3)))
        self.assertEqual(reply.statuses(), ["OK", "BADXDR"])

    def test_too_many_operations(self):
        s = self.session(operations=8)
        most = s.made["fore"]["operations"]
        self.assertLessEqual(most, 8)
        self.ok(s.send([nfs4.putrootfh()] * (most - 1)))
        reply = s.send([nfs4.putrootfh()] * most)
        self.assertEqual(reply.statuses(), ["TOO_MANY_OPS"])
        # The slot was not taken.
        s.seqids[0] -= 1
        self.ok(s.send([nfs4.putrootfh()]))
        reply = self.client40().send([nfs4.putrootfh()] * 1000)
        self.assertEqual(reply.status, "RESOURCE")

    def test_too_long(self):
        s = self.session(request=512, response=512, cached=512)
        reply = s.send([nfs4.putrootfh(), nfs4.lookup(b"n" * 600)])
        self.assertEqual(reply.statuses(), ["REQ_TOO_BIG"])
        s.seqids[0] -= 1
        # The attributes of a long listing do not fit; nothing had changed by then.
        names = [unique(b"l" * 200) for _ in range(4)]
        for name in names:
            self.ok(s.send([nfs4.putrootfh(), nfs4.create_dir(name)]))
        reply = s.send([nfs4.putrootfh(), nfs4.readdir(nfs4.TYPE)], cache=False)
        self.assertIn(reply.status, ("REP_TOO_BIG", "OK"))
        self.assertLessEqual(len(reply.data), 512)


class Places(Case):
    """Where SEQUENCE and the operations without it stand (§2.10.6.1, §18.35 to §18.37)."""

    def test_sequence_is_first(self):
        s = self.session()
        self.assertEqual(s.raw([nfs4.putrootfh()]).statuses(), ["OP_NOT_IN_SESSION"])
        first = nfs4.sequence(s.id, 2, 0)
        self.assertEqual(s.raw([nfs4.putrootfh(), first]).statuses(), ["OP_NOT_IN_SESSION"])
        self.assertEqual(s.send([first]).statuses(), ["OK", "SEQUENCE_POS"])
        self.assertEqual(s.send([nfs4.putrootfh(), first]).statuses(), ["OK", "OK", "SEQUENCE_POS"])

    def test_alone(self):
        s = self.session()
        alone = [nfs4.exchange_id(b"verifier", s.owner), nfs4.create_session(s.client, s.next_session),
                 nfs4.bind_conn_to_session(s.id), nfs4.destroy_clientid(s.client), nfs4.destroy_session(s.id)]
        for op in alone:
            self.assertEqual(s.raw([op, nfs4.putrootfh()]).statuses(), ["NOT_ONLY_OP"], op.number)
        self.assertEqual(s.send([nfs4.bind_conn_to_session(s.id)]).statuses(), ["OK", "NOT_ONLY_OP"])
        self.ok(s.send([nfs4.putrootfh()]))
