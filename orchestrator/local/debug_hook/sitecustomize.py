"""Waits for a debugger in the first Python process that runs a script of the user.

Python imports this module when it starts, because PYTHONPATH names the module's folder. The folder also contains
debugpy. This code runs in the user's Python: it supports all versions since 3.8, and needs only the standard library.
"""

import fcntl
import fnmatch
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from pathlib import Path

ADDRESS_VARIABLE = "MICROJOBS_DEBUG_ADDRESS"
"""Variable with the address on which debugpy listens, such as 127.0.0.1:5678."""
SCRIPT_VARIABLE = "MICROJOBS_DEBUG_SCRIPT"
"""Variable with a pattern for the script's path or the module's name. Without it, the user's first script waits."""
FILE = Path(__file__).resolve()
LIBRARY_PATHS = ("scripts", "stdlib", "platstdlib", "purelib", "platlib")
"""Folders of installed programs and modules, as `sysconfig` names them."""


def import_hidden_module() -> None:
    """Import the other module `sitecustomize`, which this module hides."""
    path = [folder for folder in sys.path if Path(folder).resolve() != FILE.parent]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        sys.modules["sitecustomize"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def find_program() -> "tuple[str, Path | None]":
    """Return the name of this process's program, and the path of its file or package. The path is None for `python -c`
    and unknown programs."""
    name = sys.argv[0] if sys.argv else ""
    if name == "-m":
        return find_module()
    path = Path(name)
    return name, path.resolve() if name and path.exists() else None


def find_module() -> "tuple[str, Path | None]":
    """Return the name of the module that `python -m` runs, and the path of its file or package."""
    options = getattr(sys, "orig_argv", [])  # Python has orig_argv since version 3.10
    name = options[options.index("-m") + 1] if "-m" in options[:-1] else ""
    spec = importlib.machinery.PathFinder.find_spec(name.partition(".")[0], [str(Path.cwd()), *sys.path])
    if spec is None:
        return name, None
    path = next(iter(spec.submodule_search_locations or ()), spec.origin)
    return name, Path(path).resolve() if path else None


def is_users_program(name: str, path: "Path | None") -> bool:
    """Return whether the program matches the pattern of SCRIPT_VARIABLE. Without a pattern, return whether the program
    belongs to the user: it is not in a folder of installed programs and modules."""
    if pattern := os.environ.get(SCRIPT_VARIABLE):
        return any(fnmatch.fnmatchcase(text, pattern) for text in (name, Path(name).name, str(path)))
    folders = [Path(sysconfig.get_path(key)).resolve() for key in LIBRARY_PATHS]
    return path is not None and not any(folder in path.parents for folder in folders)


def claim_debugger() -> bool:
    """Claim the debugger until the end of this process. Return False if another process has claimed it."""
    # the lock lasts until the end of this process, because the file is never closed
    lock = os.open(str(FILE), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def wait_for_debugger(address: str, program: str) -> None:
    """Listen, wait until a debugger is attached, and let the debugger stop the program at its first line."""
    host, _, port = address.rpartition(":")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # this setting disables a warning about frozen modules
    import debugpy
    import debugpy.server  # adds the folder of `_pydevd_bundle`, whose settings and calls debugpy itself does not offer

    trace_settings = importlib.import_module("_pydevd_bundle.pydevd_dont_trace_files")
    trace_settings.DONT_TRACE[FILE.name] = trace_settings.PYDEV_FILE  # the debugger must not stop in this module
    debugpy.configure(subProcess=False)  # with subProcess, child processes would wait for debuggers of their own
    debugpy.listen((host, int(port)))
    print(f"[microjobs] {program} waits for a debugger at port {port}", file=sys.stderr, flush=True)
    debugpy.wait_for_client()
    importlib.import_module("_pydevd_bundle.pydevd_api").PyDevdAPI().stop_on_entry()


def main() -> None:
    """Wait for a debugger if this process runs the user's program."""
    import_hidden_module()
    address = os.environ.get(ADDRESS_VARIABLE)
    if not address:
        return
    name, path = find_program()
    if not is_users_program(name, path) or not claim_debugger():
        return
    del os.environ[ADDRESS_VARIABLE]  # debugpy's own process must not wait
    try:
        wait_for_debugger(address, name)
    except Exception as error:
        print(f"[microjobs] {name} runs without a debugger: {error!r}", file=sys.stderr, flush=True)


main()
