"""What all tests share: a server for each class of tests, clients of v4.0, and sessions."""

import itertools
import os
import unittest

import nfs4
from nfs4 import Callback, Reply, compound
from rpc import Connection
from server import Server

RETRY_UNCACHED_REP, SEQ_MISORDERED = 10068, 10063
NUMBERS = itertools.count(1)


def unique(prefix=b"n"):
    """A name that no other test has."""
    return prefix + str(next(NUMBERS)).encode()


class Case(unittest.TestCase):
    """A class of tests with a server of their own, which each of them may kill and start again."""

    lease = 60

    @classmethod
    def setUpClass(cls):
        cls.server = Server(os.environ["ATOLL"], os.environ.get("ATOLL_TEST_DIR"), cls.lease)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def connect(self, **who):
        connection = Connection(self.server.port, **who)
        self.addCleanup(connection.close)
        return connection

    def ok(self, reply):
        self.assertEqual(reply.status, "OK", reply)
        return reply

    def session(self, **terms):
        """A session of a new client."""
        return Session41(self, unique(b"client"), **terms)

    def client40(self):
        """A confirmed client of v4.0."""
        return Client40(self, unique(b"client"))


class Session41:
    """A v4.1 client with a session, and the number of the last request of each slot."""

    def __init__(self, case, owner, minor=1, **terms):
        self.case, self.minor = case, minor
        self.connection = case.connect()
        made = case.ok(self.raw([nfs4.exchange_id(b"verifier", owner)]))[0]
        self.client, self.owner = made["client"], owner
        self.next_session = made["sequence"]
        self.made = self.create_session(**terms)
        self.id = self.made["session"]
        self.seqids = {}
        self.heard = {}
        case.ok(self.send([nfs4.reclaim_complete()]))

    def create_session(self, **terms):
        made = self.case.ok(self.raw([nfs4.create_session(self.client, self.next_session, **terms)]))[0]
        self.next_session += 1
        return made

    def raw(self, ops, **how):
        """A COMPOUND as it is, without SEQUENCE."""
        return Reply(self.connection.call(compound(ops, self.minor, **how)))

    def reconnect(self):
        self.connection.close()
        self.connection = self.case.connect()

    def rebind(self):
        """Another connection, for callbacks too."""
        self.reconnect()
        self.case.ok(self.raw([nfs4.bind_conn_to_session(self.id, 3)]))

    def hear(self):
        """The next callback that is about something, unanswered. Questions for a slot's number are answered as by Linux."""
        while True:
            callback = Callback(*self.connection.next_call())
            last = self.heard.get(callback.slot, 0)
            if callback.seqid == last + 1:
                self.heard[callback.slot] = callback.seqid
                if callback.op is not None:
                    return callback
                self.answer(callback)
            elif callback.seqid == last:
                self.answer(callback, sequence=RETRY_UNCACHED_REP)
            else:
                self.answer(callback, sequence=SEQ_MISORDERED)

    def answer(self, callback, **statuses):
        self.connection.reply(callback.xid, callback.results(**statuses))

    def told(self, op):
        """Takes the next callback, which must be this one; what it says."""
        callback = self.hear()
        self.case.assertEqual(callback.op, op)
        self.answer(callback)
        return callback.value

    def request(self, ops, slot=0, cache=True, **how):
        """Arguments of the slot's next request."""
        self.seqids[slot] = self.seqids.get(slot, 0) + 1
        return self.again(ops, slot, cache, **how)

    def again(self, ops, slot=0, cache=True, **how):
        """Arguments of a request with the slot's last number."""
        first = nfs4.sequence(self.id, self.seqids[slot], slot, cache=cache)
        return compound([first, *ops], self.minor, **how)

    def send(self, ops, slot=0, cache=True, **how):
        """Sends the slot's next request."""
        return Reply(self.connection.call(self.request(ops, slot, cache, **how)))

    def open(self, name, owner=b"o", access=nfs4.BOTH, deny=nfs4.NONE, create="unchecked"):
        """Opens a file of the root; its handle and stateid."""
        op = nfs4.open_file(name, owner, access, deny, client=self.client, create=create)
        reply = self.case.ok(self.send([nfs4.putrootfh(), op, nfs4.getfh()]))
        return reply[3], reply[2]["stateid"]


class Client40:
    """A v4.0 client with one open owner."""

    minor = 0

    def __init__(self, case, owner):
        self.case = case
        self.connection = case.connect()
        made = case.ok(self.send([nfs4.setclientid(b"verifier", owner)]))[0]
        self.id = made["client"]
        case.ok(self.send([nfs4.setclientid_confirm(self.id, made["confirm"])]))
        self.seqid = 0

    def reconnect(self):
        self.connection.close()
        self.connection = self.case.connect()

    def send(self, ops, **how):
        return Reply(self.connection.call(compound(ops, 0, **how)))

    def step(self):
        self.seqid += 1
        return self.seqid

    def open_op(self, name, access=nfs4.BOTH, deny=nfs4.NONE, create="unchecked", seqid=None):
        seqid = self.step() if seqid is None else seqid
        return nfs4.open_file(name, b"o", access, deny, seqid, self.id, create)

    def open(self, name, **how):
        """Opens a file of the root and confirms the owner if that is asked; its handle and stateid."""
        reply = self.case.ok(self.send([nfs4.putrootfh(), self.open_op(name, **how), nfs4.getfh()]))
        handle, stateid = reply[2], reply[1]["stateid"]
        if reply[1]["flags"] & 2:
            confirm = nfs4.open_confirm(stateid, self.step())
            stateid = self.case.ok(self.send([nfs4.putfh(handle), confirm]))[1]
        return handle, stateid
