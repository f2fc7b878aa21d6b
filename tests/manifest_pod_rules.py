"""What pods must keep to. Each rule yields what breaks it; tests/test_manifests.py applies them."""

import importlib.util
from collections.abc import Iterator
from typing import Any

from tests.manifest_facts import CHAT_SERVICE, Rule, deployments, settings
from tests.manifests import Cluster, Document

_UID = 10001
_SLOW_DISK_START_S = 8_000_000_000 / 10_000_000 * 1.25  # the weights at 10 MB/s, and a quarter more
_AFTER_DRAIN_S = 5  # for what the programs do after the drain, before they are killed


def pods_are_restricted(cluster: Cluster) -> Iterator[str]:
    for name, pod in cluster.pods():
        spec, context = pod["spec"], pod["spec"]["securityContext"]
        wanted = {
            "runAsNonRoot": True,
            "runAsUser": _UID,
            "runAsGroup": _UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        yield from (f"{name}: {key}" for key in wanted if context.get(key) != wanted[key])
        yield from (f"{name}: {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key))
        kinds = {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}}
        yield from (f"{name}: a volume of {kind}" for kind in kinds - {"emptyDir", "persistentVolumeClaim"})
    for name, container in cluster.containers():
        wanted = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        if container["securityContext"] != wanted:
            yield f"{name}: {container['securityContext']}"


def pods_have_no_token_and_no_service_variables(cluster: Cluster) -> Iterator[str]:
    """A Service named bridge would set BRIDGE_PORT to tcp://…, which the program takes for its setting."""
    accounts = {account["metadata"]["name"]: account for account in cluster.of("ServiceAccount")}
    for name, pod in cluster.pods():
        account = accounts.get(pod["spec"].get("serviceAccountName"), {})
        for place, switch in (
            (account, "automountServiceAccountToken"),
            (pod["spec"], "automountServiceAccountToken"),
            (pod["spec"], "enableServiceLinks"),
        ):
            if place.get(switch) is not False:
                yield f"{name}: {switch}"


def containers_have_requests_and_limits(cluster: Cluster) -> Iterator[str]:
    for name, container in cluster.containers():
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        if not {"cpu", "memory", "ephemeral-storage"} <= requests.keys() & limits.keys():
            yield f"{name}: {container['resources']}"
        if requests.get("nvidia.com/gpu") != limits.get("nvidia.com/gpu"):
            yield f"{name}: GPUs cannot be shared or lent"


def gpu_pods_are_let_onto_gpu_nodes(cluster: Cluster) -> Iterator[str]:
    device = settings(cluster, "inference")["INFERENCE_DEVICE"]
    pod = cluster.get("Deployment", "inference")["spec"]["template"]["spec"]
    gpus = pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
    tolerated = {toleration["key"] for toleration in pod.get("tolerations", [])}
    if (gpus, tolerated) != (("1", {"nvidia.com/gpu"}) if device == "cuda" else (None, set())):
        yield f"{device} with {gpus} GPU, tolerations {tolerated}"


def inference_is_probed_by_grpc(cluster: Cluster) -> Iterator[str]:
    [container] = cluster.get("Deployment", "inference")["spec"]["template"]["spec"]["containers"]
    port = int(settings(cluster, "inference")["INFERENCE_PORT"])
    services = {"startupProbe": CHAT_SERVICE, "readinessProbe": CHAT_SERVICE, "livenessProbe": ""}
    for probe, service in services.items():
        if container.get(probe, {}).get("grpc") != {"port": port, "service": service}:
            yield f"{probe}: {container.get(probe)}"
    if _start_s(container) < _SLOW_DISK_START_S:
        yield f"a slow disk needs {_SLOW_DISK_START_S} s"


def _start_s(container: Document) -> int:
    return int(container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"])


def running_chats_may_end(cluster: Cluster) -> Iterator[str]:
    for name, _, pod in deployments(cluster):
        drain_s = int(settings(cluster, name)[f"{name.upper()}_DRAIN_TIMEOUT_S"])
        before_s = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if before_s < 5:
            yield f"{name}: SIGTERM comes while requests still come"
        if pod.get("terminationGracePeriodSeconds", 30) < before_s + drain_s + _AFTER_DRAIN_S:
            yield f"{name}: killed before {drain_s} s of drain are over"


def an_update_takes_no_pod_away(cluster: Cluster) -> Iterator[str]:
    for name, spec, _ in deployments(cluster):
        on_one_gpu = cluster.name == "one-node" and name == "inference"
        wanted = {"maxSurge": 0, "maxUnavailable": 1} if on_one_gpu else {"maxSurge": 1, "maxUnavailable": 0}
        if spec["strategy"].get("rollingUpdate") != wanted:
            yield f"{name}: {spec['strategy']}"


def a_rollout_waits_for_download_and_load(cluster: Cluster) -> Iterator[str]:
    inference = cluster.get("Deployment", "inference")["spec"]["template"]["spec"]
    commands = [container["command"] for container in inference.get("initContainers", [])]
    waits_s = sum(int(command[command.index("--timeout-s") + 1]) for command in commands)
    for name, spec, _ in deployments(cluster):
        if spec["progressDeadlineSeconds"] < waits_s + _start_s(inference["containers"][0]):
            yield f"{name}: called failed while it starts"


def pods_are_spread(cluster: Cluster) -> Iterator[str]:
    for name, spec, pod in deployments(cluster):
        spread = [(c["topologyKey"], c["labelSelector"]) for c in pod.get("topologySpreadConstraints", [])]
        if ("kubernetes.io/hostname", spec["selector"]) not in spread:
            yield f"{name}: {spread}"


def the_model_is_where_it_is_looked_for(cluster: Cluster) -> Iterator[str]:
    for name, container in cluster.containers():
        mounts = {m["name"]: (m["mountPath"], m.get("readOnly", False)) for m in container["volumeMounts"]}
        if mounts.get("tmp") != ("/tmp", False):
            yield f"{name}: nothing can be written"
        if "model" in mounts and mounts["model"] != (_model_path(cluster), name != "model-download/download"):
            yield f"{name}: {mounts['model']}"
        if not cluster.of("PersistentVolumeClaim") and "model" in mounts:
            yield f"{name}: no claim"
    for name, pod in cluster.pods():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        mounted = {m["name"] for c in pod["spec"]["containers"] for m in c["volumeMounts"]}
        if mounted != volumes.keys():
            yield f"{name}: {mounted} of {volumes.keys()}"
        yield from (f"{name}: {v['name']} is unbounded" for v in volumes.values() if v.get("emptyDir") == {})
    if cluster.of("Job"):
        paths = {_model_path(cluster), settings(cluster, "download")["DOWNLOAD_DIRECTORY"], _waited_for(cluster)}
        if len(paths) != 1:
            yield f"{paths}"


def _model_path(cluster: Cluster) -> str:
    return settings(cluster, "inference")["INFERENCE_MODEL"]


def _waited_for(cluster: Cluster) -> Any:
    [waiting] = cluster.get("Deployment", "inference")["spec"]["template"]["spec"]["initContainers"]
    return waiting["command"][3]


def torch_has_shared_memory(cluster: Cluster) -> Iterator[str]:
    pod = cluster.get("Deployment", "inference")["spec"]["template"]["spec"]
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"] == "/dev/shm"}
    in_memory = {v["name"] for v in pod["volumes"] if v.get("emptyDir", {}).get("medium") == "Memory"}
    if not mounted or not mounted <= in_memory:
        yield f"{mounted}"


def commands_are_modules_of_ours(cluster: Cluster) -> Iterator[str]:
    for name, container in cluster.containers():
        match container.get("command"):
            case None:
                pass
            case ["python", "-m", module, *_] if importlib.util.find_spec(module):
                pass
            case command:
                yield f"{name}: {command}"


POD_RULES: tuple[Rule, ...] = (
    pods_are_restricted,
    pods_have_no_token_and_no_service_variables,
    containers_have_requests_and_limits,
    gpu_pods_are_let_onto_gpu_nodes,
    inference_is_probed_by_grpc,
    running_chats_may_end,
    an_update_takes_no_pod_away,
    a_rollout_waits_for_download_and_load,
    pods_are_spread,
    the_model_is_where_it_is_looked_for,
    torch_has_shared_memory,
    commands_are_modules_of_ours,
)
