"""Prints the digits that moco-checkpoint must put into the file of its golden layout test.

Python's standard library only: BLAKE3 of one chunk, written from the specification
(https://github.com/BLAKE3-team/BLAKE3-specs, sections 2.1 to 2.4), and checked first against the
published test vector for the empty input.
"""

import struct

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, ROOT = 1, 2, 8


def mix(s, a, b, c, d, x, y):
    def rotated(word, n):
        return (word >> n | word << (32 - n)) & 0xFFFFFFFF

    for word, n, m in ((x, 16, 12), (y, 8, 7)):
        s[a] = (s[a] + s[b] + word) & 0xFFFFFFFF
        s[d] = rotated(s[d] ^ s[a], n)
        s[c] = (s[c] + s[d]) & 0xFFFFFFFF
        s[b] = rotated(s[b] ^ s[c], m)


def compress(chaining, block, flags):
    words = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    state = chaining + IV[:4] + [0, 0, len(block), flags]
    for _ in range(7):
        for i in range(4):
            mix(state, i, 4 + i, 8 + i, 12 + i, words[2 * i], words[2 * i + 1])
        for i in range(4):
            j = [4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4]
            mix(state, i, *j, words[8 + 2 * i], words[9 + 2 * i])
        words = [words[i] for i in ORDER]
    return [low ^ high for low, high in zip(state[:8], state[8:])]


def blake3(data):
    assert len(data) <= 1024, "one chunk"
    blocks = [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
    chaining = IV
    for i, block in enumerate(blocks):
        flags = CHUNK_START * (i == 0) + (CHUNK_END | ROOT) * (i == len(blocks) - 1)
        chaining = compress(chaining, block, flags)
    return struct.pack("<8I", *chaining).hex()


assert blake3(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
header = (
    '{"__metadata__":{"blake3":"' + 64 * "0" + '","format_version":"1","global_step":"12","seed":"7"},'
    '"fc.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
    '"mask":{"dtype":"U8","shape":[3],"data_offsets":[24,27]}}'
).encode()
header += b" " * (-len(header) % 8)
data = bytes([*range(3, 27), *range(3)])
print(blake3(struct.pack("<Q", len(header)) + header + data))
