"""List the plug-ins and their options, all of them, those of one KIND, or one plug-in by NAME."""

import argparse
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "kind", nargs="?", metavar="KIND", help="such as network, loss, metric, transform, dataset, stage"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="one plug-in of that kind")


def main(arguments: argparse.Namespace) -> int:
    """Print the list."""
    import pipeline.config  # noqa: F401  brings every registry into being
    from pipeline.errors import ConfigError
    from pipeline.plugin import Registry, did_you_mean, load_plugins

    load_plugins(())
    known = sorted(Registry.all)
    if arguments.kind and arguments.kind not in Registry.all:
        raise ConfigError(
            f"no kind of plug-in called {arguments.kind!r}{did_you_mean(arguments.kind, known)}. "
            f"Known: {', '.join(known)}"
        )
    for kind in [arguments.kind] if arguments.kind else known:
        registry = Registry.all[kind]
        chosen = [registry.get(arguments.name)] if arguments.name else list(registry)
        print(f"{kind}")
        for cls in chosen:
            _print(cls, with_options=bool(arguments.kind))
        print()
    if not arguments.kind:
        print("'python -m pipeline options KIND' tells the options of each.")
    return 0


def _print(cls: Any, *, with_options: bool) -> None:
    summary = (cls.__doc__ or "").strip().splitlines()
    print(f"  {cls.model_fields['name'].default:18} {summary[0] if summary else ''}")
    if not with_options:
        return
    for name, field in cls.model_fields.items():
        if name == "name":
            continue
        shown = "required" if field.is_required() else f"default {_short(field.get_default(call_default_factory=True))}"
        print(f"      {field.alias or name}: {_type(field.annotation)} ({shown})")
        for line in (field.description or "").splitlines():
            print(f"          {line}")


def _short(value: Any) -> str:
    dump = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    return str(dump)


def _type(annotation: Any) -> str:
    """Write a type as a reader of YAML would say it, without its checks."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inside[0])
    if origin is Literal:
        return " | ".join(str(value) for value in inside)
    if origin in (Union, UnionType):
        return " | ".join(_type(part) for part in inside)
    if origin in (tuple, list) and inside:
        parts = [_type(part) for part in inside if part is not Ellipsis]
        return f"[{', '.join(parts)}{', ...' if Ellipsis in inside else ''}]"
    if origin is dict:
        return f"{{{_type(inside[0])}: {_type(inside[1])}}}"
    return "none" if annotation in (None, NoneType) else getattr(annotation, "__name__", str(annotation))
