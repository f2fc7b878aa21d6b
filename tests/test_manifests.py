"""The manifests of k8s/: every set of them against the schemas, the rules and the code, without a cluster."""

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.manifest_facts import PROGRAMS, Rule, options
from tests.manifest_pod_rules import POD_RULES
from tests.manifest_traffic_rules import TRAFFIC_RULES
from tests.manifests import K8S, Cluster, Document, changed, files, read, rendered
from tests.programs import ROOT

RULES = {rule.__name__: rule for rule in POD_RULES + TRAFFIC_RULES}
RENDERED = [K8S, K8S / "overlays/demo", K8S / "overlays/one-node"]
CLUSTERS = [files(K8S), *map(rendered, RENDERED)]
BASE = CLUSTERS[0]
KUBERNETES = "1.36"
INFERENCE, BRIDGE, QUEUE = (
    ("Deployment", "inference"),
    ("Deployment", "bridge"),
    ("HorizontalPodAutoscaler", "inference"),
)
BRIDGE_SETTINGS = ("ConfigMap", "bridge-settings")
POD, FIRST = "spec/template/spec", "spec/template/spec/containers/0"


def schema_problems(document: Document) -> list[str]:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{document['metadata']['name']}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [error.message]
    return []


@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda cluster: cluster.name)
def test_every_document_is_strictly_what_kubernetes_knows(cluster: Cluster) -> None:
    assert [problem for document in cluster.documents for problem in schema_problems(document)] == []


def test_the_example_of_a_volume_fits_the_claim() -> None:
    [volume] = read(K8S / "extras/pv-example.yaml")
    [claim] = BASE.of("PersistentVolumeClaim")
    assert schema_problems(volume) == []
    assert volume["spec"]["claimRef"] == {key: claim["metadata"][key] for key in ("namespace", "name")}
    assert volume["spec"]["accessModes"] == claim["spec"]["accessModes"]
    assert volume["spec"]["capacity"] == claim["spec"]["resources"]["requests"]


@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda cluster: cluster.name)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rule(rule: Rule, cluster: Cluster) -> None:
    assert list(rule(cluster)) == []


BROKEN: list[tuple[str, tuple[str, str], str, Any]] = [
    ("pods_are_restricted", INFERENCE, f"{FIRST}/securityContext/privileged", True),
    ("pods_are_restricted", BRIDGE, f"{FIRST}/securityContext/readOnlyRootFilesystem", None),
    ("pods_are_restricted", ("Job", "model-download"), f"{POD}/securityContext/runAsNonRoot", False),
    ("pods_are_restricted", INFERENCE, f"{POD}/volumes/0", {"name": "model", "hostPath": {"path": "/models"}}),
    ("pods_have_no_token_and_no_service_variables", BRIDGE, f"{POD}/enableServiceLinks", None),
    ("pods_have_no_token_and_no_service_variables", ("ServiceAccount", "bridge"), "automountServiceAccountToken", True),
    ("containers_have_requests_and_limits", BRIDGE, f"{FIRST}/resources/limits/memory", None),
    ("containers_have_requests_and_limits", INFERENCE, f"{FIRST}/resources/requests/nvidia.com~1gpu", "2"),
    ("gpu_pods_are_let_onto_gpu_nodes", INFERENCE, f"{POD}/tolerations", []),
    ("gpu_pods_are_let_onto_gpu_nodes", ("ConfigMap", "inference-settings"), "data/INFERENCE_DEVICE", "cpu"),
    ("inference_is_probed_by_grpc", INFERENCE, f"{FIRST}/readinessProbe/grpc/service", "chat.ChatService"),
    ("inference_is_probed_by_grpc", INFERENCE, f"{FIRST}/livenessProbe/grpc/service", "chat.v1.ChatService"),
    ("inference_is_probed_by_grpc", INFERENCE, f"{FIRST}/startupProbe/failureThreshold", 12),
    ("inference_is_probed_by_grpc", ("ConfigMap", "inference-settings"), "data/INFERENCE_PORT", "50052"),
    ("bridge_is_probed_by_http", BRIDGE, f"{FIRST}/livenessProbe/httpGet/path", "/health"),
    ("running_chats_may_end", INFERENCE, f"{POD}/terminationGracePeriodSeconds", 129),
    ("running_chats_may_end", BRIDGE_SETTINGS, "data/BRIDGE_DRAIN_TIMEOUT_S", "121"),
    ("running_chats_may_end", BRIDGE, f"{FIRST}/lifecycle", None),
    ("an_update_takes_no_pod_away", INFERENCE, "spec/strategy/rollingUpdate/maxUnavailable", 1),
    ("a_rollout_waits_for_download_and_load", INFERENCE, "spec/progressDeadlineSeconds", 600),
    ("pods_are_spread", BRIDGE, f"{POD}/topologySpreadConstraints/0/labelSelector/matchLabels", {"app": "bridge"}),
    ("replicas_are_the_autoscalers", INFERENCE, "spec/replicas", 1),
    ("replicas_are_the_autoscalers", QUEUE, "spec/behavior/scaleDown/stabilizationWindowSeconds", 0),
    ("inference_scales_on_its_queue", QUEUE, "spec/metrics/0/pods/metric/name", "chat_queue"),
    ("inference_scales_on_its_queue", QUEUE, "spec/metrics/1/pods/target/averageValue", "128"),
    ("one_pod_at_a_time_is_moved", ("PodDisruptionBudget", "inference"), "spec/selector/matchLabels", {"app": "x"}),
    ("ports_are_the_settings", BRIDGE_SETTINGS, "data/BRIDGE_METRICS_PORT", "9464"),
    ("ports_are_the_settings", INFERENCE, "spec/template/metadata/annotations/prometheus.io~1port", "9465"),
    ("services_reach_the_pods", ("Service", "bridge"), "spec/ports/0/targetPort", "metrics"),
    ("services_reach_the_pods", ("Service", "inference"), "spec/clusterIP", None),
    ("the_bridge_targets_the_headless_service", BRIDGE_SETTINGS, "data/BRIDGE_TARGET", "inference:50051"),
    ("only_named_traffic_passes", ("NetworkPolicy", "inference"), "spec/ingress/0/from", [{"podSelector": {}}]),
    ("only_named_traffic_passes", ("NetworkPolicy", "default-deny"), "spec/policyTypes", ["Ingress"]),
    ("only_named_traffic_passes", ("NetworkPolicy", "model-download"), "spec/egress/0/ports/0/port", 80),
    ("streams_pass_the_ingress", ("Ingress", "bridge"), "metadata/annotations/nginx.org~1proxy-buffering", None),
    ("streams_pass_the_ingress", BRIDGE_SETTINGS, "data/BRIDGE_MAX_BODY_BYTES", "8388608"),
    ("the_model_is_where_it_is_looked_for", INFERENCE, f"{FIRST}/volumeMounts/0/readOnly", False),
    ("the_model_is_where_it_is_looked_for", ("ConfigMap", "download-settings"), "data/DOWNLOAD_DIRECTORY", "/models"),
    ("torch_has_shared_memory", INFERENCE, f"{FIRST}/volumeMounts/2", None),
    ("commands_are_modules_of_ours", ("Job", "model-download"), f"{FIRST}/command/2", "inference_server.fetch"),
    ("everything_is_in_the_namespace", ("Service", "bridge"), "metadata/namespace", "default"),
    ("programs_take_their_config_maps", ("ConfigMap", "inference-settings"), "data/INFERENCE_DRAIN_TIMEOUT_S", "2m"),
    ("programs_take_their_config_maps", BRIDGE_SETTINGS, "data/INFERENCE_PORT", "50051"),
    ("programs_take_their_config_maps", BRIDGE_SETTINGS, "data/BRIDGE_TARGET", "http://inference:50051"),
    ("programs_take_their_config_maps", BRIDGE_SETTINGS, "data/BRIDGE_ALLOWED_HOSTS", "http://chat.example.com"),
    ("the_bridge_answers_to_its_names", BRIDGE_SETTINGS, "data/BRIDGE_ALLOWED_HOSTS", "*.svc, *.svc.cluster.local"),
    ("the_bridge_answers_to_its_names", BRIDGE_SETTINGS, "data/BRIDGE_ALLOWED_HOSTS", "*"),
    ("the_bridge_answers_to_its_names", ("Ingress", "bridge"), "spec/rules/0/host", "chat.example.org"),
    ("programs_listen_on_ipv6_too", BRIDGE_SETTINGS, "data/BRIDGE_HOST", "0.0.0.0"),
    ("programs_listen_on_ipv6_too", ("ConfigMap", "inference-settings"), "data/INFERENCE_HOST", None),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "document", "path", "value"), BROKEN, ids=[f"{b[0]}:{b[2]}" for b in BROKEN])
def test_a_rule_finds_what_breaks_it(rule: str, document: tuple[str, str], path: str, value: Any) -> None:
    assert list(RULES[rule](changed(BASE, *document, path, value)))


def test_every_rule_is_broken_once_on_purpose() -> None:
    assert {rule for rule, *_ in BROKEN} == set(RULES)


@pytest.mark.parametrize(
    ("document", "path", "value"),
    [
        (INFERENCE, f"{FIRST}/livenesProbe", {}),
        (INFERENCE, f"{FIRST}/readinessProbe/grpc/port", "grpc"),
        (("Service", "bridge"), "spec/ports/0/port", "8000"),
        (BRIDGE_SETTINGS, "data/BRIDGE_PORT", 8000),
        (("Ingress", "bridge"), "kind", "IngressRoute"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_schemas_find_unknown_fields_and_wrong_types(document: tuple[str, str], path: str, value: Any) -> None:
    documents = changed(BASE, *document, path, value).documents
    assert [problem for one in documents for problem in schema_problems(one)]


@pytest.mark.parametrize("name", [n for c in BASE.of("ConfigMap") for n in c["data"]])
def test_every_key_of_a_config_map_is_a_setting(name: str) -> None:
    assert any(name in options(program) for program in PROGRAMS)


def metrics() -> list[str]:
    metrics = BASE.get(*QUEUE)["spec"]["metrics"]
    return [metric["pods"]["metric"]["name"] for metric in metrics]


@pytest.mark.parametrize("name", metrics())
def test_the_server_has_every_metric_that_scales_it(name: str) -> None:
    sources = "".join(path.read_text() for path in (ROOT / "inference_server").rglob("*.py"))
    assert f'"{name}"' in sources


def test_the_adapter_knows_every_metric_that_scales() -> None:
    [values] = read(K8S / "extras/prometheus-adapter-rule.yaml")
    [rule] = values["rules"]["custom"]
    for name in metrics():
        kind = name.removeprefix("chat_num_requests_")
        assert kind in ("waiting", "running")
        assert kind in rule["seriesQuery"]


def test_the_namespace_comes_first_and_every_file_is_in_the_base() -> None:
    [recipe] = read(K8S / "base/Kustomization")
    names = sorted(path.name for path in K8S.glob("*.yaml"))
    assert names[0] == "00-namespace.yaml"
    assert [document["kind"] for document in read(K8S / names[0])] == ["Namespace"]
    assert names == recipe["resources"] == sorted(path.name for path in (K8S / "base").glob("*.yaml"))
    for name in names:
        assert os.readlink(K8S / name) == f"base/{name}"


def test_no_file_has_the_name_that_apply_by_file_refuses() -> None:
    assert [path for pattern in ("kustomization.y*ml", "Kustomization.*") for path in K8S.rglob(pattern)] == []


def test_every_image_is_chosen_in_one_place() -> None:
    [recipe] = read(K8S / "base/Kustomization")
    chosen = {f"{image['newName']}:{image['newTag']}" for image in recipe["images"]}
    assert {container["image"] for _, container in BASE.containers()} == chosen
    assert {image["name"] for image in recipe["images"]} == {image.rpartition(":")[0] for image in chosen}
    for directory in (K8S, *RENDERED[1:]):
        assert "images" not in read(directory / "Kustomization")[0]


def test_the_demo_needs_no_gpu_no_volume_and_no_download() -> None:
    [_, _, demo, _] = CLUSTERS
    kinds = Counter(document["kind"] for document in demo.documents)
    assert not kinds["PersistentVolumeClaim"] + kinds["Job"]
    assert demo.get("ConfigMap", "inference-settings")["data"]["INFERENCE_MODEL"] == "demo"
    assert "nvidia" not in str(demo.documents)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
@pytest.mark.parametrize("directory", [*RENDERED, K8S / "base"], ids=lambda directory: str(directory.name))
def test_kubectl_renders_what_is_tested_here(directory: Path) -> None:
    done = subprocess.run(["kubectl", "kustomize", directory], capture_output=True, text=True, check=True, timeout=60)
    theirs, ours = list(yaml.safe_load_all(done.stdout)), rendered(directory).documents
    assert len(theirs) == len(ours)
    assert all(document in ours for document in theirs)


READMES = ["README.md", "README.zh-CN.md"]


@pytest.mark.parametrize("name", READMES)
def test_every_path_and_object_that_the_guide_names_is_there(name: str) -> None:
    text = (K8S / name).read_text()
    paths = set(re.findall(r"(?<![\w.])k8s/[\w./-]*\w|(?<=\()README[\w.-]*", text))
    assert len(paths) > 8
    assert [path for path in paths if not (ROOT / path).exists() and not (K8S / path).exists()] == []
    objects = set(re.findall(r"\b(deployment|job|service)/([\w-]+)", text))
    assert {"deployment", "job", "service"} == {kind for kind, _ in objects}
    for kind, named in objects:
        assert BASE.get(kind.capitalize(), named)
    settings = set(re.findall(r"`((?:INFERENCE|BRIDGE|DOWNLOAD)_[A-Z_]+)", text))
    assert settings
    assert all(any(setting in options(program) for program in PROGRAMS) for setting in settings)


def test_both_guides_are_in_step() -> None:
    english, chinese = ((K8S / name).read_text() for name in READMES)
    for pattern in (r"(?m)^(#+) ", r"```sh\n(.*?)```", r"\bk8s/[\w./-]+", r"`([^`\n]*)`"):
        found = [re.findall(pattern, text, re.DOTALL) for text in (english, chinese)]
        assert Counter(found[0]) == Counter(found[1]), pattern


def test_the_guide_says_the_numbers_of_the_autoscaler_and_the_node_port() -> None:
    spec, english = BASE.get(*QUEUE)["spec"], (K8S / READMES[0]).read_text()
    for metric in spec["metrics"]:
        of_pods = metric["pods"]
        assert f"`{of_pods['metric']['name']}`, {of_pods['target']['averageValue']} a pod" in english
    [port] = BASE.get("Service", "bridge-nodeport")["spec"]["ports"]
    assert f"port {port['nodePort']}" in english
    probe = BASE.get(*INFERENCE)["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    minutes = probe["periodSeconds"] * probe["failureThreshold"] // 60
    assert f"After {minutes} minutes it is started again" in english
