"""How a command gets what it needs.

A command names what it needs as parameters (`remote`, `out`, `request`); each comes from a provider, a function whose
own parameters become options of the command.  So an option that many commands share is declared once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import typer

from federation.cli.failure import Failure, report

Provider = Callable[..., Any]


def command(
    app: typer.Typer, name: str, *, panel: str | None = None, **providers: Provider
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the decorated function to `app` as the command `name`, in the help's `panel`.

    Each parameter that `providers` names is replaced by the provider's parameters.  A `Failure` ends the command with
    its code and its lines on stderr.
    """

    def add(function: Callable[..., None]) -> Callable[..., None]:
        own = _parameters(function, leave=providers)
        shared = {key: _parameters(provider) for key, provider in providers.items()}

        def run(**values: Any) -> None:
            try:
                arguments = {key: values[key] for key in own}
                for key, provider in providers.items():
                    arguments[key] = provider(**{each: values[each] for each in shared[key]})
                function(**arguments)
            except Failure as failure:
                report(failure)
                raise typer.Exit(int(failure.code)) from failure

        parameters = dict(own)
        for each in shared.values():
            parameters |= each
        run.__name__ = function.__name__
        run.__doc__ = function.__doc__
        run.__module__ = function.__module__
        run.__annotations__ = {key: parameter.annotation for key, parameter in parameters.items()}
        run.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
        app.command(name, rich_help_panel=panel)(run)
        return function

    return add


def _parameters(function: Callable[..., Any], leave: Any = ()) -> dict[str, inspect.Parameter]:
    """The parameters that become options, by name, with evaluated annotations; those in `leave` are left out."""
    space = getattr(function, "__globals__", {})
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in leave:
            annotation = parameter.annotation
            # Only these are evaluated: what a provider makes may have a type that is not imported before it is needed.
            evaluated = eval(annotation, space) if isinstance(annotation, str) else annotation
            found[name] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=evaluated)
    return found
