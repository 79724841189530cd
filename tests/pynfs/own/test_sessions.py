"""Sessions that end while they are used (RFC 8881 §18.37, §18.50), and what clients may say of themselves (§18.35)."""

import nfs4
from case import Case, unique
from nfs4 import Reply, compound


class Ends(Case):
    def test_a_session_that_is_gone(self):
        s = self.session()
        self.ok(s.raw([nfs4.destroy_session(s.id)]))
        self.assertEqual(s.send([nfs4.putrootfh()]).statuses(), ["BADSESSION"])
        self.assertEqual(s.raw([nfs4.destroy_session(s.id)]).status, "BADSESSION")
        self.server.restart()
        s.reconnect()
        self.assertEqual(s.send([nfs4.putrootfh()]).statuses(), ["BADSESSION"])

    def test_state_is_the_clients(self):
        """§18.37.3: opens and locks are not the session's."""
        s, name = self.session(), unique()
        handle, stateid = s.open(name)
        self.ok(s.raw([nfs4.destroy_session(s.id)]))
        s.id, s.seqids = s.create_session()["session"], {}
        self.ok(s.send([nfs4.putfh(handle), nfs4.write(stateid, 0, b"x"), nfs4.close(0, stateid)]))

    def test_by_its_own_request(self):
        """§18.37.3: as the last operation; a retransmission finds no session."""
        s, name = self.session(), unique()
        arguments = s.request([nfs4.putrootfh(), nfs4.create_dir(name), nfs4.destroy_session(s.id)])
        reply = Reply(s.connection.call(arguments))
        self.assertEqual(reply.statuses(), ["OK", "OK", "OK", "OK"])
        self.assertEqual(Reply(s.connection.call(arguments)).status, "BADSESSION")
        t = self.session()
        self.ok(t.send([nfs4.putrootfh(), nfs4.lookup(name)]))

    def test_by_its_own_request_but_not_last(self):
        s = self.session()
        reply = s.send([nfs4.destroy_session(s.id), nfs4.putrootfh()])
        self.assertEqual(reply.statuses(), ["OK", "NOT_ONLY_OP"])
        self.ok(s.send([nfs4.putrootfh()]))

    def test_under_requests_in_progress(self):
        """Each request is answered as executed, or as without a session; what was answered is there.

        Where the session ended behind SEQUENCE there is no answer (§15.2 has BADSESSION for SEQUENCE alone), but one to the same request sent again.
        """
        for _ in range(5):
            s = self.session()
            names = [unique() for _ in range(8)]
            connections = [self.connect() for _ in names]
            requests = [s.request([nfs4.putrootfh(), nfs4.create_dir(name)], n) for n, name in enumerate(names)]
            for connection, request in zip(connections, requests):
                connection.send(request)
            self.ok(s.raw([nfs4.destroy_session(s.id)]))
            t = self.session()
            for connection, request, name in zip(connections, requests, names):
                try:
                    reply = Reply(connection.receive()[1])
                except ConnectionError:
                    reply = Reply(self.connect().call(request))
                found = t.send([nfs4.putrootfh(), nfs4.lookup(name)]).status
                # §2.10.6.1: without a session nothing was begun, unless it ended in the middle.
                self.assertIn((reply.status, found), [("OK", "OK"), ("BADSESSION", "NOENT")], reply)

    def test_clients_that_have_something_stay(self):
        s = self.session()
        self.assertEqual(s.raw([nfs4.destroy_clientid(s.client)]).status, "CLIENTID_BUSY")
        self.ok(s.raw([nfs4.destroy_session(s.id)]))
        self.ok(s.raw([nfs4.destroy_clientid(s.client)]))
        self.assertEqual(s.raw([nfs4.destroy_clientid(s.client)]).status, "STALE_CLIENTID")
        self.assertEqual(s.raw([nfs4.create_session(s.client, s.next_session)]).status, "STALE_CLIENTID")

    def test_a_restarted_client_loses_what_it_had(self):
        """§18.35.4 case 5: when the new client id is confirmed, not before."""
        s, name = self.session(), unique()
        handle, stateid = s.open(name, deny=nfs4.BOTH)
        new = self.ok(s.raw([nfs4.exchange_id(b"restart!", s.owner)]))[0]
        self.ok(s.send([nfs4.putfh(handle), nfs4.write(stateid, 0, b"x")]))
        self.ok(s.raw([nfs4.create_session(new["client"], new["sequence"])]))
        self.assertEqual(s.send([nfs4.putrootfh()]).status, "BADSESSION")
        self.session().open(name, deny=nfs4.BOTH)

    def test_a_connection_is_not_the_session(self):
        s = self.session()
        s.reconnect()
        self.ok(s.send([nfs4.putrootfh()]))
        self.ok(Reply(self.connect().call(compound([nfs4.bind_conn_to_session(s.id)], 1))))


class Flags(Case):
    """Bits of eia_flags that are not defined MUST be refused (§18.35.3). So is EXCHGID4_FLAG_SUPP_FENCE_OPS of 4.2 (0x4): nothing is fenced here."""

    KNOWN = [0x1, 0x2, 0x100, 0x1_0000, 0x2_0000, 0x4_0000]

    def exchange(self, minor, flags):
        ops = [nfs4.exchange_id(b"verifier", unique(b"client"), flags)]
        return Reply(self.connect().call(compound(ops, minor)))

    def test_each_bit(self):
        for minor in (1, 2):
            for bit in (1 << n for n in range(32) if n != 30):
                expected = "OK" if bit in self.KNOWN else "INVAL"
                self.assertEqual(self.exchange(minor, bit).status, expected, (minor, hex(bit)))
            # The highest, EXCHGID4_FLAG_CONFIRMED_R, is of results alone. EXCHGID4_FLAG_UPD_CONFIRMED_REC_A is defined, but there is nothing to update (§18.35.4 case 7).
            self.assertEqual(self.exchange(minor, 1 << 30).status, "NOENT")
