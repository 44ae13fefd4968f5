"""YAML as configs have it: the core schema of YAML 1.2 for numbers and text, and no key twice.

PyYAML follows YAML 1.1, in which 010 is eight, 1:30 is ninety and `no` is false. Source: yaml.org/spec/1.2.2, chapter
"Core Schema".
"""

import math
import re
from typing import Any

import yaml

MOST_LETTERS, MOST_VALUES, MOST_DIGITS = 200_000, 10_000, 100
"""Of a config; the largest of this project has 300 values."""
TRUTH_WORDS = {"yes": True, "on": True, "no": False, "off": False}
"""In lower case; truth values in YAML 1.1, and here for keys that take one."""
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?.*")
_FORMS = (
    ("null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), list("-+0123456789")),
    (
        "float",
        re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
        list("-+.0123456789"),
    ),
    ("merge", re.compile(r"<<"), ["<"]),
)


class Loader(yaml.SafeLoader):
    """Safe YAML of the core schema, which refuses a key given twice, and keys that other readers take for no text."""

    yaml_implicit_resolvers: dict = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or _is_other_text(key_node):
                read = TRUTH_WORDS.get(str(key).lower(), key)
                problem = f"key {key_node.value!r} is read as {read!r} by some; put it in quotes if it is meant as text"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def whole_number(self, node: yaml.ScalarNode) -> int:
        """Decimal, also with leading zeros; octal and hexadecimal with 0o and 0x."""
        text = node.value
        if len(text) > MOST_DIGITS:
            raise yaml.constructor.ConstructorError(None, None, f"a number of {len(text):,} digits", node.start_mark)
        base = {"0o": 8, "0x": 16}.get(text[:2])
        return int(text) if base is None else int(text[2:], base)

    def real_number(self, node: yaml.ScalarNode) -> float:
        """With or without point and exponent, infinite, or none."""
        text = node.value.lower()
        if text.endswith(".inf"):
            return -math.inf if text.startswith("-") else math.inf
        return math.nan if text == ".nan" else float(text)


for _name, _form, _first in _FORMS:
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_form.pattern})$"), _first)
Loader.add_constructor("tag:yaml.org,2002:int", Loader.whole_number)
Loader.add_constructor("tag:yaml.org,2002:float", Loader.real_number)


def _is_other_text(node: yaml.Node) -> bool:
    """Whether a plain word is a truth value or a date in YAML 1.1."""
    return (
        isinstance(node, yaml.ScalarNode)
        and node.style is None
        and (node.value.lower() in TRUTH_WORDS or _DATE.fullmatch(node.value) is not None)
    )


def load_yaml(text: str) -> Any:
    """A document's value.

    Raises:
        yaml.YAMLError: for what is no YAML, or more than any config: in letters, in depth, or in values when all that
            aliases stand for is written out.
    """
    if len(text) > MOST_LETTERS:
        raise yaml.YAMLError(f"it has {len(text):,} letters, a config has {MOST_LETTERS:,} at most")
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _values_below(node, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_VALUES:,} values")
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply, or an alias stands for what it is in") from error
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # as `!!int x`
        raise yaml.YAMLError(f"a value is not what its tag says ({str(error)[:60]})") from error
    finally:
        loader.dispose()


def _values_below(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in a node, aliases written out. What an alias stands for is counted once and added each time."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        pairs = isinstance(node, yaml.MappingNode)
        below = [part for pair in node.value for part in pair] if pairs else node.value
        known[id(node)] = 1 + sum(_values_below(part, known) for part in below)
    return known[id(node)]


def load_value(text: str) -> Any:
    """A value as a command line gives it: a list, a mapping or a text in quotes as YAML writes them, and anything else
    one value as written, whatever is in it (`#`, `: `).

    Raises:
        yaml.YAMLError: for a list, mapping or quotes without their end.
    """
    text = text.strip()
    if text[:1] in tuple("[{\"'"):
        return load_yaml(text)
    loader = Loader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    return loader.construct_object(yaml.ScalarNode(tag, text), deep=True)
