"""YAML and overrides to a validated config: all problems at once, each with its key and the fix.

Generic: the keys themselves are declared as pydantic models in `configs/schema.py`.
"""

import difflib
import itertools
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from utils.arguments import user_path
from utils.errors import ConfigError
from utils.project_files import find_shipped
from utils.yaml_values import TRUTH_WORDS, load_value, load_yaml

S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")
Problem = tuple[str, str]
"""(path of the key, what is wrong with it)"""


class Section(BaseModel):
    """A mapping in a config file: no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _words(cls, values: Any) -> Any:
        """yes, no, on and off are truth values where a key takes those, and text everywhere else."""
        if not isinstance(values, dict):
            return values
        return {key: _truth(cls.model_fields.get(key), value) for key, value in values.items()}


def _truth(field: FieldInfo | None, value: Any) -> Any:
    annotation = None if field is None else field.annotation
    takes_it = annotation is bool or bool in get_args(annotation)
    return TRUTH_WORDS.get(value.lower(), value) if takes_it and isinstance(value, str) else value


def _home(text: str) -> str:
    """`~` is the home folder, as in a shell."""
    return str(user_path(text)) if text.startswith("~") else text


PathText = Annotated[str, Field(min_length=1), AfterValidator(_home)]
"""A path."""


def one_of(names: Collection[str]) -> AfterValidator:
    """A text that is one of `names`, as a table's keys; the error lists them and the nearest."""

    def check(value: str) -> str:
        if value in names:
            return value
        *first, last = map(repr, names)
        close = difflib.get_close_matches(value, names, n=1)
        nearest = f" (did you mean {close[0]!r}?)" if close else ""
        choices = " or ".join(filter(None, (", ".join(first), last)))
        raise PydanticCustomError("choice", "{choices}{nearest}", {"choices": choices, "nearest": nearest})

    return AfterValidator(check)


def required(value: T | None, key: str) -> T:
    """The value of a key without which nothing can be done. Raises ConfigError naming it where there is none."""
    if value is None:
        raise ConfigError(f"{key}: is required")
    return value


def load_config(
    schema: type[S],
    path: str | Path,
    overrides: list[str],
    check: Callable[[S, set[str]], Iterator[Problem]],
) -> S:
    """Read, override and validate a configuration.

    Args:
        schema: the declared keys.
        path: a YAML file.
        overrides: `key.sub=value` texts, applied in order; see `load_value`.
        check: yields problems between several values; it is given the config, and the paths of the keys that are
            already known to be wrong and stand at their defaults.

    Raises:
        ConfigError: listing every problem, each with its path.
    """
    values = _read_yaml(Path(path))
    problems: list[Problem] = []
    for override in overrides:
        problems += _apply_override(values, override)
    config, found = _validate(schema, values)
    problems += found
    problems += check(config, {key for key, _ in problems})
    if problems:
        lines = "".join(f"\n  {key}: {text}" for key, text in problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{path}: {count}{lines}")
    return config


def _read_yaml(path: Path) -> dict[str, Any]:
    path = find_shipped(user_path(str(path)))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not a text file in UTF-8") from error
    try:
        values = load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}:{where} is not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no mapping of keys to values")
    # An empty section (`eval:` with nothing below) means its defaults.
    return {key: {} if value is None else value for key, value in values.items()}


def _apply_override(values: dict[str, Any], override: str) -> list[Problem]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        return [("--set", f"{override!r} is not of the form key.sub=value")]
    if any("\udc80" <= letter <= "\udcff" for letter in override):  # bytes that Python could not read as text
        return [(f"--set {key!a}", f"holds what {sys.getfilesystemencoding()} has no letters for; set PYTHONUTF8=1")]
    try:
        value = load_value(text)
    except yaml.YAMLError:
        return [(f"--set {key}", f"{text!r} is not a YAML value")]
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            return [(f"--set {key}", f"{parent} is a value, not a section")]
    values[last] = value
    return []


def _validate(schema: type[S], values: dict[str, Any]) -> tuple[S, list[Problem]]:
    """The config and its problems; wrong values are dropped, so that what depends on others can be checked too."""
    problems: list[Problem] = []
    while True:
        try:
            return schema.model_validate(values), problems
        except ValidationError as error:
            seen = set()
            for item in error.errors():
                location = _location(schema, item["loc"])
                path = ".".join(location)
                if path not in seen:  # a union reports one error per branch
                    seen.add(path)
                    problems.append((path, _sentence(schema, location, item, error)))
            remaining = _without(values, seen)
            if remaining == values:  # nothing was left to drop: stop rather than go round for ever
                raise ConfigError("; ".join(f"{path}: {text}" for path, text in problems)) from error
            values = remaining


def _location(schema: type[BaseModel], loc: tuple[str | int, ...]) -> tuple[str, ...]:
    """The part of a pydantic location that the user wrote: union branches and list indices are cut off."""
    kept: list[str] = []
    current: type[BaseModel] | None = schema
    parts = iter(loc)
    for part in parts:
        if current is None:
            break
        kept.append(str(part))
        field = current.model_fields.get(str(part))
        current = _section_of(current, str(part))
        if field is not None and _is_mapping(field.annotation):
            kept += [str(key) for key in itertools.islice(parts, 1)]
    return tuple(kept)


def _is_mapping(annotation: Any) -> bool:
    return any(get_origin(option) is dict for option in (annotation, *get_args(annotation)))


def _section_of(schema: type[BaseModel], key: str) -> type[BaseModel] | None:
    field = schema.model_fields.get(key)
    if field is None:
        return None
    candidates = (field.annotation, *get_args(field.annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _without(values: dict[str, Any], paths: set[str], prefix: str = "") -> dict[str, Any]:
    kept = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if path not in paths:
            kept[key] = _without(value, paths, f"{path}.") if isinstance(value, dict) else value
    return kept


def _known_keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for key in schema.model_fields:
        yield f"{prefix}{key}"
        section = _section_of(schema, key)
        if section is not None:
            yield from _known_keys(section, f"{prefix}{key}.")


def _sentence(schema: type[BaseModel], location: tuple[str, ...], item: ErrorDetails, error: ValidationError) -> str:
    if item["type"] == "extra_forbidden":
        return f"unknown key{_nearest(schema, location)}"
    if item["type"] == "missing":
        return "is required"
    reasons = dict.fromkeys(
        other["msg"].removeprefix("Input should be ")
        for other in error.errors()
        if _location(schema, other["loc"]) == location
    )
    given = item["input"]
    shown = repr(given) if len(repr(given)) <= 60 else f"{repr(given)[:57]}..."
    return f"should be {' or '.join(reasons)}, not {shown}"


def _nearest(schema: type[BaseModel], location: tuple[str, ...]) -> str:
    known = list(_known_keys(schema))
    last, section = location[-1], ".".join(location[:-1])
    siblings = [key for key in known if key.rpartition(".")[0] == section]
    ends = {key.rpartition(".")[2]: key for key in [*known, *siblings]}  # siblings win over other sections
    close = difflib.get_close_matches(last, ends, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {ends[close[0]]}?"
    return f"; known here: {', '.join(key.rpartition('.')[2] for key in siblings)}"
