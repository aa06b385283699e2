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
        try:
            with urllib.request.urlopen(request, timeout=70) as answer:
                answer = json.load(answer)
        except urllib.error.HTTPError as error:  # a refusal has a body, too
            answer = json.load(error)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["result"]

    def insist(self, method, **params):
        """The same, again and again while the host is away or fails: calls may be repeated."""
        while True:
            try:
                return self.call(method, **params)
            except (Refused, OSError, ValueError) as error:
                if isinstance(error, Refused) and error.name != "Internal":
                    raise
                print(f"{method}: {error}; trying again", file=sys.stderr, flush=True)
                time.sleep(1)


class Channel:
    """One client's use: its connections, what went through them, and the session that counts it."""

    def __init__(self, host, key):
        self.host, self.key = host, key
        self.lock = threading.RLock()
        self.connections = set()
        self.session, self.used, self.reported = None, 0, 0
        self.ending = False  # the last usage of a session is on its way

    def open(self, *connections):
        """A user has come. The first one opens a session; False where the host allows none."""
        while self.ending:
            time.sleep(0.02)
        with self.lock:
            if self.session is None:
                try:
                    started = self.host.call("startSession", clientKey=self.key)
                    if started["status"] not in ("activating", "active"):
                        self.host.call("stopSession", clientKey=self.key, session=started["session"])
                        return False
                except (Refused, OSError, ValueError) as error:
                    print(f"no session for {self.key}: {error}", file=sys.stderr, flush=True)
                    return False
                self.session, self.used, self.reported = started["session"], 0, 0
                threading.Thread(target=self.report, args=(self.session,), daemon=True).start()
            self.connections.update(connections)
            return True

    def close(self, *connections):
        """A user has gone. With the last one the session ends, its usage reported before."""
        for connection in connections:
            shut(connection)
        with self.lock:
            self.connections.difference_update(connections)
            if self.connections or self.session is None:
                return
            session, used, self.session = self.session, self.used, None
            self.ending = True  # so that a stop is answered only when the usage is saved
        try:
            self.host.insist("updateSession", clientKey=self.key, session=session, usage={"total": used})
            self.host.insist("stopSession", clientKey=self.key, session=session)
        except Refused as error:
            print(f"the end of a session: {error}", file=sys.stderr, flush=True)
        finally:
            self.ending = False

    def count(self, amount):
        with self.lock:
            self.used += amount

    def report(self, session):
        while True:
            time.sleep(REPORT_SECONDS)
            with self.lock:
                if self.session != session:
                    return
                used, self.reported, known = self.used, self.used, self.reported
            if used == known:
                continue
            try:
                reply = self.host.insist(
                    "updateSession", clientKey=self.key, session=session, usage={"total": used}
                )
                if reply["status"] in ("activating", "active"):
                    continue
            except Refused as error:
                print(f"usage of {self.key}: {error}", file=sys.stderr, flush=True)
            if self.session == session:
                self.cut()  # the status says that there is no access any more
            return

    def cut(self):
        with self.lock:
            for connection in self.connections:
                shut(connection)  # which ends its thread, and that closes it

    def stop(self):
        """Cuts every user; returns when the session is over. Who comes later is asked for anew."""
        while True:
            self.cut()
            with self.lock:
                if self.session is None and not self.connections and not self.ending:
                    return
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
                while words:
                    connection.sendall(words.upper())
                    channel.count(2 * len(words))
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
        return list(self.ports)

    def start(self, key):
        access = self.host.insist("getAccess", clientKey=key)
        login(access).close()  # whoever cannot log in is not ready
        with self.lock:
            # A start comes again, too, when nothing or only the access message has changed.
            if key not in self.ports:
                channel = self.channels.setdefault(key, Channel(self.host, key))
                serve = lambda connection: self.serve(connection, channel)
                listener, address = listen(self.config.get("listen", "127.0.0.1:0"), serve)
                self.ports[key] = (listener, address)
            self.channels[key].access = access
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
            channel.count(len(words))
            sink.sendall(words)
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
