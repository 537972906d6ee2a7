"""Draft components beside a model: bundles of their own in the model's bundle, and whether they belong to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forerun.compiler.export_reader import Export, open_export
from forerun.errors import CompileError, OptionError
from forerun.models.drafts import read_draft_config


def draft_path(name: str) -> str:
    """Return where a draft lies within the model's bundle."""
    return f"drafts/{name}"


def open_drafts(directories: Mapping[str, Path], model_settings: Mapping[str, Any]) -> dict[str, Export]:
    """Open the exports of a model's drafts, by name.

    Raises:
        OptionError: a name that no folder should have.
        CompileError: a directory holds no export of a draft, or that of another model's, or the model is a draft.
        UnsupportedModelError: an export's description of its draft is damaged.
    """
    if directories and "draft" in model_settings:
        raise CompileError(f"{model_settings['name']} is a draft component itself: it has no drafts")
    exports = {}
    for name, directory in directories.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise OptionError(
                f"a draft cannot be called {name!r}; a name has small letters, digits, - and _ only"
            )
        export = open_export(Path(directory))
        if "draft" not in export.settings:
            raise CompileError(
                f"{directory} holds the model {export.settings['name']}, not a draft component"
            )
        read_draft_config(export.settings["draft"])
        check_pairing(export.settings, model_settings)
        exports[name] = export
    return exports


def check_pairing(draft_settings: Mapping[str, Any], model_settings: Mapping[str, Any]) -> None:
    """Check that a draft was made for a model, by the settings of their exports.

    Raises:
        CompileError: they differ; the message says in what, and both values.
    """
    draft, config = draft_settings["draft"], model_settings["config"]
    wanted = {
        "hidden_size": draft["network"]["hidden_size"],
        "layers": draft["model_layers"],
        "vocabulary_size": draft["model_vocabulary_size"],
    }
    for name, value in wanted.items():
        if config[name] != value:
            raise CompileError(
                f"the draft {draft_settings['name']} was made for a model with {name} {value}, "
                f"{model_settings['name']} has {config[name]}; give a draft that was made for this model"
            )


def listing(drafts: Mapping[str, Export]) -> dict[str, dict[str, Any]]:
    """Return what the model's manifest says of its drafts."""
    return {name: {**export.settings["draft"], "path": draft_path(name)} for name, export in drafts.items()}
