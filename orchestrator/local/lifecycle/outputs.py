"""Storage of hosts' outputs as objects: trees of several hosts are merged, and archives are made."""

import filecmp
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.runtimes.archives import ARTIFACT_UPLOAD
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.space import FreeSpace, LimitedFile
from microjobs_orchestrator.local.trees import FileType, Tree, TreeEntry, discard, get_parent, make_folders, sort_names
from microjobs_orchestrator.terminal import escape_bytes

WriteNote = Callable[[str], None]
"""Writes a sentence to the job's log."""


def merge_outputs(hosts: Sequence[Host], path: str, target: Path, note: WriteNote) -> Tree:
    """Copy a path of the contract from all hosts to the folder `target`, and return one merged tree.

    If several hosts have a file with the same name, the file of the first of these hosts is taken. A sentence in the
    job's log reports each file that differs.
    """
    discard(target)  # the folder may contain files of a killed server
    make_folders(target)
    merged_tree = Tree()
    for host in hosts:
        tree = host.copy(path, target / host.name)
        if tree is not None and not merged_tree:
            merged_tree = tree
        elif tree is not None:
            _merge(tree, merged_tree, host.name, note)
    return merged_tree


def _merge(tree: Tree, merged_tree: Tree, host_name: str, note: WriteNote) -> None:
    # Entries that cannot be stored, because another host has a file or a link at the path of their folder. The keys are
    # the names of the entries, and each value is the type of that file or link.
    blocking_type_by_name: dict[str, str] = {}
    for name in sort_names(tree):
        entry, existing_entry, folder = tree[name], merged_tree.get(name), get_parent(name)
        parent_type = (
            merged_tree[folder].type.value if folder in merged_tree else blocking_type_by_name.get(folder, "folder")
        )
        if parent_type != FileType.FOLDER.value:
            blocking_type_by_name[name] = parent_type
            if entry.type is not FileType.FOLDER:
                problem = f"another host has a {parent_type} at the path of its folder"
                note(f"{escape_bytes(name)} of {host_name} was not stored: {problem}")
        elif existing_entry is None:
            merged_tree[name] = entry
        elif not _are_equal(entry, existing_entry) and entry.type is not FileType.FOLDER:
            problem = f"{escape_bytes(name)} of {host_name} differs from the file of another host"
            note(f"{problem} and was not stored: use a different file name on each host")


def _are_equal(first: TreeEntry, second: TreeEntry) -> bool:
    if first.type is not second.type or first.target != second.target:
        return False
    if first.content is None or second.content is None:
        return True
    return filecmp.cmp(first.content, second.content, shallow=False)


def list_files(tree: Tree) -> dict[str, Path]:
    """Return the contents of a tree's files by name, without links: SageMaker does not follow them."""
    return {name: content for name in sort_names(tree) if (content := tree[name].content) is not None}


def upload(store: ObjectStore, tree: Tree, uri: str) -> None:
    """Store each file of a tree below a prefix. All names are checked before the first file is stored."""
    bucket, prefix = parse_uri(uri)
    contents = {join_key(prefix, name): content for name, content in list_files(tree).items()}
    for key in contents:
        check_key(store, bucket, key)
    for key, content in contents.items():
        store.put(bucket, key, content)


def check_key(store: ObjectStore, bucket: str, key: str) -> None:
    """Raise ServiceError if a file's name cannot be a key."""
    if key != escape_bytes(key):
        raise ServiceError(
            "InvalidArgument", f"ClientError: {ARTIFACT_UPLOAD} failed: {escape_bytes(key)} is not a name in UTF-8"
        )
    store.check_writable(bucket, key)


def upload_archive(store: ObjectStore, tree: Tree, uri: str, work_folder: Path) -> None:
    """Store a tree as one tar.gz object. `work_folder` is for the unfinished archive."""
    bucket, key = parse_uri(uri)
    archive = work_folder / PurePosixPath(key).name
    with LimitedFile(archive, FreeSpace(work_folder, ARTIFACT_UPLOAD)) as file:
        write_archive(tree, file)
    store.put(bucket, key, archive)


def write_archive(tree: Tree, file: IO[bytes]) -> None:
    # The compression level is 1, because weights hardly compress, and the user waits for the archive.
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
        for name in sort_names(tree):
            _add_entry(tar, name, tree[name])
            vars(tar)["members"].clear()  # tarfile would keep the members of the whole archive in memory


def _add_entry(tar: tarfile.TarFile, name: str, entry: TreeEntry) -> None:
    info = tarfile.TarInfo(name)
    info.mtime = entry.modification_time
    if entry.type is FileType.LINK:
        info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, entry.target
        tar.addfile(info)
    elif entry.content is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
    else:
        # The mode that tarfile's filter `data` would set: the owner can read the file, and only the owner can write it.
        executable = 0o111 if entry.mode & 0o100 else 0
        info.mode = (entry.mode & 0o644) | (entry.mode & executable) | 0o600
        with entry.content.open("rb") as content:
            info.size = os.fstat(content.fileno()).st_size
            tar.addfile(info, content)


def join_key(prefix: str, name: str) -> str:
    """Join a prefix and a name with one `/` between them."""
    return f"{prefix.rstrip('/')}/{name}" if prefix else name
