"""Lapsed clients are courteous (RFC 8881 §8.4.2.4, RFC 7530 §9.6.3): a conflict frees what they have, nothing else does.

The only tests that wait for time to pass: one wait of a lease and a bit for all clients of a test.
"""

import time

import nfs4
from case import Case, unique
from nfs4 import ANONYMOUS
from server import LEASE


class Courtesy(Case):
    lease = LEASE

    def lapse(self, *living):
        """Waits until the leases of all are over but of those that are heard."""
        end = time.monotonic() + self.lease + 2
        while time.monotonic() < end:
            for client in living:
                self.ok(client.send([nfs4.renew(client.id)] if client.minor == 0 else [nfs4.putrootfh()]))
            time.sleep(0.5)

    def locked(self, client, name):
        """A file opened and locked by the client: handle, open, locks."""
        handle, opened = client.open(name)
        first = 1 if client.minor == 0 else 0
        seqid = client.step() if client.minor == 0 else 0
        who = client.id if client.minor == 0 else client.client
        lock = nfs4.new_lock(nfs4.WRITE_LT, 0, 10, seqid, opened, first, b"l", who)
        return handle, opened, self.ok(client.send([nfs4.putfh(handle), lock])).results[-1].value

    def test_conflicts_free(self):
        shares, locks, writes = self.session(), self.session(), self.session()
        old_shares, old_locks = self.client40(), self.client40()
        a, b, c, d, e = (unique() for _ in range(5))
        shares.open(a, deny=nfs4.WRITE)
        b_handle, _, _ = self.locked(locks, b)
        c_handle, c_stateid = old_shares.open(c, deny=nfs4.WRITE)
        d_handle, _, d_locks = self.locked(old_locks, d)
        e_handle, _ = writes.open(e, deny=nfs4.WRITE)
        s, o = self.session(), self.client40()
        _, b_open = s.open(b)
        _, d_open = o.open(d)
        self.lapse(s, o)
        # The first that conflicts succeeds, from either minor version.
        o.open(a, access=nfs4.WRITE)
        self.ok(s.send([nfs4.putfh(b_handle), nfs4.new_lock(nfs4.WRITE_LT, 5, 1, 0, b_open, 0, b"m", s.client)]))
        s.open(c, access=nfs4.WRITE)
        lock = nfs4.new_lock(nfs4.WRITE_LT, 5, 1, o.step(), d_open, 1, b"m", o.id)
        self.ok(o.send([nfs4.putfh(d_handle), lock]))
        self.ok(s.send([nfs4.putfh(e_handle), nfs4.write(ANONYMOUS, 0, b"x")]))
        # They are told.
        for client in (shares, locks, writes):
            self.assertEqual(client.send([nfs4.putrootfh()]).status, "BADSESSION")
        for client in (old_shares, old_locks):
            self.assertEqual(client.send([nfs4.renew(client.id)]).status, "EXPIRED")
        reply = old_shares.send([nfs4.putfh(c_handle), nfs4.close(old_shares.step(), c_stateid)])
        self.assertEqual(reply.status, "EXPIRED")
        self.assertEqual(old_locks.send([nfs4.putfh(d_handle), nfs4.locku(0, 10, d_locks, 2)]).status, "EXPIRED")
        self.server.restart()
        old_shares.reconnect()
        self.assertEqual(old_shares.send([nfs4.renew(old_shares.id)]).status, "EXPIRED")

    def test_no_conflict_keeps(self):
        s, o = self.session(), self.client40()
        a, b = unique(), unique()
        a_handle, a_open, a_locks = self.locked(s, a)
        b_handle, b_open, b_locks = self.locked(o, b)
        t = self.session()
        _, others = t.open(a)
        self.lapse(t)
        # What is beside theirs is in nobody's way.
        self.ok(t.send([nfs4.putfh(a_handle), nfs4.new_lock(nfs4.WRITE_LT, 10, 1, 0, others, 0, b"m", t.client)]))
        t.open(b)
        reply = self.ok(s.send([nfs4.putfh(a_handle), nfs4.write(a_open, 0, b"x"), nfs4.locku(0, 10, a_locks)]))
        self.assertEqual(reply[0]["flags"], 0)
        self.ok(o.send([nfs4.renew(o.id)]))
        self.ok(o.send([nfs4.putfh(b_handle), nfs4.locku(0, 10, b_locks, 2), nfs4.close(o.step(), b_open)]))

    def test_downtime_expires_nobody(self):
        s, name = self.session(), unique()
        handle, opened, _ = self.locked(s, name)
        self.server.kill()
        time.sleep(self.lease + 1)
        self.server.start()
        # Who asks first does not get it: the lease began anew with the server.
        t = self.session()
        _, others = t.open(name)
        lock = nfs4.new_lock(nfs4.WRITE_LT, 0, 1, 0, others, 0, b"m", t.client)
        self.assertEqual(t.send([nfs4.putfh(handle), lock]).status, "DENIED")
        s.reconnect()
        self.ok(s.send([nfs4.putfh(handle), nfs4.write(opened, 0, b"x")]))
