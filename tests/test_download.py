"""The download against a hub of our own."""

import fcntl
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_server.download import pinned
from inference_server.download.config import Settings, command
from inference_server.download.hubs import Hub, list_files, new_client
from inference_server.download.local_files import part_of
from inference_server.download.selection import needed
from inference_server.download.selection import pinned as known
from inference_server.download.transfer import Transfer
from inference_server.download.types import DownloadError, RemoteFile
from tests.hub import FILES, REPOSITORY, SHARD, FakeHub, remote_file, running_hub
from tests.programs import Program, run_make


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running_hub() as hub:
        yield hub


def start(hub: FakeHub, directory: Path, *flags: str) -> Program:
    """The download as a user starts it; later flags win."""
    chosen = ("--endpoint", hub.url, "--directory", str(directory), "--repository", REPOSITORY, *flags)
    environment = {"NO_PROXY": "127.0.0.1"}
    return Program(sys.executable, "-m", "inference_server.download", *chosen, env=environment)


def run(hub: FakeHub, directory: Path, *flags: str) -> str:
    """What a download that succeeds says."""
    program = start(hub, directory, *flags)
    assert program.wait() == 0, program.output
    return program.output


def failure(hub: FakeHub, directory: Path, *flags: str) -> str:
    """The one line of a download that fails."""
    program = start(hub, directory, *flags)
    assert program.wait() == 2, program.output
    lines = [line for line in program.lines if " INFO " not in line and " WARNING " not in line]
    assert len(lines) == 1, program.output
    return lines[0].removeprefix("inference_server.download: ").rstrip("\n")


def there(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("source", ["modelscope", "huggingface"])
def test_the_needed_files_arrive_and_the_command_that_serves_them_is_said(
    hub: FakeHub, tmp_path: Path, source: str
) -> None:
    directory = tmp_path / "models" / "tiny"
    output = run(hub, directory, "--source", source)
    assert there(directory) == FILES
    assert "downloading: 100 %" in output
    assert output.endswith(f"Serve it with: make run MODEL={directory}\n")


@pytest.mark.parametrize(
    ("variables", "repository", "source", "directory"),
    [
        ([], "Qwen/Qwen3-4B-Instruct-2507", "modelscope", "models/Qwen3-4B-Instruct-2507"),
        (["MODEL=Qwen/Qwen3-0.6B", "SOURCE=huggingface"], "Qwen/Qwen3-0.6B", "huggingface", "models/Qwen3-0.6B"),
        (["MODEL=Qwen/Qwen3-8B"], "Qwen/Qwen3-8B", "modelscope", "models/Qwen3-8B"),
    ],
)
def test_makes_variables_choose_the_repository_and_the_hub(
    variables: list[str], repository: str, source: str, directory: str
) -> None:
    asked = run_make("-n", "download", *variables)
    [line] = [line for line in asked.stdout.splitlines() if "inference_server.download" in line]
    chosen: list[Settings] = []
    command(chosen.append).main(shlex.split(line.split("inference_server.download")[1]), standalone_mode=False)
    assert (chosen[0].repository, chosen[0].source, str(chosen[0].directory)) == (repository, source, directory)


def test_a_directory_is_no_repository(hub: FakeHub, tmp_path: Path) -> None:
    line = failure(hub, tmp_path, "--repository", "models/Qwen3-0.6B")
    assert line.endswith(
        f"{hub.url.removeprefix('http://')} has no repository models/Qwen3-0.6B with revision master (404)"
    )


def test_a_connection_that_breaks_is_continued(hub: FakeHub, tmp_path: Path) -> None:
    hub.breaks_after = [100_000]
    run(hub, tmp_path)
    assert there(tmp_path) == FILES
    assert hub.ranges_of(SHARD) == ["", "bytes=100000-"]


def test_an_interrupted_download_says_so_and_continues_even_from_the_other_hub(hub: FakeHub, tmp_path: Path) -> None:
    hub.breaks_after, hub.stalls = [200_000], True
    program, part = start(hub, tmp_path), tmp_path / f"{SHARD}.part"
    while not part.exists() or not part.stat().st_size:
        assert program.process.poll() is None, program.output
        time.sleep(0.02)
    program.signal(signal.SIGINT)
    assert program.wait() == 130
    assert program.lines[-1] == "inference_server.download: interrupted; running it again continues\n"
    kept_bytes = part.stat().st_size
    hub.requests.clear()
    run(hub, tmp_path, "--source", "huggingface")
    assert there(tmp_path) == FILES
    assert hub.ranges_of(SHARD) == [f"bytes={kept_bytes}-"]


def test_a_server_that_ignores_range_is_read_from_the_start(hub: FakeHub, tmp_path: Path) -> None:
    hub.ignores_range, hub.breaks_after = True, [100_000]
    run(hub, tmp_path)
    assert there(tmp_path) == FILES


def test_only_what_is_missing_or_different_is_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    for path, content in FILES.items():
        (tmp_path / path).write_bytes(content)
    (tmp_path / "LICENSE").write_bytes(b"apache licence")  # as long as the right one
    (tmp_path / "tokenizer.json").unlink()
    run(hub, tmp_path)
    assert there(tmp_path) == FILES
    assert sorted(path for path, _ in hub.requests) == ["LICENSE", "tokenizer.json"]


def test_a_file_longer_than_listed_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.listed[SHARD] = {"size_bytes": 1000}
    assert "answers with a file of 300000 bytes in place of" in failure(hub, tmp_path)
    assert not (tmp_path / f"{SHARD}.part").stat().st_size


@pytest.mark.parametrize("source", ["modelscope", "huggingface"])
def test_an_unknown_repository_is_named(hub: FakeHub, tmp_path: Path, source: str) -> None:
    line = failure(hub, tmp_path, "--source", source, "--repository", "No/Such", "--revision", "v9")
    assert line == f"{hub.url.removeprefix('http://')} has no repository No/Such with revision v9 (404)"


@pytest.mark.parametrize("path", ["../evil.safetensors", "/etc/evil.safetensors", "a/../../evil", "a\\b", "a\nb"])
def test_a_listing_with_an_unsafe_path_is_refused_as_a_whole(hub: FakeHub, tmp_path: Path, path: str) -> None:
    hub.files[path] = b"evil"
    if path == "../evil.safetensors":
        assert failure(hub, tmp_path / "models").endswith(f"lists the unsafe path {path!r}: nothing was taken")
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(DownloadError, match="unsafe path"):
            list_here(hub)


@pytest.mark.parametrize("listing", [b"<html>log in</html>", b"[]", b'{"Code": 200}', b'{"Code": 200, "Data": 5}'])
def test_an_answer_that_is_no_listing_is_said(hub: FakeHub, listing: bytes) -> None:
    hub.listing = listing
    with pytest.raises(DownloadError, match="does not answer as modelscope does: check --source and --endpoint"):
        list_here(hub)


def test_modelscopes_refusal_inside_an_answer_is_said(hub: FakeHub) -> None:
    hub.listing = b'{"Code": 10010205001, "Message": "not found", "Data": null}'
    with pytest.raises(DownloadError, match=f"has no repository {REPOSITORY} with revision v1"):
        list_here(hub)


def test_a_disk_that_is_too_small_is_said_with_the_arithmetic(hub: FakeHub, tmp_path: Path) -> None:
    hub.listed[SHARD] = {"size_bytes": 10**18}
    line = failure(hub, tmp_path)
    assert "too small: 1000000000.00 GB - 0.00 GB there + 0.10 GB to spare = 1000000000.10 GB, free are " in line
    assert hub.requests == []


def test_a_disk_that_becomes_full_is_said(hub: FakeHub, tmp_path: Path) -> None:
    flags = ("--endpoint", hub.url, "--directory", str(tmp_path), "--repository", REPOSITORY)
    limited = f"ulimit -f 100; exec {sys.executable} -m inference_server.download {' '.join(flags)}"
    program = Program("bash", "-c", limited, env={"NO_PROXY": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"})
    assert program.wait() == 2
    assert program.lines[-1] == f"inference_server.download: cannot write to {tmp_path}: File too large\n"


def test_a_directory_that_cannot_be_made_is_said(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    line = failure(hub, tmp_path / "file" / "models")
    assert line == f"cannot write to {tmp_path}/file/models: Not a directory"


def test_no_network_is_said_with_the_host_and_ways_around(hub: FakeHub, tmp_path: Path) -> None:
    line = failure(hub, tmp_path, "--endpoint", "http://127.0.0.1:9")
    assert line == (
        "cannot reach 127.0.0.1:9 ([Errno 111] Connection refused): check the network, use --source huggingface, "
        "or name a mirror with --endpoint"
    )


def test_a_mirror_that_lists_other_weights_than_the_pinned_ones_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.files = dict.fromkeys([*pinned.SHA256, "LICENSE"], b"not Qwen's")
    line = failure(hub, tmp_path, "--repository", pinned.REPOSITORY)
    assert line.endswith("than the pinned revision has: use another --endpoint")
    assert hub.requests == []
    del hub.files["tokenizer.json"]
    line = failure(hub, tmp_path, "--repository", pinned.REPOSITORY)
    assert "lists no tokenizer.json, which the pinned revision has" in line


def test_a_checksum_that_the_listing_leaves_out_is_pinned_all_the_same(hub: FakeHub, tmp_path: Path) -> None:
    hub.files = dict.fromkeys([*pinned.SHA256, "LICENSE"], b"not Qwen's")
    hub.listed = {path: {"sha256": None} for path in hub.files}
    line = failure(hub, tmp_path, "--repository", pinned.REPOSITORY)
    assert ": sha256 is " in line
    assert not set(pinned.SHA256) & set(os.listdir(tmp_path))


def test_of_the_pinned_revision_only_known_files_are_taken() -> None:
    names = [*pinned.SHA256, "LICENSE", "chat_template.jinja"]
    taken = known([RemoteFile(name, 1, None) for name in names], "host")
    assert {file.path: file.sha256 for file in taken} == pinned.SHA256 | {"LICENSE": None}


def test_a_wrong_setting_is_one_line(hub: FakeHub, tmp_path: Path) -> None:
    assert "'--source'" in failure(hub, tmp_path, "--source", "ftp")
    assert 'expected OWNER/NAME, got "../x"' in failure(hub, tmp_path, "--repository", "../x")
    assert 'expected an address like https://HOST, got "host"' in failure(hub, tmp_path, "--endpoint", "host")


def test_a_setting_can_come_from_the_environment(hub: FakeHub, tmp_path: Path) -> None:
    names = {"ENDPOINT": hub.url, "DIRECTORY": str(tmp_path), "REPOSITORY": "No/Such", "REVISION": "v8"}
    environment = {f"DOWNLOAD_{name}": value for name, value in names.items()} | {"NO_PROXY": "127.0.0.1"}
    program = Program(sys.executable, "-m", "inference_server.download", env=environment)
    assert program.wait() == 2
    assert "has no repository No/Such with revision v8 (404)" in program.output


def list_here(hub: FakeHub, source: str = "modelscope") -> list[RemoteFile]:
    with new_client() as client:
        return list_files(Hub(source, REPOSITORY, "v1", hub.url), client)


def test_a_listing_of_several_pages_is_read_to_its_end(hub: FakeHub) -> None:
    hub.page_length = 3
    assert [file.path for file in list_here(hub, "huggingface")] == list(hub.files)


class Silent:
    """Counts what a person would see."""

    def __init__(self) -> None:
        self.bytes_shown = 0

    def says(self, what: str) -> None:
        pass

    def advance(self, byte_count: int) -> None:
        self.bytes_shown += byte_count


def fetch_shard(hub: FakeHub, directory: Path) -> Silent:
    progress = Silent()
    with new_client() as client:
        place = Hub("modelscope", REPOSITORY, "master", hub.url)
        Transfer(place, client, directory, progress, pauses_s=(0.001, 0.001)).fetch(remote_file(SHARD, FILES[SHARD]))
    return progress


def test_tries_without_a_byte_end_but_tries_with_some_go_on(hub: FakeHub, tmp_path: Path) -> None:
    hub.breaks_after = [1000] * 10
    assert fetch_shard(hub, tmp_path).bytes_shown == len(FILES[SHARD])
    hub.breaks_after = [1000, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"3 tries in a row brought nothing, .* running it again continues"):
        fetch_shard(hub, tmp_path)


def test_bytes_that_come_twice_are_shown_once(hub: FakeHub, tmp_path: Path) -> None:
    hub.ignores_range, hub.breaks_after = True, [1000, 5000]
    assert fetch_shard(hub, tmp_path).bytes_shown == len(FILES[SHARD])


def test_two_downloads_do_not_write_into_one_file(hub: FakeHub, tmp_path: Path) -> None:
    with part_of(tmp_path, remote_file(SHARD, b"")).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="another download is writing to"):
            fetch_shard(hub, tmp_path)


def test_the_older_tokenizer_is_taken_where_there_is_no_new_one() -> None:
    names = ["config.json", "a.safetensors", "vocab.json", "merges.txt", "training.bin", "chat_template.jinja"]
    listed = [RemoteFile(name, 1, None) for name in names]
    assert {file.path for file in needed(listed, "it")} == set(names) - {"training.bin"}
    listed.append(RemoteFile("tokenizer.json", 1, None))
    assert not {"vocab.json", "merges.txt"} & {file.path for file in needed(listed, "it")}


def test_a_repository_without_safetensors_is_refused() -> None:
    with pytest.raises(DownloadError, match=r"it has no \*\.safetensors: not a checkpoint that can be served"):
        needed([RemoteFile("config.json", 1, None), RemoteFile("pytorch_model.bin", 1, None)], "it")
