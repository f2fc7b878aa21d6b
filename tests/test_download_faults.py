"""What stands between here and a hub: portals, mirrors with other files, lost bytes, file systems without locks."""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_server.download.types import DownloadError
from tests.hub import FILES, SHARD, Answer, FakeHub, running_hub
from tests.test_download import Silent, failure, fetch_shard, run, there

CONTENT = FILES[SHARD]
PART = CONTENT[:100_000]
PAGE = b"<!doctype html><title>Log in</title>"
WRONG = bytes(len(CONTENT))
HTML = {"content-type": "text/html; charset=utf-8"}
LOGIN = "is there a login page or a proxy on the way?"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def part(tmp_path: Path) -> Path:
    part = tmp_path / f"{SHARD}.part"
    part.write_bytes(PART)
    return part


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(200, PAGE, HTML), LOGIN),
        (Answer(200, PAGE, HTML, is_measured=False), LOGIN),
        (Answer(200, PAGE, {"content-type": "TEXT/HTML"}), LOGIN),
        (Answer(200, PAGE, {"content-type": "application/xhtml+xml"}), LOGIN),
        (Answer(200, PAGE.ljust(len(CONTENT)), HTML), LOGIN),
        (Answer(206, PAGE, HTML | {"content-range": "bytes 100000-100035/300000"}), LOGIN),
        (Answer(200, PAGE, {"content-type": "text/plain"}), "a file of 36 bytes in place of"),
        (Answer(200, PAGE), "a file of 36 bytes in place of"),
        (Answer(200, CONTENT + b"x"), "a file of 300001 bytes in place of"),
        (Answer(200, CONTENT[:-1]), "a file of 299999 bytes in place of"),
        (Answer(206, CONTENT[100_000:], {"content-range": "bytes 100000-299999/300001"}), "a file of 300001 bytes"),
        (Answer(416, b"", {"content-range": "bytes */90000"}), "a file of 90000 bytes in place of"),
        (Answer(403, PAGE, HTML), "refuses it (403): it may want a login"),
        (Answer(401), "refuses it (401): it may want a login"),
        (Answer(404), "answers 404 to it"),
        (Answer(204), "answers 204 to it"),
        (Answer(511, PAGE, HTML), "answers 511 to it"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else value[:30],
)
def test_what_is_not_the_file_ends_in_one_line_and_leaves_the_part_as_it_is(
    hub: FakeHub, tmp_path: Path, part: Path, answer: Answer, said: str
) -> None:
    hub.instead = [answer]
    with pytest.raises(DownloadError) as raised:
        fetch_shard(hub, tmp_path)
    assert said in str(raised.value)
    assert str(raised.value).endswith("what is there is kept, running it again continues")
    assert part.read_bytes() == PART
    fetch_shard(hub, tmp_path)
    assert hub.ranges_of(SHARD) == ["bytes=100000-"] * 2
    assert (tmp_path / SHARD).read_bytes() == CONTENT


def test_a_portals_page_is_one_line_and_the_next_run_continues(hub: FakeHub, tmp_path: Path, part: Path) -> None:
    hub.instead = [Answer(200, PAGE, HTML)]
    assert LOGIN in failure(hub, tmp_path)
    assert part.read_bytes() == PART
    run(hub, tmp_path)
    assert there(tmp_path) == FILES


@pytest.mark.parametrize(
    "answer",
    [
        Answer(416),
        Answer(416, PAGE, HTML),
        Answer(416, b"", {"content-range": "bytes */300000"}),
        Answer(206, WRONG[:50]),
        Answer(206, WRONG[:50], {"content-range": "bytes 0-49/300000"}),
        Answer(206, WRONG[:50], {"content-range": "bytes 100001-100050/300000"}),
        Answer(206, WRONG[:50], {"content-range": "bytes 100000-"}),
        Answer(206, WRONG[:50], {"content-type": "multipart/byteranges; boundary=x"}),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else value[:30],
)
def test_a_server_that_cannot_continue_is_asked_for_the_whole_file(
    hub: FakeHub, tmp_path: Path, part: Path, answer: Answer
) -> None:
    hub.instead = [answer]
    assert fetch_shard(hub, tmp_path).bytes_shown == len(CONTENT) - len(PART)
    assert hub.ranges_of(SHARD) == ["bytes=100000-", ""]
    assert (tmp_path / SHARD).read_bytes() == CONTENT


def test_a_part_that_is_whole_is_asked_for_no_more(hub: FakeHub, tmp_path: Path, part: Path) -> None:
    part.write_bytes(CONTENT)
    fetch_shard(hub, tmp_path)
    assert hub.ranges_of(SHARD) == []
    assert (tmp_path / SHARD).read_bytes() == CONTENT


def test_a_wrong_checksum_is_fetched_again_and_the_others_are_kept(hub: FakeHub, tmp_path: Path, part: Path) -> None:
    part.write_bytes(b"of something else")
    output = run(hub, tmp_path)
    assert f"{SHARD}: sha256 is " in output
    assert "fetching it again from its beginning" in output
    assert hub.ranges_of(SHARD) == ["bytes=17-", ""]
    assert there(tmp_path) == FILES


def test_a_checksum_that_is_wrong_twice_ends_in_one_line(hub: FakeHub, tmp_path: Path) -> None:
    hub.instead = [Answer(200, WRONG)] * 2
    with pytest.raises(DownloadError) as raised:
        fetch_shard(hub, tmp_path)
    found, right = (hashlib.sha256(content).hexdigest()[:12] for content in (WRONG, CONTENT))
    assert str(raised.value) == (
        f"{SHARD}: sha256 is {found}... where {right}... is expected, twice; its 0.00 GB are deleted, the other files "
        "are kept, run it again"
    )
    assert list(tmp_path.iterdir()) == []
    assert hub.ranges_of(SHARD) == ["", ""]


def test_bytes_behind_the_listed_ones_are_not_kept(hub: FakeHub, tmp_path: Path) -> None:
    hub.instead = [Answer(200, CONTENT + b"x" * 1000, is_measured=False)]
    assert fetch_shard(hub, tmp_path).bytes_shown == len(CONTENT)
    assert (tmp_path / SHARD).read_bytes() == CONTENT


def refusing(number: int) -> object:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get
)
@pytest.mark.parametrize("call", ["flock", "fsync"])
def test_a_file_system_without_the_call_is_said_once_and_downloaded_to(
    hub: FakeHub,
    tmp_path: Path,
    call: str,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(fcntl if call == "flock" else os, call, refusing(number))
    (tmp_path / f"{SHARD}.part").write_bytes(b"of something else")  # so that each call is made twice
    assert isinstance(fetch_shard(hub, tmp_path), Silent)
    assert (tmp_path / SHARD).read_bytes() == CONTENT
    [said] = [record.getMessage() for record in caplog.records if f"no {call} " in record.getMessage()]
    assert os.strerror(number) in said


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_disk_that_fails_is_no_file_system_without_the_call(
    hub: FakeHub, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", refusing(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        fetch_shard(hub, tmp_path)
    assert not (tmp_path / SHARD).exists()
