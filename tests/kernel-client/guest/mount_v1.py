"""Asks for the lists of MOUNT version 1 (RFC 1094 appendix A), as old clients do: mount_v1.py ADDRESS PORT tcp|udp.

Prints "mount HOST:PATH" for each entry of DUMP and "export PATH" for each of EXPORT.
"""
import socket
import struct
import sys

MOUNT, V1, DUMP, EXPORT = 100005, 1, 2, 5


class Reply:
    """XDR, from front to back."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def word(self):
        self.at += 4
        return struct.unpack(">I", self.data[self.at - 4:self.at])[0]

    def string(self):
        n = self.word()
        self.at += (n + 3) // 4 * 4
        return self.data[self.at - (n + 3) // 4 * 4:][:n].decode()


def call(address, transport, procedure):
    xid = 0x61746F00 + procedure
    message = struct.pack(">10I", xid, 0, 2, MOUNT, V1, procedure, 0, 0, 0, 0)
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as s:
        s.settimeout(10)
        s.connect(address)
        if transport == "tcp":
            s.sendall(struct.pack(">I", 0x80000000 | len(message)) + message)
            stream = s.makefile("rb")
            data = b""
            last = False
            while not last:
                mark = struct.unpack(">I", stream.read(4))[0]
                last = bool(mark & 0x80000000)
                data += stream.read(mark & 0x7FFFFFFF)
        else:
            s.send(message)
            data = s.recv(65536)
    reply = Reply(data)
    head = [reply.word() for _ in range(6)]
    # xid, REPLY, MSG_ACCEPTED, an empty verifier, SUCCESS
    assert head == [xid, 1, 0, 0, 0, 0], head
    return reply


address = (sys.argv[1], int(sys.argv[2]))
reply = call(address, sys.argv[3], DUMP)
while reply.word():
    print(f"mount {reply.string()}:{reply.string()}")
reply = call(address, sys.argv[3], EXPORT)
while reply.word():
    print(f"export {reply.string()}")
    while reply.word():
        reply.string()
