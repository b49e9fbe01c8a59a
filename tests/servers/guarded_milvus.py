"""A real Milvus that requires a token, also behind TLS."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from retrail_runtime.milvus import connect
from schemas.errors import ConfigurationError, MilvusUnavailableError
from schemas.settings import Settings
from tests.servers.milvus_standalone import MilvusStandalone
from tests.servers.milvus_wheel import require_platform
from tests.servers.tls import Pair, as_client, signed, tls_end
from tests.waiting import eventually

ROOT = SecretStr("root:Milvus")


@dataclass
class GuardedMilvus:
    """A standalone Milvus that requires a token, also behind TLS and behind mutual TLS."""

    plain: str
    tls: str
    mutual: str
    own: Pair
    other: Pair
    folder: Path

    @property
    def trusting(self) -> Settings:
        """A client of the TLS end that is let in."""
        found = as_client(self.tls, self.own[0])
        return found.model_copy(update={"milvus_token": ROOT})

    def junk(self) -> Path:
        file = self.folder / "junk.pem"
        file.write_text("no certificate")
        return file


@contextmanager
def guarded_milvus(folder: Path) -> Iterator[GuardedMilvus]:
    """Start one over a folder.

    Raises:
        MissingToolError: it does not run on this machine.
    """
    require_platform()
    (folder / "milvus").mkdir()
    server = MilvusStandalone(
        folder / "milvus", folder / "milvus.log", options={"authorization_enabled": "true"}
    )
    server.launch()
    uri = f"http://{server.address}"
    own, other = signed(folder / "own", "milvus.test"), signed(folder / "other", "milvus.test")
    with ExitStack() as at_end:
        at_end.callback(server.kill)
        eventually(lambda: answers(Settings(milvus_uri=uri, milvus_token=ROOT)), 90, "an answer")
        one = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        two = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=other[0])
        two.verify_mode = ssl.CERT_REQUIRED
        for context in (one, two):
            context.load_cert_chain(*own)
        ends = [at_end.enter_context(tls_end(uri, context)) for context in (one, two)]
        yield GuardedMilvus(uri, ends[0], ends[1], own, other, folder)


def answers(settings: Settings) -> bool:
    try:
        connect(settings).close()
    except (MilvusUnavailableError, ConfigurationError):
        return False
    return True
