"""Tables that a flag names: what a person knows of the images and their names don't tell.

groups = read_table("group_by", "csv:groups.csv", Path("groups.csv"), column="group")   # path → group
"""

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from data_pipeline.cli import invalid_flag


def read_table(flag: str, value: str, path: Path, *, column: str) -> dict[str, str]:
    """The columns `path` (DIAGNOSIS/FILE) and `column` of a CSV file. Raises `RequestError` for anything unclear."""
    expected = f"a CSV file with the columns path (DIAGNOSIS/FILE) and {column}"
    table: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            if not {"path", column} <= set(columns):
                fix = f"name the columns path and {column}; found {', '.join(columns) or '(none)'}"
                raise invalid_flag(flag, expected=expected, received=value, fix=fix)
            for row in reader:
                name, entry = (row["path"] or "").replace("\\", "/"), row[column] or ""
                if table.setdefault(name, entry) != entry:
                    fix = f"{name!r} has the {column} {table[name]!r} and {entry!r}: leave one"
                    raise invalid_flag(flag, expected=f"one {column} for a path", received=value, fix=fix)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise invalid_flag(flag, expected=expected, received=value, fix=f"check the file: {error}") from None
    return table


def table_sha256(table: Mapping[str, str] | None) -> str:
    """Changes with the contents of a table; empty without one."""
    return "" if table is None else hashlib.sha256(json.dumps(sorted(table.items())).encode()).hexdigest()
