"""Writing folders and files aside and putting them in place at the end, so that nothing half-written is ever found."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from forerun.errors import OutputError


@contextlib.contextmanager
def replaced_file(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write to; what is there takes its place, on disk, when the block ends well, and
    is removed else. Raises `OSError`.
    """
    number, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    partial = Path(name)
    try:
        os.close(number)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def staged_folder(target: Path, marker: str, made_by: str) -> Iterator[Path]:
    """Yield an empty folder beside `target`; rename it to `target` when the block ends well, else remove it.

    Args:
        target: the folder to make. If it exists it is replaced, provided it is empty or holds a file `marker`.
        marker: name of a file that every folder of this kind holds.
        made_by: what makes such folders, for the message.

    Raises:
        OutputError: the target is something else, cannot be written, or the disk is full.
    """
    target = Path(target).absolute()
    _check_replaceable(target, marker, made_by)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as error:
        raise OutputError(
            f"cannot write to {target.parent}: {error.strerror}; choose another output folder"
        ) from error
    try:
        yield folder
        folder.chmod(0o755)
        _put_in_place(folder, target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OutputError(
                f"the disk is full: {target} was not written; free some space and run again"
            ) from error
        raise OutputError(f"cannot write {target}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_replaceable(target: Path, marker: str, made_by: str) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise OutputError(f"{target} exists and is no folder; choose another output")
    if any(target.iterdir()) and not (target / marker).exists():
        raise OutputError(
            f"{target} holds files that {made_by} did not write (no {marker}); choose an empty or new folder"
        )


def _put_in_place(folder: Path, target: Path) -> None:
    """Rename, moving what stood there out of the way first; a failed rename puts it back."""
    if not target.exists():
        os.replace(folder, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    os.replace(target, old)
    try:
        os.replace(folder, target)
    except OSError:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
