"""Print what the installed dbt-core needs, but for the parser that is built by downloading."""

from __future__ import annotations

from importlib.metadata import requires


def needed() -> list[str]:
    """Return the requirements of dbt-core that pip can install from packages alone."""
    return [line for line in requires("dbt-core") or () if "experimental-parser" not in line and "extra ==" not in line]


if __name__ == "__main__":
    print("\n".join(needed()))
