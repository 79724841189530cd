"""Exactly once on the slots of sessions (RFC 8881 §2.10.6): the first reply again, byte for byte, whatever happened meanwhile."""

import nfs4
from case import Case, unique
from nfs4 import Reply


class Slots(Case):
    """Each request is sent, then again on another connection, then again after kill -9."""

    def replay(self, session, ops, slot=0, **how):
        """The first reply, after the others were found the same."""
        arguments = session.request(ops, slot, **how)
        first = session.connection.call(arguments)
        other = self.connect()
        self.assertEqual(other.call(arguments), first, "on another connection")
        self.server.restart()
        session.reconnect()
        self.assertEqual(session.connection.call(arguments), first, "after kill -9")
        self.assertEqual(self.connect().call(arguments), first, "from the memory of the new process")
        return Reply(first)

    def exists(self, session, name):
        return session.send([nfs4.putrootfh(), nfs4.lookup(name)], slot=7).status == "OK"

    def test_open_create(self):
        s, name = self.session(), unique()
        op = nfs4.open_file(name, b"o", create="guarded", client=s.client)
        reply = self.ok(self.replay(s, [nfs4.putrootfh(), op, nfs4.getfh(), nfs4.getattr(nfs4.CHANGE, nfs4.SIZE)]))
        # The open is one: after its CLOSE nobody is in the way of a deny.
        ops = [nfs4.putfh(reply[3]), nfs4.close(0, reply[2]["stateid"])]
        self.ok(s.send(ops))
        s.open(name, owner=b"p", deny=nfs4.BOTH)

    def test_remove(self):
        s, name = self.session(), unique()
        s.open(name)
        reply = self.ok(self.replay(s, [nfs4.putrootfh(), nfs4.remove(name), nfs4.getattr(nfs4.CHANGE)]))
        self.assertNotEqual(reply[2][1], reply[2][2], "the directory changed")
        self.assertFalse(self.exists(s, name))

    def test_a_remove_does_not_hit_what_came_after_it(self):
        s, name = self.session(), unique()
        s.open(name)
        arguments = s.request([nfs4.putrootfh(), nfs4.remove(name)])
        first = s.connection.call(arguments)
        self.assertEqual(Reply(first).status, "OK")
        # Another client makes the name again before the retransmission comes.
        self.session().open(name, create="guarded")
        self.server.restart()
        s.reconnect()
        self.assertEqual(s.connection.call(arguments), first)
        self.assertTrue(self.exists(s, name))

    def test_rename_link_and_directory(self):
        s, a, b, c, d = self.session(), unique(), unique(), unique(), unique()
        handle, _ = s.open(a)
        self.ok(self.replay(s, [nfs4.putrootfh(), nfs4.savefh(), nfs4.rename(a, b)]))
        self.ok(self.replay(s, [nfs4.putfh(handle), nfs4.savefh(), nfs4.putrootfh(), nfs4.link(c)]))
        self.ok(self.replay(s, [nfs4.putrootfh(), nfs4.create_dir(d), nfs4.getfh(), nfs4.getattr(nfs4.FILEID)]))

    def test_write_file_sync(self):
        s, name = self.session(), unique()
        handle, stateid = s.open(name)
        write = nfs4.write(stateid, 3, b"abcdefg")
        self.ok(self.replay(s, [nfs4.putfh(handle), write, nfs4.getattr(nfs4.SIZE, nfs4.CHANGE)]))
        reply = self.ok(s.send([nfs4.putfh(handle), nfs4.read(stateid, 0, 100)]))
        self.assertEqual(reply[2], (True, bytes(3) + b"abcdefg"))

    def test_a_write_does_not_come_back_over_a_later_one(self):
        s, name = self.session(), unique()
        handle, stateid = s.open(name)
        arguments = s.request([nfs4.putfh(handle), nfs4.write(stateid, 0, b"first")])
        first = s.connection.call(arguments)
        self.ok(s.send([nfs4.putfh(handle), nfs4.write(stateid, 0, b"later")], slot=1))
        self.server.restart()
        s.reconnect()
        self.assertEqual(s.connection.call(arguments), first)
        self.assertEqual(self.ok(s.send([nfs4.putfh(handle), nfs4.read(stateid, 0, 9)]))[2][1], b"later")

    def test_lock_and_unlock(self):
        s, name = self.session(), unique()
        handle, stateid = s.open(name)
        lock = nfs4.new_lock(nfs4.WRITE_LT, 0, 10, 0, stateid, 0, b"l", s.client)
        locked = self.ok(self.replay(s, [nfs4.putfh(handle), lock]))[2]
        unlocked = self.ok(self.replay(s, [nfs4.putfh(handle), nfs4.locku(0, 10, locked)]))[2]
        self.assertEqual(unlocked, (2).to_bytes(4, "big") + locked[4:], "each of them counted once")

    def test_a_refused_lock(self):
        s, t, name = self.session(), self.session(), unique()
        handle, stateid = s.open(name)
        self.ok(s.send([nfs4.putfh(handle), nfs4.new_lock(nfs4.WRITE_LT, 0, 10, 0, stateid, 0, b"l", s.client)]))
        _, other = t.open(name)
        lock = nfs4.new_lock(nfs4.WRITE_LT, 5, 1, 0, other, 0, b"m", t.client)
        reply = self.replay(t, [nfs4.putfh(handle), lock])
        self.assertEqual(reply.status, "DENIED")
        self.assertEqual((reply[2]["owner"], reply[2]["client"]), (b"l", s.client))

    def test_close_and_downgrade(self):
        s, name = self.session(), unique()
        handle, first = s.open(name, access=nfs4.READ)
        _, second = s.open(name, access=nfs4.BOTH)
        self.assertEqual(first[4:], second[4:], "one open of one owner")
        downgrade = nfs4.open_downgrade(second, 0, nfs4.READ, nfs4.NONE)
        third = self.ok(self.replay(s, [nfs4.putfh(handle), downgrade]))[2]
        self.ok(self.replay(s, [nfs4.putfh(handle), nfs4.close(0, third)]))

    def test_several_changes_in_one_request(self):
        s, a, b = self.session(), unique(), unique()
        ops = [nfs4.putrootfh(), nfs4.create_dir(a), nfs4.putrootfh(), nfs4.create_dir(b), nfs4.putrootfh(), nfs4.remove(a),
               nfs4.getattr(nfs4.CHANGE)]
        self.ok(self.replay(s, ops))
        self.assertFalse(self.exists(s, a))
        self.assertTrue(self.exists(s, b))

    def test_what_came_before_an_error(self):
        s, a = self.session(), unique()
        reply = self.replay(s, [nfs4.putrootfh(), nfs4.create_dir(a), nfs4.putrootfh(), nfs4.create_dir(a)])
        self.assertEqual(reply.statuses(), ["OK", "OK", "OK", "OK", "EXIST"])

    def test_exclusive_creation_needs_the_slot(self):
        """§18.16.3: on a persistent session the slot does what the verifier is for."""
        s, name = self.session(), unique()
        self.assertEqual(s.made["flags"] & 1, 1, "persistent")
        op = nfs4.open_file(name, b"o", client=s.client, create=b"01234567")
        self.assertEqual(s.send([nfs4.putrootfh(), op]).status, "INVAL")
        op = nfs4.open_file(name, b"o", client=s.client, create="guarded")
        arguments = s.request([nfs4.putrootfh(), op])
        # The reply is lost with the connection and the server.
        s.connection.send(arguments)
        s.connection.receive()
        self.server.restart()
        s.reconnect()
        self.ok(Reply(s.connection.call(arguments)))

    def test_create_session(self):
        """§18.36.4: the client's own slot."""
        s = self.session()
        op = nfs4.create_session(s.client, s.next_session)
        first = self.ok(s.raw([op])).data
        self.assertEqual(s.raw([op]).data, first)
        self.server.restart()
        s.reconnect()
        self.assertEqual(s.raw([op]).data, first)
        after = nfs4.create_session(s.client, s.next_session + 2)
        self.assertEqual(s.raw([after]).status, "SEQ_MISORDERED")


class Order(Case):
    """Numbers of requests (§2.10.6.1)."""

    def test_false_retry(self):
        s, a = self.session(), unique()
        self.ok(s.send([nfs4.putrootfh(), nfs4.create_dir(a)]))
        different = s.again([nfs4.putrootfh(), nfs4.remove(a)])
        self.assertEqual(Reply(s.connection.call(different)).status, "SEQ_FALSE_RETRY")
        self.server.restart()
        s.reconnect()
        self.assertEqual(Reply(s.connection.call(different)).status, "SEQ_FALSE_RETRY")
        self.ok(s.send([nfs4.putrootfh(), nfs4.lookup(a)]))

    def test_another_principal_is_a_false_retry(self):
        s, a = self.session(), unique()
        arguments = s.request([nfs4.putrootfh(), nfs4.create_dir(a)])
        self.ok(Reply(s.connection.call(arguments)))
        for _ in range(2):
            other = self.connect(uid=1000, gid=1000)
            self.assertEqual(Reply(other.call(arguments)).status, "SEQ_FALSE_RETRY")
            self.server.restart()

    def test_misordered(self):
        s, a = self.session(), unique()
        self.ok(s.send([nfs4.putrootfh(), nfs4.create_dir(a)]))
        last = s.seqids[0]
        for wrong in (last - 1, last + 2, last + 1000, 0):
            s.seqids[0] = wrong
            self.assertEqual(Reply(s.connection.call(s.again([nfs4.putrootfh()]))).status, "SEQ_MISORDERED", wrong)
        s.seqids[0] = last
        self.server.restart()
        s.reconnect()
        s.seqids[0] = last - 1
        self.assertEqual(Reply(s.connection.call(s.again([nfs4.putrootfh()]))).status, "SEQ_MISORDERED")
        s.seqids[0] = last
        self.ok(s.send([nfs4.putrootfh()]))

    def test_slots_are_bounded(self):
        s = self.session(slots=4)
        slots = s.made["fore"]["slots"]
        self.assertLessEqual(slots, 4)
        beyond = nfs4.sequence(s.id, 1, slots)
        self.assertEqual(s.raw([beyond]).status, "BADSLOT")
        high = nfs4.sequence(s.id, 1, 1, highest=slots)
        self.assertEqual(s.raw([high]).status, "BAD_HIGH_SLOT")

    def test_an_uncached_reply(self):
        """§2.10.6.1.3: of a request that changed nothing and was not to be kept."""
        s = self.session()
        arguments = s.request([nfs4.putrootfh(), nfs4.getattr(nfs4.CHANGE)], cache=False)
        first = s.connection.call(arguments)
        again = Reply(s.connection.call(arguments))
        self.assertTrue(again.data == first or again.statuses() == ["OK", "RETRY_UNCACHED_REP"], again)

    def test_pipelined_retransmission(self):
        """The same request twice without waiting: executed once, the second is told to wait or gets the same."""
        s, a = self.session(), unique()
        arguments = s.request([nfs4.putrootfh(), nfs4.create_dir(a)])
        other = self.connect()
        s.connection.send(arguments)
        other.send(arguments)
        first, second = s.connection.receive()[1], other.receive()[1]
        replies = {Reply(first).status, Reply(second).status}
        self.assertIn("OK", replies)
        self.assertTrue(first == second or replies == {"OK", "DELAY"}, replies)
        self.assertEqual(s.connection.call(arguments), first if Reply(first).status == "OK" else second)
