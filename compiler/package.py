"""From a bundle to what an app is built with. Read `package_bundle` top to bottom."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forerun import __version__
from forerun.compiler.build import identifier, native_folder
from forerun.compiler.bundle import describe_file, write_manifest_body
from forerun.compiler.core_library import archive, build_core
from forerun.compiler.link import compile_c
from forerun.compiler.package_files import cmake_source, header_source, readme_text, table_source
from forerun.compiler.shared_library import link_checked
from forerun.compiler.toolchain import Toolchain, find_toolchain
from forerun.compiler.web_module import MODULES, copy_scripts, link_module, module_readme
from forerun.errors import BundleError, TargetError
from forerun.runtime.bundle import read_bundle, read_manifest
from forerun.staging import staged_folder
from forerun.targets import ALL_TARGETS, Platform, find_platform

MARKER = "forerun-package.json"
MODEL_FOLDER = "model"
# What text.bin says for the core. Modules are fetched with their files, so they come without these.
PYTHON_FILES = ("tokenizer.json", "chat_template.jinja")

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class PackageReport:
    """What was packaged: `sizes` are bytes of the libraries and objects by path, `summary` how the platform is
    proven."""

    folder: Path
    platform: str
    summary: str
    toolchain: str
    targets: tuple[str, ...]
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Network:
    """A network of the bundle: the model (`path` empty) or a draft; `programs` are its manifest's targets, best first,
    for the platform. `name` is what its objects are called after, `draft` its name among drafts (empty: the model)."""

    name: str
    draft: str
    path: str
    manifest: Mapping[str, Any]
    programs: Mapping[str, Mapping[str, Any]]


def package_bundle(
    bundle: Path,
    platform: str,
    output: Path,
    *,
    name: str | None = None,
    progress: Progress | None = None,
) -> PackageReport:
    """Write a folder with which an app can run a bundle: headers, static libraries, the model, CMake targets.

    Args:
        bundle: what `forerun compile` wrote.
        platform: a platform's name.
        output: the folder; written aside and renamed, an existing package is replaced.
        name: what libraries and tables are called; the model's name for None.
        progress: called with a stage's name and the part of the whole done, 0…1.

    Raises:
        BundleError, TargetError, CompileError, OutputError.
    """
    tell = progress or (lambda stage, done: None)
    chosen = find_platform(platform)
    tell("checking the bundle", 0.0)
    networks = find_networks(Path(bundle), chosen, name)
    toolchain = find_toolchain(chosen, cplusplus=chosen.core)
    stem = networks[0].name
    with staged_folder(output, MARKER, "forerun package") as folder:
        tell("copying the model", 0.2)
        for network in networks:
            copy_network(Path(bundle), network, folder / MODEL_FOLDER, PYTHON_FILES if chosen.module else ())
        write_headers(folder / "include", networks)
        tell("compiling the core", 0.3)
        build = folder / "build"
        build.mkdir()
        (folder / "lib").mkdir()
        if chosen.core:
            build_core(chosen, toolchain, build / "core", folder / "lib" / "libforerun.a")
            if not chosen.module:
                shutil.copytree(native_folder().parent / "jvm", folder / "jvm")
        tell("collecting the programs", 0.8)
        objects = collect_objects(Path(bundle), networks, chosen, folder)
        if chosen.core:
            archive(toolchain, objects, folder / "lib" / f"lib{stem}.a")
            shutil.rmtree(folder / "lib" / "objects")
        if chosen.demands is not None:
            tell("linking and checking", 0.9)
            link_checked(chosen, toolchain, folder / "lib", stem)
        if chosen.module:
            tell("linking", 0.9)
            link_module(chosen, toolchain, folder, stem)
            copy_scripts(folder)
        shutil.rmtree(build)
        report = _report(folder, chosen, toolchain, networks)
        _write_facts(folder, report, networks)
    tell("done", 1.0)
    return _report(Path(output), chosen, toolchain, networks)


def find_networks(bundle: Path, platform: Platform, name: str | None = None) -> list[Network]:
    """Return the model and its drafts with their programs for a platform; `name` instead of the model's.

    Raises:
        BundleError: no bundle, or a file of it is missing or was changed.
        TargetError: it was not compiled for a target of this platform.
    """
    described = read_bundle(bundle)
    paths = {
        "": "",
        **{name: f"{draft.path.relative_to(bundle)}/" for name, draft in described.drafts.items()},
    }
    networks = []
    for draft, path in paths.items():
        manifest = read_manifest(bundle / path)
        for file, facts in manifest["files"].items():
            _check_file(bundle / path / file, facts)
        programs = {
            target: entry
            for target, entry in manifest["targets"].items()
            if entry.get("platform") == platform.programs
        }
        if not programs:
            fitting = [target.name for target in ALL_TARGETS if target.platform == platform.programs]
            raise TargetError(
                f"{bundle} holds no program for {platform.name}, only for {', '.join(manifest['targets'])}; compile "
                f"it with --target {' --target '.join(fitting)}"
            )
        networks.append(Network(identifier(name or described.name, draft), draft, path, manifest, programs))
    return networks


def _check_file(path: Path, facts: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise BundleError(f"{path} is missing; compile the bundle again")
    if describe_file(path) != dict(facts):
        raise BundleError(f"{path} was changed after it was written; compile the bundle again")


def copy_network(bundle: Path, network: Network, model: Path, but: Sequence[str] = ()) -> None:
    """Copy a network's files but its libraries and `but`, with a manifest that lists no others and programs of the
    app alone."""
    without = {*but, *(entry.get("library") for entry in network.manifest["targets"].values())}
    files = {name: facts for name, facts in network.manifest["files"].items() if name not in without}
    folder = model / network.path
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / network.path / name, folder / name)
    left_out = ("library", "objects")
    targets = {
        name: {key: value for key, value in entry.items() if key not in left_out}
        for name, entry in network.programs.items()
    }
    write_manifest_body(folder, {**network.manifest, "files": files, "targets": targets})


def write_headers(include: Path, networks: Sequence[Network]) -> None:
    """Write the core's headers and one with the tables of programs."""
    shutil.copytree(native_folder() / "include" / "forerun", include / "forerun")
    count = sum(len(network.programs) for network in networks)
    (include / f"{networks[0].name}.h").write_text(header_source(networks[0].name, count), encoding="utf-8")


def collect_objects(
    bundle: Path, networks: Sequence[Network], platform: Platform, folder: Path
) -> list[Path]:
    """Copy the programs' objects to lib/objects and add one with the tables of programs; return all of them."""
    place, objects = folder / "lib" / "objects", []
    place.mkdir(parents=True)
    for network in networks:
        for target, entry in network.programs.items():
            for name, facts in entry["objects"].items():
                source = bundle / network.path / name
                _check_file(source, facts)
                objects.append(place / f"{network.name}_{identifier(target)}_{source.name}")
                shutil.copyfile(source, objects[-1])
    programs = {
        network.draft: {target: str(entry["symbol"]) for target, entry in network.programs.items()}
        for network in networks
    }
    source = folder / "build" / "programs.c"
    source.write_text(table_source(networks[0].name, programs), encoding="utf-8")
    objects.append(place / f"{networks[0].name}_programs.o")
    compile_c(source, folder / "include", platform, objects[-1])
    return objects


def _report(
    folder: Path, platform: Platform, toolchain: Toolchain, networks: Sequence[Network]
) -> PackageReport:
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in (*(folder / module for module in MODULES), *sorted((folder / "lib").rglob("*")))
        if path.is_file()
    }
    return PackageReport(
        folder, platform.name, platform.summary, toolchain.name, tuple(networks[0].programs), sizes
    )


def _write_facts(folder: Path, report: PackageReport, networks: Sequence[Network]) -> None:
    """Write what the package says about itself, for people, CMake and the next `forerun package`."""
    name = networks[0].name
    facts = {
        "format": "forerun-package",
        "forerun": __version__,
        "name": name,
        "platform": report.platform,
        "checked": report.summary,
        "compiler": report.toolchain,
        "programs": {network.name: list(network.programs) for network in networks},
        "libraries": report.sizes,
    }
    (folder / MARKER).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if MODULES.keys() <= report.sizes.keys():
        (folder / "README.md").write_text(module_readme(name, report.summary), encoding="utf-8")
        return
    has_core, shared = "lib/libforerun.a" in report.sizes, f"lib/lib{name}.so" in report.sizes
    (folder / "README.md").write_text(
        readme_text(name, report.platform, report.summary, report.targets, (has_core, shared)),
        encoding="utf-8",
    )
    if has_core:
        (folder / "cmake").mkdir()
        source = cmake_source(name, shared=shared)
        (folder / "cmake" / "forerun-package-config.cmake").write_text(source, encoding="utf-8")
