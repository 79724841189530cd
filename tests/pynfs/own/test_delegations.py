"""Delegations over the backchannel, which a kernel client cannot be made to break (RFC 8881 §10.2, §10.4, §10.9, §18.39, §20.2, §20.4,
§20.8)."""

import time

import nfs4
from case import Case, unique
from nfs4 import Callback, Reply

BACK = 3  # CREATE_SESSION4_FLAG_PERSIST, CREATE_SESSION4_FLAG_CONN_BACK_CHAN
REVOKED = 0x40  # SEQ4_STATUS_RECALLABLE_STATE_REVOKED
REMOVE, ADD, RENAME = 2, 3, 4
LIMIT = 30


class Delegating(Case):
    lease = 5

    def holder(self, **terms):
        return self.session(flags=BACK, **terms)

    def file(self):
        """A file that nobody has open; its name and handle."""
        s, name = self.session(), unique()
        handle, stateid = s.open(name)
        self.ok(s.send([nfs4.putfh(handle), nfs4.close(0, stateid)]))
        return name, handle

    def open_op(self, s, name, access):
        return [nfs4.putrootfh(), nfs4.open_file(name, b"o", access, client=s.client)]

    def delegated(self, s, name, access=nfs4.READ | nfs4.WANT_READ):
        kind, stateid = self.ok(s.send(self.open_op(s, name, access)))[2]["delegation"]
        self.assertEqual(kind, 2 if access & nfs4.WANT_WRITE else 1)
        return stateid

    def give_back(self, s, handle, stateid):
        self.ok(s.send([nfs4.putfh(handle), nfs4.delegreturn(stateid)]))

    def repeat(self, s, ops):
        """Sends a request until it is not told to come again."""
        limit = time.monotonic() + LIMIT
        while True:
            reply = s.send(ops)
            if reply.status != "DELAY":
                return reply
            self.assertLess(time.monotonic(), limit)


class Files(Delegating):
    def test_given_and_returned(self):
        s, (name, handle) = self.holder(), self.file()
        stateid = self.delegated(s, name)
        self.ok(s.send([nfs4.putfh(handle), nfs4.read(stateid, 0, 1)]))
        self.assertEqual(s.send([nfs4.putfh(handle), nfs4.write(stateid, 0, b"x")]).status, "OPENMODE")
        self.give_back(s, handle, stateid)
        self.assertEqual(s.send([nfs4.putfh(handle), nfs4.read(stateid, 0, 1)]).status, "BAD_STATEID")
        self.assertEqual(s.send([nfs4.putfh(handle), nfs4.delegreturn(stateid)]).status, "BAD_STATEID")

    def test_not_to_who_cannot_be_called(self):
        s, (name, _) = self.session(), self.file()
        reply = self.ok(s.send(self.open_op(s, name, nfs4.READ | nfs4.WANT_READ)))
        self.assertEqual(reply[2]["delegation"], (3, None))

    def test_lock_wants_an_open(self):
        """§18.10.3: the stateid of the open file."""
        s, (name, handle) = self.holder(), self.file()
        stateid = self.delegated(s, name, nfs4.BOTH | nfs4.WANT_WRITE)
        for lock in (nfs4.new_lock(nfs4.WRITE_LT, 0, 1, 0, stateid, 0, b"l"), nfs4.more_lock(nfs4.WRITE_LT, 0, 1, stateid),
                     nfs4.locku(0, 1, stateid)):
            self.assertEqual(s.send([nfs4.putfh(handle), lock]).status, "BAD_STATEID")

    def test_recalled_for_an_open(self):
        s, t, (name, handle) = self.holder(), self.session(), self.file()
        stateid = self.delegated(s, name)
        self.ok(t.send(self.open_op(t, name, nfs4.READ)))
        t.connection.send(t.request(self.open_op(t, name, nfs4.BOTH)))
        recall = s.told("recall")
        self.assertEqual((recall["stateid"], recall["handle"]), (stateid, handle))
        self.give_back(s, handle, stateid)
        reply = Reply(t.connection.receive()[1])
        if reply.status == "DELAY":
            reply = self.repeat(t, self.open_op(t, name, nfs4.BOTH))
        self.ok(reply)

    def test_a_writer_is_recalled_for_a_reader_and_writes_back(self):
        s, t, (name, handle) = self.holder(), self.session(), self.file()
        stateid = self.delegated(s, name, nfs4.BOTH | nfs4.WANT_WRITE)
        t.connection.send(t.request(self.open_op(t, name, nfs4.READ)))
        s.told("recall")
        self.ok(s.send([nfs4.putfh(handle), nfs4.write(stateid, 0, b"held")]))
        self.give_back(s, handle, stateid)
        Reply(t.connection.receive()[1])
        self.ok(self.repeat(t, self.open_op(t, name, nfs4.READ)))
        self.assertEqual(self.ok(t.send([nfs4.putfh(handle), nfs4.read(nfs4.ANONYMOUS, 0, 9)]))[2][1], b"held")

    def test_revoked_if_not_returned(self):
        """§10.4.6: the client is heard all the time, and keeps what else it has."""
        s, t, (name, handle) = self.holder(), self.session(), self.file()
        other, kept = s.open(unique())
        stateid = self.delegated(s, name)
        self.assertEqual(t.send(self.open_op(t, name, nfs4.BOTH)).status, "DELAY")
        s.told("recall")
        limit = time.monotonic() + LIMIT
        while t.send(self.open_op(t, name, nfs4.BOTH)).status == "DELAY":
            self.ok(s.send([]))
            self.assertLess(time.monotonic(), limit)
        reply = s.send([nfs4.putfh(handle), nfs4.read(stateid, 0, 1)])
        self.assertEqual((reply.status, reply[0]["flags"]), ("DELEG_REVOKED", REVOKED))
        self.assertEqual(self.ok(s.send([nfs4.test_stateid(stateid)]))[1], [10087])
        self.ok(s.send([nfs4.free_stateid(stateid)]))
        self.assertEqual(self.ok(s.send([nfs4.putfh(other), nfs4.write(kept, 0, b"x")]))[0]["flags"], 0)

    def test_a_recall_is_repeated_on_another_connection(self):
        """§2.10.6.2: with the same slot and number, byte for byte."""
        s, t, (name, handle) = self.holder(), self.session(), self.file()
        stateid = self.delegated(s, name)
        t.connection.send(t.request(self.open_op(t, name, nfs4.BOTH)))
        first = s.hear()
        s.rebind()
        again = Callback(*s.connection.next_call())
        self.assertEqual((again.slot, again.seqid, again.arguments), (first.slot, first.seqid, first.arguments))
        s.answer(again)
        self.give_back(s, handle, stateid)
        Reply(t.connection.receive()[1])
        self.ok(self.repeat(t, self.open_op(t, name, nfs4.BOTH)))

    def test_a_recall_is_repeated_after_kill(self):
        """What the client heard, or answered, before does not matter. The slot's number is asked first, by what stands alone, with a number that the client has
        seen: the first recall was the slot's first."""
        for answers in (False, True):
            s, t, (name, handle) = self.holder(), self.session(), self.file()
            stateid = self.delegated(s, name)
            t.connection.send(t.request(self.open_op(t, name, nfs4.BOTH)))
            first = s.hear()
            if answers:
                s.answer(first)
                Reply(t.connection.receive()[1])
            self.server.restart()
            s.rebind()
            question = Callback(*s.connection.next_call())
            self.assertEqual((question.op, question.slot, question.seqid), (None, first.slot, first.seqid))
            s.answer(question, sequence=10068)
            again = s.hear()
            self.assertEqual((again.op, again.value, again.slot, again.seqid), ("recall", first.value, first.slot, first.seqid + 1))
            s.answer(again)
            self.give_back(s, handle, stateid)
            t.reconnect()
            self.ok(self.repeat(t, self.open_op(t, name, nfs4.BOTH)))


class Directories(Delegating):
    def directory(self):
        s, name = self.session(), unique(b"dir")
        return self.ok(s.send([nfs4.putrootfh(), nfs4.create_dir(name), nfs4.getfh()]))[3]

    def watched(self, s, handle, *kinds):
        got = self.ok(s.send([nfs4.putfh(handle), nfs4.get_dir_delegation(*kinds)]))[2]
        self.assertIsNotNone(got["stateid"])
        return got

    def in_dir(self, handle, op):
        return [nfs4.putfh(handle), op]

    def test_recalled_for_a_change(self):
        s, t, handle = self.holder(), self.session(), self.directory()
        got = self.watched(s, handle)
        self.assertEqual((got["notifications"], got["child"], got["dir"]), (set(), set(), set()))
        self.assertIsNone(self.ok(s.send(self.in_dir(handle, nfs4.get_dir_delegation())))[2]["stateid"], "§18.39.3: not twice")
        t.connection.send(t.request(self.in_dir(handle, nfs4.create_dir(b"new"))))
        self.assertEqual(s.told("recall")["stateid"], got["stateid"])
        self.give_back(s, handle, got["stateid"])
        Reply(t.connection.receive()[1])
        self.assertIn(self.repeat(t, self.in_dir(handle, nfs4.create_dir(b"new"))).status, ("OK", "EXIST"))

    def test_told_of_changes(self):
        s, t, handle = self.holder(), self.session(), self.directory()
        got = self.watched(s, handle, 0, 1, REMOVE, ADD, RENAME, 5)
        self.assertEqual(got["notifications"], {REMOVE, ADD, RENAME}, "what is served")
        steps = [
            (t, [nfs4.putfh(handle), nfs4.create_dir(b"a")]),
            (s, [nfs4.putfh(handle), nfs4.create_dir(b"b")]),
            (t, [nfs4.putfh(handle), nfs4.savefh(), nfs4.rename(b"a", b"c")]),
            (t, [nfs4.putfh(handle), nfs4.remove(b"b")]),
        ]
        for who, ops in steps:
            self.ok(who.send(ops))
        heard = []
        while len(heard) < len(steps):
            told = s.told("notify")
            self.assertEqual((told["stateid"], told["handle"]), (got["stateid"], handle))
            heard += told["changes"]
        entries = self.ok(t.send(self.in_dir(handle, nfs4.readdir())))[2]["entries"]
        (_, a), (_, b), (_, ((old, old_cookie), c)), (_, (gone, gone_cookie)) = heard
        self.assertEqual([kind for kind, _ in heard], [ADD, ADD, RENAME, REMOVE])
        self.assertEqual((a["name"], a["before"], a["last"]), (b"a", [], True))
        self.assertEqual((b["name"], b["before"], b["last"]), (b"b", [(b"a", a["cookie"][0])], True))
        self.assertEqual((old, old_cookie, c["name"]), (b"a", a["cookie"][0], b"c"))
        self.assertEqual((gone, gone_cookie), (b"b", b["cookie"][0]))
        self.assertEqual([(cookie, name) for cookie, name, *_ in entries], [(c["cookie"][0], b"c")])
        self.give_back(s, handle, got["stateid"])

    def test_recalled_for_what_is_not_told(self):
        s, t, handle = self.holder(), self.session(), self.directory()
        got = self.watched(s, handle, ADD)
        self.ok(t.send(self.in_dir(handle, nfs4.create_dir(b"a"))))
        self.assertEqual(s.told("notify")["changes"][0][1]["name"], b"a")
        t.connection.send(t.request(self.in_dir(handle, nfs4.remove(b"a"))))
        self.assertEqual(s.told("recall")["stateid"], got["stateid"])
        self.give_back(s, handle, got["stateid"])
        Reply(t.connection.receive()[1])
        self.assertIn(self.repeat(t, self.in_dir(handle, nfs4.remove(b"a"))).status, ("OK", "NOENT"))

    def test_a_callback_is_repeated_on_another_connection(self):
        s, t, handle = self.holder(), self.session(), self.directory()
        self.watched(s, handle, ADD)
        self.ok(t.send(self.in_dir(handle, nfs4.create_dir(b"a"))))
        first = s.hear()
        s.rebind()
        again = Callback(*s.connection.next_call())
        self.assertEqual(again.arguments, first.arguments)
        s.answer(again)
        self.ok(t.send(self.in_dir(handle, nfs4.create_dir(b"b"))))
        self.assertEqual([change["name"] for _, change in s.told("notify")["changes"]], [b"b"], "nothing is told twice")

    def test_killed_before_it_was_told(self):
        """A change that may not have been told, or may have been without a note of it, is followed by a recall."""
        for heard in (False, True):
            s, t, handle = self.holder(), self.session(), self.directory()
            got = self.watched(s, handle, ADD, REMOVE)
            self.ok(t.send(self.in_dir(handle, nfs4.create_dir(b"a"))))
            if heard:
                self.assertEqual(s.hear().op, "notify")
            self.server.restart()
            s.rebind()
            self.assertEqual(s.told("recall")["stateid"], got["stateid"])
            self.give_back(s, handle, got["stateid"])

    def test_kept_over_kill(self):
        s, t, handle = self.holder(), self.session(), self.directory()
        got = self.watched(s, handle, ADD)
        self.server.restart()
        s.rebind()
        t.reconnect()
        self.ok(t.send(self.in_dir(handle, nfs4.create_dir(b"a"))))
        told = s.told("notify")
        self.assertEqual((told["stateid"], told["changes"][0][1]["name"]), (got["stateid"], b"a"))


class Slots(Delegating):
    def test_sessions_share_the_slots_of_a_client(self):
        """§2.10.6.1, §20.8: told by CB_RECALL_SLOT and SEQUENCE; what slots keep goes when the client has shown that it let go."""
        s, name = self.holder(slots=64), unique()
        top = s.request([nfs4.putrootfh(), nfs4.create_dir(name)], slot=63)
        first = Reply(s.connection.call(top))
        self.assertEqual((self.ok(first)[0]["highest"], first[0]["target"]), (63, 63))
        granted = [s.create_session(slots=64)["fore"]["slots"] for _ in range(17)]
        self.assertEqual(granted[:15], [64] * 15)
        self.assertLess(granted[16], 64)
        target = s.told("recall_slot")
        self.assertLess(target, 63)
        self.assertEqual(Reply(s.connection.call(top)).data, first.data, "it has not said anything yet")
        # The first reply tells the target; the second request shows that it was heard.
        target = self.ok(s.send([]))[0]["target"]
        self.assertEqual(Reply(s.connection.call(top)).data, first.data)
        self.ok(s.send([]))
        limit = time.monotonic() + LIMIT
        while (again := Reply(s.connection.call(top))).status in ("OK", "DELAY"):
            self.assertLess(time.monotonic(), limit)
        self.assertEqual(again.status, "RETRY_UNCACHED_REP")
        self.assertEqual(self.ok(s.send([], slot=target))[0]["target"], target)
        # So it is after a restart: nothing is executed twice.
        self.server.restart()
        s.reconnect()
        self.assertEqual(self.ok(s.send([nfs4.putrootfh(), nfs4.lookup(name)], slot=63)).status, "OK")
