"""Sequences of v4.0 owners (RFC 7530 §9.1.7 to §9.1.11): a step that comes again, also after kill -9."""

import nfs4
from case import Case, unique
from nfs4 import Reply, compound


class Owners(Case):
    def replay(self, client, ops):
        """Sends a step three times: by another transaction, on another connection, after kill -9."""
        arguments = compound(ops, 0)
        first = client.connection.call(arguments)
        self.assertEqual(self.connect().call(arguments), first, "on another connection")
        self.server.restart()
        client.reconnect()
        self.assertEqual(client.connection.call(arguments), first, "after kill -9")
        return Reply(first)

    def test_open_and_confirm(self):
        c, name = self.client40(), unique()
        reply = self.ok(self.replay(c, [nfs4.putrootfh(), c.open_op(name, create="guarded"), nfs4.getfh()]))
        self.assertEqual(reply[1]["flags"] & 2, 2, "a new owner is to confirm")
        confirm = nfs4.open_confirm(reply[1]["stateid"], c.step())
        self.ok(self.replay(c, [nfs4.putfh(reply[2]), confirm]))

    def test_lock_unlock_downgrade_close(self):
        c, name = self.client40(), unique()
        handle, stateid = c.open(name, access=nfs4.READ)
        reply = self.ok(c.send([nfs4.putrootfh(), c.open_op(name)]))
        stateid = reply[1]["stateid"]
        lock = nfs4.new_lock(nfs4.WRITE_LT, 0, 10, c.step(), stateid, 1, b"l", c.id)
        locked = self.ok(self.replay(c, [nfs4.putfh(handle), lock]))[1]
        more = nfs4.more_lock(nfs4.WRITE_LT, 20, 10, locked, 2)
        locked = self.ok(self.replay(c, [nfs4.putfh(handle), more]))[1]
        unlocked = self.ok(self.replay(c, [nfs4.putfh(handle), nfs4.locku(0, 30, locked, 3)]))[1]
        self.assertEqual(unlocked[:4], b"\0\0\0\3", "each of them counted once")
        downgrade = nfs4.open_downgrade(stateid, c.step(), nfs4.READ, nfs4.NONE)
        stateid = self.ok(self.replay(c, [nfs4.putfh(handle), downgrade]))[1]
        self.ok(self.replay(c, [nfs4.putfh(handle), nfs4.close(c.step(), stateid)]))

    def test_a_refusal_is_a_step(self):
        c, name = self.client40(), unique()
        c.open(name)
        ops = [nfs4.putrootfh(), c.open_op(unique(), create=None)]
        self.assertEqual(self.replay(c, ops).status, "NOENT")
        # What was refused is refused again, though it would succeed by now.
        ops = [nfs4.putrootfh(), c.open_op(name + b"x", create=None)]
        refused = c.send(ops)
        self.client40().open(name + b"x")
        self.server.restart()
        c.reconnect()
        self.assertEqual(c.send(ops).data, refused.data)

    def test_wrong_numbers(self):
        c, name = self.client40(), unique()
        c.open(name)
        for wrong in (c.seqid + 2, c.seqid - 1, 0):
            reply = c.send([nfs4.putrootfh(), c.open_op(name, seqid=wrong)])
            self.assertEqual(reply.status, "BAD_SEQID", wrong)
        self.server.restart()
        c.reconnect()
        reply = c.send([nfs4.putrootfh(), c.open_op(name, seqid=c.seqid + 2)])
        self.assertEqual(reply.status, "BAD_SEQID")
        self.ok(c.send([nfs4.putrootfh(), c.open_op(name)]))

    def test_requests_without_an_owner(self):
        """REMOVE and its like are known by transaction id and content."""
        c, name = self.client40(), unique()
        c.open(name)
        arguments = compound([nfs4.putrootfh(), nfs4.remove(name)], 0)
        first = c.connection.call(arguments, xid=0x7777)
        self.assertEqual(Reply(first).status, "OK")
        self.client40().open(name, create="guarded")
        self.server.restart()
        self.assertEqual(self.connect().call(arguments, xid=0x7777), first)
        # A request that only looks the same is another one.
        self.assertEqual(Reply(self.connect().call(arguments, xid=0x7778)).status, "OK")
