"""A whole stack in which every role has a user with exactly its rights; and no secret appears."""

import base64
import json
import os
import secrets
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from pydantic import SecretStr
from pymilvus import MilvusClient, MilvusException

from consumers import releases
from deploy import environment
from deploy.stack import ROLES as WORKERS
from deploy.stack import LocalStack, retrail_worker
from retrail import Publisher
from retrail_runtime import kafka
from retrail_runtime.milvus import version_of
from schemas.documents import Document, encode
from schemas.rights import ROLES, RoleName, principal, rights
from schemas.settings import Settings
from schemas.topics import Topics
from tests.deploy.test_rights import grant
from tests.servers.secured_kafka import PASSWORD, SecuredKafka
from tests.tiny_model import write_tiny_model
from tests.waiting import eventually

MARKERS = {
    name: f"marker+of/{name}=&é-{secrets.token_hex(8)}"
    for name in ("judge_api_key", "serve_token", "serve_secret", "erase_key", "milvus_token")
}
QUERIES = 40


@pytest.fixture
def base(secured: SecuredKafka, milvus: str, tmp_path: Path) -> Settings:
    """Settings of the operator, who creates the topics; every user has its rights."""
    name = f"t{secrets.token_hex(4)}_"
    settings = secured.sasl(f"{name}retrail-operator").of(
        Settings(
            topic_prefix=name,
            retriever=f"{name}retriever",
            data_dir=tmp_path / "data",
            partitions=2,
            milvus_uri=milvus,
            model=str(write_tiny_model(tmp_path / "model")),
            judge="none",
            index_max_tokens=32,
            train_min_pairs=QUERIES // 2,
            train_max_age_seconds=5.0,
            train_epochs=1,
            train_batch_size=4,
            train_cap_trajectory=1.0,
            gate_margin=1.0,
            gate_min_queries=1,
            log_level="DEBUG",
            **{key: SecretStr(value) for key, value in MARKERS.items()},
        )
    )
    secured.make_users([principal(settings, role) for role in ROLES])
    for role in ROLES:
        grant(secured, principal(settings, role), rights(settings, role))
    return settings


def command_line(process: psutil.Process) -> str:
    """Empty if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def of(settings: Settings, role: RoleName) -> Settings:
    return settings.model_copy(update={"kafka_sasl_username": principal(settings, role)})


def command_as(settings: Settings, role: str) -> list[str]:
    """The command of a worker under the user of its role."""
    user = principal(settings, role)  # type: ignore[arg-type]
    return ["env", f"RETRAIL_KAFKA_SASL_USERNAME={user}", *retrail_worker(role)]


def load_documents(settings: Settings) -> None:
    words = [f"word{number}" for number in range(QUERIES)]
    documents = [
        Document(doc_id=f"d{n}", text=f"{word} of the text") for n, word in enumerate(words)
    ]
    records = [encode(document) for document in documents]
    kafka.send_all(kafka.producer(settings), Topics.of(settings).documents, records)


def work(settings: Settings) -> None:
    """One trajectory for every query: a hit that is opened, and one that is not."""
    with Publisher(
        agent="helper",
        bootstrap=settings.kafka_bootstrap,
        topic_prefix=settings.topic_prefix,
        on_error="raise",
        kafka=settings.kafka(),
    ) as publisher:
        for number in range(QUERIES):
            with publisher.trajectory() as trajectory:
                other = f"d{(number + 1) % QUERIES}"
                trajectory.search(f"what is word{number}", [other, f"d{number}"])
                trajectory.browse(f"d{number}")
                trajectory.answer("it is there")


def served_version(settings: Settings) -> int:
    """The version that searches use; 0 before the first swap."""
    client = MilvusClient(uri=settings.milvus_uri)
    try:
        found = client.describe_alias(settings.retriever)["collection_name"]
    except MilvusException:
        return 0
    return version_of(settings.retriever, found) or 0


def shown(settings: Settings, *arguments: str) -> str:
    """Everything that a command prints."""
    ended = subprocess.run(
        [sys.executable, "-m", "retrail_cli", *arguments],
        env=os.environ | environment.variables(settings),
        capture_output=True,
        text=True,
    )
    return ended.stdout + ended.stderr


def forms(secret: str) -> dict[str, bytes]:
    """How a secret may appear: as it is, in a URL, in base64 (whole groups of it), in JSON."""
    encoded = base64.b64encode(secret.encode()).rstrip(b"=")
    return {
        "plain": secret.encode(),
        "URL-encoded": quote(secret, safe="").encode(),
        "base64": encoded[: len(encoded) // 4 * 4],
        "JSON": json.dumps(secret)[1:-1].encode(),
    }


@pytest.mark.timeout(900)
def test_from_a_trajectory_to_a_swap_with_exactly_these_rights(base: Settings) -> None:
    seen: dict[str, bytes] = {}
    stack = LocalStack(base, WORKERS, worker_command=lambda role: command_as(base, role))
    with stack:

        def swapped(version: int) -> bool:
            stack.check()
            return served_version(base) >= version

        load_documents(of(base, "documents"))
        eventually(lambda: swapped(1), 120, "the first collection")
        work(of(base, "agent"))

        def trained() -> bool:
            stack.check()
            return 2 in releases.read(of(base, "reader")).by_version

        eventually(trained, 120, "a release")
        if releases.read(of(base, "reader")).live.version < 2:  # type: ignore[union-attr]
            releases.promote(of(base, "operator"), 2)
        eventually(lambda: swapped(2), 120, "the swap")

        for part in stack.parts():
            if part.role:
                with urllib.request.urlopen(part.where) as page:
                    seen[part.where] = page.read()
        children = psutil.Process().children(recursive=True)
        seen["command lines"] = "\0".join(map(command_line, children)).encode()
        for command in (("doctor",), ("settings",), ("settings", "--json"), ("releases", "--json")):
            seen[" ".join(command)] = shown(base, *command).encode()
        wrong = base.model_copy(update={"kafka_sasl_username": "nobody"})
        seen["a refusal"] = shown(wrong, "pairs").encode()

    assert b"RETRAIL_KAFKA_SASL_PASSWORD" in seen["a refusal"]
    for file in base.data_dir.rglob("*"):
        if file.is_file():
            seen[str(file)] = file.read_bytes()
    assert any(name.endswith(".md") for name in seen), "the model card is among them"
    own = str(base.serve_secret_path)
    found = [
        (name, place, form)
        for name, secret in (MARKERS | {"kafka_sasl_password": PASSWORD}).items()
        for place, content in seen.items()
        for form, text in forms(secret).items()
        if text in content and not (name == "serve_secret" and place == own)
    ]
    assert found == []
    assert base.data_dir.stat().st_mode & 0o777 == 0o700
