"""All nodes of a fleet behind one connection to an MQTT broker; topics as firmware/PROTOCOL.md says."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiomqtt
from paho.mqtt.client import Client, MQTTMessage

from fedtiny.link.endpoint import Carrier
from fedtiny.link.frames import MAX_PAYLOAD
from fedtiny.link.links import Line, Receiver
from fedtiny.link.objects import Budget
from fedtiny_export.errors import LinkUnavailable

FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S = 0.5, 4.0
IN_FLIGHT = 1 << 20  # bytes under way to us: about 256 messages, where mosquitto drops from 1,000 on
ONLINE, LOST, OFFLINE = b"online", b"lost", b"offline"


@dataclass(frozen=True)
class Account:
    """Where the broker is and who we are; without `ca_file` the system's authorities; no TLS only on this machine."""

    host: str
    port: int = 8883
    fleet: str = "fleet"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = True
    ca_file: str | None = None
    client_id: str | None = None
    keepalive_s: int = 20


def tls_of(account: Account) -> ssl.SSLContext | None:
    """Raises LinkUnavailable for an authority that cannot be read."""
    if not account.tls:
        return None
    try:
        return ssl.create_default_context(cafile=account.ca_file)
    except (OSError, ssl.SSLError) as problem:
        raise LinkUnavailable(
            f"{account.ca_file}: cannot be used as the broker's certificate authority: {problem}. Name a PEM file."
        ) from None


def broker_problem(account: Account, problem: Exception) -> str:
    """Why a broker cannot be used, and what to do."""
    where = f"broker {account.host}:{account.port}"
    text = str(problem)
    lower = text.lower()
    if "not authorized" in lower or "bad user name" in lower or "bad username" in lower:
        return (
            f"{where}: it refused the user {account.user} or its password. "
            "Set both as the broker has them (mosquitto_passwd)."
        )
    if "certificate" in lower:
        return (
            f"{where}: its certificate is not to be trusted ({text}). Set ca_file to the authority "
            "that signed it, host to a name in it."
        )
    if "ssl" in lower or "tls" in lower or "eof" in lower:
        return f"{where}: no TLS there ({text}). Is this the port for TLS, 8883 by custom?"
    if "timed out" in lower and not account.tls:
        return f"{where}: it does not answer the login. If this is its port for TLS, set tls; is the host right?"
    return f"{where}: cannot be reached ({text}). Is it running, and is a firewall in between?"


class Broker:
    """The one client of a fleet's host. `states` and `caps` hold the last that each device (or its will) published."""

    def __init__(self, account: Account, *, on_state: Callable[[str, str], None] = lambda device, state: None) -> None:
        self.account = account
        self.states: dict[str, str] = {}
        self.caps: dict[str, bytes] = {}
        self._on_state = on_state
        self.budget = Budget(IN_FLIGHT)
        self._root = f"fl/v1/{account.fleet}/"
        self._receivers: dict[str, Receiver] = {}
        self._paused: deque[Receiver] = deque()
        self._client: aiomqtt.Client | None = None
        self._paho: Client | None = None
        self._keeper: asyncio.Task[None] | None = None

    def link(self, device: str) -> MqttLink:
        return MqttLink(self, device)

    @property
    def connected(self) -> bool:
        return self._paho is not None

    async def open(self) -> None:
        """Connects, and stays connected until `close`. Raises LinkUnavailable if the first try fails."""
        if self._keeper is not None:
            return
        await self._connect()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
        client, self._client, self._paho = self._client, None, None
        if client is not None:
            with contextlib.suppress(aiomqtt.MqttError):
                await client.publish(f"{self._root}_host/state", OFFLINE, qos=1, retain=True, timeout=2)
                await client.__aexit__(None, None, None)

    async def __aenter__(self) -> Broker:
        await self.open()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def publish_round(self, number: int) -> None:
        """Tells the round to whoever looks at `_host/round`; retained."""
        if self._client is not None:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._client.publish(f"{self._root}_host/round", str(number).encode(), qos=1, retain=True)

    # -- for links

    def attach(self, device: str, receiver: Receiver) -> None:
        self._receivers[device] = receiver

    def detach(self, device: str) -> None:
        self._receivers.pop(device, None)

    def send(self, device: str, frame: bytes) -> None:
        """QoS 0: what gets lost is asked for again by the protocol above, for half the price of QoS 1."""
        if self._paho is None:
            return
        self._paho.publish(f"{self._root}{device}/dn", frame, qos=0)
        if self._paho.want_write():
            receiver = self._receivers.get(device)
            if receiver is not None:
                receiver.pause_writing()
                self._paused.append(receiver)

    # -- the connection

    async def _connect(self) -> None:
        account = self.account
        client = aiomqtt.Client(
            account.host,
            account.port,
            username=account.user,
            password=account.password,
            identifier=account.client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=aiomqtt.Will(f"{self._root}_host/state", LOST, qos=1, retain=True),
            keepalive=account.keepalive_s,
            timeout=5,
            tls_context=tls_of(account),
        )
        # aiomqtt has no public way to its paho client, and its queue and future per message cost more than a frame.
        paho: Client = client._client
        paho.on_message = self._on_message
        drained = paho.on_socket_unregister_write

        def on_drained(who: Client, userdata: Any, sock: Any) -> None:
            if drained is not None:
                drained(who, userdata, sock)
            asyncio.get_running_loop().call_soon(self._resume)

        paho.on_socket_unregister_write = on_drained
        try:
            await client.__aenter__()
            for topic, qos in (("+/state", 1), ("+/caps", 1), ("+/up", 0), ("+/done", 1)):
                await client.subscribe(self._root + topic, qos=qos)
            await client.publish(f"{self._root}_host/state", ONLINE, qos=1, retain=True)
        except (aiomqtt.MqttError, OSError, ValueError) as problem:
            raise LinkUnavailable(broker_problem(account, problem)) from None
        self._client, self._paho = client, paho

    async def _keep(self) -> None:
        """Waits until the connection is lost, tells all links, connects again; without end."""
        while True:
            assert self._client is not None
            with contextlib.suppress(aiomqtt.MqttError):
                async for _ in self._client.messages:
                    pass  # never: `_on_message` takes them all; this raises when the connection ends
            await self._lose()
            wait = FIRST_BACK_OFF_S
            while self._paho is None:
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_BACK_OFF_S)
                try:
                    await self._connect()
                except LinkUnavailable as problem:
                    self._tell_down(problem)
            for receiver in list(self._receivers.values()):
                receiver.came_back()

    async def _lose(self) -> None:
        client, self._client, self._paho = self._client, None, None
        self._paused.clear()
        if client is not None:
            with contextlib.suppress(aiomqtt.MqttError):
                await client.__aexit__(None, None, None)
        robbed = self.account.client_id and f", or does another client use our id {self.account.client_id}"
        where = f"broker {self.account.host}:{self.account.port}"
        self._tell_down(LinkUnavailable(f"{where}: the connection ended. Was it restarted{robbed or ''}?"))

    def _tell_down(self, problem: Exception) -> None:
        for receiver in list(self._receivers.values()):
            receiver.went_away(str(problem))

    def _resume(self) -> None:
        """The socket takes more: each of those that wait has its turn, until it is full again."""
        for _ in range(len(self._paused)):
            if self._paho is None or self._paho.want_write():
                return
            self._paused.popleft().resume_writing()

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        device, _, what = message.topic[len(self._root) :].partition("/")
        receiver = self._receivers.get(device)
        if what in ("up", "done"):
            if receiver is not None:
                receiver.data_received(bytes(message.payload))
        elif what == "caps":
            self.caps[device] = bytes(message.payload)
        elif what == "state":
            before, state = self.states.get(device), message.payload.decode("utf-8", "replace")
            self.states[device] = state
            self._on_state(device, state)
            if receiver is not None and state == ONLINE.decode() and before not in (None, state):
                receiver.came_back()


class MqttLink:
    """One device behind a broker; a frame is a message."""

    def __init__(self, broker: Broker, device: str) -> None:
        self._broker = broker
        self._device = device
        self.carrier = Carrier(f"mqtt:{device}", stream=False, max_payload=MAX_PAYLOAD, budget=broker.budget)

    async def open(self, receiver: Receiver) -> Line:
        await self._broker.open()
        self._broker.attach(self._device, receiver)
        return _MqttLine(self._broker, self._device)


class _MqttLine:
    def __init__(self, broker: Broker, device: str) -> None:
        self._broker, self._device = broker, device

    def write(self, data: bytes) -> None:
        self._broker.send(self._device, data)

    async def close(self) -> None:
        self._broker.detach(self._device)
