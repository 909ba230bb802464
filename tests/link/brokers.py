"""A mosquitto with TLS, passwords and an ACL, as it would stand in the field; and nodes of node.py behind it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

import aiomqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedtiny.link.mqtt import Account

from .node import Node

NODE = Path(sysconfig.get_path("scripts")) / "fedtiny-node-mqtt"
HAVE_MOSQUITTO = bool(shutil.which("mosquitto") and shutil.which("mosquitto_passwd"))
PASSWORDS = {"host": "h0st", "n1": "n0de", "n2": "n0de"}


def need_node() -> None:
    """Skips, or fails where FEDTINY_ALL_BOARDS is set, if the node in C for brokers was not built."""
    if not NODE.exists():
        end = pytest.fail if os.environ.get("FEDTINY_ALL_BOARDS") else pytest.skip
        end("no fedtiny-node-mqtt: apt-get install libmosquitto-dev, then install fedtiny again (make clean setup)")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def certificate(folder: Path, name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None):  # type: ignore[no-untyped-def]
    """Writes name.crt and name.key; an authority if there is no issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
    )
    made = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}.key").write_bytes(secret)
    return made, key


class Mosquitto:
    """A broker in a folder of its own; `kill` is kill -9, `stop` lets it say goodbye."""

    def __init__(self, folder: Path, passwords: Mapping[str, str] = PASSWORDS) -> None:
        self.folder, self.port = folder, free_port()
        self._passwords = passwords
        folder.mkdir(parents=True, exist_ok=True)
        os.chmod(folder, 0o755)
        authority = certificate(folder, "authority", None)
        certificate(folder, "broker", authority)
        certificate(folder, "stranger", None)
        file = folder / "passwords"
        file.write_text("".join(f"{user}:{password}\n" for user, password in passwords.items()))
        subprocess.run(["mosquitto_passwd", "-U", file], check=True, capture_output=True)
        (folder / "acl").write_text("user host\ntopic readwrite fl/v1/#\n\npattern readwrite fl/v1/+/%u/#\n")
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\ncafile {folder}/authority.crt\ncertfile {folder}/broker.crt\n"
            f"keyfile {folder}/broker.key\nallow_anonymous false\npassword_file {file}\nacl_file {folder}/acl\n"
            "persistence false\nuser root\n"
        )
        for path in folder.iterdir():
            path.chmod(0o644)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["mosquitto", "-c", self.folder / "mosquitto.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise TimeoutError("mosquitto did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def node_command(self, record: Path, password_file: Path, authority: str = "authority") -> list[str]:
        """The node in C with that record, behind this broker."""
        terms = {
            "--record": record,
            "--host": "localhost",
            "--port": self.port,
            "--fleet": "lab",
            "--ca": self.folder / f"{authority}.crt",
            "--password": password_file,
        }
        return [str(NODE), *(str(word) for pair in terms.items() for word in pair)]

    def account(self, user: str = "host", password: str | None = None, authority: str = "authority") -> Account:
        return Account(
            "localhost",
            self.port,
            "lab",
            user,
            password or self._passwords[user],
            ca_file=str(self.folder / f"{authority}.crt"),
        )


@contextlib.asynccontextmanager
async def nodes_behind(account: Account, nodes: Iterable[Node]) -> AsyncIterator[None]:
    """Serves nodes over one client each way, and again when the broker comes back."""
    task = asyncio.get_running_loop().create_task(_serve(account, {node.device: node for node in nodes}))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _serve(account: Account, nodes: dict[str, Node]) -> None:
    import ssl

    tls = ssl.create_default_context(cafile=account.ca_file) if account.tls else None
    root = f"fl/v1/{account.fleet}/"
    alone = account.user if account.user in nodes else "+"
    while True:
        with contextlib.suppress(aiomqtt.MqttError):
            async with aiomqtt.Client(
                account.host, account.port, username=account.user, password=account.password, tls_context=tls,
                protocol=aiomqtt.ProtocolVersion.V5, will=aiomqtt.Will(f"{root}{account.user}/state", b"lost", 1, True),
                timeout=3,  # for a broker that dies while it is asked: a board tries again sooner than ten seconds
            ) as client:  # fmt: skip
                await client.subscribe(f"{root}{alone}/dn", 0)
                for name in nodes:
                    await client.publish(f"{root}{name}/state", b"online", 1, True)
                await asyncio.gather(_hear(client, nodes), _tick(client, root, nodes))
        await asyncio.sleep(0.2)


async def _hear(client: aiomqtt.Client, nodes: dict[str, Node]) -> None:
    loop = asyncio.get_running_loop()
    async for message in client.messages:
        node = nodes[message.topic.value.split("/")[3]]
        assert isinstance(message.payload, bytes)
        node.feed(message.payload, loop.time())
        await _say(client, message.topic.value.removesuffix("dn"), node)


async def _tick(client: aiomqtt.Client, root: str, nodes: dict[str, Node]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        for node in nodes.values():
            node.tick(loop.time())
            await _say(client, f"{root}{node.device}/", node)
        await asyncio.sleep(0.05)


async def _say(client: aiomqtt.Client, topic: str, node: Node) -> None:
    while (frame := node.outgoing(asyncio.get_running_loop().time())) is not None:
        await client.publish(f"{topic}up", frame, 0)
