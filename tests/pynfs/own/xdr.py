"""XDR (RFC 4506): values to bytes and back. Integers are big-endian, everything is padded to four bytes."""

import struct


def u32(value):
    return struct.pack(">I", value)


def u64(value):
    return struct.pack(">Q", value)


def boolean(value):
    return u32(1 if value else 0)


def fixed(data):
    """Opaque data whose length both sides know."""
    return data + bytes(-len(data) % 4)


def opaque(data):
    """Opaque data with its length before it."""
    return u32(len(data)) + fixed(data)


def array(items):
    """Encoded items with their number before them."""
    return u32(len(items)) + b"".join(items)


def bitmap(*numbers):
    """`bitmap4` (RFC 8881 §3.2)."""
    words = [0] * (max(numbers, default=-1) // 32 + 1)
    for number in numbers:
        words[number // 32] |= 1 << number % 32
    return array([u32(word) for word in words])


class Short(Exception):
    """The data end before the value."""


class Reader:
    """Takes values from the front of some bytes."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def fixed(self, length):
        end = self.at + length
        if end + -length % 4 > len(self.data):
            raise Short(f"{length} bytes at {self.at} of {len(self.data)}")
        value = self.data[self.at:end]
        self.at = end + -length % 4
        return value

    def u32(self):
        return struct.unpack(">I", self.fixed(4))[0]

    def u64(self):
        return struct.unpack(">Q", self.fixed(8))[0]

    def boolean(self):
        return self.u32() != 0

    def opaque(self):
        return self.fixed(self.u32())

    def array(self, read):
        return [read() for _ in range(self.u32())]

    def bitmap(self):
        words = self.array(self.u32)
        return {32 * i + bit for i, word in enumerate(words) for bit in range(32) if word >> bit & 1}

    def rest(self):
        rest = self.data[self.at:]
        self.at = len(self.data)
        return rest
