"""`fedtiny bridge`: boards on this computer's cables, each on the broker as if it had a network of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

from fedtiny.fleet.manage import chosen
from fedtiny.fleet.roster import Roster
from fedtiny.link.gateway import Gateway
from fedtiny_export.errors import ConfigError, LinkError


def bridge(roster: Roster, nodes: Sequence[str], say: Callable[[str], None]) -> None:
    """Until SIGINT or SIGTERM. Raises ConfigError, LinkUnavailable for a broker that refuses a board's login."""
    names = [name for name in chosen(roster, nodes) if nodes or not roster.link_name(name).startswith("mqtt:")]
    for name in names:
        if roster.link_name(name).startswith("mqtt:"):
            raise ConfigError(f"{name}: it is behind a broker already. Name boards on cables.")
    if not names:
        raise ConfigError(f'{roster.path}: no node of it is on a cable. Name its port: link = "serial:..."')
    gateways = [Gateway(name, roster.link(name), roster.account_of(name), say) for name in names]
    asyncio.run(_run(gateways))


async def _run(gateways: Sequence[Gateway]) -> None:
    loop = asyncio.get_running_loop()
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, this.cancel)
    problem: LinkError | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            for gateway in gateways:
                tasks.create_task(gateway.run())
    except* LinkError as found:
        problem = next(p for p in found.exceptions if isinstance(p, LinkError))
    except* asyncio.CancelledError:
        pass
    if problem is not None:
        raise problem
