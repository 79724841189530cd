"""Takes and releases POSIX locks as it is told: says "ready"; then one command a line, one line of answer each.

open NAME PATH | lock NAME ex|sh START LENGTH try|wait | unlock NAME START LENGTH | close NAME
Answers: "ok", "busy" (a try that met a conflict), or "error NAME".
"""
import errno
import fcntl
import sys

KINDS = {"ex": fcntl.LOCK_EX, "sh": fcntl.LOCK_SH}
files = {}


def act(verb, name, *rest):
    if verb == "open":
        files[name] = open(rest[0], "r+b")
    elif verb == "lock":
        kind, start, length, patience = rest
        flags = KINDS[kind] | (fcntl.LOCK_NB if patience == "try" else 0)
        try:
            fcntl.lockf(files[name], flags, int(length), int(start))
        except OSError as e:
            if e.errno in (errno.EAGAIN, errno.EACCES):
                return "busy"
            raise
    elif verb == "unlock":
        fcntl.lockf(files[name], fcntl.LOCK_UN, int(rest[1]), int(rest[0]))
    elif verb == "close":
        files.pop(name).close()
    else:
        raise ValueError(verb)
    return "ok"


print("ready", flush=True)
for line in sys.stdin:
    try:
        answer = act(*line.split())
    except OSError as e:
        answer = "error " + errno.errorcode.get(e.errno, str(e.errno))
    print(answer, flush=True)
