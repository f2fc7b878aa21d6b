"""Linux control groups: the CPU quota and the memory that they leave to this process. Read once, at the start.

Knows both versions and a mix of them. A group is limited by its own files and by those of every ancestor. A container
may see its own group as the root of the mount; what lies above it cannot be seen there.

Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html,
https://docs.kernel.org/scheduler/sched-bwc.html, cgroup_namespaces(7), proc_pid_mountinfo(5).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_SYSTEM = Path("/")
_UNLIMITED_BYTES = 2**60  # version 1 writes "no limit" as the largest number of whole pages
_V2 = ""  # the second version's hierarchy has no name of a controller in /proc/self/cgroup


@dataclass(frozen=True, slots=True)
class _Mount:
    """root: the group that the mount point shows. controllers: {""} for version 2."""

    root: PurePosixPath
    point: PurePosixPath
    controllers: frozenset[str]


def cpu_quota(system: Path = _SYSTEM) -> float | None:
    """CPUs' worth of time that this process may use; None without a limit. system: the root of the file system."""
    quotas = [_quota(_numbers(group / "cpu.max")) for group in _groups(system, _V2)]
    for group in _groups(system, "cpu"):
        quotas.append(_quota(_numbers(group / "cpu.cfs_quota_us") + _numbers(group / "cpu.cfs_period_us")))
    return min((quota for quota in quotas if quota is not None), default=None)


def free_memory(system: Path = _SYSTEM) -> int | None:
    """Bytes that this process can still use within its groups' limits; None without a limit.

    Files in the page cache count as used there, and give way: they are free here.
    """
    free = [_free_v2(group) for group in _groups(system, _V2)]
    for group in _groups(system, "memory"):
        free.append(_free_v1(group))
        if _numbers(group.parent / "memory.use_hierarchy") == [0]:  # the parent's limit leaves its children out
            break
    return min((count for count in free if count is not None), default=None)


def _quota(numbers: list[int]) -> float | None:
    """numbers: quota and period in microseconds; no quota, or a negative one, is no limit."""
    if len(numbers) != 2 or numbers[0] <= 0 or numbers[1] <= 0:
        return None
    return numbers[0] / numbers[1]


def _free_v2(group: Path) -> int | None:
    limits = [*_numbers(group / "memory.max")[:1], *_numbers(group / "memory.high")[:1]]
    return _free(limits, _numbers(group / "memory.current"), _statistics(group), ("active_file", "inactive_file"))


def _free_v1(group: Path) -> int | None:
    statistics = _statistics(group)
    # the ancestors' limits are in it, also of those that a container cannot see
    inherited = statistics.get("hierarchical_memory_limit", _UNLIMITED_BYTES)
    limits = [*_numbers(group / "memory.limit_in_bytes"), inherited]
    used = _numbers(group / "memory.usage_in_bytes")
    return _free(limits, used, statistics, ("total_active_file", "total_inactive_file"))


def _free(limits: list[int], used: list[int], statistics: dict[str, int], cached: tuple[str, str]) -> int | None:
    limit = min(limits, default=_UNLIMITED_BYTES)
    if limit >= _UNLIMITED_BYTES or not used:
        return None
    return max(limit - used[0] + sum(statistics.get(name, 0) for name in cached), 0)


def _groups(system: Path, controller: str) -> Iterator[Path]:
    """The directories of this process's group in the controller's hierarchy and of its ancestors, innermost first."""
    path = _own_path(system, controller)
    if path is None:
        return
    for mount in _mounts(system):
        if controller not in mount.controllers:
            continue
        inside = _below(path, mount.root)
        if inside is None:
            continue
        point = system / mount.point.relative_to("/")
        for names in range(len(inside.parts), -1, -1):
            yield point.joinpath(*inside.parts[:names])


def _below(path: PurePosixPath, root: PurePosixPath) -> PurePosixPath | None:
    """The group's path below the mount's root; None if the mount does not show the group.

    Paths that begin with ".." lead out of the process's own group namespace. A mount whose root is above the
    namespace shows an ancestor at least.
    """
    if ".." in path.parts:
        return None
    if set(root.parts) <= {"/", ".."}:
        return path.relative_to("/") if root == PurePosixPath("/") else PurePosixPath()
    return path.relative_to(root) if path.is_relative_to(root) else None


def _own_path(system: Path, controller: str) -> PurePosixPath | None:
    """From lines as `4:cpu,cpuacct:/a/b`, or `0::/a/b` for version 2."""
    for line in _lines(system / "proc/self/cgroup"):
        parts = line.split(":", 2)
        if len(parts) == 3 and controller in parts[1].split(","):
            return PurePosixPath(parts[2].removesuffix(" (deleted)"))
    return None


def _mounts(system: Path) -> Iterator[_Mount]:
    """From lines as `32 31 0:29 /docker/x /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu`. A later one hides others."""
    found: dict[PurePosixPath, _Mount] = {}
    for line in _lines(system / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        root, point = (PurePosixPath(_unescaped(field)) for field in fields[3:5])
        found.pop(point, None)
        if kind[0] in ("cgroup", "cgroup2"):
            controllers = {_V2} if kind[0] == "cgroup2" else set(kind[2].split(","))
            found[point] = _Mount(root, point, frozenset(controllers))
    yield from found.values()


def _unescaped(field: str) -> str:
    """mountinfo writes blanks and the like as octal numbers: `\\040`."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), field)


def _numbers(file: Path) -> list[int]:
    """Whole numbers of the file's first line; `max`, as any other word, is none of them."""
    words = next(iter(_lines(file)), "").split()
    return [] if "max" in words else [int(word) for word in words]


def _statistics(group: Path) -> dict[str, int]:
    pairs = (line.split() for line in _lines(group / "memory.stat"))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def _lines(file: Path) -> list[str]:
    """Nothing if it cannot be read: it is not there, or belongs to another system."""
    try:
        return file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
