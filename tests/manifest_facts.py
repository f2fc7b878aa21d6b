"""What the code and the manifests say of themselves, for the rules about manifests."""

from collections.abc import Callable, Iterator

import click

import http_bridge.config
import inference_server.config
import inference_server.download.config
from protos.chat.v1 import chat_pb2
from tests.manifests import Cluster, Document

Rule = Callable[[Cluster], Iterator[str]]
NAMESPACE = "qwen3-chat"
CHAT_SERVICE = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name
PROGRAMS = {
    "inference": inference_server.config.command(print),
    "bridge": http_bridge.config.command(print),
    "download": inference_server.download.config.command(print),
}


def options(program: str) -> dict[str, click.Option]:
    """A program's settings by their environment names."""
    found = [option for option in PROGRAMS[program].params if isinstance(option, click.Option)]
    return {str(option.envvar): option for option in found if option.envvar}


def settings(cluster: Cluster, program: str) -> dict[str, str]:
    """What the program starts with: its defaults and the config map."""
    defaults = {name: str(option.default) for name, option in options(program).items()}
    chosen: dict[str, str] = cluster.get("ConfigMap", f"{program}-settings")["data"]
    return defaults | chosen


def deployments(cluster: Cluster) -> Iterator[tuple[str, Document, Document]]:
    """Name, spec and pod spec."""
    for document in cluster.of("Deployment"):
        yield document["metadata"]["name"], document["spec"], document["spec"]["template"]["spec"]
