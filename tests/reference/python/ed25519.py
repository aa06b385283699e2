"""Ed25519 (RFC 8032), strictly: neither keys nor signatures of small order, one form of each
signature. Slow, and not for secrets: times depend on them."""

import hashlib

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def _add(one, other):
    """RFC 8032, 5.1.4, in extended coordinates."""
    (x1, y1, z1, t1), (x2, y2, z2, t2) = one, other
    a, b = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


_NEUTRAL = (0, 1, 1, 0)


def _times(scalar, point):
    product = _NEUTRAL
    while scalar:
        if scalar & 1:
            product = _add(product, point)
        point, scalar = _add(point, point), scalar >> 1
    return product


def _encoded(point):
    x, y, z, _ = point
    inverse = pow(z, -1, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decoded(data):
    """RFC 8032, 5.1.3; None where the bytes are no point."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT % P
    if x * x % P != square or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def _is_small(point):
    return _encoded(_times(8, point)) == _encoded(_NEUTRAL)


_BASE = _decoded((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def _secret(seed):
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & (1 << 254) - 8 | 1 << 254
    return scalar, digest[32:]


def _challenge(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ORDER


def public_key(seed):
    return _encoded(_times(_secret(seed)[0], _BASE))


def is_key(data):
    """Whether 32 bytes are a key that may be used."""
    point = _decoded(data)
    return point is not None and not _is_small(point)


def sign(seed, message):
    scalar, prefix = _secret(seed)
    key = public_key(seed)
    nonce = _challenge(prefix, message)
    point = _encoded(_times(nonce, _BASE))
    answer = (nonce + _challenge(point, key, message) * scalar) % ORDER
    return point + answer.to_bytes(32, "little")


def verifies(key, message, signature):
    first, answer = signature[:32], int.from_bytes(signature[32:], "little")
    point, nonce = _decoded(key), _decoded(first)
    if point is None or nonce is None or _is_small(point) or _is_small(nonce) or answer >= ORDER:
        return False
    x, y, z, t = _times(_challenge(first, key, message), point)
    return _encoded(_add(_times(answer, _BASE), (P - x, y, z, P - t))) == first
