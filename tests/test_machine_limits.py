"""The machine's limits: CPU quotas and memory of control groups, the affinity mask, an explicit number of threads.

The trees hold files as the kernel writes them; what they mean is said by its documentation (admin-guide/cgroup-v2,
admin-guide/cgroup-v1/memory, scheduler/sched-bwc) and by cgroup_namespaces(7).
"""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from inference_server.engine import control_groups
from inference_server.engine.control_groups import cpu_quota, free_memory
from inference_server.engine.device import choose_threads, free_bytes
from tests.programs import ROOT

MIB = 2**20
V1_UNLIMITED = "9223372036854771712"  # what version 1 shows where no limit was set
V2_MOUNT = "29 22 0:26 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "3{place} 22 0:3{place} {root} /sys/fs/cgroup/{name} rw,nosuid shared:9 - cgroup cgroup rw,{name}\n"
OTHER_MOUNTS = "22 27 0:21 / /proc rw,relatime - proc proc rw\n31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")


def v2_system(tmp_path: Path, path: str, files: dict[str, str], root: str = "/") -> Path:
    """files: below the mount point."""
    write(tmp_path / "proc/self", {"cgroup": f"0::{path}", "mountinfo": V2_MOUNT.format(root=root)})
    write(tmp_path / "sys/fs/cgroup", {"cgroup.controllers": "cpu memory"} | files)
    return tmp_path


def v1_system(tmp_path: Path, path: str, files: dict[str, str], root: str = "/", v2: str = "") -> Path:
    """path: of the group in the hierarchies of the processor and of the memory. v2: lines of mountinfo."""
    mounts = [
        V1_MOUNT.format(place=place, root=root, name=name) for place, name in enumerate(("cpu,cpuacct", "memory"))
    ]
    lines = f"9:name=systemd:/init.scope\n4:memory:{path}\n1:cpu,cpuacct:{path}\n0::/init.scope"
    write(tmp_path / "proc/self", {"cgroup": lines, "mountinfo": OTHER_MOUNTS + "".join(mounts) + v2})
    write(tmp_path / "sys/fs/cgroup", files)
    return tmp_path


def memory_v2(maximum: str, used: int, high: str = "max", cached: int = 0) -> dict[str, str]:
    return {
        "memory.max": maximum,
        "memory.high": high,
        "memory.current": str(used),
        "memory.stat": f"anon {used - cached}\nfile {cached}\ninactive_file {cached}\nactive_file 0\nslab 100",
    }


def memory_v1(limit: str, used: int, hierarchical: str = V1_UNLIMITED, cached: int = 0) -> dict[str, str]:
    return {
        "memory.limit_in_bytes": limit,
        "memory.usage_in_bytes": str(used),
        "memory.use_hierarchy": "1",
        "memory.stat": f"cache 0\nactive_file 5\nhierarchical_memory_limit {hierarchical}\n"
        f"total_active_file {cached}\ntotal_inactive_file 0",
    }


def below(group: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{group}/{name}": text for name, text in files.items()}


@pytest.mark.parametrize(
    ("own", "parent", "expected"),
    [
        ("max 100000", "max 100000", None),
        ("150000 100000", "max 100000", 1.5),
        ("max 100000", "50000 100000", 0.5),
        ("400000 100000", "40000 20000", 2.0),
        ("10000 20000", "400000 100000", 0.5),
    ],
)
def test_cpu_quota_of_version_2_is_the_tightest_of_a_group_and_its_ancestors(
    own: str, parent: str, expected: float | None, tmp_path: Path
) -> None:
    files = {"pods/cpu.max": parent, "pods/a/cpu.max": own, "pods/a/b/cpu.stat": "usage_usec 5", "c/cpu.max": "1 100"}
    assert cpu_quota(v2_system(tmp_path, "/pods/a/b", files)) == expected


@pytest.mark.parametrize(
    ("own", "parent", "expected"), [("-1", "-1", None), ("150000", "-1", 1.5), ("-1", "25000", 0.25)]
)
def test_cpu_quota_of_version_1_is_the_tightest_of_a_group_and_its_ancestors(
    own: str, parent: str, expected: float | None, tmp_path: Path
) -> None:
    files: dict[str, str] = {}
    for group, quota in (("", "-1"), ("/pods", parent), ("/pods/a", own)):
        files |= below(f"cpu,cpuacct{group}", {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": "100000"})
    assert cpu_quota(v1_system(tmp_path, "/pods/a", files)) == expected


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/", "/"),  # a group namespace of its own
        ("/docker/4f2a", "/docker/4f2a"),  # none: the mount shows the container's group as its root
        ("/docker/4f2a", "/"),  # the path is the host's, and the mount shows less
        ("/", "/.."),  # the mount was made outside the namespace, by the parent
    ],
)
def test_container_sees_its_limits_at_the_mount_point(path: str, root: str, tmp_path: Path) -> None:
    v2, v1 = tmp_path / "v2", tmp_path / "v1"
    v2_system(v2, path, {"cpu.max": "50000 100000"} | memory_v2(str(64 * MIB), 4 * MIB), root)
    assert (cpu_quota(v2), free_memory(v2)) == (0.5, 60 * MIB)
    quota = {"cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "100000"}
    v1_system(v1, path, below("cpu,cpuacct", quota) | below("memory", memory_v1(str(64 * MIB), 4 * MIB)), root)
    assert (cpu_quota(v1), free_memory(v1)) == (2.0, 60 * MIB)


def test_mount_of_another_group_limits_nothing(tmp_path: Path) -> None:
    files = {"cpu.max": "50000 100000"} | memory_v2(str(64 * MIB), 4 * MIB)
    system = v2_system(tmp_path, "/docker/mine", files, root="/docker/other")
    assert (cpu_quota(system), free_memory(system)) == (None, None)
    write(tmp_path / "proc/self", {"cgroup": "0::/../sibling"})  # it was moved out of the reader's namespace
    assert cpu_quota(system) is None


@pytest.mark.parametrize(
    ("own", "parent", "expected"),
    [
        (memory_v2("max", 10 * MIB), memory_v2("max", 20 * MIB), None),
        (memory_v2(str(100 * MIB), 10 * MIB), memory_v2("max", 20 * MIB), 90),
        (memory_v2("max", 10 * MIB), memory_v2(str(100 * MIB), 80 * MIB), 20),
        (memory_v2(str(100 * MIB), 10 * MIB, high=str(50 * MIB)), memory_v2("max", 80 * MIB), 40),
        (memory_v2(str(50 * MIB), 40 * MIB, cached=30 * MIB), memory_v2("max", 80 * MIB), 40),
        (memory_v2(str(50 * MIB), 60 * MIB), memory_v2("max", 80 * MIB), 0),
    ],
    ids=["unlimited", "own", "of the parent, used by others", "high", "page cache gives way", "over it"],
)
def test_free_memory_of_version_2_is_what_the_tightest_group_leaves(
    own: dict[str, str], parent: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    system = v2_system(tmp_path, "/pods/a", below("pods", parent) | below("pods/a", own))
    assert free_memory(system) == (None if expected is None else expected * MIB)


@pytest.mark.parametrize(
    ("own", "parent", "hierarchy", "expected"),
    [
        (memory_v1(V1_UNLIMITED, MIB), memory_v1(V1_UNLIMITED, MIB), "1", None),
        (memory_v1(str(100 * MIB), 10 * MIB, cached=5 * MIB), memory_v1(V1_UNLIMITED, MIB), "1", 95),
        (memory_v1(V1_UNLIMITED, 10 * MIB), memory_v1(str(100 * MIB), 80 * MIB), "1", 20),
        (memory_v1(V1_UNLIMITED, 10 * MIB), memory_v1(str(100 * MIB), 80 * MIB), "0", None),
        (memory_v1(V1_UNLIMITED, 10 * MIB, hierarchical=str(40 * MIB)), memory_v1(V1_UNLIMITED, MIB), "1", 30),
    ],
    ids=["unlimited", "own", "of the parent", "of a parent that leaves children out", "of an ancestor out of sight"],
)
def test_free_memory_of_version_1_is_what_the_tightest_group_leaves(
    own: dict[str, str], parent: dict[str, str], hierarchy: str, expected: int | None, tmp_path: Path
) -> None:
    parent = parent | {"memory.use_hierarchy": hierarchy}
    files = below("memory/pods", parent) | below("memory/pods/a", own)
    assert free_memory(v1_system(tmp_path, "/pods/a", files)) == (None if expected is None else expected * MIB)


def test_both_versions_side_by_side_are_read(tmp_path: Path) -> None:
    unified = "41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw\n"
    quota = {"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}
    files = below("cpu,cpuacct/a", quota) | below("uni fied/init.scope", memory_v2(str(30 * MIB), 10 * MIB))
    system = v1_system(tmp_path, "/a", files, v2=unified)
    assert (cpu_quota(system), free_memory(system)) == (3.0, 20 * MIB)


def test_system_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert (cpu_quota(tmp_path), free_memory(tmp_path)) == (None, None)


def test_memory_that_is_planned_with_is_what_the_groups_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_groups, "free_memory", lambda: 3 * MIB)
    assert free_bytes(torch.device("cpu")) == 3 * MIB
    monkeypatch.setattr(control_groups, "free_memory", lambda: 2**60)
    assert free_bytes(torch.device("cpu")) <= psutil.virtual_memory().total


@pytest.mark.parametrize(("quota", "expected"), [(None, 4), (0.25, 1), (1.0, 1), (1.5, 2), (2.0, 2), (64.0, 4)])
def test_threads_are_the_quota_rounded_up_within_the_affinity_mask(
    quota: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(control_groups, "cpu_quota", lambda: quota)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(6)
        why = choose_threads()
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
    limit = f"a quota of {quota:g}" if quota else "no quota"
    assert why == f"{expected} thread{'' if expected == 1 else 's'} for 4 usable CPUs and {limit}"


@pytest.mark.skipif(sys.platform != "linux", reason="needs an affinity mask")
@pytest.mark.parametrize("explicit", [None, "2"])
def test_explicit_number_of_threads_wins_over_the_machines_limits(explicit: str | None) -> None:
    program = (
        "import os, torch; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); before = torch.get_num_threads()\n"
        "from inference_server.engine.device import choose_threads\n"
        "why = choose_threads(); print(before, torch.get_num_threads(), why)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"OMP_NUM_THREADS": explicit} if explicit else {}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    before, after, why = done.stdout.strip().split(" ", 2)
    if explicit:
        assert after == before
        assert why.endswith("by OMP_NUM_THREADS")
    else:
        assert why.startswith("1 thread for 1 usable CPU and ")
