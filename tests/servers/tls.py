"""Certificates, and TLS ends in front of servers."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from schemas.settings import Settings

Pair = tuple[Path, Path]
"""A certificate and its key."""


def signed(folder: Path, name: str, by: Pair | None = None) -> Pair:
    """A certificate of ``name``, signed by an authority or by itself."""
    folder.mkdir(exist_ok=True)
    files = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name}"),
            *(("-CA", str(by[0]), "-CAkey", str(by[1])) if by else ()),
            *("-out", str(files[0]), "-keyout", str(files[1])),
        ],
        check=True,
        capture_output=True,
    )
    return files


def as_client(uri: str, authority: Path, own: Pair | None = None) -> Settings:
    """Settings that trust an authority and show a certificate of their own, if they have one."""
    return Settings(
        milvus_uri=uri,
        milvus_tls_server_name="milvus.test",
        milvus_tls_cafile=authority,
        milvus_tls_certfile=own and own[0],
        milvus_tls_keyfile=own and own[1],
    )


@contextmanager
def tls_end(milvus: str, server: ssl.SSLContext) -> Iterator[str]:
    """Address of a TLS end in front of a server."""
    server.set_alpn_protocols(["h2"])
    inner = urlsplit(milvus)
    loop = asyncio.new_event_loop()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, out = await asyncio.open_connection(inner.hostname, inner.port)
        await asyncio.gather(copy(reader, out), copy(inside, writer), return_exceptions=True)

    listening = loop.run_until_complete(asyncio.start_server(carry, "127.0.0.1", 0, ssl=server))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        open_still = asyncio.all_tasks(loop)
        for task in open_still:
            task.cancel()
        if open_still:
            loop.run_until_complete(asyncio.wait(open_still))
        loop.close()
