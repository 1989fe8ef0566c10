#!/bin/sh
# Make the virtual environment DIR with the package, all its extras and the tools of the tests:
#   scripts/environment.sh DIR [oldest | upstream | dbt]
# With `oldest`, what the package needs comes in the oldest version that pyproject.toml allows. With `upstream`, the
# environment has the other projects' servers that the local batch server is tried with. With `dbt`, it has the newest dbt.
set -eu

directory=$1
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "Python 3.11 or newer is needed; PYTHON=/path/to/python make … names one." >&2
  exit 1
fi
if ! "$python" -m venv --clear "$directory" 2>/dev/null; then
  # Debian splits venv off.
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -qq -y python3-venv >&2
    "$python" -m venv --clear "$directory"
  else
    echo "Python's venv is missing: apt install python3-venv (or your system's equivalent), then again." >&2
    exit 1
  fi
fi

# Some tests need pgbouncer and are skipped without it. Not where systemd runs, which would start it for good.
if [ -z "${2:-}" ] && [ "$(id -u)" = 0 ] && [ ! -d /run/systemd/system ] && command -v apt-get >/dev/null &&
  ! PATH="$PATH:/usr/sbin" command -v pgbouncer >/dev/null; then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y pgbouncer; } >/dev/null 2>&1 || true
fi

pip="$directory/bin/python -m pip --disable-pip-version-check -q install"
# From 1.12 on, dbt needs a parser that is built by downloading more than packages. Nothing here uses it: where 1.12 is
# wanted, it comes alone, and then all else that it asks for.
before_parser='dbt-core<1.12'
$pip 'pip>=25.1' # the first that reads dependency groups
if [ "${2:-}" = oldest ]; then
  "$directory/bin/python" scripts/oldest.py >"$directory/oldest.txt"
  # Without harlequin: every version of it that reads DuckDB 2 needs click at 8.5.0 and rich above 14.
  $pip --editable '.[emulator,dbt,shell,tokens,team]' --group test --group examples --constraint "$directory/oldest.txt"
elif [ "${2:-}" = upstream ]; then
  $pip --editable '.[emulator]' --group test --group upstream
elif [ "${2:-}" = dbt ]; then
  $pip --editable '.[emulator,dbt]' --group test "$before_parser"
  $pip --no-deps --upgrade 'dbt-core>=1.12.6,<1.13'
  "$directory/bin/python" scripts/without_parser.py >"$directory/dbt.txt"
  $pip --requirement "$directory/dbt.txt"
else
  $pip --editable '.[all]' --group dev "$before_parser"
fi
# Where Python may not write what it compiled, each of the tests' many processes would compile the package anew.
"$directory/bin/python" -m compileall -q duckdb_mistral
touch "$directory/made"
