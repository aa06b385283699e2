"""What the parties check of each other's messages, in the order of docs/reference/exchange.md."""

import re
from urllib.parse import urlsplit

import ed25519
import form
import hpke
from form import MAX_INTEGER, Refused

HASH = re.compile("[0-9a-f]{64}")
UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
INFO = b"privatix/access/v1"


def _is_bytes(value, length, check):
    data = form.decode(value)
    return data is not None and len(data) == length and check(data)


TYPES = {
    "text": lambda value: isinstance(value, str),
    "hash": lambda value: isinstance(value, str) and bool(HASH.fullmatch(value)),
    "uuid": lambda value: isinstance(value, str) and bool(UUID.fullmatch(value)),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "texts": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    "any": lambda value: True,
    "signing key": lambda value: _is_bytes(value, 32, ed25519.is_key),
    "sealing key": lambda value: _is_bytes(value, 32, hpke.is_key),
    "32 bytes": lambda value: _is_bytes(value, 32, lambda data: True),
    "bytes": lambda value: form.decode(value) is not None,
    "unit type": lambda value: value in ("units", "seconds"),
    "billing type": lambda value: value in ("prepaid", "postpaid"),
    "status": lambda value: value
    in ("pending", "activating", "active", "suspending", "suspended", "terminating", "terminated"),
}

STATEMENT = {
    "channel": "uuid", "status": "status", "holds": "texts", "usage": "integer", "cost": "integer",
    "paid": "integer", "serial": "integer", "time": "integer", "bestCheque?": "any",
}
FIELDS = {
    "offering": {
        "templateHash": "text", "accessTemplateHash": "text", "nonce": "uuid", "product": "uuid",
        "agentPublicKey": "signing key", "serviceName": "text", "country": "text",
        "supply": "integer", "unitName": "text", "unitType": "unit type", "unitSize": "integer",
        "billingType": "billing type", "setupPrice": "integer", "unitPrice": "integer",
        "minUnits?": "integer", "maxUnits?": "integer", "billingInterval": "integer",
        "maxBillingUnitLag?": "integer", "maxSuspendTime?": "integer",
        "maxInactiveTime?": "integer", "freeUnits?": "integer", "additionalParams?": "object",
        "exchange": "text",
    },
    "order": {
        "offering": "text", "clientSigningKey": "signing key", "clientSealingKey": "sealing key",
        "deposit": "integer", "nonce": "uuid", "expires": "integer",
    },
    "order-reply": {"order": "text", "channel": "uuid"},
    "order-refusal": {"order": "text", "code": "text", "text": "text"},
    "order-cancel": {"order": "text", "clientSigningKey": "signing key"},
    "request": {"channel": "uuid", "time": "integer", "nonce": "uuid"},
    "access": {
        "order": "text", "channel": "uuid", "templateHash": "hash", "serial": "integer",
        "encapsulatedKey": "32 bytes", "ciphertext": "bytes",
    },
    "account": STATEMENT,
    "cheque": {
        "agent": "signing key", "client": "signing key", "channel": "uuid", "offering": "text",
        "balance": "integer",
    },
    "receipt": {**STATEMENT, "cheque": "text"},
    "time": {"agentPublicKey": "signing key", "nonce": "uuid", "time": "integer"},
}


def read(kind, message, code, strict=False):
    """The fields of a message; others are ignored, or refused where `strict`."""
    if not isinstance(message, dict):
        raise Refused(code)
    for name, type_ in FIELDS[kind].items():
        optional = name.endswith("?")
        name = name.rstrip("?")
        if not (name in message and TYPES[type_](message[name]) or optional and name not in message):
            raise Refused(code)
    known = {name.rstrip("?") for name in FIELDS[kind]} | {"signature"}
    if strict and not known.issuperset(message):
        raise Refused(code)
    return message


def signed_bytes(kind, message):
    unsigned = {name: value for name, value in message.items() if name != "signature"}
    return f"privatix/{kind}/v1\0".encode() + form.canonical(unsigned)


def sign(kind, message, seed):
    return {**message, "signature": form.encode(ed25519.sign(seed, signed_bytes(kind, message)))}


def verify(kind, message, key, code="BadSignature"):
    signature = form.decode(message.get("signature"))
    if signature is None or len(signature) != 64:
        raise Refused(code)
    if not ed25519.verifies(form.decode(key), signed_bytes(kind, message), signature):
        raise Refused(code)


def cost(terms, usage, deposit):
    metered = max(0, usage - terms["freeUnits"] * terms["unitSize"])
    return min(deposit, terms["setupPrice"] + terms["unitPrice"] * metered // terms["unitSize"])


def least_deposit(terms):
    units = max(terms.get("minUnits", 0), terms["billingInterval"])
    return terms["setupPrice"] + units * terms["unitPrice"]


def check_offering(message):
    read("offering", message, "MalformedOffering")
    verify("offering", message, message["agentPublicKey"], "BadOfferingSignature")
    lag, most = message.get("maxBillingUnitLag", 0), message.get("maxUnits", 0)
    postpaid = message["billingType"] == "postpaid"
    hashes = message["templateHash"], message["accessTemplateHash"]
    for code, holds in (
        ("BadTemplateHash", all(map(HASH.fullmatch, hashes))),
        ("BadCountry", re.fullmatch("[A-Z]{2}", message["country"])),
        ("BadSupply", message["supply"]),
        ("BadUnitSize", message["unitSize"]),
        ("BadBillingInterval", message["billingInterval"]),
        ("BadBillingUnitLag", not (postpaid and 0 < lag < 2 * message["billingInterval"])),
        ("BadMaxUnits", not 0 < most < message.get("minUnits", 0)),
        ("MinDepositTooLarge", least_deposit(message) <= MAX_INTEGER),
        ("BadExchange", is_exchange(message["exchange"])),
    ):
        if not holds:
            raise Refused(code)


def is_exchange(url):
    if not re.match("https?://", url) or re.search(r"[\\\s\x00-\x1f\x7f-\x9f?#]", url):
        return False
    return bool(urlsplit(url).hostname) and "@" not in urlsplit(url).netloc


def check_order(message, now, offering):
    read("order", message, "MalformedOrder", strict=True)
    verify("order", message, message["clientSigningKey"], "BadOrderSignature")
    if message["offering"] != form.hash_of(offering):
        raise Refused("WrongOffering")
    if message["expires"] <= now:
        raise Refused("OrderExpired")
    if message["expires"] - now > 86400:
        raise Refused("OrderExpiryTooFar")
    if message["deposit"] < least_deposit(offering):
        raise Refused("DepositTooLow")


def check_reply(message, agent, order):
    read("order-reply", message, "MalformedReply")
    verify("order-reply", message, agent, "BadReplySignature")
    if message["order"] != order:
        raise Refused("ForeignReply")
    if message["channel"][14] != "4":
        raise Refused("MalformedReply")


def check_refusal(message, agent, order):
    read("order-refusal", message, "MalformedRefusal")
    verify("order-refusal", message, agent, "BadRefusalSignature")
    if message["order"] != order:
        raise Refused("ForeignRefusal")


def check_cancel(message):
    read("order-cancel", message, "MalformedOrder", strict=True)
    verify("order-cancel", message, message["clientSigningKey"], "BadOrderSignature")


def check_request(kind, message, client, channel, now):
    read("request", message, "MalformedRequest")
    verify(kind, message, client, "BadRequestSignature")
    if message["channel"] != channel:
        raise Refused("ForeignRequest")
    if abs(message["time"] - now) > 120:
        raise Refused("StaleRequest")


def ahead(message, agent, nonce, asked, answered):
    """By how many seconds the agent's clock is ahead at least, or None where it did not say so."""
    try:
        read("time", message, "")
        verify("time", message, agent)
    except Refused:
        return None
    if message["agentPublicKey"] != agent or message["nonce"] != nonce:
        return None
    return max(message["time"] - answered, 0) or min(message["time"] - asked, 0)


def associated_data(envelope):
    names = "order", "channel", "templateHash", "serial"
    return form.canonical({name: envelope[name] for name in names})


def open_access(envelope, expect, agent, sealing_secret):
    read("access", envelope, "MalformedAccess")
    verify("access", envelope, agent, "BadAccessSignature")
    if envelope["channel"] != expect["channel"] or envelope["order"] != expect["order"]:
        raise Refused("ForeignAccess")
    if envelope["serial"] < expect["lastSerial"]:
        raise Refused("StaleAccess")
    key, text = form.decode(envelope["encapsulatedKey"]), form.decode(envelope["ciphertext"])
    try:
        text = hpke.open_(sealing_secret, INFO, associated_data(envelope), key, text)
    except hpke.NotOpened:
        raise Refused("AccessNotOpened") from None
    if envelope["templateHash"] not in expect["accessTemplates"]:
        raise Refused("TemplateNotFound")
    # The template of the vectors asks for no more than the protocol does.
    try:
        message = form.parse(text)
    except Refused:
        raise Refused("InvalidAccess") from None
    fields = "templateHash", "nonce", "username", "password"
    if not isinstance(message, dict) or not all(isinstance(message.get(name), str) for name in fields):
        raise Refused("InvalidAccess")
    if message["templateHash"] != envelope["templateHash"] or message["username"] != envelope["channel"]:
        raise Refused("InvalidAccess")
    return message


def check_statement(message, agent, channel, last):
    read("account", message, "MalformedAccount")
    verify("account", message, agent, "BadAccountSignature")
    if message["channel"] != channel:
        raise Refused("ForeignAccount")
    if message["time"] < last:
        raise Refused("StaleAccount")


def check_cheque(message, expect):
    read("cheque", message, "MalformedCheque")
    if message["agent"] != expect["agent"] or message["client"] != expect["client"]:
        raise Refused("WrongChequeParties")
    if message["channel"] != expect["channel"]:
        raise Refused("ForeignCheque")
    if message["offering"] != expect["offering"]:
        raise Refused("WrongChequeOffering")
    verify("cheque", message, expect["client"], "BadChequeSignature")
    if message["balance"] < expect["paid"] or message["balance"] == 0:
        raise Refused("StaleCheque")
    if message["balance"] > expect["deposit"]:
        raise Refused("AboveDeposit")


def check_receipt(message, agent, sent):
    read("receipt", message, "MalformedReceipt")
    verify("receipt", message, agent, "BadReceiptSignature")
    if message["channel"] != sent["channel"] or message["cheque"] != form.hash_of(sent):
        raise Refused("ForeignReceipt")
    if message["paid"] < sent["balance"]:
        raise Refused("ReceiptTooLow")


def check_bundle(bundle):
    """What a bundle proves."""
    cheque, offering, order = bundle["cheque"], bundle["offering"], bundle["order"]
    read("cheque", cheque, "MalformedCheque")
    verify("cheque", cheque, cheque["client"], "BadChequeSignature")
    check_offering(offering)
    if offering["agentPublicKey"] != cheque["agent"] or form.hash_of(offering) != cheque["offering"]:
        raise Refused("BundleMismatch")
    read("order", order, "MalformedOrder", strict=True)
    verify("order", order, order["clientSigningKey"], "BadOrderSignature")
    if order["clientSigningKey"] != cheque["client"] or order["offering"] != cheque["offering"]:
        raise Refused("BundleMismatch")
    check_reply(bundle["orderReply"], cheque["agent"], form.hash_of(order))
    if bundle["orderReply"]["channel"] != cheque["channel"]:
        raise Refused("BundleMismatch")
    if cheque["balance"] > order["deposit"]:
        raise Refused("AboveDeposit")
    names = "channel", "agent", "client", "balance"
    return {**{name: cheque[name] for name in names}, "deposit": order["deposit"]}
