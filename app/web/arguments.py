"""Arguments of the web API: each is checked by a strict pydantic model, and refusals are sentences.

(No `from __future__ import annotations` where endpoints are: Gradio needs the hints themselves.)
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from app.app_errors import RequestError, shown


class Arguments(BaseModel):
    """The arguments of one endpoint, with their types as they are: a number in a text is no number."""

    model_config = ConfigDict(strict=True, extra="forbid")


M = TypeVar("M", bound=Arguments)


def checked(model: type[M], /, **arguments: Any) -> M:
    """Return the arguments as the model. Raises RequestError that says of each what was expected and what came."""
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc']))}: {_said(fault, model)}" for fault in error.errors(include_url=False)
        ]
        raise RequestError("; ".join(faults[:5])) from error


def at_the_edge(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with known errors turned into `gr.Error`; the hints stay readable for Gradio."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with shown():
            return function(*args, **kwargs)

    return guarded


def _said(fault: Any, model: type[Arguments]) -> str:
    if fault["type"] == "extra_forbidden":
        return f"is not known; the known ones are {', '.join(_fields_at(model, fault['loc'][:-1]))}"
    came = repr(fault["input"])
    return f"{fault['msg'][:1].lower()}{fault['msg'][1:]}, but {came[:80]}{'…' if len(came) > 80 else ''} came"


def _fields_at(model: type[BaseModel], where: tuple[Any, ...]) -> list[str]:
    """The names that are known where a fault lies."""
    for name in where:
        inner = model.model_fields[name].annotation if name in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
    return list(model.model_fields)
