"""Access control lists (RFC 8881 §6): raw lists and lists that are none, set again by a retransmission, after kill -9, by whom."""

import nfs4
from case import Case, unique
from nfs4 import ANONYMOUS, Reply, compound
from xdr import array, bitmap, opaque, u32

ACL, ACLSUPPORT, DACL, SACL, MODE, MODE_SET_MASKED = 12, 13, 58, 59, 33, 74
ALLOW, DENY, AUDIT = 0, 1, 2


def ace(kind, flags, mask, who):
    return u32(kind) + u32(flags) + u32(mask) + opaque(who)


def acl(*aces):
    return array(list(aces))


LIST = acl(ace(DENY, 0, 0x2, b"1003"), ace(ALLOW, 0, 0x160087, b"OWNER@"), ace(ALLOW, 0x40, 0x1, b"1002"))


class Lists(Case):
    def made(self, session, mode=0o644):
        """A file; its handle."""
        return session.open(unique())[0]

    def get(self, session, handle, *numbers):
        return self.ok(session.send([nfs4.putfh(handle), nfs4.getattr(*numbers)]))[2][1]

    def set(self, session, handle, values):
        return session.send([nfs4.putfh(handle), nfs4.setattr(ANONYMOUS, values)]).status

    def test_a_list_survives(self):
        s = self.session()
        handle = self.made(s)
        self.assertEqual(self.get(s, handle, ACLSUPPORT), u32(3))
        self.assertEqual(self.set(s, handle, {ACL: LIST}), "OK")
        self.assertEqual(self.get(s, handle, ACL), LIST)
        self.assertEqual(self.get(s, handle, MODE), u32(0o600))
        self.server.restart()
        s.reconnect()
        self.assertEqual(self.get(s, handle, ACL), LIST)
        # `acl` protects from automatic inheritance (§6.4.3.2).
        self.assertEqual(self.get(s, handle, DACL), u32(2) + LIST)

    def test_a_retransmission_shows_the_list_of_then(self):
        s, other = self.session(), self.session()
        handle = self.made(s)
        ops = [nfs4.putfh(handle), nfs4.setattr(ANONYMOUS, {ACL: LIST}), nfs4.getattr(ACL, MODE)]
        request = s.request(ops)
        first = s.connection.call(request)
        self.ok(Reply(first))
        self.assertEqual(self.set(other, handle, {ACL: acl()}), "OK")
        self.server.restart()
        s.reconnect()
        other.reconnect()
        self.assertEqual(s.connection.call(request), first)
        self.assertEqual(self.get(other, handle, ACL), acl())

    def test_lists_that_are_none(self):
        s = self.session()
        handle = self.made(s)
        one = ace(ALLOW, 0, 1, b"EVERYONE@")
        for wrong, status in [
            (acl(ace(AUDIT, 0x10, 1, b"EVERYONE@")), "ATTRNOTSUPP"),
            (acl(ace(9, 0, 1, b"EVERYONE@")), "INVAL"),
            (acl(ace(ALLOW, 0x2, 1, b"EVERYONE@")), "ATTRNOTSUPP"),
            (acl(ace(ALLOW, 0x8, 1, b"EVERYONE@")), "ATTRNOTSUPP"),
            (acl(ace(ALLOW, 0x400, 1, b"EVERYONE@")), "INVAL"),
            (acl(ace(ALLOW, 0, 0x80000000, b"EVERYONE@")), "INVAL"),
            (acl(ace(ALLOW, 0, 1, b"BATCH@")), "BADOWNER"),
            (acl(ace(ALLOW, 0, 1, b"99999999999")), "BADOWNER"),
            (acl(*[one] * 501), "NOSPC"),
            (u32(0xffffffff) + one, "BADXDR"),
            (u32(2) + one, "BADXDR"),
            (acl(one) + bytes(4), "BADXDR"),
        ]:
            self.assertEqual(self.set(s, handle, {ACL: wrong}), status, wrong[:40])
        self.assertEqual(self.set(s, handle, {ACL: acl(one), DACL: u32(0) + acl(one)}), "ATTRNOTSUPP")
        self.assertEqual(self.set(s, handle, {SACL: u32(0) + acl()}), "ATTRNOTSUPP")
        self.assertEqual(self.set(s, handle, {DACL: u32(16) + acl(one)}), "INVAL")
        reply = s.send([nfs4.putfh(handle), nfs4.getattr(MODE_SET_MASKED)])
        self.assertEqual(reply.status, "INVAL")
        self.assertEqual(self.set(s, handle, {ACL: acl(*[one] * 500)}), "OK")

    def test_modes_and_lists(self):
        s = self.session()
        handle = self.made(s)
        self.assertEqual(self.set(s, handle, {ACL: LIST, MODE: u32(0o2777)}), "OK")
        self.assertEqual(self.get(s, handle, ACL, MODE), LIST + u32(0o2600))
        # Bits that are not permissions leave the list as it is (§6.2.5).
        self.assertEqual(self.set(s, handle, {MODE_SET_MASKED: u32(0) + u32(0o7000)}), "OK")
        self.assertEqual(self.get(s, handle, ACL, MODE), LIST + u32(0o600))
        self.assertEqual(self.set(s, handle, {MODE: u32(0o640)}), "OK")
        shown = self.get(s, handle, ACL)
        self.assertNotEqual(shown, LIST)
        self.assertEqual(self.set(s, handle, {ACL: shown}), "OK")
        self.assertEqual(self.get(s, handle, ACL, MODE), shown + u32(0o640))
        for both in ({MODE: u32(0o600), MODE_SET_MASKED: u32(0) + u32(1)}, {MODE_SET_MASKED: u32(0o10000) + u32(0)}):
            self.assertEqual(self.set(s, handle, both), "INVAL")

    def test_who_may(self):
        s = self.session()
        handle = self.made(s)
        grants = acl(ace(ALLOW, 0, 0x20000, b"1001"), ace(ALLOW, 0, 0x40000, b"1002"), ace(DENY, 0, 0x80, b"1003"))
        self.assertEqual(self.set(s, handle, {ACL: grants}), "OK")

        def as_user(uid, op):
            connection = self.connect(uid=uid, gid=uid)
            return Reply(connection.call(compound([nfs4.putfh(handle), op], 0))).status

        read, write = nfs4.getattr(ACL), nfs4.setattr(ANONYMOUS, {MODE: u32(0)})
        self.assertEqual([as_user(uid, read) for uid in (0, 1001, 1002, 1003)], ["OK", "OK", "ACCESS", "ACCESS"])
        self.assertEqual([as_user(uid, nfs4.getattr(MODE)) for uid in (1001, 1002, 1003)], ["OK", "OK", "ACCESS"])
        self.assertEqual([as_user(uid, write) for uid in (1001, 1003, 1002)], ["PERM", "PERM", "OK"])

    def test_verify(self):
        s = self.session()
        handle = self.made(s)
        self.assertEqual(self.set(s, handle, {ACL: LIST}), "OK")
        values = bitmap(ACL) + opaque(LIST)
        other = bitmap(ACL) + opaque(acl())
        for number, attributes, status in [(37, values, "OK"), (37, other, "NOT_SAME"), (17, values, "SAME"), (17, other, "OK")]:
            self.assertEqual(s.send([nfs4.putfh(handle), nfs4.Op(number, attributes)]).status, status)
