"""Reads the test vectors of docs/reference and reproduces every value from its inputs.

    python3 reference.py docs/reference/vectors

It is a second implementation of what the pages say, made without the first one's code and with
nothing but Python's standard library. It says what differs, and ends with 1 if anything does.
"""

import hashlib
import hmac
import pathlib
import sys

import ed25519
import form
import hpke
import rules
from form import Refused


class Vectors:
    """The files, and what was compared so far."""

    def __init__(self, directory):
        paths = pathlib.Path(directory).glob("*.json")
        self.files = {path.stem: form.parse(path.read_bytes()) for path in paths}
        self.compared = 0
        self.differences = []

    def same(self, place, own, given):
        self.compared += 1
        if own != given:
            self.differences.append(f"{place}: here {own!r}, in the file {given!r}")

    def code(self, place, given, check, *arguments):
        """Whether a check refuses with the given code, or accepts where there is none."""
        try:
            check(*arguments)
            code = None
        except Refused as refused:
            code = refused.code
        self.same(place, code, given)


def canonical(vectors):
    file = vectors.files["canonical"]
    for case in file["accepted"]:
        value = form.parse(case["text"].encode())
        vectors.same("canonical form", form.canonical(value).decode(), case["canonical"])
        vectors.same("hash", form.hash_of(value), case["sha256"])
    for case in file["refused"]:
        text = bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode()
        vectors.code(f"the text {text!r}", case["code"], form.parse, text)
    for template in file["templates"]:
        vectors.same("template", form.hash_of(template["document"]), template["sha256"])


def keys(vectors):
    for party in vectors.files["keys"]["parties"]:
        secrets = {name: bytes.fromhex(party[name + "Secret"]) for name in ("signing", "sealing", "access")}
        signing = ed25519.public_key(secrets["signing"])
        vectors.same("signing key", form.encode(signing), party["signingKey"])
        vectors.same("sealing key", form.encode(hpke.public_key(secrets["sealing"])), party["sealingKey"])
        vectors.same("fingerprint", form.sha256(signing), party["fingerprint"])
        identity = {"version": 1, "signing": secrets["signing"], "sealing": secrets["sealing"]}
        identity["accessSecret"] = secrets["access"]
        identity = {k: form.encode(v) if isinstance(v, bytes) else v for k, v in identity.items()}
        vectors.same("identity file", identity, party["identityFile"])
    for case in vectors.files["keys"]["passwords"]:
        secret = bytes.fromhex(vectors.parties[case["agent"]]["accessSecret"])
        text = (case["channel"] + case["order"]).encode()
        password = form.encode(hmac.digest(secret, text, hashlib.sha256))
        vectors.same("password", password, case["password"])
    for kind, group in (("signing key", "refusedSigningKeys"), ("sealing key", "refusedSealingKeys")):
        for case in vectors.files["keys"][group]:
            vectors.same(f"{kind}: {case['why']}", rules.TYPES[kind](case["key"]), False)


def messages(vectors):
    for case in vectors.files["messages"]["signed"]:
        kind, message, signer = case["kind"], case["message"], vectors.parties[case["signer"]]
        unsigned = {name: value for name, value in message.items() if name != "signature"}
        vectors.same(f"{kind}: bytes", rules.signed_bytes(kind, message).hex(), case["signedBytes"])
        signed = rules.sign(kind, unsigned, bytes.fromhex(signer["signingSecret"]))
        vectors.same(f"{kind}: signature", signed, message)
        vectors.same(f"{kind}: hash", form.hash_of(message), case["hash"])
        vectors.code(f"{kind}: verified", None, rules.verify, kind, message, signer["signingKey"])
    for case in vectors.files["messages"]["refused"]:
        key = vectors.parties[case["signer"]]["signingKey"]
        arguments = case["kind"], case["message"], key
        vectors.code(f"signature: {case['why']}", "BadSignature", rules.verify, *arguments)


def orders(vectors):
    file, parties = vectors.files["orders"], vectors.parties
    now, agent, client = file["now"], parties["agent"]["signingKey"], parties["client"]["signingKey"]
    offering, order = vectors.message("offering"), form.hash_of(vectors.message("order"))
    channel = vectors.message("cheque")["channel"]
    for group, check, arguments in (
        ("offerings", rules.check_offering, ()),
        ("orders", rules.check_order, (now, offering)),
        ("replies", rules.check_reply, (agent, order)),
        ("refusals", rules.check_refusal, (agent, order)),
        ("cancellations", rules.check_cancel, ()),
        ("requests", lambda m, *a: rules.check_request("account-request", m, *a), (client, channel, now)),
    ):
        for case in file[group]:
            vectors.code(f"{group}: {case['why']}", case["code"], check, case["message"], *arguments)
    for case in file["times"]:
        arguments = case["nonce"], case["asked"], case["answered"]
        ahead = rules.ahead(case["message"], agent, *arguments)
        pair = (None, None) if ahead is None else (max(ahead, 0), max(-ahead, 0))
        vectors.same(f"times: {case['why']}", pair, (case["ahead"], case["behind"]))


def envelopes(vectors):
    file, parties = vectors.files["envelopes"], vectors.parties
    vectors.same("info", rules.INFO.decode(), file["info"])
    for case in file["sealed"]:
        sender, recipient = parties[case["sender"]], parties[case["recipient"]]
        text, envelope = form.canonical(case["message"]), case["envelope"]
        vectors.same("plaintext", text.decode(), case["plaintext"])
        data = rules.associated_data(envelope)
        vectors.same("associated data", data.decode(), case["associatedData"])
        to = form.decode(recipient["sealingKey"])
        ephemeral = hpke.derive_secret(bytes.fromhex(case["ikmE"]))
        key, sealed = hpke.seal(to, file["info"].encode(), data, text, ephemeral)
        unsigned = form.parse(data) | {"encapsulatedKey": form.encode(key), "ciphertext": form.encode(sealed)}
        own = rules.sign("access", unsigned, bytes.fromhex(sender["signingSecret"]))
        vectors.same("envelope", own, envelope)
        vectors.same("envelope's hash", form.hash_of(own), case["hash"])
        secret = bytes.fromhex(recipient["sealingSecret"])
        opened = rules.open_access(envelope, file["expect"], sender["signingKey"], secret)
        vectors.same("opened", opened, case["message"])
    agent = parties[file["expect"]["agent"]]["signingKey"]
    secret = bytes.fromhex(parties[file["expect"]["client"]]["sealingSecret"])
    for case in file["checks"]:
        arguments = case["envelope"], file["expect"], agent, secret
        vectors.code(f"envelopes: {case['why']}", case["code"], rules.open_access, *arguments)


def deals(vectors):
    file = vectors.files["statements"]
    agent = vectors.parties[file["agent"]]["signingKey"]
    for case in file["checks"]:
        arguments = case["message"], agent, file["channel"], file["last"]
        vectors.code(f"statements: {case['why']}", case["code"], rules.check_statement, *arguments)
    file = vectors.files["cheques"]
    expect = dict(file["expect"])
    for name in ("agent", "client"):
        expect[name] = vectors.parties[expect[name]]["signingKey"]
    for case in file["cheques"]:
        vectors.code(f"cheques: {case['why']}", case["code"], rules.check_cheque, case["message"], expect)
    for case in file["receipts"]:
        arguments = case["message"], agent, case["sent"]
        vectors.code(f"receipts: {case['why']}", case["code"], rules.check_receipt, *arguments)
    for case in file["bundles"]:
        vectors.code(f"bundles: {case['why']}", case["code"], rules.check_bundle, case["bundle"])
        if case["code"] is None:
            vectors.same("bundle", rules.check_bundle(case["bundle"]), case["proves"])


def money(vectors):
    for case in vectors.files["money"]["costs"]:
        own = rules.cost(case["terms"], case["usage"], case["deposit"])
        vectors.same(f"cost of {case['usage']}", own, case["cost"])
    for case in vectors.files["money"]["leastDeposits"]:
        vectors.same("least deposit", rules.least_deposit(case["terms"]), case["leastDeposit"])


def main(directory):
    vectors = Vectors(directory)
    vectors.parties = {party["name"]: party for party in vectors.files["keys"]["parties"]}
    signed = {case["kind"]: case["message"] for case in vectors.files["messages"]["signed"]}
    vectors.message = signed.__getitem__
    for topic in (canonical, keys, messages, orders, envelopes, deals, money):
        try:
            topic(vectors)
        except Refused as refused:
            vectors.same(topic.__name__, refused.code, None)
    for difference in vectors.differences:
        print(difference)
    print(f"{vectors.compared} values compared, {len(vectors.differences)} differ")
    return 1 if vectors.differences or not vectors.compared else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
