"""First words of the ChaCha8 keystream for the coordinate of the test `keystream_is_chacha8_of_the_coordinate`.

Needs Python 3.9 or later, nothing else. The block function follows RFC 8439 section 2.3 with 8 rounds and a
64-bit block counter.
"""
import struct


def quarter(s, a, b, c, d):
    for x, y, z, r in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = (s[x] + s[y]) & 0xFFFFFFFF
        v = s[z] ^ s[x]
        s[z] = ((v << r) | (v >> (32 - r))) & 0xFFFFFFFF


key = struct.pack("<QIIQII", 0x0123456789ABCDEF, 3, 2, 3, 1, 0)
start = list(struct.unpack("<4I", b"expand 32-byte k")) + list(struct.unpack("<8I", key)) + [0, 0, 0, 0]
state = start[:]
for _ in range(4):
    for columns in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
        quarter(state, *columns)
    for diagonals in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
        quarter(state, *diagonals)
print([hex((a + b) & 0xFFFFFFFF) for a, b in zip(state, start)][:4])
