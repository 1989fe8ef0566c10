"""The extension in a process of its own: where it lies, what it survives, and what it leaves behind."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import duckdb
import pytest
from support import (
    answered,
    asked_for_money,
    children_of,
    clean_environment,
    connect,
    environment_of,
    make_staging,
    submitted,
)

from duckdb_mistral.emulator import Emulator
from duckdb_mistral.functions.udfs import table
from duckdb_mistral.results import convert
from duckdb_mistral.shell import protocol

#: What a client runs first; its first argument is the file of `duckdb-mistral extension --sql`.
CONNECT = """
import contextlib, duckdb, os, signal, sys, threading, time
from pathlib import Path
SETUP = Path(sys.argv[1]).read_text()
def connect(name=":memory:", setup=SETUP):
    con = duckdb.connect(name, config={"allow_unsigned_extensions": "true"})
    con.execute(setup)
    return con
def helpers(of=None):
    return [child for child, command in children_of(of or os.getpid()).items() if b"shell.helper" in command]
SOURCE = "SELECT range AS custom_id, ''x'' AS prompt FROM range(3)"
SUBMIT = f"SELECT total_requests, reused FROM mistral_batch_submit('{SOURCE}')"
"""


def run_client(
    code: str, setup: str, environment: dict[str, str], tmp_path: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run code after CONNECT in a Python whose DuckDB has nothing of the package but the extension."""
    (tmp_path / "mistral.sql").write_text(setup, encoding="utf-8")
    return subprocess.run(
        [
            sys.executable,
            "-c",
            f"__file__ = 'script.py'\n{CONNECT}{inspect.getsource(children_of)}{code}",
            str(tmp_path / "mistral.sql"),
            *arguments,
        ],
        env=clean_environment() | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_path_and_statements(statements: str, extension: Path) -> None:
    """The command prints the path of a file that is there, and statements that begin with its LOAD."""
    ran = subprocess.run(
        [sys.executable, "-m", "duckdb_mistral", "extension"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == (f"{extension}\n", "")
    assert statements.startswith(f"LOAD '{extension}';\n")
    assert (extension.parent / "helper").read_text(encoding="utf-8") == f"{sys.executable}\n"


def test_folder_that_cannot_be_written(extension: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this Python cannot be named beside the extension, the command of the PATH does, or a sentence says so."""
    from duckdb_mistral.errors import MistralBatchError
    from duckdb_mistral.shell import extension as module

    copy = tmp_path / "native" / extension.parent.name / extension.name
    copy.parent.mkdir(parents=True)
    shutil.copy(extension, copy)
    (copy.parent / "helper").mkdir()  # which no file can be put in the place of
    monkeypatch.setattr(module, "NATIVE", tmp_path / "native")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MistralBatchError, match="duckdb-mistral is not on the PATH either"):
        module.prepared_extension()
    (tmp_path / "duckdb-mistral").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "duckdb-mistral").chmod(0o755)
    assert module.prepared_extension() == copy


def test_functions_are_those_of_python(build: Any) -> None:
    """The extension has each function that takes many rows, with the types that Python's has, and the protocol."""
    source = build.SOURCE.read_text(encoding="utf-8")
    listed = re.findall(r'\{"(mistral_internal_\w+)", \{([A-Z, ]+)\}, ([A-Z]+), (true|false)\}', source)
    found = {name: (parameters.split(", "), returns, volatile) for name, parameters, returns, volatile in listed}
    assert found.pop(protocol.CALL) == (["VARCHAR", "VARCHAR"], "VARCHAR", "true")
    many = [function for function in table() if function.row is None]
    types = {"string": "VARCHAR", "int8": "TINYINT", "int64": "BIGINT"}
    assert found == {
        function.name: (function.parameters, types[str(function.kind)], str(not function.pure).lower())
        for function in many
    }
    assert int(re.findall(r"#define PROTOCOL (\d+)", source)[0]) == protocol.PROTOCOL


def test_footer(build: Any) -> None:
    """The footer is as long as DuckDB wants it, and names the platform, the API and the version."""
    footer = build.footer("linux_amd64", "1.2.3")
    assert len(footer) == 22 + 512
    fields = [field.rstrip(b"\0") for field in struct.unpack("32s" * 8, footer[22:278])]
    assert fields == [b"", b"", b"", b"C_STRUCT", b"1.2.3", b"v1.2.0", b"linux_amd64", b"4"]


def test_check_of_a_wheel(build: Any, tmp_path: Path) -> None:
    """A release is refused where a platform is missing, or has the file or the footer of another one."""

    def check(**files: bytes) -> None:
        wheel = tmp_path / "duckdb_mistral-1.2.3-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, data in files.items():
                archive.writestr(f"{build.FOLDER}/{name}/{build.NAME}", data)
        build.check_wheel(wheel)

    def built(target: str, version: str = "1.2.3") -> bytes:
        magic, place, processor = build.BEGINNINGS[target.removesuffix("_musl")]
        return bytes(magic.ljust(place, b"\0") + processor + build.footer(target, version))

    whole = {target: built(target) for target in build.TARGETS}
    check(**whole)
    with pytest.raises(ValueError, match=r"no extension for osx_arm64"):
        check(**{target: data for target, data in whole.items() if target != "osx_arm64"})
    with pytest.raises(ValueError, match=r"linux_arm64 is compiled for another platform"):
        check(**whole | {"linux_arm64": built("linux_amd64")})
    with pytest.raises(ValueError, match=r"linux_amd64_musl has another footer"):
        check(**whole | {"linux_amd64_musl": built("linux_amd64")})
    with pytest.raises(ValueError, match=r"has another footer than 1\.2\.3"):
        check(**whole | {"osx_amd64": built("osx_amd64", "1.2.2")})


def test_ends(statements: str, emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """The helper starts with the first call, and ends with the client, however that ends; nothing of it is left."""
    code = """
con = connect()
assert helpers() == []
con.execute("FROM mistral_batch_status()")
before = len(os.listdir("/proc/self/fd"))
print(*helpers(), flush=True)
for _ in range(50):
    con.execute("FROM mistral_batch_status()").fetchall()
assert len(os.listdir("/proc/self/fd")) == before
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""
    for how in ("ended", "killed"):
        ran = run_client(code, statements, environment_of(emulator, home), tmp_path, how)
        assert (ran.returncode, ran.stderr) == (0 if how == "ended" else -9, "")
        helper = Path(f"/proc/{ran.stdout.strip()}")
        subprocess.run(
            ["sh", "-c", f"for i in $(seq 100); do [ -d {helper} ] || exit 0; sleep 0.1; done; exit 1"], check=True
        )


def test_killed_helper(statements: str, emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """A helper that was killed between statements is replaced unnoticed; within one, it costs one sentence."""
    code = """
con = connect()
con.execute("FROM mistral_batch_status()")
(first,) = helpers()
os.kill(first, signal.SIGKILL)
time.sleep(0.2)
print(con.execute(SUBMIT).fetchall())
(second,) = helpers()
assert second != first
def kill():
    while not list(Path(sys.argv[2]).rglob("part-*.jsonl")): time.sleep(0.01)
    os.kill(second, signal.SIGKILL)
thread = threading.Thread(target=kill); thread.start()
try:
    con.execute("FROM mistral_batch_submit('SELECT range AS custom_id, ''x'' AS prompt FROM range(100000000)')")
except duckdb.Error as error:
    print(error)
thread.join()
print(con.execute(SUBMIT).fetchall())
assert len(helpers()) == 1
con.close()
"""
    ran = run_client(code, statements, environment_of(emulator, home), tmp_path, str(home))
    assert (ran.returncode, ran.stderr) == (0, "")
    first, sentence, *_, last = ran.stdout.splitlines()
    assert (first, last) == ("[(3, False)]", "[(3, True)]")
    assert sentence == (
        "Invalid Input Error: The helper process of the mistral functions has ended. What was submitted runs on at the "
        "API; run the same statement again to start a new helper and continue from there."
    )
    assert asked_for_money(emulator) == (1, 1)


def test_responses_of_large_results(
    statements: str, emulator: Emulator, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The column response of results that Python kept with their lines is read through the helper too."""
    monkeypatch.setattr(convert, "LARGE_BYTES", 0)
    with connect(emulator, home) as con:
        make_staging(con, 3000)
        answered(con, submitted(con))
    assert list((home / "results").glob("*.lines-0.jsonl"))
    code = """
same = "content = (response->>'$.choices[0].message.content')"
query = f"SELECT count(*), count(DISTINCT content) FROM mistral_batch_results() WHERE {same}"
print(connect().execute(query).fetchall())
"""
    ran = run_client(code, statements, environment_of(emulator, home), tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[(3000, 3000)]\n", "")


def test_interrupted_connection(statements: str, home: Path, tmp_path: Path) -> None:
    """A client's own cancel ends a wait where there is no terminal; the connection and its helper stay usable."""
    code = """
con = connect()
identifier = con.execute(SUBMIT.replace("total_requests, reused", "submission_id")).fetchone()[0]
ended = threading.Event()
def interrupt():
    while not ended.wait(0.5): con.interrupt()  # one may come before the statement has begun
interrupting = threading.Thread(target=interrupt)
interrupting.start()
try:
    con.execute("FROM mistral_batch_wait($id)", {"id": identifier})
except duckdb.InterruptException as error:
    print("interrupted")
ended.set()
interrupting.join()
told = con.execute("SELECT status FROM mistral_batch_status($id)", {"id": identifier}).fetchone()[0]
print(told in ("QUEUED", "RUNNING"))
assert len(helpers()) == 1
"""
    with Emulator(tmp_path / "slow", job_seconds=3600) as slow:
        ran = run_client(code, statements, environment_of(slow, home), tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "interrupted\nTrue\n"), ran.stderr


def test_fork(statements: str, emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """A process that is forked after LOAD has a helper of its own, and leaves its parent's alone."""
    code = """
con = connect()
print(con.execute(SUBMIT).fetchall(), flush=True)
(ours,) = helpers()
if child := os.fork():
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print(con.execute(SUBMIT).fetchall())
    assert helpers() == [ours]
else:
    signal.alarm(60)
    answer = con.cursor().execute("SELECT mistral_internal_call('mistral_internal_status', '[null]')").fetchone()
    assert '"error": null' in answer[0], answer
    (own,) = helpers()
    assert own != ours
    os._exit(0)
"""
    ran = run_client(code, statements, environment_of(emulator, home), tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[(3, False)]\n[(3, True)]\n", "")


def test_two_databases_and_threads(statements: str, emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """Two databases and many threads of a process share one helper, and nothing is mixed up between them."""
    code = """
databases = [connect(), connect(sys.argv[2])]
found, failed = [], []
def submit(number):
    con = databases[number % 2].cursor()
    con.execute(SETUP)
    source = f"SELECT range AS custom_id, 'thread {number} row ' || range AS prompt FROM range({5000 + number})"
    try:
        con.execute("SELECT submission_id FROM mistral_batch_submit($source)", {"source": source})
        (identifier,) = con.fetchone()
        con.execute("SELECT count(*) FROM mistral_batch_wait($id)", {"id": identifier}).fetchall()
        found.append(con.execute(
            f"SELECT count(*), count(DISTINCT custom_id), bool_and(content LIKE 'echo: thread {number} row %') "
            f"FROM mistral_batch_results('{identifier}')").fetchone())
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=submit, args=(number,)) for number in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed
print(sorted(found))
assert len(helpers()) == 1
databases[0].close()
print(databases[1].execute("SELECT count(*) FROM mistral_batch_status()").fetchone())
"""
    ran = run_client(code, statements, environment_of(emulator, home), tmp_path, str(tmp_path / "file.duckdb"))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [str([(5000 + number, 5000 + number, True) for number in range(6)]), "(6,)"]
    assert asked_for_money(emulator) == (6, 6)


def test_closed_database(statements: str, emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """When a database is closed, the helper lets go of what belonged to it, such as the spool of a failed submit."""
    code = """
con = connect()
other = connect()
other.execute("FROM mistral_batch_status()")
try:
    con.execute("FROM mistral_batch_submit('SELECT range AS custom_id, error(range::VARCHAR) AS prompt FROM range(3)')")
except duckdb.Error as error:
    print(type(error).__name__)
spools = lambda: list(Path(sys.argv[2]).rglob("spool/*"))
assert spools(), list(Path(sys.argv[2]).rglob("*"))
(helper,) = helpers()
open_files = lambda: len(os.listdir(f"/proc/{helper}/fd"))
before = open_files()
con.close()
end = time.monotonic() + 30
while spools() or open_files() >= before:
    assert time.monotonic() < end, (spools(), open_files(), before)
    time.sleep(0.05)
print(other.execute("SELECT count(*) FROM mistral_batch_status()").fetchone())
"""
    ran = run_client(code, statements, environment_of(emulator, home), tmp_path, str(home))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["InvalidInputException", "(0,)"]


def test_values_of_every_kind(statements: str, emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """Long and short texts, NULLs and several thousand rows come through a vector as they are."""
    code = """
con = connect()
source = '''SELECT i AS custom_id,
  CASE i % 4 WHEN 0 THEN repeat('é🦆', i) WHEN 1 THEN 'a' WHEN 2 THEN 'twelve chars' ELSE '13 characters' END AS prompt,
  CASE WHEN i % 3 = 0 THEN NULL ELSE i END AS random_seed FROM range(1, 5000) t(i)'''
con.execute("CREATE TABLE asked AS " + source)
con.execute("SELECT count(*) FROM mistral_batch_wait((SELECT submission_id FROM mistral_batch_submit('asked')))")
print(con.execute('''SELECT count(*), bool_and(content = 'echo: ' || prompt) FROM asked
  JOIN mistral_batch_results() r ON r.custom_id = asked.custom_id::VARCHAR''').fetchone())
"""
    ran = run_client(code, statements, environment_of(emulator, home), tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0] == "(4999, True)"


@pytest.fixture
def pretended(extension: Path, statements: str, tmp_path: Path) -> Any:
    """Return a function that makes a helper of a script, and returns the setup that has it."""

    def make(code: str) -> str:
        folder = tmp_path / "pretended"
        folder.mkdir()
        shutil.copy(extension, folder)
        program = folder / "program"
        program.write_text(f"#!{sys.executable}\n{PRETENDED}\n{code}", encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        (folder / "helper").write_text(f"{program}\n", encoding="utf-8")
        return statements.replace(str(extension), str(folder / extension.name))

    return make


PRETENDED = (
    f"HELLO = {protocol.HELLO.pack(protocol.MAGIC, protocol.PROTOCOL)!r}"
    """
import os, socket, struct
control = socket.socket(fileno=0)
hello, (descriptor,), _, _ = socket.recv_fds(control, 8, 1)
connection = socket.socket(fileno=descriptor)
def answer(failed, rows, data, told=None):
    connection.sendall(HELLO)
    head = connection.recv(56, socket.MSG_WAITALL)
    size, asked = struct.unpack("=32x8xQI4x", head)
    connection.recv(size, socket.MSG_WAITALL)
    connection.sendall(struct.pack("=IIQ", failed, rows, len(data) if told is None else told) + data)
"""
)
UNREADABLE = "The helper process of the mistral functions gave an answer that cannot be read."
ENDED = "The helper process of the mistral functions has ended."


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("answer(1, 1, b'A sentence of its own.')", "A sentence of its own."),
        ("answer(0, 1, struct.pack('=8sqq', b'\\1', 0, 2) + b'ok')", None),
        ("answer(0, 2, struct.pack('=8sqq', b'\\1', 0, 2) + b'ok')", UNREADABLE),
        ("answer(0, 1, b'')", UNREADABLE),
        ("answer(0, 1, struct.pack('=8sq', b'\\1', 0))", UNREADABLE),
        ("answer(0, 1, struct.pack('=8sqq', b'\\1', 0, 3) + b'ok')", UNREADABLE),
        ("answer(0, 1, struct.pack('=8sqq', b'\\1', -1, 2) + b'ok')", UNREADABLE),
        ("answer(0, 1, struct.pack('=8sqq', b'\\1', 2, 1) + b'ok')", UNREADABLE),
        ("answer(0, 1, struct.pack('=8sqq', b'\\1', 0, 1 << 62) + b'ok')", UNREADABLE),
        ("answer(0, 1, b'', 1 << 62)", "There is not enough memory for a call of the mistral functions."),
        ("answer(0, 1, b'cut', 100)", ENDED),
        ("connection.sendall(b'mstl' + struct.pack('=I', 7))", f"they speak protocol {protocol.PROTOCOL} and 7"),
        ("connection.sendall(b'HTTP/1.1')", "ended before it was ready"),
        ("", "ended before it was ready"),
        ("raise SystemExit(1)", "ended before it was ready"),
    ],
)
def test_wrong_answers(pretended: Any, code: str, sentence: str | None, tmp_path: Path) -> None:
    """Whatever a helper answers, the extension reads no byte that is not there, and tells what was wrong."""
    setup = pretended(code).splitlines()[0]
    client = """
con = connect()
try:
    print(con.execute("SELECT mistral_internal_call('a', 'b')").fetchone()[0])
except duckdb.InvalidInputException as error:
    print(error)
"""
    ran = run_client(client, setup, {}, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (sentence or "ok") in ran.stdout
    assert "\n" not in ran.stdout.strip()


CALL = """connect().execute("SELECT mistral_internal_call('a', 'b')")"""


def test_no_helper(pretended: Any, tmp_path: Path) -> None:
    """Where the Python beside the extension is gone, a sentence says what to run."""
    setup = pretended("").splitlines()[0]
    (tmp_path / "pretended" / "program").unlink()
    ran = run_client(CALL, setup, {}, tmp_path)
    assert "cannot be started: No such file or directory. Run duckdb-mistral extension" in ran.stderr
    (tmp_path / "pretended" / "helper").unlink()
    ran = run_client(CALL, setup, {"PATH": ""}, tmp_path)
    assert "cannot be started: No such file or directory. Run duckdb-mistral extension" in ran.stderr


def test_macros_of_another_version(statements: str, emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """Macros that call what the helper does not have are told to be of another version."""
    code = """
con = connect()
for call in ("'mistral_internal_newer', '[]'", "'mistral_internal_status', '[1, 2]'"):
    try:
        con.execute(f"SELECT mistral_internal_call({call})")
    except duckdb.InvalidInputException as error:
        print(error)
"""
    ran = run_client(code, statements, environment_of(emulator, home), tmp_path)
    assert ran.stdout.count("Run the statements of duckdb-mistral extension --sql again.") == 2, ran.stderr


def test_sanitizers(
    build: Any, statements: str, extension: Path, emulator: Emulator, home: Path, tmp_path: Path
) -> None:
    """Compiled with the address and undefined-behaviour sanitizers, a whole round and nonsense find nothing."""
    compiler = build.cc()
    # DuckDB throws exceptions, for which the sanitizer has to find the library before DuckDB's own copy of it.
    libraries = [] if compiler is None else [_library(compiler, name) for name in ("libasan.so", "libstdc++.so.6")]
    if compiler is None or not all(Path(library).is_file() for library in libraries):
        pytest.skip("there is no C compiler with the sanitizers' libraries here")
    out = tmp_path / "checked" / extension.name
    out.parent.mkdir()
    flags = [flag for flag in build.FLAGS if flag != "-O2"]
    flags += ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run([compiler, *flags, str(build.SOURCE), "-o", str(out)], check=True)
    with out.open("ab") as file:
        file.write(build.footer(extension.parent.name, "0"))
    shutil.copy(extension.parent / "helper", out.parent)
    code = """
con = connect()
con.execute("CREATE TABLE asked AS SELECT range AS custom_id, repeat('x', range % 50) AS prompt FROM range(5000)")
print(con.execute("SELECT total_requests FROM mistral_batch_submit('asked')").fetchone())
con.execute("FROM mistral_batch_wait((SELECT submission_id FROM mistral_batch_status()))")
print(con.execute("SELECT count(content) FROM mistral_batch_results()").fetchone())
con.execute("FROM mistral_batch_estimate('asked')")
for nonsense in ("spool(NULL, NULL, NULL, NULL, NULL)", "tokens(NULL, 'a')", "line(NULL, NULL)", "call(NULL, NULL)"):
    try:
        con.execute(f"SELECT mistral_internal_{nonsense} FROM range(3)")
    except duckdb.Error:
        pass
con.close()
"""
    environment = environment_of(emulator, home) | {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }
    ran = run_client(code, statements.replace(str(extension), str(out)), environment, tmp_path)
    assert "Sanitizer" not in ran.stderr, ran.stderr
    assert "runtime error" not in ran.stderr, ran.stderr
    assert (ran.returncode, ran.stdout.splitlines()[:2]) == (0, ["(5000,)", "(5000,)"]), ran.stderr


def _library(compiler: str, name: str) -> str:
    """Return the path of one of the compiler's libraries; the name alone where it has none."""
    said = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=False)
    path = said.stdout.strip()
    return os.path.realpath(path) if Path(path).is_file() else path


def test_loaded_twice(statements: str, tmp_path: Path) -> None:
    """LOAD and the macros may be run again on the same connection, and change nothing."""
    code = "con = connect(); con.execute(SETUP); con.cursor().execute(SETUP); print('fine')"
    ran = run_client(code, statements, {}, tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "fine\n", "")


def test_without_leave(statements: str) -> None:
    """A DuckDB that allows no unsigned extensions says so in its own words."""
    with duckdb.connect() as con, pytest.raises(duckdb.Error, match=r"(?i)unsigned"):
        con.execute(statements)
