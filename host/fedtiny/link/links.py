"""Carriers of bytes, by name: serial:, pty:, tcp:, process:, mqtt:."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from fedtiny.link.endpoint import Carrier
from fedtiny_export.errors import ConfigError, LinkUnavailable, NothingThere

if TYPE_CHECKING:
    from fedtiny.link.mqtt import Broker

BAUD = 115200
BITS_A_BYTE = 10  # 8N1
WRITE_BUFFER = 4096  # little waits below us, so that what was asked for twice goes out once
NAMES = (
    "serial:SERIALNUMBER[@BAUD], serial:/dev/ttyUSB0[@BAUD], pty:/dev/pts/3, tcp:HOST:PORT, process:COMMAND, "
    "mqtt:DEVICE"
)


class Receiver(Protocol):
    """What a link tells: a Connection."""

    def data_received(self, data: bytes) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def went_away(self, problem: str) -> None: ...

    def came_back(self) -> None: ...

    def connection_lost(self, error: Exception | None) -> None: ...


class Line(Protocol):
    """An open link."""

    def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


class Link(Protocol):
    """A link that can be opened, again and again."""

    @property
    def carrier(self) -> Carrier: ...

    async def open(self, receiver: Receiver) -> Line:
        """Raises LinkUnavailable, with what to do."""


class _Bridge(asyncio.Protocol):
    """From an asyncio transport to a receiver."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver: Receiver | None = receiver
        self.transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        assert self.transport is not None
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER)

    def data_received(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.data_received(data)

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.pause_writing()

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        if self._receiver is not None:
            self._receiver.connection_lost(exc)

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    async def close(self) -> None:
        self._receiver = None
        if self.transport is not None:
            self.transport.close()
            await asyncio.wait([self.closed], timeout=1.0)


class SerialLink:
    """A serial port, by its path or the USB serial number of the board; opening it does not reset the board."""

    def __init__(self, port: str, baud: int = BAUD) -> None:
        self._port = port
        self._baud = baud
        self.carrier = Carrier(f"serial:{port}@{baud}", bytes_per_s=baud / BITS_A_BYTE)

    async def open(self, receiver: Receiver) -> Line:
        port = self._open_port()
        return FdLine(port.fileno(), receiver, port.close)

    def _open_port(self) -> Any:
        import serial

        path = self._path()
        port = serial.Serial(baudrate=self._baud, timeout=0, write_timeout=0, exclusive=True)
        # Opening asserts both lines, and both asserted reset no board; pyserial would change one after the other.
        port.dtr = port.rts = True
        port.port = path
        try:
            port.open()
        except (serial.SerialException, OSError) as problem:
            raise _port_problem(path, problem) from None
        _keep_lines_when_closed(port.fileno())
        return port

    def _path(self) -> str:
        if "/" in self._port or self._port.upper().startswith("COM"):
            return self._port
        from serial.tools.list_ports import comports

        ports = [port for port in comports() if port.serial_number]
        found = [port.device for port in ports if port.serial_number == self._port]
        if found:
            return str(found[0])
        there = ", ".join(f"{port.serial_number} at {port.device}" for port in ports) or "none"
        raise NothingThere(
            f"no USB device with the serial number {self._port} is plugged in. There are: {there}. Plug it in, or "
            "name the port's path."
        )


def _keep_lines_when_closed(fd: int) -> None:
    """Without HUPCL the lines stay as they are when the port is closed, so the next opening makes no edge either."""
    if sys.platform == "win32":
        return
    import termios

    settings = termios.tcgetattr(fd)
    settings[2] &= ~termios.HUPCL
    termios.tcsetattr(fd, termios.TCSANOW, settings)


def _port_problem(path: str, problem: Exception) -> LinkUnavailable:
    number = getattr(problem, "errno", None)
    if number in (errno.EACCES, errno.EPERM):
        return LinkUnavailable(
            f"{path}: no permission to open it. Add yourself to its group and log in again: "
            "sudo usermod -aG dialout $USER (uucp on some systems)."
        )
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(problem):
        return LinkUnavailable(
            f"{path}: another program has it open (a serial monitor, another fedtiny). Close that; "
            f"fuser -v {path} shows it."
        )
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return NothingThere(
            f"{path}: there is no such port. Plug the board in; ls -l /dev/serial/by-id shows what is there."
        )
    return LinkUnavailable(f"{path}: cannot be opened: {problem}.")


class PtyLink:
    """A pseudo-terminal of an emulated board or a node program."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.carrier = Carrier(f"pty:{path}")

    async def open(self, receiver: Receiver) -> Line:
        import tty

        try:
            fd = os.open(self._path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as problem:
            raise _port_problem(self._path, problem) from None
        tty.setraw(fd)
        return FdLine(fd, receiver, lambda: os.close(fd))


class FdLine:
    """A terminal's file descriptor as a line, for Unix; `close_fd` closes it."""

    def __init__(self, fd: int, receiver: Receiver, close_fd: Callable[[], None]) -> None:
        self._fd = fd
        self._close_fd = close_fd
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()
        self._paused = False
        self._open = True
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def write(self, data: bytes) -> None:
        if not self._open:
            return
        if not self._waiting:
            self._loop.add_writer(self._fd, self._write)
        self._waiting += data
        self._write()
        if len(self._waiting) > WRITE_BUFFER and not self._paused:
            self._paused = True
            self._receiver.pause_writing()

    async def close(self) -> None:
        self._shut()

    def _shut(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._close_fd()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        except OSError as problem:  # EIO: nobody has the other end
            self._lost(problem)
            return
        if data:
            self._receiver.data_received(data)
        else:
            self._lost(None)

    def _write(self) -> None:
        try:
            count = os.write(self._fd, self._waiting) if self._waiting else 0
        except BlockingIOError:
            return
        except OSError as problem:
            self._lost(problem)
            return
        del self._waiting[:count]
        if not self._waiting:
            self._loop.remove_writer(self._fd)
            if self._paused:
                self._paused = False
                self._receiver.resume_writing()

    def _lost(self, problem: OSError | None) -> None:
        if self._open:
            self._shut()
            self._receiver.connection_lost(problem)


class TcpLink:
    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.carrier = Carrier(f"tcp:{host}:{port}")

    async def open(self, receiver: Receiver) -> Line:
        loop = asyncio.get_running_loop()
        try:
            transport, bridge = await loop.create_connection(lambda: _Bridge(receiver), self._host, self._port)
        except OSError as problem:
            why = os.strerror(problem.errno) if problem.errno else str(problem)
            kind = NothingThere if isinstance(problem, ConnectionRefusedError) else LinkUnavailable
            raise kind(
                f"tcp:{self._host}:{self._port}: {why}. Is the node or emulator running and listening there?"
            ) from None
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return bridge


class ProcessLink:
    """A program whose standard input and output are the link; started anew when it ends."""

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)
        if not self._command:
            raise ConfigError("process: names no program; write process:./fedtiny-node --option")
        self.carrier = Carrier(f"process:{command}")

    async def open(self, receiver: Receiver) -> Line:
        ours, theirs = socket.socketpair()
        try:
            fd = theirs.fileno()
            process = await asyncio.create_subprocess_exec(*self._command, stdin=fd, stdout=fd)
        except OSError as problem:
            ours.close()
            raise LinkUnavailable(
                f"{self._command[0]}: cannot be started: {problem.strerror}. Is its path right, is it executable?"
            ) from None
        finally:
            theirs.close()
        _, bridge = await asyncio.get_running_loop().create_connection(lambda: _Bridge(receiver), sock=ours)
        return _ProcessLine(bridge, process)


class _ProcessLine:
    def __init__(self, bridge: _Bridge, process: asyncio.subprocess.Process) -> None:
        self._bridge, self._process = bridge, process

    def write(self, data: bytes) -> None:
        self._bridge.write(data)

    async def close(self) -> None:
        await self._bridge.close()
        try:
            await asyncio.wait_for(self._process.wait(), 1.0)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def open_link(name: str, broker: Broker | None = None) -> Link:
    """The link of that name, not yet opened; `broker` for `mqtt:` names. Raises ConfigError."""
    kind, _, rest = name.partition(":")
    makers: dict[str, Callable[[str], Link]] = {
        "serial": _serial,
        "pty": PtyLink,
        "tcp": _tcp,
        "process": ProcessLink,
    }
    if kind == "mqtt" and rest:
        if broker is None:
            raise ConfigError(f"{name}: no broker is set. Add [broker] with host and user to the fleet file.")
        return broker.link(rest)
    if kind not in makers or not rest:
        raise ConfigError(f"{name!r} is no link. Links are: {NAMES}.")
    return makers[kind](rest)


def _serial(rest: str) -> Link:
    port, at, baud = rest.partition("@")
    if at and not (baud.isdigit() and int(baud) > 0):
        raise ConfigError(f"serial:{rest}: {baud!r} is no baud rate; write serial:{port}@{BAUD}")
    return SerialLink(port, int(baud) if at else BAUD)


def _tcp(rest: str) -> Link:
    host, _, port = rest.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"tcp:{rest}: write tcp:HOST:PORT, such as tcp:127.0.0.1:4000")
    return TcpLink(host, int(port))
