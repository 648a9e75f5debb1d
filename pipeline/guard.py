"""Names a plug-in of the user's own where its code raises, or returns what nobody can use.

Plug-ins inside the package are left as they are: what goes wrong in them is a bug and keeps its traceback.
"""

import functools
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeVar

from pipeline.errors import ConfigError, PipelineError

C = TypeVar("C", bound=type)

Check = Callable[[str, tuple[Any, ...], Any], Any]
"""(who, arguments of the call, what it returned) -> what to hand on."""


def guarded(cls: C, kind: str) -> C:
    """Wrap the verbs of a plug-in class in place, where they are defined outside this package.

    Args:
        cls: Class that is being registered.
        kind: Of plug-in: `network`, `dataset`, ...

    Raises:
        ConfigError: the class lacks a method that its kind must have.
    """
    if cls.__module__.split(".")[0] == "pipeline":
        return cls
    who = f"plug-in {kind} {cls.model_fields['name'].default!r} ({cls.__module__}.{cls.__qualname__})"  # type: ignore[attr-defined]
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise ConfigError(f"{who}: has no method {' and no method '.join(missing)}. Write it.")
    for verb, check in _CHECKS.get(kind, {}).items():
        function = getattr(cls, verb, None)
        if function is None or hasattr(function, "is_guarded"):
            continue
        if function.__module__.split(".")[0] != "pipeline":
            setattr(cls, verb, _guard(function, f"{who}: {verb}", check))
    return cls


def blame(who: str, error: Exception) -> ConfigError:
    """Return the error that names the plug-in which raised, and the line where."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return ConfigError(f"{who} raised {type(error).__name__}: {error}{where}. Mend the plug-in.")


def _guard(function: Callable[..., Any], who: str, check: Check) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        try:
            result = function(self, *arguments, **named)
        except PipelineError:
            raise
        except MemoryError:
            raise
        except Exception as error:
            raise blame(who, error) from error
        return check(who, (*arguments, *named.values()), result)

    call.is_guarded = True  # type: ignore[attr-defined]
    return call


def _wrong(who: str, found: Any, expected: str) -> ConfigError:
    return ConfigError(f"{who} returned {_describe(found)}; expected {expected}. Mend the plug-in.")


def _describe(value: Any) -> str:
    """Say what a value is without printing a volume."""
    if hasattr(value, "shape"):
        return f"a {type(value).__name__} of shape {list(value.shape)}"
    if isinstance(value, list | tuple) and any(hasattr(item, "shape") for item in value):
        return f"a {type(value).__name__} of {', '.join(_describe(item) for item in value[:3])}"
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


def _manifest(who: str, arguments: tuple[Any, ...], result: Any) -> Any:
    if not (hasattr(result, "cases") and hasattr(result, "labels") and hasattr(result, "channels")):
        raise _wrong(who, result, "a Manifest (pipeline.datasets.base)")
    ids = [case.case_id for case in result.cases]
    twice = next((case_id for case_id in ids if ids.count(case_id) > 1), None) if len(set(ids)) < len(ids) else None
    if twice is not None:
        raise ConfigError(f"{who} returned case {twice} twice; expected each case_id once. Mend the plug-in.")
    for case in result.cases:
        unknown = set(case.images) - set(result.channels)
        if unknown:
            raise ConfigError(
                f"{who} returned case {case.case_id} with channel {min(unknown)!r}; expected some of "
                f"{list(result.channels)}, the channels of its Manifest. Mend the plug-in."
            )
    return result


def _network(who: str, arguments: tuple[Any, ...], result: Any) -> Any:
    """Check that it is a module, and let the module check what it gives, each time it is used."""
    if not (hasattr(result, "register_forward_hook") and hasattr(result, "parameters")):
        raise _wrong(who, result, "a torch.nn.Module")
    if not any(one.requires_grad for one in result.parameters()):
        raise ConfigError(f"{who} returned a module without weights to train; expected some. Mend the plug-in.")
    classes = int(arguments[1])
    result.register_forward_hook(functools.partial(_check_logits, who.removesuffix(": build"), classes))
    return result


def _check_logits(who: str, classes: int, module: Any, inputs: tuple[Any, ...], output: Any) -> None:
    image = inputs[0]
    batch, size = image.shape[0], tuple(image.shape[2:])
    levels = output if isinstance(output, list | tuple) else [output]
    whole = [(batch, classes), (batch, classes, *size)]
    fits = all(hasattr(level, "shape") and tuple(level.shape[:2]) == whole[0] for level in levels)
    if not levels or not fits or tuple(levels[0].shape) not in whole:
        raise ConfigError(
            f"{who}: forward returned {_describe(output)} for an input of shape {list(image.shape)}; expected logits "
            f"of shape {list(whole[1])} (segmentation) or {list(whole[0])} (classification). Mend the plug-in."
        )


def _loss(who: str, arguments: tuple[Any, ...], result: Any) -> Any:
    """Check that it is a function, and check what that gives."""
    if not callable(result):
        raise _wrong(who, result, "a function (logits, target) -> scalar tensor")
    return functools.partial(_scalar_loss, who, result)


def _scalar_loss(who: str, function: Callable[..., Any], logits: Any, target: Any) -> Any:
    try:
        value = function(logits, target)
    except PipelineError:
        raise
    except Exception as error:
        if "memory" in str(error):  # told by the learner, with what to do
            raise
        raise blame(who.replace(": build", ": its loss function"), error) from error
    if not hasattr(value, "backward") or value.ndim != 0:
        raise _wrong(who.replace(": build", ": its loss function"), value, "a scalar tensor (shape [])")
    if _requires_grad(logits) and not value.requires_grad:
        raise ConfigError(
            f"{who.replace(': build', ': its loss function')} returned a number that is cut off from the logits "
            "(detach, item or no_grad in it); expected one that can be differentiated. Mend the plug-in."
        )
    return value


def _requires_grad(logits: Any) -> bool:
    """Say whether any of the logits is part of a graph."""
    levels = logits if isinstance(logits, list | tuple) else [logits]
    return any(getattr(level, "requires_grad", False) for level in levels)


def _figures(who: str, arguments: tuple[Any, ...], result: Any) -> Any:
    good = isinstance(result, Mapping) and all(
        isinstance(name, str) and isinstance(value, Real) and not math.isinf(float(value))
        for name, value in result.items()
    )
    if not good or not result:
        raise _wrong(who, result, 'figures by name, such as {"dice": 0.93}, NaN where undefined')
    return result


def _same_shape(who: str, arguments: tuple[Any, ...], result: Any) -> Any:
    given = arguments[0]
    if not hasattr(result, "shape") or tuple(result.shape) != tuple(given.shape):
        raise _wrong(who, result, f"the changed input, of shape {list(given.shape)}")
    return result


def _anything(who: str, arguments: Sequence[Any], result: Any) -> Any:
    return result


_CHECKS: dict[str, dict[str, Check]] = {
    "dataset": {"cases": _manifest, "write_files": _anything},
    "network": {"build": _network},
    "loss": {"build": _loss},
    "metric": {"score": _figures},
    "transform": {"draw": _anything, "apply": _same_shape},
    "postprocess": {"apply": _same_shape},
}
"""Kind -> verb -> what is checked of its result."""
