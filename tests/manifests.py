"""The manifests as kubectl reads them: the files of a directory, and what a Kustomization makes of them.

Knows exactly what k8s/ uses of kustomize (resources, images, patches that delete, JSON patches) and refuses the rest.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.programs import ROOT

K8S = ROOT / "k8s"
Document = dict[str, Any]


class _UniqueKeys(yaml.SafeLoader):
    """The API server refuses a key that stands twice; YAML's own loader takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if len(set(keys)) != len(keys):
            raise yaml.constructor.ConstructorError(None, None, "a key stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is applied together."""

    name: str
    documents: list[Document]

    def of(self, kind: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] == kind]

    def get(self, kind: str, name: str) -> Document:
        [found] = [document for document in self.of(kind) if document["metadata"]["name"] == name]
        return found

    def pods(self) -> Iterator[tuple[str, Document]]:
        """Name of the owner and template of every pod."""
        for document in self.of("Deployment") + self.of("Job"):
            yield document["metadata"]["name"], document["spec"]["template"]

    def containers(self) -> Iterator[tuple[str, Document]]:
        for name, pod in self.pods():
            for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
                yield f"{name}/{container['name']}", container


def read(path: Path) -> list[Document]:
    """The documents of one file."""
    return list(yaml.load_all(path.read_text(), _UniqueKeys))


def files(directory: Path) -> Cluster:
    """What `kubectl apply -f DIRECTORY` sends, in its order."""
    paths = sorted(path for path in directory.iterdir() if path.suffix in (".yaml", ".yml", ".json"))
    return Cluster("files", [document for path in paths for document in read(path)])


def rendered(directory: Path) -> Cluster:
    """What `kubectl apply -k DIRECTORY` sends, in no order."""
    [recipe] = read(directory / "Kustomization")
    unknown = recipe.keys() - {"apiVersion", "kind", "resources", "images", "patches"}
    if unknown:
        raise ValueError(f"{directory}: {unknown} is not rendered here")
    documents: list[Document] = []
    for name in recipe["resources"]:
        path = directory / name
        documents += rendered(path).documents if path.is_dir() else read(path)
    for patch in recipe.get("patches", []):
        documents = _patched(documents, patch)
    _set_images(documents, recipe.get("images", []))
    return Cluster(directory.name, documents)


def _patched(documents: list[Document], patch: Document) -> list[Document]:
    content = yaml.load(patch["patch"], _UniqueKeys)
    if isinstance(content, dict):
        if content.pop("$patch", None) != "delete":
            raise ValueError("of patches by content only those that delete are rendered here")
        return _without(documents, content)
    matching = [d for d in documents if (d["kind"], d["metadata"]["name"]) == _kind_and_name(patch["target"])]
    if not matching:
        raise ValueError(f"no document for {patch['target']}")
    for document in matching:
        for operation in content:
            _apply(document, operation)
    return documents


def _kind_and_name(target: Document) -> tuple[str, str]:
    if target.keys() != {"kind", "name"}:
        raise ValueError(f"{target}: only kind and name are rendered here")
    return target["kind"], target["name"]


def _without(documents: list[Document], named: Document) -> list[Document]:
    left = [d for d in documents if not all(d[key] == named[key] for key in ("apiVersion", "kind")) or not (
        named["metadata"].items() <= d["metadata"].items())]  # fmt: skip
    if len(left) != len(documents) - 1:
        raise ValueError(f"no document for {named}")
    return left


def _apply(document: Document, operation: Document) -> None:
    """One operation of RFC 6902."""
    place, key = _place(document, operation["path"].removeprefix("/"))
    was = place[key]
    match operation["op"]:
        case "test":
            if was != operation["value"]:
                raise ValueError(f"{operation['path']} is {was}")
        case "remove":
            del place[key]
        case "replace":
            place[key] = copy.deepcopy(operation["value"])
        case other:
            raise ValueError(f"{other} is not rendered here")


def _place(document: Document, path: str) -> tuple[Any, Any]:
    """What holds the end of a path, and its key there. A slash within a key is ~1, as RFC 6901 has it."""
    *way, last = [part.replace("~1", "/") for part in path.split("/")]
    place: Any = document
    for part in way:
        place = place[int(part) if isinstance(place, list) else part]
    return place, int(last) if isinstance(place, list) else last


def _set_images(documents: list[Document], images: list[Document]) -> None:
    chosen = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in images}
    for _, container in Cluster("", documents).containers():
        name = container["image"].rpartition(":")[0]
        container["image"] = chosen.get(name, container["image"])


def changed(cluster: Cluster, kind: str, name: str, path: str, value: Any) -> Cluster:
    """A copy with one place changed; None takes it out. path: keys and numbers with slashes between, as in a patch."""
    copied = Cluster(cluster.name, copy.deepcopy(cluster.documents))
    place, key = _place(copied.get(kind, name), path)
    if value is None:
        del place[key]
    else:
        place[key] = value
    return copied
