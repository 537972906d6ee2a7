"""Options that several verbs share, and opening a bundle."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forerun.errors import OptionError

if TYPE_CHECKING:
    from forerun.runtime.model import Model


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """The bundle, and how to open it."""
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="bundle folder written by forerun compile"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: physical cores)")
    parser.add_argument(
        "--target", metavar="TARGET", help="one of the bundle's targets (default: the best here)"
    )
    add_device(parser)
    parser.add_argument(
        "--context", type=int, metavar="N", help="positions to make room for (default: the model's)"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Which of several devices."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="part of a device's name, for a target that several here could run (default: $FORERUN_DEVICE, or a GPU)",
    )


def choose_device(arguments: argparse.Namespace) -> None:
    """Tell the core which device was asked for."""
    if arguments.device is not None:
        os.environ["FORERUN_DEVICE"] = arguments.device


def add_tuning(parser: argparse.ArgumentParser) -> None:
    """Where kernel numbers found by forerun tune are kept, and for which device."""
    add_device(parser)
    parser.add_argument(
        "--tuning",
        type=Path,
        metavar="FOLDER",
        help="where forerun tune keeps what it finds (default: forerun/tuning in $XDG_CACHE_HOME or ~/.cache)",
    )


def add_generation(parser: argparse.ArgumentParser) -> None:
    """How to generate."""
    group = parser.add_argument_group("generation")
    group.add_argument(
        "--drafter",
        default="auto",
        metavar="SPEC",
        help="NAME[:key=value,…] (forerun list); auto (default) drafts as far as it pays here, none is plain decoding",
    )
    group.add_argument("--shape", metavar="SPEC", help="draft shape, such as tree:branches=3+2+1")
    group.add_argument(
        "--exit", default="never", metavar="SPEC", help="early-exit policy, NAME[:key=value,…]"
    )
    group.add_argument(
        "--max-tokens", type=int, default=256, metavar="N", help="tokens at most (default 256)"
    )
    group.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 = greedy (default)")
    group.add_argument(
        "--top-k", type=int, default=0, metavar="K", help="draw from the K likeliest; 0 = all (default)"
    )
    group.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="draw from this much mass (default 1)"
    )
    group.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the draws (default 0)")
    group.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before TEXT; may be repeated"
    )


def generation_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `Model.generate` from the options above."""
    names = ("drafter", "shape", "exit", "max_tokens", "temperature", "top_k", "top_p", "seed", "stop")
    return {name: getattr(arguments, name) for name in names}


def check_generation(arguments: argparse.Namespace) -> None:
    """Raise `OptionError` for values that need no model to be judged, before one is loaded."""
    from forerun.runtime.exits import EXITS
    from forerun.runtime.settings import Sampling, Settings
    from forerun.runtime.specs import make_drafter

    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed)
    Settings(arguments.max_tokens, tuple(arguments.stop), sampling=sampling)
    make_drafter(arguments.drafter, arguments.shape)
    EXITS.create(arguments.exit)


def open_model(arguments: argparse.Namespace, *, sequences: int = 1, context: int | None = None) -> "Model":
    """Load the bundle that the arguments name; `context` instead of the one they name."""
    from forerun.runtime.model import load

    choose_device(arguments)
    return load(
        arguments.bundle,
        target=arguments.target,
        threads=arguments.threads,
        sequences=sequences,
        context=context or arguments.context,
    )


def read_text(path: Path, what: str) -> str:
    """The UTF-8 text of a file; raises `OptionError` when it cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise OptionError(f"{what} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{what} {path} is not UTF-8: {error.reason} at byte {error.start}") from error


def import_compile_side(importer: Callable[[], Any], verb: str) -> Any:
    """Import what only compiling needs; raises `OptionError` saying how to install it."""
    try:
        return importer()
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == "forerun":
            raise
        raise OptionError(
            f"forerun {verb} needs the package {error.name!r}, which is not installed;"
            " run: pip install forerun[compile]"
        ) from error
