"""Seconds by step of a prediction."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class StepClock:
    """Seconds by step; what an inner step takes is not counted in the one around it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside = 0.0

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time what is done inside as a step."""
        outer, self._inside = self._inside, 0.0
        started = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - started
            self.seconds[step] = self.seconds.get(step, 0.0) + took - self._inside
            self._inside = outer + took

    def around(self, step: str, function: Callable[P, T]) -> Callable[P, T]:
        """Return the function, timed."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            with self(step):
                return function(*args, **kwargs)

        return timed
