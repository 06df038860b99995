"""Whether folders and files have changed since they were looked at, asked of the kernel and not of the disk (inotify).

The kernel notes a change before the call that makes it returns. So what was read before is still right while nothing
was noted, whoever else writes: no poll, no delay. That holds where all changes pass this kernel: on disks of this
machine, also through the mounts of containers. Network and user-space file systems are not watched, nor trees with
symbolic links. Not noted are writes through a memory map, and what is mounted over a folder of the tree: whoever keeps
something by a `Watch` has to look again after a while all the same.
"""

import os
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

try:  # Linux has it
    from inotify_simple import INotify, flags
except ImportError:
    INotify = None

_LOCAL = frozenset(
    {"bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "ntfs3", "tmpfs", "vfat", "xfs", "zfs"}
)
"""File systems that only this machine's kernel writes to."""

KEPT_SECONDS = 10.0
"""How long what was read may be kept while no change is noted, since some are not."""

_LIMIT = Path("/proc/sys/fs/inotify/max_user_watches")
_SHARE = 4
"""No more than this part of the watches is taken that all programs of a user have together."""


class Watch:
    """Notes of changes to a tree of folders and to files, from the moment each is added. To be closed.

    One that cannot note every change says that there was one. Belongs to one thread at a time.
    """

    def __init__(self, blind_for: str = "") -> None:
        """`blind_for`: why none is to be tried."""
        self.blind_for = blind_for
        """Why not every change can be noted; empty where each is."""
        self.began = time.monotonic()
        self._roots: dict[Path, tuple[int, int] | None] = {}
        self._has_changed = False
        self._inotify = None
        if blind_for:
            return
        try:
            if INotify is None:
                raise _BlindError("this system does not tell of changes")
            self._mounts = [(one.mountpoint, one.fstype) for one in psutil.disk_partitions(all=True)]
            self._room = int(_LIMIT.read_text()) // _SHARE
            self._inotify = INotify(nonblocking=True)
        except (_BlindError, OSError, ValueError) as error:
            self._give_up(error)

    def add_tree(self, root: Path, depth: int) -> None:
        """A folder, those below it and the files of those `depth` folders down. Hidden ones are passed over."""
        if self.blind_for:
            return
        try:
            self._add_root(root)
            folders = [str(root)]
            for level in range(depth + 1):
                folders = [below for folder in folders for below in self._add_folder(folder, is_last=level == depth)]
        except (_BlindError, OSError) as error:
            self._give_up(error)

    def add_path(self, root: Path, parts: Sequence[str]) -> None:
        """The file that a path below a folder leads to, with what comes and goes in each folder on the way."""
        if self.blind_for:
            return
        try:
            self._add_root(root)
            self._add(str(root), _FOLDER)
            for number in range(1, len(parts)):
                self._add("/".join((str(root), *parts[:number])), _FOLDER | flags.DONT_FOLLOW)
            self._add_file("/".join((str(root), *parts)))
        except (_BlindError, OSError) as error:
            self._give_up(error)

    def add_files(self, folder: Path, names: Iterable[str]) -> None:
        """Files of one folder; where some are missing, whether any comes."""
        if self.blind_for:
            return
        try:
            self._add_root(folder)
            missing = [name for name in names if not self._add_file(f"{folder}/{name}")]
            if missing:
                self._add(str(folder), _COMING)
                for name in missing:  # it may have come before that
                    self._add_file(f"{folder}/{name}")
        except (_BlindError, OSError) as error:
            self._give_up(error)

    @property
    def is_right(self) -> bool:
        """Whether what was read since it began is still right, as far as that can be known."""
        return time.monotonic() - self.began < KEPT_SECONDS and not self.has_changed()

    def has_changed(self) -> bool:
        """Whether anything of it has changed, or another folder has taken the place of one. Takes microseconds."""
        self._has_changed = (
            self._has_changed
            or self._inotify is None
            or bool(self._inotify.read(timeout=0))
            or any(_identity(root) != identity for root, identity in self._roots.items())
        )
        return self._has_changed

    def close(self) -> None:
        """Blocks for milliseconds where there are many watches."""
        self._has_changed = True
        if self._inotify is not None:
            self._inotify.close()

    def _give_up(self, error: Exception) -> None:
        self.blind_for = str(error)
        self.close()

    def _add_root(self, root: Path) -> None:
        place = os.path.realpath(root)
        above = [mount for mount in self._mounts if _is_below(place, mount[0])]
        _, kind = max(above, key=lambda mount: len(mount[0]), default=("", "unknown"))
        if kind not in _LOCAL:
            raise _BlindError(f'"{root}" lies on a file system of the kind "{kind}"')
        if any(_is_below(point, place) and point != place for point, _ in self._mounts):
            raise _BlindError(f'a file system is mounted below "{root}"')
        self._roots[root] = _identity(root)

    def _add_folder(self, folder: str, *, is_last: bool) -> list[str]:
        """The folders in it. The last ones have files that count."""
        folders: list[str] = []
        try:
            self._add(folder, _FOLDER)
            for entry in os.scandir(folder):
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    raise _BlindError(f'"{entry.path}" is a symbolic link')
                if entry.is_dir():
                    folders.append(entry.path)
                elif is_last:
                    self._add_file(entry.path)
        except FileNotFoundError:  # gone meanwhile, which the folder above has noted
            return []
        return [] if is_last else folders

    def _add_file(self, path: str) -> bool:
        """The file itself, since its folder learns nothing of what is written through another hard link.

        False where there is none.
        """
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise _BlindError(f'"{path}" is not a file')
            self._add(path, _FILE)
        except FileNotFoundError:
            return False
        return True

    def _add(self, path: str, mask: int) -> None:
        self._room -= 1
        if self._room < 0:
            raise _BlindError("there are more files than a program should watch")
        if self._inotify is not None:
            self._inotify.add_watch(path, mask)


class _BlindError(Exception):
    """Changes could pass unnoticed, for this reason."""


if INotify is not None:
    _FILE = flags.MODIFY | flags.ATTRIB | flags.DELETE_SELF | flags.MOVE_SELF
    _COMING = flags.CREATE | flags.MOVED_TO
    _FOLDER = _FILE | _COMING | flags.DELETE | flags.MOVED_FROM | flags.ONLYDIR


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _identity(folder: Path) -> tuple[int, int] | None:
    """Which folder lies there, None where there is none."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
