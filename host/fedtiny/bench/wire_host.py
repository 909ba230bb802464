"""What a frame and a handshake cost this computer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from fedtiny.link.frames import FrameType, Splitter, stuff
from fedtiny.link.messages import Hello, Profile, decode, encode
from fedtiny.link.session import Handshake, Identity, Session, hello_mac

PAYLOAD = 1024
REPEATS, TIMES = 5, 2000


def _fastest(work: Callable[[], object], times: int = TIMES) -> float:
    """Seconds of one call, the best of some repeats."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, (time.perf_counter() - start) / times)
    return best


def seal_s() -> float:
    """A block of an object, encrypted and stuffed for a serial line."""
    session, payload = Session(1, os.urandom(32), None), os.urandom(PAYLOAD)
    return _fastest(lambda: stuff(session.seal(FrameType.DATA, payload)))


def unseal_s() -> float:
    """The same on its way in: found in the stream, checked, decrypted."""
    key = os.urandom(32)
    node, host = Session(1, key, None, from_host=False), Session(1, None, key)
    stream = [stuff(node.seal(FrameType.DATA, os.urandom(PAYLOAD))) for _ in range(REPEATS * TIMES)]
    splitter, at = Splitter(), iter(stream)

    def take() -> None:
        (found,) = splitter.feed(next(at))
        host.unseal(found.frame)  # type: ignore[union-attr]

    return _fastest(take)


def handshake_s(profile: Profile) -> float:
    """The host's part: an INVITE, a HELLO checked, keys and a WELCOME."""
    key = os.urandom(32)
    identity = Identity("n1", profile, key)
    public = os.urandom(32) if profile is Profile.PSK_FS else None
    hello = encode(Hello(1, bytes(16), "n1", profile, 0, 0, PAYLOAD, 1 << 20, 1, 1, "", bytes(8), 0, 0, 0, public))

    def shake() -> None:
        handshake = Handshake(identity, max_payload=PAYLOAD, random=os.urandom)
        invite = handshake.invite[8:-4]
        handshake.on_hello(hello + hello_mac(key, invite, hello))

    assert decode(Hello, hello).device == identity.device
    return _fastest(shake, TIMES // 10)
