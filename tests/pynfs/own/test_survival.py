"""Opens, locks and sessions outlive kill -9: the same stateids, no grace period, nothing to reclaim."""

import nfs4
from case import Case, unique


class Survival(Case):
    def test_sessions_opens_and_locks(self):
        s, t, name = self.session(), self.session(), unique()
        handle, stateid = s.open(name, deny=nfs4.WRITE)
        lock = nfs4.new_lock(nfs4.WRITE_LT, 0, 10, 0, stateid, 0, b"l", s.client)
        locked = self.ok(s.send([nfs4.putfh(handle), lock]))[2]
        self.server.restart()
        s.reconnect()
        t.reconnect()
        # No grace: new state at once.
        t.open(unique())
        # Nobody got in between.
        op = nfs4.open_file(name, b"o", access=nfs4.WRITE, client=t.client)
        self.assertEqual(t.send([nfs4.putrootfh(), op]).status, "SHARE_DENIED")
        tested = t.send([nfs4.putfh(handle), nfs4.lockt(nfs4.READ_LT, 5, 1, b"x", t.client)])
        self.assertEqual(tested.status, "DENIED")
        self.assertEqual((tested[2]["offset"], tested[2]["length"], tested[2]["owner"]), (0, 10, b"l"))
        # All is as it was.
        reply = self.ok(s.send([nfs4.test_stateid(stateid, locked)]))
        self.assertEqual(reply[1], [0, 0])
        self.assertEqual(reply[0]["flags"], 0, "nothing to be told of")
        self.ok(s.send([nfs4.putfh(handle), nfs4.write(stateid, 0, b"x"), nfs4.locku(0, 10, locked)]))
        self.ok(s.send([nfs4.putfh(handle), nfs4.close(0, stateid)]))

    def test_nothing_to_reclaim(self):
        s, name = self.session(), unique()
        s.open(name)
        self.server.restart()
        s.reconnect()
        claim = nfs4.Op(18, nfs4.u32(0) + nfs4.u32(nfs4.BOTH) + nfs4.u32(0) + nfs4.u64(s.client) + nfs4.opaque(b"o")
                        + nfs4.u32(0) + nfs4.u32(1) + nfs4.u32(0))
        reply = s.send([nfs4.putrootfh(), nfs4.lookup(name), claim])
        self.assertEqual(reply.status, "NO_GRACE")
        self.assertEqual(s.send([nfs4.reclaim_complete()]).status, "COMPLETE_ALREADY")

    def test_v40(self):
        c, d, name = self.client40(), self.client40(), unique()
        handle, stateid = c.open(name, deny=nfs4.WRITE)
        lock = nfs4.new_lock(nfs4.WRITE_LT, 0, 10, c.step(), stateid, 1, b"l", c.id)
        locked = self.ok(c.send([nfs4.putfh(handle), lock]))[1]
        self.server.restart()
        c.reconnect()
        d.reconnect()
        self.ok(c.send([nfs4.renew(c.id)]))
        self.assertEqual(d.send([nfs4.putrootfh(), d.open_op(name)]).status, "SHARE_DENIED")
        self.assertEqual(d.send([nfs4.putfh(handle), nfs4.lockt(nfs4.READ_LT, 0, 1, b"x", d.id)]).status, "DENIED")
        self.ok(c.send([nfs4.putfh(handle), nfs4.write(stateid, 0, b"x"), nfs4.locku(0, 10, locked, 2)]))
        self.ok(c.send([nfs4.putfh(handle), nfs4.close(c.step(), stateid)]))
        # The owner is known: its next step is in order, and need not be confirmed.
        reply = self.ok(c.send([nfs4.putrootfh(), c.open_op(name)]))
        self.assertEqual(reply[1]["flags"] & 2, 0)

    def test_an_open_file_that_was_removed(self):
        s, name = self.session(), unique()
        handle, stateid = s.open(name)
        self.ok(s.send([nfs4.putrootfh(), nfs4.remove(name)]))
        before = s.send([nfs4.putfh(handle)]).status
        self.server.restart()
        s.reconnect()
        self.assertEqual(s.send([nfs4.putfh(handle)]).status, before)
        self.assertEqual(self.ok(s.send([nfs4.test_stateid(stateid)]))[1], [0])

    def test_handles_and_identity(self):
        """RFC 8881 §2.10.5: the same server owner and scope, so that clients keep what they have."""
        s = self.session()
        ask = [nfs4.exchange_id(b"verifier", s.owner)]
        before = self.ok(s.raw(ask))[0]
        self.server.restart()
        s.reconnect()
        after = self.ok(s.raw(ask))[0]
        self.assertEqual(after, before)
        self.assertEqual(after["client"], s.client)
