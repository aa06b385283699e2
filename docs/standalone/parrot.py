#!/usr/bin/env python3
"""A standalone module: a parrot. What a client's user writes comes back in capital letters.

Both sides are in this file; the host says which one is wanted. Python's standard library is all that
is needed. The page docs/standalone.md goes through it.

    PRIVATIX_TOKEN=... python3 parrot.py http://127.0.0.1:8482/http
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

REPORT_SECONDS = 0.5
NO_CREDIT_SECONDS = (0.05, 0.2)  # the first and the longest pause between reports while nothing may be used
PATIENCE_SECONDS = 10  # so long the host may leave a report without an answer
CALL_SECONDS = 10


class Refused(Exception):
    """The host's answer to a call is an error."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.name = (error.get("data") or {}).get("name", "")


class Host:
    """The Service API: one call, one POST."""

    def __init__(self, url, token):
        self.url, self.token = url, token

    def call(self, method, **params):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "service_" + method, "params": params})
        headers = {"Authorization": "Bearer " + self.token, "Content-Type": "application/json"}
        request = urllib.request.Request(self.url, body.encode(), headers)
        seconds = CALL_SECONDS + params.get("waitSeconds", 0)
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                answer = json.load(answer)
        except urllib.error.HTTPError as error:  # a refusal has a body, too
            answer = json.load(error)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["result"]

    def insist(self, method, **params):
        """The same, again and again while the host is away or fails: calls may be repeated."""
        pause = 0.1
        while True:
            try:
                return self.call(method, **params)
            except (Refused, OSError, ValueError) as error:
                if isinstance(error, Refused) and error.name != "Internal":
                    raise
                print(f"{method}: {error}; trying again", file=sys.stderr, flush=True)
                time.sleep(pause)
                pause = min(2 * pause, 0.5)


class Channel:
    """One client's use: its connections, what went through them, and the session that counts it."""

    def __init__(self, host, key):
        self.host, self.key = host, key
        self.changed = threading.Condition()
        self.saving = threading.Lock()  # one report at a time, or a later one could be overtaken
        self.connections = set()
        self.session, self.used, self.acknowledged = None, 0, 0
        self.limit = None  # the usage up to which the host allows use; None where it states no limit
        self.over = False  # nothing may be used any more in this session
        self.ending = False  # the last usage of a session is on its way
        self.denied = False  # the host has said that there is no access any more

    def open(self, *connections):
        """A user has come. The first one opens a session; False where the host allows none."""
        with self.changed:
            self.changed.wait_for(lambda: not self.ending and not (self.session and self.over))
            if self.session is None:
                try:
                    started = self.host.call("startSession", clientKey=self.key)
                    if started["status"] not in ("activating", "active"):
                        self.denied = True
                        self.host.call("stopSession", clientKey=self.key, session=started["session"])
                        return False
                except (Refused, OSError, ValueError) as error:
                    print(f"no session for {self.key}: {error}", file=sys.stderr, flush=True)
                    return False
                self.session, self.used, self.acknowledged = started["session"], 0, 0
                self.limit, self.over = started.get("credit"), False
                threading.Thread(target=self.report, args=(self.session,), daemon=True).start()
            self.connections.update(connections)
            return True

    def close(self, *connections):
        """A user has gone. With the last one the session ends, its usage reported before."""
        for connection in connections:
            shut(connection)
        with self.changed:
            self.connections.difference_update(connections)
            if self.connections or self.session is None:
                return
            session, self.session = self.session, None
            self.ending = True  # so that a stop is answered only when the usage is saved
            self.changed.notify_all()
        try:
            with self.saving:
                usage = {"total": self.used}
                self.host.insist("updateSession", clientKey=self.key, session=session, usage=usage)
            self.host.insist("stopSession", clientKey=self.key, session=session)
        except Refused as error:
            print(f"the end of a session: {error}", file=sys.stderr, flush=True)
        finally:
            with self.changed:
                self.ending = False
                self.changed.notify_all()

    def left(self, most):
        return most if self.limit is None else max(0, min(most, self.limit - self.used))

    def take(self, most):
        """Counts up to so many bytes, as many as the credit has left, and says how many; waits while
        that is nothing. 0 means that the session is over."""
        with self.changed:
            self.changed.wait_for(lambda: self.over or self.session is None or self.left(most))
            if self.over or self.session is None:
                return 0
            granted = self.left(most)
            self.used += granted
            if self.is_low():
                self.changed.notify_all()
            return granted

    def received(self, amount):
        """Counts what has come in already; False when the session is over."""
        while amount and (granted := self.take(amount)):
            amount -= granted
        with self.changed:
            self.used += amount  # it has come in all the same
        return not amount

    def send(self, connection, words):
        """Sends as much at a time as the credit allows; False when the session is over."""
        while words and (granted := self.take(len(words))):
            connection.sendall(words[:granted])
            words = words[granted:]
        return not words

    def is_low(self):
        """Whether to report before the time: a quarter of the credit is used."""
        if self.limit is None:
            return False
        return self.used - self.acknowledged >= max(1, (self.limit - self.acknowledged) // 4)

    def report(self, session):
        """Reports while the session lasts: at intervals, earlier as the credit runs low, and again and
        again while there is none, because the answer after a payment has more."""
        shortest, longest = NO_CREDIT_SECONDS
        pause, answered = shortest, time.monotonic()
        while True:
            with self.changed:
                starved = not self.left(1)
                if starved:
                    early, seconds = lambda: self.session != session, pause
                    pause = min(2 * pause, longest)
                else:
                    early = lambda: self.session != session or self.is_low()
                    seconds, pause = REPORT_SECONDS, shortest
                self.changed.wait_for(early, seconds)
                if self.session != session:
                    return
                if not starved and self.used == self.acknowledged:
                    answered = time.monotonic()  # there is nothing to report
                    continue
            try:
                if not self.save(session):
                    return
                answered = time.monotonic()
            except (OSError, ValueError, Refused) as error:
                print(f"usage of {self.key}: {error}", file=sys.stderr, flush=True)
                final = isinstance(error, Refused) and error.name != "Internal"
                if self.session != session:
                    return
                if final or time.monotonic() - answered > PATIENCE_SECONDS:
                    self.cut()
                if final:
                    return
                time.sleep(1)

    def save(self, session):
        """Reports the usage, and takes what the answer says to heart; whether the session goes on."""
        with self.saving:
            with self.changed:
                if self.session != session:
                    return False
                used = self.used
            usage = {"total": used}
            reply = self.host.call("updateSession", clientKey=self.key, session=session, usage=usage)
            with self.changed:
                if self.session != session:
                    return False
                credit = reply.get("credit")
                self.acknowledged = used
                self.limit = None if credit is None else used + credit
                self.changed.notify_all()
        if reply["status"] in ("activating", "active"):
            return True
        self.denied = True
        self.cut()
        return False

    def cut(self):
        with self.changed:
            self.over = True
            self.changed.notify_all()
            for connection in self.connections:
                shut(connection)  # which ends its thread, and that closes it

    def stop(self):
        """Cuts every user; returns when the session is over. Who comes later is asked for anew."""
        while True:
            with self.changed:
                if self.session is None and not self.connections and not self.ending:
                    return
            self.cut()
            time.sleep(0.02)


def shut(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def listen(address, serve):
    """Listens, and serves each connection in a thread of its own."""
    host, port = address.rsplit(":", 1)
    listener = socket.create_server((host, int(port)))

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener, "%s:%d" % listener.getsockname()[:2]


def read_line(connection):
    line = b""
    while not line.endswith(b"\n") and len(line) < 512:
        byte = connection.recv(1)
        if not byte:
            break
        line += byte
    return line.decode("utf-8", "replace").strip()


class Agent:
    """The side that sells: asks the host who may come in, and answers in capital letters."""

    def __init__(self, host, config):
        self.host, self.channels = host, {}
        _, address = listen(config.get("listen", "127.0.0.1:0"), self.serve)
        address = config.get("address", address)
        # What every access message is to say.
        product = {"externalIP": address.rsplit(":", 1)[0], "address": address}
        host.insist("setProductConfig", config=product)

    def serving(self):
        channels = list(self.channels.items())
        return [key for key, channel in channels if channel.session or channel.ending]

    def start(self, key):
        return {"answer": "ready"}  # it listens already, and the host says who may come in

    def stop(self, key):
        channel = self.channels.get(key)
        if channel:
            channel.stop()

    def serve(self, connection):
        with connection:
            connection.settimeout(20)
            key, _, password = read_line(connection).partition(" ")
            try:
                self.host.call("authClient", clientKey=key, password=password)
            except (Refused, OSError) as error:
                print(f"nobody logged in: {error}", file=sys.stderr, flush=True)
                return
            channel = self.channels.setdefault(key, Channel(self.host, key))
            try:
                connection.settimeout(None)
                connection.sendall(b"ok\n")
                words = connection.recv(65536)
                # A session begins with the first words: who only looks in uses nothing.
                if not words or not channel.open(connection):
                    return
                while words and channel.received(len(words)):
                    if not channel.send(connection, words.upper()):
                        return
                    words = connection.recv(65536)
            except OSError:
                pass
            finally:
                channel.close(connection)


class Client:
    """The side that buys: a port on this machine for each channel, behind which the agent is."""

    def __init__(self, host, config):
        self.host, self.config = host, config
        self.channels, self.ports = {}, {}
        self.lock = threading.Lock()

    def serving(self):
        with self.lock:
            return [key for key in self.ports if not self.channels[key].denied]

    def start(self, key):
        access = self.host.insist("getAccess", clientKey=key)
        login(access).close()  # a client that cannot log in is not ready
        with self.lock:
            # A start comes again, too, when nothing or only the access message has changed.
            if key not in self.ports:
                channel = self.channels.setdefault(key, Channel(self.host, key))
                serve = lambda connection: self.serve(connection, channel)
                listener, address = listen(self.config.get("listen", "127.0.0.1:0"), serve)
                self.ports[key] = (listener, address)
            self.channels[key].access, self.channels[key].denied = access, False
            return {"answer": "ready", "service": {"address": self.ports[key][1]}}

    def stop(self, key):
        with self.lock:
            listener, _ = self.ports.pop(key, (None, None))
            channel = self.channels.pop(key, None)
        if listener:
            shut(listener)
            listener.close()
        if channel:
            channel.stop()

    def exercise(self, key, amount):
        """What `privatix check` asks for: uses the channel as a user would, and says how much it was."""
        host, port = self.ports[key][1].rsplit(":", 1)
        words, moved = b"x" * max(1, amount // 2), 0
        with socket.create_connection((host, int(port)), timeout=10) as user:
            for start in range(0, len(words), 4096):
                part = words[start:start + 4096]
                user.sendall(part)
                answered = 0
                while answered < len(part):
                    more = len(user.recv(len(part) - answered))
                    if not more:
                        raise OSError("the channel does not carry")
                    answered += more
                moved += len(part) + answered
        return moved

    def serve(self, user, channel):
        with user:
            try:
                agent = login(channel.access)
            except OSError as error:
                print(f"no way to the agent: {error}", file=sys.stderr, flush=True)
                return
            with agent:
                if not channel.open(user, agent):
                    return
                back = threading.Thread(target=carry, args=(agent, user, channel), daemon=True)
                back.start()
                carry(user, agent, channel)
                back.join()
                channel.close(user, agent)


def login(access):
    host, port = access["additionalParams"]["address"].rsplit(":", 1)
    agent = socket.create_connection((host, int(port)), timeout=20)
    agent.sendall(f"{access['username']} {access['password']}\n".encode())
    if read_line(agent) != "ok":
        agent.close()
        raise OSError("the agent denied access")
    agent.settimeout(None)
    return agent


def carry(source, sink, channel):
    try:
        while words := source.recv(65536):
            if not channel.send(sink, words):
                raise OSError("the session is over")
        sink.shutdown(socket.SHUT_WR)  # no more from here; the other way may go on
    except OSError:
        shut(source)
        shut(sink)


def obey(host, side, subscription, command, before):
    """Carries a command out, after the one before of its channel, and says so."""
    if before:
        before.join()
    key, answer = command.get("clientKey"), {}
    try:
        if command["command"] == "start":
            answer = side.start(key)
        elif command["command"] == "stop":
            side.stop(key)
            answer = {"answer": "stopped"}
        elif command["command"] == "sessions":
            answer = {"answer": "serving", "serving": side.serving()}
        elif command["command"] == "exercise" and isinstance(side, Client):
            answer = {"answer": "exercised", "moved": side.exercise(key, command["amount"])}
        else:
            answer = {"answer": "unsupported"}
    except (Refused, OSError, KeyError, ValueError) as error:
        answer = {"answer": "failed", "text": str(error)}
    try:
        host.insist("acknowledge", subscription=subscription, id=command["id"], **answer)
    except Refused as error:
        print(f"an answer was refused: {error}", file=sys.stderr, flush=True)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    host = Host(sys.argv[1], os.environ["PRIVATIX_TOKEN"].strip())
    sides = []
    try:
        serve(host, sides)
    finally:  # told to end: the last usage is reported
        for side in sides:
            for channel in list(side.channels.values()):
                channel.stop()


def serve(host, sides):
    side, last = None, {}
    while True:  # once for each subscription; it ends when the host is away or has forgotten it
        try:
            if side is None:
                card = host.call("configuration")
                side = {"agent": Agent, "client": Client}[card["role"]](host, card["config"])
                sides.append(side)
                print(f"{card['name']}: {card['role']}", file=sys.stderr, flush=True)
            subscription = host.call("subscribe", serving=side.serving())["subscription"]
            seen = 0
            while True:
                asked = host.call(
                    "commands", subscription=subscription, after=seen, waitSeconds=20
                )
                for command in asked["commands"]:
                    seen, key = command["id"], command.get("clientKey")
                    words = (host, side, subscription, command, last.get(key))
                    last[key] = threading.Thread(target=obey, args=words, daemon=True)
                    last[key].start()
        except (Refused, OSError, ValueError) as error:
            print(f"{error}; trying again", file=sys.stderr, flush=True)
            time.sleep(1)


if __name__ == "__main__":
    main()
