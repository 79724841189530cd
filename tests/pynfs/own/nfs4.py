"""Operations of NFSv4 as the tests need them: arguments to bytes, results from bytes (RFC 7531, RFC 5662)."""

from xdr import Reader, array, bitmap, boolean, fixed, opaque, u32, u64

# ---- statuses (RFC 8881 §15.1)

STATUS = {
    0: "OK", 1: "PERM", 2: "NOENT", 13: "ACCESS", 17: "EXIST", 21: "ISDIR", 22: "INVAL", 28: "NOSPC", 70: "STALE", 10001: "BADHANDLE",
    10004: "NOTSUPP", 10005: "TOOSMALL", 10008: "DELAY", 10010: "DENIED", 10011: "EXPIRED", 10012: "LOCKED", 10013: "GRACE",
    10009: "SAME", 10027: "NOT_SAME", 10032: "ATTRNOTSUPP", 10039: "BADOWNER", 10015: "SHARE_DENIED", 10018: "RESOURCE", 10020: "NOFILEHANDLE", 10021: "MINOR_VERS_MISMATCH", 10022: "STALE_CLIENTID",
    10023: "STALE_STATEID", 10024: "OLD_STATEID", 10025: "BAD_STATEID", 10026: "BAD_SEQID", 10033: "NO_GRACE",
    10036: "BADXDR", 10037: "LOCKS_HELD", 10038: "OPENMODE", 10044: "OP_ILLEGAL", 10052: "BADSESSION", 10053: "BADSLOT",
    10054: "COMPLETE_ALREADY", 10055: "CONN_NOT_BOUND_TO_SESSION", 10063: "SEQ_MISORDERED", 10064: "SEQUENCE_POS",
    10065: "REQ_TOO_BIG", 10066: "REP_TOO_BIG", 10067: "REP_TOO_BIG_TO_CACHE", 10068: "RETRY_UNCACHED_REP",
    10070: "TOO_MANY_OPS", 10071: "OP_NOT_IN_SESSION", 10074: "CLIENTID_BUSY", 10076: "SEQ_FALSE_RETRY",
    10077: "BAD_HIGH_SLOT", 10078: "DEADSESSION", 10081: "NOT_ONLY_OP", 10087: "DELEG_REVOKED",
}

# ---- attributes

TYPE, CHANGE, SIZE, FILEID, MODE = 1, 3, 4, 20, 33

# ---- stateids

ANONYMOUS = bytes(16)
CURRENT = u32(1) + bytes(12)

READ, WRITE, BOTH = 1, 2, 3
NONE = 0
WANT_READ, WANT_WRITE = 0x100, 0x200
READ_LT, WRITE_LT = 1, 2
UNSTABLE, FILE_SYNC = 0, 2


class Op:
    """An operation: its number and its encoded arguments."""

    def __init__(self, number, arguments=b""):
        self.number = number
        self.arguments = arguments

    def encode(self):
        return u32(self.number) + self.arguments


def access(bits):
    return Op(3, u32(bits))


def close(seqid, stateid):
    return Op(4, u32(seqid) + stateid)


def commit(offset=0, count=0):
    return Op(5, u64(offset) + u32(count))


def create_dir(name):
    return Op(6, u32(2) + opaque(name) + fattr())


def delegreturn(stateid):
    return Op(8, stateid)


def getattr(*numbers):
    return Op(9, bitmap(*numbers))


def getfh():
    return Op(10)


def link(name):
    return Op(11, opaque(name))


def new_lock(kind, offset, length, open_seqid, open_stateid, lock_seqid, owner, client=0):
    locker = boolean(True) + u32(open_seqid) + open_stateid + u32(lock_seqid) + u64(client) + opaque(owner)
    return Op(12, u32(kind) + boolean(False) + u64(offset) + u64(length) + locker)


def more_lock(kind, offset, length, stateid, seqid=0):
    return Op(12, u32(kind) + boolean(False) + u64(offset) + u64(length) + boolean(False) + stateid + u32(seqid))


def lockt(kind, offset, length, owner, client=0):
    return Op(13, u32(kind) + u64(offset) + u64(length) + u64(client) + opaque(owner))


def locku(offset, length, stateid, seqid=0):
    return Op(14, u32(WRITE_LT) + u32(seqid) + stateid + u64(offset) + u64(length))


def lookup(name):
    return Op(15, opaque(name))


def nverify(size):
    return Op(17, fattr({SIZE: u64(size)}))


def fattr(values=None):
    values = values or {}
    return bitmap(*values) + opaque(b"".join(values[number] for number in sorted(values)))


def open_file(name, owner, access=BOTH, deny=NONE, seqid=0, client=0, create=None):
    """OPEN of a name; `create` is None, "unchecked", "guarded" or the verifier of an exclusive creation."""
    how = {
        None: lambda: u32(0),
        "unchecked": lambda: u32(1) + u32(0) + fattr(),
        "guarded": lambda: u32(1) + u32(1) + fattr(),
    }.get(create, lambda: u32(1) + u32(2) + fixed(create))
    claim = u32(0) + opaque(name)
    return Op(18, u32(seqid) + u32(access) + u32(deny) + u64(client) + opaque(owner) + how() + claim)


def open_confirm(stateid, seqid):
    return Op(20, stateid + u32(seqid))


def open_downgrade(stateid, seqid, access, deny):
    return Op(21, stateid + u32(seqid) + u32(access) + u32(deny))


def putfh(handle):
    return Op(22, opaque(handle))


def putrootfh():
    return Op(24)


def read(stateid, offset, count):
    return Op(25, stateid + u64(offset) + u32(count))


def readdir(*numbers, cookie=0, verifier=bytes(8), dircount=4096, maxcount=8192):
    return Op(26, u64(cookie) + fixed(verifier) + u32(dircount) + u32(maxcount) + bitmap(*numbers))


def remove(name):
    return Op(28, opaque(name))


def rename(old, new):
    return Op(29, opaque(old) + opaque(new))


def renew(client):
    return Op(30, u64(client))


def savefh():
    return Op(32)


def secinfo(name):
    return Op(33, opaque(name))


def setattr(stateid, values):
    return Op(34, stateid + fattr(values))


def setclientid(verifier, owner):
    callback = u32(0x40000000) + opaque(b"tcp") + opaque(b"127.0.0.1.0.0") + u32(1)
    return Op(35, fixed(verifier) + opaque(owner) + callback)


def setclientid_confirm(client, verifier):
    return Op(36, u64(client) + fixed(verifier))


def write(stateid, offset, data, stable=FILE_SYNC):
    return Op(38, stateid + u64(offset) + u32(stable) + opaque(data))


def release_lockowner(client, owner):
    return Op(39, u64(client) + opaque(owner))


def bind_conn_to_session(session, direction=1):
    return Op(41, fixed(session) + u32(direction) + boolean(False))


def exchange_id(verifier, owner, flags=0):
    return Op(42, fixed(verifier) + opaque(owner) + u32(flags) + u32(0) + array([]))


def create_session(client, sequence, slots=8, operations=16, flags=1, request=1 << 20, response=1 << 20, cached=4096):
    fore = u32(0) + u32(request) + u32(response) + u32(cached) + u32(operations) + u32(slots) + array([])
    back = u32(0) + u32(4096) + u32(4096) + u32(0) + u32(2) + u32(1) + array([])
    security = array([u32(0)])
    return Op(43, u64(client) + u32(sequence) + u32(flags) + fore + back + u32(0x40000000) + security)


def destroy_session(session):
    return Op(44, fixed(session))


def free_stateid(stateid):
    return Op(45, stateid)


def get_dir_delegation(*notifications):
    never = u64(0) + u32(0)
    return Op(46, boolean(False) + bitmap(*notifications) + never + never + bitmap() + bitmap())


def sequence(session, seqid, slot, highest=None, cache=True):
    highest = slot if highest is None else highest
    return Op(53, fixed(session) + u32(seqid) + u32(slot) + u32(highest) + boolean(cache))


def test_stateid(*stateids):
    return Op(55, array(list(stateids)))


def destroy_clientid(client):
    return Op(57, u64(client))


def reclaim_complete():
    return Op(58, boolean(False))


def copy(length=0, source=0, target=0, synchronous=False, stateids=ANONYMOUS + ANONYMOUS):
    """COPY of the saved file to the current one, in this server."""
    return Op(60, stateids + u64(source) + u64(target) + u64(length) + boolean(True) + boolean(synchronous) + array([]))


def offload_cancel(stateid):
    return Op(66, stateid)


def offload_status(stateid):
    return Op(67, stateid)


def clone(length=0, source=0, target=0, stateids=ANONYMOUS + ANONYMOUS):
    return Op(71, stateids + u64(source) + u64(target) + u64(length))


def compound(ops, minor, tag=b"", announced=None):
    """Arguments of COMPOUND; `ops` are operations or raw bytes."""
    encoded = [op if isinstance(op, bytes) else op.encode() for op in ops]
    count = len(encoded) if announced is None else announced
    return opaque(tag) + u32(minor) + u32(count) + b"".join(encoded)


# ---- results


def _stateid(r):
    return r.fixed(16)


def _change(r):
    return r.boolean(), r.u64(), r.u64()


def _denied(r):
    return {"offset": r.u64(), "length": r.u64(), "kind": r.u32(), "client": r.u64(), "owner": r.opaque()}


def _delegation(r):
    kind, stateid = r.u32(), None
    if kind == 3:
        why = r.u32()
        if why in (1, 2):
            r.boolean()
    elif kind in (1, 2):
        stateid = _stateid(r)
        r.boolean()
        if kind == 2:
            limit = r.u32()
            r.u64() if limit == 1 else (r.u32(), r.u32())
        r.u32(), r.u32(), r.u32(), r.opaque()
    return kind, stateid


def _open(r):
    result = {"stateid": _stateid(r), "change": _change(r), "flags": r.u32(), "set": r.bitmap()}
    result["delegation"] = _delegation(r)
    return result


def _exchange_id(r):
    result = {"client": r.u64(), "sequence": r.u32(), "flags": r.u32()}
    assert r.u32() == 0, "SP4_NONE"
    result.update(minor_id=r.u64(), major_id=r.opaque(), scope=r.opaque())
    r.array(lambda: (r.opaque(), r.opaque(), r.u64(), r.u32()))
    return result


def _channel(r):
    names = ("pad", "request", "response", "cached", "operations", "slots")
    channel = {name: r.u32() for name in names}
    r.array(r.u32)
    return channel


def _create_session(r):
    result = {"session": r.fixed(16), "sequence": r.u32(), "flags": r.u32()}
    result.update(fore=_channel(r), back=_channel(r))
    return result


def _sequence(r):
    names = ("seqid", "slot", "highest", "target", "flags")
    return {"session": r.fixed(16), **{name: r.u32() for name in names}}


def _entries(r):
    verifier, entries = r.fixed(8), []
    while r.boolean():
        entries.append((r.u64(), r.opaque(), r.bitmap(), r.opaque()))
    return {"verifier": verifier, "entries": entries, "eof": r.boolean()}


def _dir_delegation(r):
    if r.u32() != 0:
        return {"stateid": None, "signal": r.boolean()}
    return {"verifier": r.fixed(8), "stateid": _stateid(r), "notifications": r.bitmap(), "child": r.bitmap(), "dir": r.bitmap()}


def _write_response(r):
    return {"stateid": r.array(lambda: _stateid(r)), "count": r.u64(), "committed": r.u32(), "verifier": r.fixed(8)}


def _copy(r):
    return {**_write_response(r), "consecutive": r.boolean(), "synchronous": r.boolean()}


def _offload_status(r):
    return {"count": r.u64(), "complete": r.array(r.u32)}


RESULTS = {
    3: lambda r: (r.u32(), r.u32()), 4: _stateid, 5: lambda r: r.fixed(8), 6: lambda r: (_change(r), r.bitmap()),
    9: lambda r: (r.bitmap(), r.opaque()), 10: lambda r: r.opaque(), 11: _change, 12: _stateid, 14: _stateid, 18: _open,
    20: _stateid, 21: _stateid, 25: lambda r: (r.boolean(), r.opaque()), 26: _entries, 28: _change,
    29: lambda r: (_change(r), _change(r)), 33: lambda r: r.array(r.u32),
    8: lambda r: None, 35: lambda r: {"client": r.u64(), "confirm": r.fixed(8)}, 38: lambda r: (r.u32(), r.u32(), r.fixed(8)),
    41: lambda r: (r.fixed(16), r.u32(), r.boolean()), 42: _exchange_id, 43: _create_session, 46: _dir_delegation, 53: _sequence,
    55: lambda r: r.array(r.u32), 60: _copy, 67: _offload_status,
}

OP_LOCK, OP_LOCKT, OP_SETATTR, OP_SETCLIENTID = 12, 13, 34, 35


class Result:
    """The result of one operation: its number, the name of its status, and what follows."""

    def __init__(self, r):
        self.op = r.u32()
        code = r.u32()
        self.status = STATUS.get(code, str(code))
        self.value = None
        if self.op == OP_SETATTR:
            self.value = r.bitmap()
        elif code == 0 and self.op in RESULTS:
            self.value = RESULTS[self.op](r)
        elif self.status == "DENIED" and self.op in (OP_LOCK, OP_LOCKT):
            self.value = _denied(r)

    def __repr__(self):
        return f"{self.op}:{self.status}"


class Reply:
    """The reply to a COMPOUND, which must be understood to its last byte."""

    def __init__(self, data):
        self.data = data
        r = Reader(data)
        code = r.u32()
        self.status = STATUS.get(code, str(code))
        self.tag = r.opaque()
        self.results = r.array(lambda: Result(r))
        assert r.at == len(data), f"{len(data) - r.at} bytes behind {self.results}"
        assert not self.results or self.results[-1].status == self.status, "the status is that of the last result"

    def __getitem__(self, index):
        return self.results[index].value

    def statuses(self):
        return [result.status for result in self.results]

    def __repr__(self):
        return f"{self.status} {self.results}"


# ---- callbacks


def _notice(kind, data):
    r = Reader(data)
    entry = lambda: (r.opaque(), r.bitmap(), r.opaque())[0]
    removed = lambda: (entry(), r.u64())

    def added():
        old = r.array(removed)
        name, cookie = entry(), r.array(r.u64)
        before = r.array(lambda: (entry(), r.u64()))
        return {"old": old, "name": name, "cookie": cookie, "before": before, "last": r.boolean()}

    notice = {2: removed, 3: added, 4: lambda: (removed(), added())}[kind]()
    assert r.at == len(data)
    return kind, notice


def _changes(r):
    mask, data = r.bitmap(), r.opaque()
    (kind,) = mask
    return _notice(kind, data)


def _offload(r):
    told = {"handle": r.opaque(), "stateid": _stateid(r), "status": r.u32()}
    return {**(_write_response(r) if told["status"] == 0 else {"count": r.u64()}), **told}


CALLBACKS = {
    4: ("recall", lambda r: {"stateid": _stateid(r), "truncate": r.boolean(), "handle": r.opaque()}),
    6: ("notify", lambda r: {"stateid": _stateid(r), "handle": r.opaque(), "changes": r.array(lambda: _changes(r))}),
    10: ("recall_slot", lambda r: r.u32()),
    15: ("offload", _offload),
}


class Callback:
    """A CB_COMPOUND of v4.1: CB_SEQUENCE, and an operation or none."""

    def __init__(self, xid, data):
        r = Reader(data)
        self.xid, self.arguments = xid, data
        r.opaque(), r.u32(), r.u32()
        count = r.u32()
        assert 1 <= count <= 2 and r.u32() == 11, "CB_SEQUENCE comes first"
        self.session, self.seqid, self.slot = r.fixed(16), r.u32(), r.u32()
        r.u32(), r.boolean(), r.array(lambda: (r.fixed(16), r.array(lambda: (r.u32(), r.u32()))))
        self.number, self.op, self.value = None, None, None
        if count == 2:
            self.number = r.u32()
            self.op, read = CALLBACKS[self.number]
            self.value = read(r)
        assert r.at == len(data)

    def results(self, sequence=0, status=0):
        """What to answer: the statuses of CB_SEQUENCE and of the operation."""
        first = u32(11) + u32(sequence)
        if sequence != 0:
            return u32(sequence) + opaque(b"") + array([first])
        first += self.session + u32(self.seqid) + u32(self.slot) + u32(0) + u32(0)
        then = [] if self.op is None else [u32(self.number) + u32(status)]
        return u32(status) + opaque(b"") + array([first, *then])
