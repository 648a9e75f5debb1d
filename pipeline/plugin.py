"""The one plug-in form: a frozen model whose fields are its options, found by name in a registry."""

import difflib
import hashlib
import importlib
import importlib.metadata
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from pipeline.errors import ConfigError
from pipeline.guard import guarded
from pipeline.version import __version__


class Settings(BaseModel):
    """A frozen value; unknown fields are refused, and a string below a field documents it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


class Plugin(Settings):
    """Base of everything that a config names: fields are options, and there is one verb."""

    name: str
    """Which plug-in of its kind this is."""


P = TypeVar("P", bound=Plugin)


class Registry(Generic[P]):
    """The plug-ins of one kind, by name.

    The modules of `package` are imported at the first look-up, so that a file put there is found
    without a list to keep, and importing `pipeline` stays cheap.
    """

    all: ClassVar[dict[str, "Registry[Any]"]] = {}

    def __init__(self, kind: str, base: type[P], package: str) -> None:
        self.kind, self.base, self.package = kind, base, package
        self._classes: dict[str, type[P]] = {}
        self._discovered = False
        Registry.all[kind] = self

    def register(self, cls: type[P]) -> type[P]:
        """Class decorator: make `cls` known under the default of its `name` field.

        Raises:
            ConfigError: another class has this name already, or the class lacks a method that its kind must have.
        """
        name = cls.model_fields["name"].default
        known = self._classes.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(
                f"plug-in {cls.__module__}.{cls.__qualname__}: the {self.kind} name {name!r} is taken by "
                f"{known.__module__}.{known.__qualname__}. Choose another name."
            )
        self._classes[name] = guarded(cls, self.kind)
        return cls

    def __iter__(self) -> Iterator[type[P]]:
        self._discover()
        return iter(self._classes[name] for name in sorted(self._classes))

    def names(self) -> list[str]:
        """Return every known name, sorted."""
        self._discover()
        return sorted(self._classes)

    def get(self, name: str) -> type[P]:
        """Return the class called `name`.

        Raises:
            ConfigError: there is none; the message names the nearest and the known ones.
        """
        self._discover()
        if name not in self._classes:
            raise ConfigError(self._unknown(name))
        return self._classes[name]

    def parse(self, value: object) -> P:
        """Turn `{name: ..., option: ...}`, or a bare name, into a checked plug-in."""
        if isinstance(value, self.base):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise PydanticCustomError(
                "plugin",
                "expected a mapping with the name of a {kind}, found {found}",
                {"kind": self.kind, "found": repr(value)},
            )
        self._discover()
        if value["name"] not in self._classes:
            raise PydanticCustomError("plugin", "{message}", {"message": self._unknown(value["name"])})
        try:
            return self._classes[value["name"]].model_validate(value)
        except ValidationError as error:
            # pydantic would flatten this into one text: carried along, each problem keeps its path.
            raise PydanticCustomError(
                "nested",
                "{n} problems",
                {"n": error.error_count(), "errors": error.errors(), "plugin": self._classes[value["name"]]},
            ) from None

    def _unknown(self, name: str) -> str:
        known = sorted(self._classes)
        return f"no {self.kind} called {name!r}{did_you_mean(name, known)}. Known: {', '.join(known)}"

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        try:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
        except BaseException:
            self._discovered = False
            raise

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda plugin: plugin.model_dump(mode="json")
            ),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"oneOf": [handler(cls.__pydantic_core_schema__) for cls in self]}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'unet'?` for the nearest known word, or an empty text."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def load_plugins(modules: Iterable[str], *, search: Path | None = None) -> None:
    """Import the modules that a config names, and those of the entry-point group `pipeline.plugins`.

    Args:
        modules: Dotted module names.
        search: Folder in which modules are looked up too: that of the config.

    Raises:
        ConfigError: a module cannot be imported; the message carries its own error.
    """
    if search is not None and str(search) not in sys.path:
        sys.path.append(str(search))
    jobs: list[tuple[str, Callable[[], object]]] = [(name, partial(importlib.import_module, name)) for name in modules]
    jobs += [(point.value, point.load) for point in importlib.metadata.entry_points(group="pipeline.plugins")]
    for name, load in jobs:
        try:
            load()
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"plugins: {name!r} cannot be imported: {type(error).__name__}: {error}. "
                "Install it, or correct its name or code."
            ) from error


def source_hash(plugin: Plugin) -> str:
    """Return what stands for the code of a plug-in in a stage key.

    The sha256 of its module's file outside this package; the package's version inside it.
    """
    cls = type(plugin)
    if cls.__module__.split(".")[0] == "pipeline":
        return __version__
    file = inspect.getsourcefile(cls)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else cls.__qualname__
