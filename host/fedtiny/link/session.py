"""The host's side of the handshake of firmware/PROTOCOL.md, the keys that come of it, and a session's frames."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedtiny.link import frames
from fedtiny.link.frames import Frame, FrameError, FrameType, ReplayWindow
from fedtiny.link.messages import (
    Enrol,
    Enrolled,
    Hello,
    Invite,
    Profile,
    Reason,
    Refuse,
    Welcome,
    decode,
    decode_first,
    encode,
)
from fedtiny_export.errors import ConfigError, MessageError, NodeRefused

KEY_BYTES, MAC_BYTES = 32, 16
LOWEST_VERSION = HIGHEST_VERSION = 1
INCOMPAT_BITS = 0  # features that this host uses and a node must know

Random = Callable[[int], bytes]  # so many random bytes


@dataclass(frozen=True)
class Identity:
    """Which node is expected: its id, key (32 bytes; None in `plain`), and the last boot counter seen of it."""

    device: str
    profile: Profile = Profile.PSK
    key: bytes | None = None
    boot_counter: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.device.encode()) <= 31:
            raise ConfigError(f"{self.device!r} is no device id: 1 to 31 bytes of UTF-8")
        if self.profile is not Profile.PLAIN and (self.key is None or len(self.key) != KEY_BYTES):
            raise ConfigError(f"{self.device}: the profile {self.profile.word} needs a key of {KEY_BYTES} bytes")

    def __repr__(self) -> str:  # keys stay out of logs
        return f"Identity({self.device!r}, {self.profile.word}, boot {self.boot_counter})"


def _digest(count: int, data: bytes, key: bytes = b"") -> bytes:
    return blake2b(data, digest_size=count, key=key).digest()


def handshake_key(psk: bytes) -> bytes:
    return _digest(32, b"fedtiny handshake 1", psk)


def hello_mac(psk: bytes, invite: bytes, hello: bytes) -> bytes:
    """`invite`: the INVITE's payload; `hello`: the HELLO's without its MAC."""
    return _digest(MAC_BYTES, b"hello" + _digest(32, invite) + hello, handshake_key(psk))


def transcript(invite: bytes, hello: bytes) -> bytes:
    """T2, of whole payloads."""
    return _digest(32, invite + hello)


def welcome_mac(psk: bytes, t2: bytes, welcome: bytes) -> bytes:
    return _digest(MAC_BYTES, b"welcome" + t2 + welcome, handshake_key(psk))


def session_keys(psk: bytes, t2: bytes, shared: bytes = b"") -> tuple[bytes, bytes]:
    """Node to host, host to node."""
    both = _digest(64, b"fedtiny session 1" + t2 + shared, psk)
    return both[:32], both[32:]


def key_check(psk: bytes) -> bytes:
    """What a node answers to show that it keeps this key."""
    return _digest(8, b"fedtiny key check", psk)


class Session:
    """One end's counters and keys of a running session; None as keys in the profile `plain`."""

    def __init__(
        self, number: int, send_key: bytes | None, receive_key: bytes | None, *, from_host: bool = True
    ) -> None:
        self.number = number
        self._send = ChaCha20Poly1305(send_key) if send_key else None
        self._receive = ChaCha20Poly1305(receive_key) if receive_key else None
        self._from_host = from_host
        self._counter = 0
        self._replays = ReplayWindow()

    @property
    def used_up(self) -> bool:
        """No counter is left: shake hands anew."""
        return self._counter >= frames.LAST_COUNTER

    def seal(self, kind: FrameType, payload: bytes) -> bytes:
        counter, self._counter = self._counter, self._counter + 1
        if counter > frames.LAST_COUNTER:
            raise FrameError("counter")
        if self._send is None:
            return frames.seal_open(kind, payload, from_host=self._from_host, session=self.number, counter=counter)
        return frames.seal(
            kind, payload, from_host=self._from_host, session=self.number, counter=counter, cipher=self._send
        )

    def unseal(self, frame: bytes) -> Frame:
        """A frame of this session, or one that stands outside of sessions. Raises FrameError."""
        found = frames.unseal(frame, from_host=not self._from_host, session=self.number, cipher=self._receive)
        if found.session and not self._replays.take(found.counter):
            raise FrameError("replay")
        return found


@dataclass(frozen=True)
class Agreed:
    """What a HELLO led to; send the frame `welcome`; `session` counts once the node shows that it has the keys."""

    hello: Hello
    welcome: bytes
    session: Session


class Handshake:
    """One INVITE and what may come of it. A forged HELLO changes nothing, so it cannot hinder the genuine one."""

    def __init__(self, identity: Identity, *, max_payload: int, random: Random, session_before: int = 0) -> None:
        self._identity = identity
        self._max_payload = max_payload
        self._random = random
        self._session_before = session_before
        self._secret = X25519PrivateKey.from_private_bytes(random(32)) if identity.profile is Profile.PSK_FS else None
        self._invite = encode(
            Invite(
                lowest=LOWEST_VERSION,
                highest=HIGHEST_VERSION,
                nonce=random(16),
                profile=identity.profile,
                incompat=INCOMPAT_BITS,
                compat=0,
                max_payload=max_payload,
                device=identity.device,
                public_key=self._secret.public_key().public_bytes_raw() if self._secret else None,
            )
        )
        self.invite = frames.seal_open(FrameType.INVITE, self._invite, from_host=True)

    def on_hello(self, payload: bytes) -> Agreed:
        """Checks a HELLO. Raises MessageError on bytes to drop, NodeRefused where a person has to do something."""
        hello, mac = decode_first(Hello, payload, 0 if self._identity.profile is Profile.PLAIN else MAC_BYTES)
        if hello.device != self._identity.device:
            raise MessageError(f"a HELLO of {hello.device}, not of {self._identity.device}")
        self._check_terms(hello)
        self._check_identity(hello, payload[: len(payload) - len(mac)], mac)
        session = self._session_number()
        t2 = transcript(self._invite, payload)
        welcome = encode(Welcome(session))
        if self._identity.key is None or self._identity.profile is Profile.PLAIN:
            up = down = None
        else:
            welcome += welcome_mac(self._identity.key, t2, welcome)
            up, down = session_keys(self._identity.key, t2, self._shared(hello))
        frame = frames.seal_open(FrameType.WELCOME, welcome, from_host=True)
        return Agreed(hello, frame, Session(session, down, up))

    def _check_terms(self, hello: Hello) -> None:
        device = hello.device
        if not LOWEST_VERSION <= hello.version <= HIGHEST_VERSION:
            raise _version_refused(device, f"version {hello.version}")
        if hello.incompat & ~INCOMPAT_BITS:
            raise NodeRefused(
                f"{device}: its firmware asks for features {hello.incompat & ~INCOMPAT_BITS:#x} that this fedtiny "
                "does not have. "
                "Update fedtiny, or flash firmware of this version.",
                device,
                "incompat_bits",
            )
        if hello.profile is not self._identity.profile:
            raise NodeRefused(
                f"{device}: asked for the profile {self._identity.profile.word}, it answered with "
                f"{hello.profile.word}. "
                "If nobody changed the node, somebody on the link tries to weaken it; otherwise flash firmware "
                "of this version.",
                device,
                "profile",
            )
        if not frames.MIN_PAYLOAD <= hello.max_payload <= self._max_payload:
            raise MessageError(f"a payload of {hello.max_payload} bytes where {self._max_payload} was the most")

    def _check_identity(self, hello: Hello, body: bytes, mac: bytes) -> None:
        key = self._identity.key
        if self._identity.profile is Profile.PLAIN or key is None:
            return
        if not hmac.compare_digest(mac, hello_mac(key, self._invite, body)):
            raise NodeRefused(
                f"{hello.device}: it does not have the key that is on file for it. Another device may use its "
                "name, or it was enrolled "
                "elsewhere. If it is yours: fedtiny fleet enrol it anew; if not, find it.",
                hello.device,
                "key",
            )
        if hello.boot_counter < self._identity.boot_counter:
            raise NodeRefused(
                f"{hello.device}: its boot counter went back from {self._identity.boot_counter} to "
                f"{hello.boot_counter}. A copy of the "
                "device, or storage that was restored, would do that. If it is yours: fedtiny fleet enrol it anew.",
                hello.device,
                "boot_counter",
            )

    def _shared(self, hello: Hello) -> bytes:
        if self._secret is None:
            return b""
        try:
            return self._secret.exchange(X25519PublicKey.from_public_bytes(hello.public_key or b""))
        except ValueError:  # missing, or a point of small order (RFC 7748, section 6.1)
            raise MessageError("a HELLO without a usable public key") from None

    def _session_number(self) -> int:
        """Not 0, and not that of the session before: its frames may still be under way."""
        while (number := int.from_bytes(self._random(2), "little")) in (0, self._session_before):
            pass
        return number


def refused(payload: bytes, identity: Identity) -> NodeRefused:
    """What a REFUSE says, for people. It is not authenticated: it ends no session. Raises MessageError."""
    refuse = decode(Refuse, payload)
    device = refuse.device
    if device != identity.device:
        raise MessageError(f"a REFUSE of {device}")
    if refuse.reason is Reason.VERSION:
        return _version_refused(device, f"versions {refuse.lowest} to {refuse.highest}")
    what = {
        Reason.INCOMPAT_BITS: (
            f"its firmware does not know the features {refuse.unknown or 0:#x}. Flash firmware of this version."
        ),
        Reason.PROFILE: (
            f"it refuses the profile {identity.profile.word}. Ask for the one it was enrolled with, psk by default."
        ),
        Reason.KEY: "it does not know the key that is on file for it. If it is yours: fedtiny fleet enrol it anew.",
        Reason.NOT_ENROLLED: "it has no key yet. Give it one: fedtiny fleet enrol.",
        Reason.BUSY: "it is busy with another host. Stop that one, or wait.",
    }[refuse.reason]
    return NodeRefused(f"{device}: {what}", device, refuse.reason.name.lower())


def _version_refused(device: str, speaks: str) -> NodeRefused:
    ours = f"{LOWEST_VERSION}" if LOWEST_VERSION == HIGHEST_VERSION else f"{LOWEST_VERSION} to {HIGHEST_VERSION}"
    return NodeRefused(
        f"{device}: it speaks {speaks} of the protocol, this fedtiny version {ours}. Flash firmware of this "
        "version, or update fedtiny.",
        device,
        "version",
    )


def enrol_frame(device: str, key: bytes) -> bytes:
    """A key for a node that has none; only over a cable that nobody else hears."""
    return frames.seal_open(FrameType.ENROL, encode(Enrol(device, key)), from_host=True)


def is_enrolled(payload: bytes, device: str, key: bytes) -> bool:
    """Whether this ENROLLED shows that the node of that id keeps the key. Raises MessageError."""
    answer = decode(Enrolled, payload)
    return answer.device == device and hmac.compare_digest(answer.check, key_check(key))
