"""Run a server in its own network, with one loopback port into it.

Run as ``python -I -S private_network.py PORT INNER_PORT PROGRAM ARGUMENT…``. Milvus listens on
every interface and has no setting against it. So it gets a network namespace (``unshare(2)``), in
which it has all ports for itself, and this process carries connections from ``127.0.0.1:PORT``
outside to ``127.0.0.1:INNER_PORT`` inside. Linux only; a user who is not root needs user
namespaces.
"""

import asyncio
import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
LOOPBACK = "127.0.0.1"
PIECE = 256 * 1024
TETHER = Path(__file__).parents[2] / "deploy" / "tether.py"
"""The program must not outlive this process: no other process has its pid."""


def main(arguments: Sequence[str]) -> int:
    """Run ``arguments[2:]``; returns its exit status (a shell's, where a signal ended it)."""
    port, inner_port, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    # A socket belongs to the network that it was made in.
    door = socket.create_server((LOOPBACK, port), backlog=128)
    try:
        leave_network()
    except OSError as error:
        sys.exit(f"cannot make a network namespace: {error.strerror}")
    status = asyncio.run(_serve(door, inner_port, command))
    return status if status >= 0 else 128 - status


def leave_network() -> None:
    """Move this process, which must have one thread, into a network that holds only a loopback.

    Raises:
        OSError: the kernel does not allow it.
    """
    if os.geteuid() == 0:
        _unshare(CLONE_NEWNET)
    else:
        uid, gid = os.getuid(), os.getgid()
        _unshare(CLONE_NEWUSER | CLONE_NEWNET)
        # Files go on belonging to the same user.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


async def _serve(door: socket.socket, inner_port: int, command: Sequence[str]) -> int:
    tethered = (sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), *command)
    program = await asyncio.create_subprocess_exec(*tethered)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, program.terminate)
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_carry(reader, writer, inner_port))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, sock=door, limit=PIECE)
    status = await program.wait()
    server.close()
    for task in connections:
        task.cancel()
    return status


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inner_port: int
) -> None:
    try:
        inside, out = await asyncio.open_connection(LOOPBACK, inner_port, limit=PIECE)
    except OSError:
        # The program does not listen yet.
        writer.close()
        return
    try:
        await asyncio.gather(_copy(reader, out), _copy(inside, writer))
    except OSError:
        pass
    finally:
        out.close()
        writer.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(PIECE):
        target.write(piece)
        await target.drain()
    if target.can_write_eof():
        target.write_eof()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
