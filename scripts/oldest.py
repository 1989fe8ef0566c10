"""Print the oldest versions that pyproject.toml allows of what the package needs, as exact requirements."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def oldest() -> list[str]:
    """Return `name==version` for every bound of the core and of the extras."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    bounds = [*project["dependencies"], *(bound for extra in extras for bound in extra)]
    pairs = [re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)", bound) for bound in bounds]
    return sorted({f"{pair[1]}=={pair[2]}" for pair in pairs if pair})


if __name__ == "__main__":
    print("\n".join(oldest()))
