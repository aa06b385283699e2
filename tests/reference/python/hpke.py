"""HPKE (RFC 9180), base mode, with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20Poly1305,
from RFC 7748 (X25519), RFC 5869 (HKDF) and RFC 8439 (ChaCha20, Poly1305). Not for secrets."""

import hashlib
import hmac
import struct

P = 2**255 - 19
KEM = b"KEM" + struct.pack(">H", 0x0020)
SUITE = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, 0x0003)


class NotOpened(Exception):
    """The ciphertext is not for this key, or was altered."""


def x25519(scalar, point):
    """RFC 7748, 5."""
    k = int.from_bytes(scalar, "little") & (1 << 255) - 8 | 1 << 254
    k &= (1 << 255) - 1
    x1 = int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for bit in reversed(range(255)):
        if (k >> bit & 1) != swap:
            x2, x3, z2, z3, swap = x3, x2, z3, z2, swap ^ 1
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a, c * b, a * a, b * b
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        e = aa - bb
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


_NINE = (9).to_bytes(32, "little")


def public_key(secret):
    return x25519(secret, _NINE)


def is_key(data):
    """Whether 32 bytes are a key that may be used: not of small order."""
    return any(x25519(b"\x01" * 32, data))


def _extract(suite, salt, label, material):
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, hashlib.sha256)


def _expand(suite, key, label, info, length):
    info = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    out, block = b"", b""
    for count in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + info + bytes([count]), hashlib.sha256)
        out += block
    return out[:length]


def derive_secret(material):
    """DeriveKeyPair of RFC 9180, 7.1.3."""
    return _expand(KEM, _extract(KEM, b"", b"dkp_prk", material), b"sk", b"", 32)


def _key_and_nonce(shared, encapsulated, recipient, info):
    if not any(shared):
        raise NotOpened
    context = encapsulated + recipient
    shared = _expand(KEM, _extract(KEM, b"", b"eae_prk", shared), b"shared_secret", context, 32)
    # Key schedule, 5.1: base mode has neither a pre-shared key nor its id.
    context = b"\x00" + _extract(SUITE, b"", b"psk_id_hash", b"")
    context += _extract(SUITE, b"", b"info_hash", info)
    secret = _extract(SUITE, shared, b"secret", b"")
    return _expand(SUITE, secret, b"key", context, 32), _expand(SUITE, secret, b"base_nonce", context, 12)


def seal(recipient, info, data, text, ephemeral):
    """The encapsulated key and the ciphertext, made with this ephemeral secret."""
    encapsulated = public_key(ephemeral)
    shared = x25519(ephemeral, recipient)
    return encapsulated, _seal(*_key_and_nonce(shared, encapsulated, recipient, info), data, text)


def open_(secret, info, data, encapsulated, ciphertext):
    shared = x25519(secret, encapsulated)
    key, nonce = _key_and_nonce(shared, encapsulated, public_key(secret), info)
    text, tag = ciphertext[:-16], ciphertext[-16:]
    if len(ciphertext) < 16 or not hmac.compare_digest(_tag(key, nonce, data, text), tag):
        raise NotOpened
    return _chacha20(key, 1, nonce, text)


def _seal(key, nonce, data, text):
    sealed = _chacha20(key, 1, nonce, text)
    return sealed + _tag(key, nonce, data, sealed)


def _tag(key, nonce, data, sealed):
    """RFC 8439, 2.8 and 2.5."""
    one_time = _block(key, 0, nonce)
    r = int.from_bytes(one_time[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    s = int.from_bytes(one_time[16:32], "little")
    padded = data + bytes(-len(data) % 16) + sealed + bytes(-len(sealed) % 16)
    padded += struct.pack("<QQ", len(data), len(sealed))
    sum_ = 0
    for at in range(0, len(padded), 16):
        sum_ = (sum_ + int.from_bytes(padded[at : at + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((sum_ + s) % 2**128).to_bytes(16, "little")


def _chacha20(key, counter, nonce, text):
    out = bytearray()
    for at in range(0, len(text), 64):
        stream = _block(key, counter + at // 64, nonce)
        out += bytes(a ^ b for a, b in zip(text[at : at + 64], stream))
    return bytes(out)


def _block(key, counter, nonce):
    """RFC 8439, 2.3."""
    start = list(struct.unpack("<16I", b"expand 32-byte k" + key + struct.pack("<I", counter) + nonce))
    state = start[:]
    for _ in range(10):
        for column in range(4):
            _quarter(state, column, column + 4, column + 8, column + 12)
        for row in range(4):
            _quarter(state, row, 4 + (row + 1) % 4, 8 + (row + 2) % 4, 12 + (row + 3) % 4)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, start)))


def _quarter(state, a, b, c, d):
    for one, other, third, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[one] = (state[one] + state[other]) & 0xFFFFFFFF
        mixed = state[third] ^ state[one]
        state[third] = (mixed << by | mixed >> 32 - by) & 0xFFFFFFFF
