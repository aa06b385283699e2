"""Buys from a real agent as docs/reference/exchange.md says, uses what it bought, and pays.

    python3 client.py URL FINGERPRINT

The service is that of the echo module: a line with user name and password, and then bytes that come
back. What became of it is printed as JSON.
"""

import json
import secrets
import socket
import sys
import time
import urllib.error
import urllib.request
import uuid

import ed25519
import form
import hpke
import rules

PATIENCE = 60
BYTES = 3 * 1024


class Agent:
    """The agent's endpoint."""

    def __init__(self, url, fingerprint):
        self.url, self.fingerprint = url, fingerprint

    def ask(self, path, message=None):
        """Status and body of the answer."""
        url = path if path.startswith("http") else self.url + path
        body = None if message is None else json.dumps(message).encode()
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, form.parse(answer.read() or b"null")
        except urllib.error.HTTPError as answer:
            return answer.code, form.parse(answer.read())


class Client:
    """A client with new keys."""

    def __init__(self, agent):
        self.agent = agent
        self.signing, self.sealing = secrets.token_bytes(32), secrets.token_bytes(32)
        self.key = form.encode(ed25519.public_key(self.signing))

    def sign(self, kind, message):
        return rules.sign(kind, message, self.signing)

    def offerings(self):
        """The offerings there, of the agent that is meant, after a look at its clock."""
        nonce, before = str(uuid.uuid4()), int(time.time())
        status, page = self.agent.ask(f"/v1/offerings?nonce={nonce}")
        assert status == 200, page
        for offering in page["offerings"]:
            rules.check_offering(offering)
            key = offering["agentPublicKey"]
            assert form.sha256(form.decode(key)) == self.agent.fingerprint
        ahead = rules.ahead(page["time"], key, nonce, before, int(time.time()))
        assert ahead is not None and abs(ahead) <= 120, ahead
        return page["offerings"]

    def order(self, offering, deposit):
        return self.sign("order", {
            "offering": form.hash_of(offering),
            "clientSigningKey": self.key,
            "clientSealingKey": form.encode(hpke.public_key(self.sealing)),
            "deposit": deposit,
            "nonce": str(uuid.uuid4()),
            "expires": int(time.time()) + 600,
        })

    def about(self, channel, what):
        """Asks for something about a channel."""
        request = {"channel": channel, "time": int(time.time()), "nonce": str(uuid.uuid4())}
        signed = self.sign(f"{what}-request", request)
        status, body = self.agent.ask(f"/v1/channels/{channel}/{what}", signed)
        assert status == 200, body
        return body

    def statement(self, channel, key, what="account"):
        statement = self.about(channel, what)
        rules.check_statement(statement, key, channel, 0)
        return statement

    def pay(self, receiver, offering, channel, balance):
        cheque = self.sign("cheque", {
            "agent": offering["agentPublicKey"],
            "client": self.key,
            "channel": channel,
            "offering": form.hash_of(offering),
            "balance": balance,
        })
        status, receipt = self.agent.ask(receiver, cheque)
        assert status == 200, receipt
        rules.check_receipt(receipt, offering["agentPublicKey"], cheque)
        return cheque, receipt


def until(what, attempt):
    """The first answer that is one."""
    end = time.monotonic() + PATIENCE
    while True:
        answer = attempt()
        if answer:
            return answer
        assert time.monotonic() < end, what
        time.sleep(0.1)


def use(access):
    """Has bytes echoed, and returns how many went both ways."""
    host, port = access["additionalParams"]["address"].rsplit(":", 1)
    with socket.create_connection((host, int(port)), PATIENCE) as stream:
        with stream.makefile("rwb") as file:
            file.write(f"{access['username']} {access['password']}\n".encode())
            file.flush()
            assert file.readline() == b"ok\n"
            words = secrets.token_bytes(BYTES)
            file.write(words)
            file.flush()
            assert file.read(BYTES) == words
    return 2 * BYTES


def main(url, fingerprint):
    agent = Agent(url, fingerprint)
    client = Client(agent)
    [offering] = client.offerings()
    key = offering["agentPublicKey"]

    # What the agent refuses is signed over this very order.
    cheap = client.order(offering, rules.least_deposit(offering) - 1)
    status, refusal = agent.ask("/v1/orders", cheap)
    rules.check_refusal(refusal, key, form.hash_of(cheap))
    assert (status, refusal["code"]) == (400, "DepositTooLow"), refusal
    # An order that is taken back before it comes is cancelled.
    order = client.order(offering, 1000)
    cancel = client.sign("order-cancel", {"order": form.hash_of(order), "clientSigningKey": client.key})
    status, refusal = agent.ask("/v1/orders/cancel", cancel)
    rules.check_refusal(refusal, key, form.hash_of(order))
    assert (status, refusal["code"]) == (200, "OrderCancelled"), refusal
    assert agent.ask("/v1/orders", order)[0] == 403

    # Sent twice, an order is one channel.
    order = client.order(offering, 1000)
    replies = [agent.ask("/v1/orders", order) for _ in range(2)]
    assert replies[0] == replies[1] and replies[0][0] == 200, replies
    rules.check_reply(replies[0][1], key, form.hash_of(order))
    channel = replies[0][1]["channel"]

    envelope = client.about(channel, "access")
    expect = {
        "order": form.hash_of(order), "channel": channel, "lastSerial": 0,
        "accessTemplates": [offering["accessTemplateHash"]],
    }
    access = rules.open_access(envelope, expect, key, client.sealing)
    receiver = access["paymentReceiverAddress"]
    assert receiver.startswith(url + "/"), receiver

    # Held until the setup price is there.
    held = client.statement(channel, key)
    assert held["holds"] == ["payment"] and held["paid"] == 0, held
    client.pay(receiver, offering, channel, offering["setupPrice"])
    until("active", lambda: client.statement(channel, key)["status"] == "active")
    used = use(access)

    def counted():
        statement = client.statement(channel, key)
        return statement["usage"] >= used and statement

    statement = until("all of the usage", counted)
    cost = rules.cost(offering, statement["usage"], order["deposit"])
    assert statement["cost"] == cost, (statement, cost)
    cheque, receipt = client.pay(receiver, offering, channel, cost)
    # A statement shows the cheque to a client that has forgotten it.
    assert client.statement(channel, key)["bestCheque"] == cheque

    client.statement(channel, key, "terminate")
    until("the end", lambda: client.statement(channel, key, "terminate")["status"] == "terminated")
    proven = rules.check_bundle(
        {"cheque": cheque, "offering": offering, "order": order, "orderReply": replies[0][1]}
    )
    print(json.dumps({
        "channel": channel, "usage": statement["usage"], "cost": cost, "paid": receipt["paid"],
        "bundle": {"cheque": cheque, "offering": offering, "order": order, "orderReply": replies[0][1]},
        "proven": proven["balance"],
    }))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
