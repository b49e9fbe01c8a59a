"""The rights of every role, as commands of Apache Kafka or as Strimzi's resources."""

import shlex
from collections.abc import Iterator
from typing import Literal

from schemas.rights import ROLES, Right, principal, rights
from schemas.settings import Settings

AclFormat = Literal["kafka", "strimzi"]


def rendered(settings: Settings, form: AclFormat) -> str:
    """The rights under the topic prefix and revision of ``settings``.

    ``kafka``: a script for ``kafka-acls.sh``; ``strimzi``: a ``KafkaUser`` for each role.
    """
    lines = _commands(settings) if form == "kafka" else _resources(settings)
    return "".join(f"{line}\n" for line in lines)


def _commands(settings: Settings) -> Iterator[str]:
    server = "kafka-acls.sh --bootstrap-server"
    yield "# --command-config FILE: how kafka-acls.sh reaches a secured broker"
    for role, given in ROLES.items():
        yield f"\n# {role}: {given.what}"
        user = shlex.quote(f"User:{principal(settings, role)}")
        for right in rights(settings, role):
            operations = " ".join(f"--operation {one}" for one in right.operations)
            kind = " --resource-pattern-type prefixed" if right.prefixed else ""
            yield (
                f"{server} {shlex.quote(settings.kafka_bootstrap)} --add --allow-principal {user} "
                f"{operations} --{right.resource} {shlex.quote(right.name)}{kind}"
            )


def _resources(settings: Settings) -> Iterator[str]:
    for role, given in ROLES.items():
        name = principal(settings, role)
        yield f"---\n# {role}: {given.what}"
        yield "apiVersion: kafka.strimzi.io/v1\nkind: KafkaUser\nmetadata:"
        # A Kubernetes name has neither capitals nor underscores.
        yield f"  name: {name.lower().replace('_', '-')}"
        yield "  labels:\n    strimzi.io/cluster: CLUSTER"
        yield "spec:\n  authentication:\n    type: scram-sha-512"
        yield "  authorization:\n    type: simple\n    acls:"
        for right in rights(settings, role):
            yield from _acl(right)


def _acl(right: Right) -> Iterator[str]:
    yield "      - resource:"
    yield f"          type: {right.resource}"
    yield f"          name: {right.name}"
    yield f"          patternType: {'prefix' if right.prefixed else 'literal'}"
    yield f"        operations: [{', '.join(right.operations)}]"
