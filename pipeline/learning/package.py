"""Model packages: one file that holds all that inference needs, and that is checked before anything in it is believed.

A package is a zip of stored (never compressed) members: `package.json`, which names all others with their size and
sha256, and for each model its weights (safetensors), recipe and summary of training (JSON); beside them label names,
metrics and a model card. Nothing is ever unpacked to disk, and nothing in it can be executed. Since members are not
compressed, none can be larger than the file itself.
"""

import hashlib
import json
import re
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from pydantic import Field, ValidationError
from torch import Tensor

from pipeline.errors import ModelError, plural
from pipeline.learning.trained import SavedModel
from pipeline.plugin import Settings
from pipeline.provenance import digest
from pipeline.records import InferenceRecipe
from pipeline.workspace import atomic_path

INDEX = "package.json"
_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,99})?")
_MOST_MEMBERS = 1000
_MOST_TEXT_BYTES = 16 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""No time in the file, so that equal models are equal files."""


class Member(Settings):
    """One file of a package."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class PackedModel(Settings):
    """One model of a package: the names of its members."""

    name: str
    fold: int | None = None
    weights: str
    recipe: str
    training: str


class Index(Settings):
    """What `package.json` says."""

    format: int
    name: str
    made_by: str
    models: tuple[PackedModel, ...] = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)
    """How the run predicted."""
    postprocess: tuple[dict[str, Any], ...] = ()
    """What mends masks."""
    plugins: tuple[str, ...] = ()
    """Modules outside this package that its networks come from; they must be installed, they are not in here."""
    files: dict[str, Member]


@dataclass(frozen=True, eq=False)
class Package:
    """An opened package; weights are read when they are asked for."""

    index: Index
    models: tuple[tuple[int | None, SavedModel], ...]
    """Fold and model."""


def write_package(path: Path, index: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    """Write a package, whole or not at all; the same content gives the same bytes.

    Args:
        path: Where to.
        index: The fields of `Index` without `format` and `files`.
        files: Member -> content.

    Returns:
        sha256 of the file.
    """
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    checked = Index.model_validate({"format": _FORMAT, **index, "files": listed})
    text = json.dumps(checked.model_dump(mode="json"), indent=2).encode() + b"\n"
    with atomic_path(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, content in ((INDEX, text), *files.items()):
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
        with temporary.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def open_package(path: Path) -> Package:
    """Open a package and check all of it but the weights, which are checked when they are read.

    Raises:
        ModelError: it is no package, is damaged, was changed, or has members that it should not have.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            index = _index(path, archive)
            _check_members(path, archive, index)
            texts = {name: _content(path, archive, index, name) for name in index.files if not _is_weights(name)}
    except (zipfile.BadZipFile, OSError, NotImplementedError, EOFError, ValueError) as error:
        raise _refused(path, f"it cannot be read ({type(error).__name__}); expected a package") from None
    return Package(index, tuple((model.fold, _model(path, index, model, texts)) for model in index.models))


def _index(path: Path, archive: zipfile.ZipFile) -> Index:
    members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise _refused(path, f"found {len(members)} members; expected at most {_MOST_MEMBERS}")
    room = path.stat().st_size
    for member in members:
        if problem := _problem(member):
            raise _refused(path, f"member {member.filename!r:.120} {problem}")
        room -= member.file_size
    if room < 0:
        raise _refused(path, "its members claim more bytes than the file has")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise _refused(path, "two members have one name")
    if INDEX not in names:
        raise _refused(path, f"there is no {INDEX} in it; expected a package")
    content = _parsed(path, INDEX, archive.read(INDEX))
    if isinstance(content, dict) and content.get("format") != _FORMAT:
        found = content.get("format")
        raise _refused(path, f"its format is {found!r:.20}; this version reads {_FORMAT}")
    try:
        return Index.model_validate(content)
    except ValidationError as error:
        raise _refused(path, f"{INDEX}: {plural(error.error_count(), 'field')} cannot be used") from None


def _problem(member: zipfile.ZipInfo) -> str:
    """Say what a member of a package must not be; an empty text where it is sound."""
    if not _NAME.fullmatch(member.filename):
        return "has a name that leads elsewhere; expected letters, digits and one folder at most"
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        return "is compressed; expected stored members, which cannot swell"
    if member.flag_bits & 1:
        return "is encrypted"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is no plain file"
    if not _is_weights(member.filename) and member.file_size > _MOST_TEXT_BYTES:
        return f"has {member.file_size} bytes; expected at most {_MOST_TEXT_BYTES}"
    return ""


def _check_members(path: Path, archive: zipfile.ZipFile, index: Index) -> None:
    inside = {member.filename: member.file_size for member in archive.infolist() if member.filename != INDEX}
    if unknown := sorted(inside.keys() - index.files.keys()):
        raise _refused(path, f"member {unknown[0]!r} is not in its list")
    if absent := sorted(index.files.keys() - inside.keys()):
        raise _refused(path, f"member {absent[0]!r} is missing")
    for name, member in index.files.items():
        if inside[name] != member.bytes:
            raise _refused(path, f"member {name!r} has {inside[name]} bytes; expected {member.bytes}")
    if len({model.fold for model in index.models}) < len(index.models):
        raise _refused(path, "two of its models are of one fold")
    for model in index.models:
        for name in (model.weights, model.recipe, model.training):
            if name not in index.files or _is_weights(name) != (name == model.weights):
                raise _refused(path, f"model {model.name!r:.80} names {name!r:.120}, which is no such member")


def _content(path: Path, archive: zipfile.ZipFile, index: Index, name: str) -> bytes:
    content = archive.read(name)
    found = hashlib.sha256(content).hexdigest()
    if found != index.files[name].sha256:
        raise _refused(
            path, f"member {name!r} was changed: sha256 {found[:12]}, expected {index.files[name].sha256[:12]}"
        )
    return content


def _model(path: Path, index: Index, model: PackedModel, texts: Mapping[str, bytes]) -> SavedModel:
    written = _parsed(path, model.recipe, texts[model.recipe])
    try:
        recipe = InferenceRecipe.model_validate(written)
    except ValidationError as error:
        hint = f" It needs the modules {', '.join(index.plugins)}: name them with --plugin." if index.plugins else ""
        raise _refused(path, f"{model.recipe}: {error.errors()[0]['msg']:.300}.{hint}") from None
    read = partial(_read_weights, path, index, model.weights)
    weights = index.files[model.weights]
    return SavedModel(recipe, read, weights.sha256, digest(written), weights.bytes, f"{path.name}/{model.name}")


def _read_weights(path: Path, index: Index, name: str) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            return safetensors.torch.load(_content(path, archive, index, name))
    except safetensors.SafetensorError as error:
        raise _refused(path, f"{name}: not a safetensors file: {error}") from None
    except (zipfile.BadZipFile, OSError, KeyError, EOFError) as error:
        raise _refused(path, f"{name} cannot be read ({type(error).__name__})") from None


def _parsed(path: Path, name: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _refused(path, f"{name} is no JSON") from None


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors")


def _refused(path: Path, why: str) -> ModelError:
    return ModelError(f"{path}: {why}. Get the package anew, or make it again.")
