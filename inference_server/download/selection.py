"""Which of a repository's files are downloaded: what serving needs and the licence, never pickles."""

from dataclasses import replace
from fnmatch import fnmatch

from inference_server.download.pinned import SHA256
from inference_server.download.types import DownloadError, RemoteFile

_NEEDED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
    "*.safetensors",
    "LICENSE",
)
_OLDER_TOKENIZER = ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json")


def needed(listed: list[RemoteFile], what: str) -> list[RemoteFile]:
    """The files to take, small ones first. what: the repository's name for messages."""
    names = {file.path for file in listed}
    patterns = _NEEDED if "tokenizer.json" in names else _NEEDED + _OLDER_TOKENIZER
    taken = [f for f in listed if "/" not in f.path and any(fnmatch(f.path, pattern) for pattern in patterns)]
    for pattern in ("config.json", "*.safetensors"):
        if not any(fnmatch(file.path, pattern) for file in taken):
            raise DownloadError(f"{what} has no {pattern}: not a checkpoint that can be served")
    return sorted(taken, key=lambda file: file.size_bytes)


def pinned(taken: list[RemoteFile], host: str) -> list[RemoteFile]:
    """The same with the known checksums. Refuses a listing that is without one of them or says otherwise."""
    absent = SHA256.keys() - {file.path for file in taken}
    if absent:
        raise DownloadError(f"{host} lists no {min(absent)}, which the pinned revision has: use another --endpoint")
    for file in taken:
        if file.sha256 and file.sha256 != SHA256.get(file.path, file.sha256):
            raise DownloadError(
                f"{host} lists another {file.path} than the pinned revision has: use another --endpoint"
            )
    known = [file for file in taken if file.path in SHA256 or file.path == "LICENSE"]
    return [replace(file, sha256=SHA256.get(file.path, file.sha256)) for file in known]
