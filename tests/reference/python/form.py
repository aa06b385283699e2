"""The form of messages: strict JSON, its canonical bytes (RFC 8785) and hash, and bytes as text."""

import base64
import hashlib
import json
import re

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 64


class Refused(Exception):
    """A refusal with its code."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


def parse(text):
    """The value of a text of bytes, or a refusal."""
    try:
        text = text.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("InvalidJson") from None
    if text.startswith("\ufeff"):
        raise Refused("InvalidJson")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_members,
            parse_int=_integer,
            parse_float=_fraction,
            parse_constant=_constant,
        )
    except (json.JSONDecodeError, RecursionError):
        raise Refused("InvalidJson") from None
    _check(value, 0)
    return value


def _members(pairs):
    members = dict(pairs)
    if len(members) < len(pairs):
        raise Refused("DuplicateKey")
    return members


def _integer(text):
    if text.startswith("-"):
        raise Refused("NumberNotInteger")
    if int(text) > MAX_INTEGER:
        raise Refused("NumberTooLarge")
    return int(text)


def _fraction(text):
    raise Refused("NumberTooLarge" if float(text) >= 2**64 else "NumberNotInteger")


def _constant(_):
    raise Refused("InvalidJson")


def _check(value, depth):
    """What json.loads lets pass: deep nesting, and halves of surrogate pairs."""
    if isinstance(value, str):
        if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
            raise Refused("InvalidJson")
    elif isinstance(value, (list, dict)):
        if depth >= MAX_DEPTH:
            raise Refused("TooDeep")
        for inner in value:
            _check(inner, depth + 1)
            if isinstance(value, dict):
                _check(value[inner], depth + 1)


def canonical(value):
    """The canonical bytes. Without fractions RFC 8785 is: sorted keys, short escapes, no spaces."""
    return _written(value).encode("utf-8")


def _written(value):
    if isinstance(value, dict):
        # By UTF-16 code units, not by code points.
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(_text(key) + ":" + _written(value[key]) for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    return {None: "null", True: "true", False: "false"}[value] if not _is_integer(value) else str(value)


_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def _text(text):
    def escaped(character):
        return _SHORT.get(character) or (f"\\u{ord(character):04x}" if character < " " else character)

    return '"' + "".join(map(escaped, text)) + '"'


def _is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def hash_of(value):
    """The hash of a message or template."""
    return sha256(canonical(value))


def encode(data):
    """Bytes in base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    """The bytes of a text in the one spelling that they have, or None."""
    if not isinstance(text, str) or not re.fullmatch("[A-Za-z0-9_-]*", text):
        return None
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return data if encode(data) == text else None
