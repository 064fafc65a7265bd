"""What the Hugging Face Hub reads of a model card: YAML between two lines of dashes, before the text.

    front_matter({"library_name": "keras", "tags": ["medical"]})

https://huggingface.co/docs/hub/model-cards and, for `model-index`, huggingface_hub.EvalResult.
"""

import json
from collections.abc import Iterator
from typing import Any

# JSON leaves these as they are; YAML breaks lines at some of them and forbids others.
_UNPRINTABLE = [*range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF, *range(0xD800, 0xE000)]
_ESCAPES = {code: f"\\u{code:04x}" for code in _UNPRINTABLE}


def front_matter(values: dict[str, Any]) -> str:
    """`values`, of mappings, lists, text, numbers and booleans, as YAML between dashes.

    Keys are written as they are: plain words. Raises `ValueError` for a number that isn't finite.
    """
    return "\n".join(["---", *_lines(values), "---"])


def _lines(value: dict[str, Any] | list[Any]) -> Iterator[str]:
    """A block of YAML. Text is quoted, always: a diagnosis called `no` or `1e3` stays one."""
    if isinstance(value, dict):
        for key, one in value.items():
            if isinstance(one, dict | list) and one:
                yield f"{key}:"
                yield from (f"  {line}" for line in _lines(one))
            else:
                yield f"{key}: {_scalar(one)}"
        return
    for one in value:
        if isinstance(one, dict | list) and one:
            first, *rest = _lines(one)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
        else:
            yield f"- {_scalar(one)}"


def _scalar(value: Any) -> str:
    """JSON of one value, which is YAML too but for a few letters, and numbers like 1e-05, which are text there."""
    if isinstance(value, float) and "e" in repr(value) and "." not in repr(value):
        return repr(value).replace("e", ".0e")
    return json.dumps(value, ensure_ascii=False, allow_nan=False).translate(_ESCAPES)
