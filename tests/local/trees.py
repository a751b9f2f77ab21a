"""Conversion between trees and folders, for tests."""

from pathlib import Path

from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.trees import FileType, Tree, TreeEntry, sort_names, walk


def write_tree(tree: Tree, folder: Path) -> None:
    """Create the files, folders and links of a tree."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in sort_names(tree):
        entry, path = tree[name], folder / name
        if entry.type is FileType.FOLDER:
            path.mkdir(exist_ok=True)
        elif entry.type is FileType.LINK:
            path.symlink_to(entry.target)
        else:
            assert entry.content is not None
            path.write_bytes(entry.content.read_bytes())


def copy_from_host(host: Host, path: str, target: Path) -> bool:
    """Copy from a host into the folder `target`; return False if the path does not exist."""
    tree = host.copy(path, target.with_name(f"{target.name}.contents"))
    if tree is not None:
        write_tree(tree, target)
    return tree is not None


def read_tree(folder: Path) -> Tree:
    """Return the tree of a folder. The contents of its files stay in the folder."""
    tree = Tree()
    for item in walk(folder):
        if item.type is FileType.FILE:
            tree[item.name] = TreeEntry.from_status(item.status, folder / item.name)
        elif item.type is FileType.LINK:
            tree[item.name] = TreeEntry(FileType.LINK, target=item.read_link())
        else:
            tree[item.name] = TreeEntry(FileType.FOLDER)
    return tree
