"""What everything around pods must keep to: namespace, settings, traffic, scaling. See manifest_pod_rules.py."""

import re
from collections.abc import Iterator
from itertools import chain

import click

from http_bridge.hosts import AllowedHosts, Authority
from tests.manifest_facts import NAMESPACE, PROGRAMS, Rule, deployments, options, settings
from tests.manifests import Cluster, Document
from tests.programs import ROOT


def everything_is_in_the_namespace(cluster: Cluster) -> Iterator[str]:
    [namespace] = cluster.of("Namespace")
    labels = namespace["metadata"]["labels"]
    if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "pods that are not restricted are let in"
    for document in cluster.documents:
        metadata = document["metadata"]
        if document is not namespace and metadata.get("namespace") != NAMESPACE:
            yield f"{document['kind']} {metadata['name']} is elsewhere"


def bridge_is_probed_by_http(cluster: Cluster) -> Iterator[str]:
    [container] = cluster.get("Deployment", "bridge")["spec"]["template"]["spec"]["containers"]
    paths = {"startupProbe": "/livez", "readinessProbe": "/health", "livenessProbe": "/livez"}
    source = (ROOT / "http_bridge/app.py").read_text()
    for probe, path in paths.items():
        if container.get(probe, {}).get("httpGet") != {"path": path, "port": "http"}:
            yield f"{probe}: {container.get(probe)}"
        if f'@app.get("{path}"' not in source:
            yield f"{probe}: the bridge has no {path}"


def replicas_are_the_autoscalers(cluster: Cluster) -> Iterator[str]:
    scaled = {scaler["spec"]["scaleTargetRef"]["name"] for scaler in cluster.of("HorizontalPodAutoscaler")}
    for name, spec, _ in deployments(cluster):
        if name not in scaled or "replicas" in spec:
            yield f"{name}: applying again would undo what was scaled"
    for scaler in cluster.of("HorizontalPodAutoscaler"):
        if scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] < 300:
            yield f"{scaler['metadata']['name']}: shrinks too soon"


def inference_scales_on_its_queue(cluster: Cluster) -> Iterator[str]:
    spec = cluster.get("HorizontalPodAutoscaler", "inference")["spec"]
    targets = {m["pods"]["metric"]["name"]: m["pods"]["target"] for m in spec["metrics"] if m["type"] == "Pods"}
    if {target["type"] for target in targets.values()} != {"AverageValue"} or len(targets) != len(spec["metrics"]):
        yield "not a mean over replicas"
    if "chat_num_requests_waiting" not in targets:
        yield f"the queue is not among {list(targets)}"
    most = int(settings(cluster, "inference")["INFERENCE_MAX_SEQUENCES"])
    if not most / 2 <= int(targets.get("chat_num_requests_running", {}).get("averageValue", 0)) < most:
        yield "the running requests' target is no share of --max-sequences"


def one_pod_at_a_time_is_moved(cluster: Cluster) -> Iterator[str]:
    budgets = {b["metadata"]["name"]: b["spec"] for b in cluster.of("PodDisruptionBudget")}
    for name, spec, _ in deployments(cluster):
        budget = budgets.get(name, {})
        if (budget.get("maxUnavailable"), budget.get("selector")) != (1, spec["selector"]):
            yield f"{name}: {budget}"


def _port_of(container: Document, name: str) -> int | None:
    return next((port["containerPort"] for port in container["ports"] if port["name"] == name), None)


def ports_are_the_settings(cluster: Cluster) -> Iterator[str]:
    wanted = {
        "inference": {"grpc": "INFERENCE_PORT", "metrics": "INFERENCE_METRICS_PORT"},
        "bridge": {"http": "BRIDGE_PORT", "metrics": "BRIDGE_METRICS_PORT"},
    }
    for name, pod in ((name, pod) for name, pod in cluster.pods() if name in wanted):
        for port_name, setting in wanted[name].items():
            port = int(settings(cluster, name)[setting])
            if _port_of(pod["spec"]["containers"][0], port_name) != port:
                yield f"{name}: {port_name} is not {setting}"
            if port_name == "metrics" and pod["metadata"]["annotations"].get("prometheus.io/port") != str(port):
                yield f"{name}: scraped elsewhere"


def services_reach_the_pods(cluster: Cluster) -> Iterator[str]:
    for service in cluster.of("Service"):
        name, spec = service["metadata"]["name"], service["spec"]
        pods = [pod for _, pod in cluster.pods() if spec["selector"].items() <= pod["metadata"]["labels"].items()]
        for port in spec["ports"]:
            if [_port_of(pod["spec"]["containers"][0], port["targetPort"]) for pod in pods] != [port["port"]]:
                yield f"{name}: {port}"
    types = {s["metadata"]["name"]: s["spec"].get("clusterIP") or s["spec"].get("type") for s in cluster.of("Service")}
    if types != {"inference": "None", "bridge": "ClusterIP", "bridge-nodeport": "NodePort"}:
        yield f"{types}"


def the_bridge_targets_the_headless_service(cluster: Cluster) -> Iterator[str]:
    headless = next(s for s in cluster.of("Service") if s["spec"].get("clusterIP") == "None")
    address = f"dns:///{headless['metadata']['name']}:{settings(cluster, 'inference')['INFERENCE_PORT']}"
    if settings(cluster, "bridge")["BRIDGE_TARGET"] != address:
        yield f"not {address}"


def only_named_traffic_passes(cluster: Cluster) -> Iterator[str]:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in cluster.of("NetworkPolicy")}
    if policies.pop("default-deny", None) != {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}:
        yield "not denied by default"
    wanted = dict(_ALLOWED)
    if not cluster.of("Job"):
        del wanted["model-download"]
    for name in wanted.keys() | policies.keys():
        policy = policies.get(name, {})
        flows = set(chain.from_iterable(_flows(way, policy.get(way, [])) for way in ("ingress", "egress")))
        if flows != wanted.get(name) or policy["podSelector"]["matchLabels"] != {"app.kubernetes.io/name": name}:
            yield f"{name}: {flows}"


def _flows(way: str, rules: list[Document]) -> Iterator[tuple[str, str, int]]:
    """Direction, the other side in short, and port."""
    for rule in rules:
        peers = rule.get("from" if way == "ingress" else "to", [{"podSelector": {"matchLabels": {"any": ""}}}])
        for peer in peers:
            labels = {
                f"{key}={value}"
                for selector in ("namespaceSelector", "podSelector")
                for key, value in peer.get(selector, {}).get("matchLabels", {}).items()
            }
            other = " ".join(sorted(labels)) or peer.get("ipBlock", {}).get("cidr", "all of its kind")
            yield from ((way, other, port["port"]) for port in rule["ports"])


_MONITORING = "kubernetes.io/metadata.name=monitoring"
_DNS = {
    ("egress", other, 53) for other in ("k8s-app=kube-dns kubernetes.io/metadata.name=kube-system", "169.254.20.10/32")
}
_ALLOWED = {
    "inference": {
        ("ingress", "app.kubernetes.io/name=bridge", 50051),
        ("ingress", "qwen3-chat/grpc-client=allowed", 50051),
        ("ingress", _MONITORING, 9464),
    },
    "bridge": _DNS
    | {
        ("ingress", "any=", 8000),
        ("ingress", _MONITORING, 9465),
        ("egress", "app.kubernetes.io/name=inference", 50051),
    },
    "model-download": _DNS | {("egress", "any=", 443)},
}


def streams_pass_the_ingress(cluster: Cluster) -> Iterator[str]:
    [ingress] = cluster.of("Ingress")
    notes = ingress["metadata"]["annotations"]
    for prefix, off, body in (
        ("nginx.ingress.kubernetes.io", "off", "proxy-body-size"),
        ("nginx.org", "False", "client-max-body-size"),
    ):
        if notes.get(f"{prefix}/proxy-buffering") != off:
            yield f"{prefix}: buffers"
        for direction in ("read", "send"):
            if int(notes.get(f"{prefix}/proxy-{direction}-timeout", "60").rstrip("s")) < 3600:
                yield f"{prefix}: cuts a silent {direction}"
        most = int(settings(cluster, "bridge")["BRIDGE_MAX_BODY_BYTES"])
        if int(notes.get(f"{prefix}/{body}", "1m").removesuffix("m")) * 2**20 <= most:
            yield f"{prefix}: refuses a body before the bridge can say why"
    [path] = ingress["spec"]["rules"][0]["http"]["paths"]
    if path["backend"]["service"] != {"name": "bridge", "port": {"name": "http"}}:
        yield f"{path}"


def programs_take_their_config_maps(cluster: Cluster) -> Iterator[str]:
    """Every value is one that the program's own command line accepts."""
    for config_map in cluster.of("ConfigMap"):
        program = config_map["metadata"]["name"].removesuffix("-settings")
        for name, value in config_map["data"].items():
            option = options(program).get(name)
            try:
                if option:
                    option.process_value(click.Context(PROGRAMS[program]), value)
            except click.BadParameter as error:
                yield f"{name}: {error.message}"
            if not re.fullmatch(f"{program.upper()}_[A-Z_]+", name):
                yield f"{name}: not of this program"
    for name, container in cluster.containers():
        sources = [source["configMapRef"]["name"] for source in container.get("envFrom", [])]
        known = {config_map["metadata"]["name"] for config_map in cluster.of("ConfigMap")}
        if not set(sources) <= known or ("command" not in container and len(sources) != 1):
            yield f"{name}: {sources}"


def the_bridge_answers_to_its_names(cluster: Cluster) -> Iterator[str]:
    """Of Services within the cluster, of the Ingress, and of a pod as the kubelet's probes call it."""
    names = ["10.244.0.7", "fd00:10:244::7"]
    names += [rule["host"] for ingress in cluster.of("Ingress") for rule in ingress["spec"]["rules"]]
    for service in (s["metadata"]["name"] for s in cluster.of("Service") if s["metadata"]["name"] != "inference"):
        names += [f"{service}{suffix}" for suffix in ("", f".{NAMESPACE}.svc", f".{NAMESPACE}.svc.cluster.local")]
    names.append(f"bridge.{NAMESPACE}")
    allowed = AllowedHosts(_split(settings(cluster, "bridge")["BRIDGE_ALLOWED_HOSTS"]))
    for name in names:
        if not allowed.allows(Authority(name, None)):
            yield f"{name}: refused"
    if allowed.allows(Authority("evil.example", None)):
        yield "a rebound name is answered"


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


def programs_listen_on_ipv6_too(cluster: Cluster) -> Iterator[str]:
    for program in ("inference", "bridge"):
        if settings(cluster, program)[f"{program.upper()}_HOST"] != "::":
            yield f"{program}: not reached where pods have IPv6 alone"


TRAFFIC_RULES: tuple[Rule, ...] = (
    everything_is_in_the_namespace,
    bridge_is_probed_by_http,
    replicas_are_the_autoscalers,
    inference_scales_on_its_queue,
    one_pod_at_a_time_is_moved,
    ports_are_the_settings,
    services_reach_the_pods,
    the_bridge_targets_the_headless_service,
    only_named_traffic_passes,
    streams_pass_the_ingress,
    programs_take_their_config_maps,
    the_bridge_answers_to_its_names,
    programs_listen_on_ipv6_too,
)
