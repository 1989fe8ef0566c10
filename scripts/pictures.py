"""Make the pictures under docs/pictures: a session in the real DuckDB shell, and Harlequin with the functions.

`make pictures` runs both; each is drawn from what the real program shows, on a local batch server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import tempfile
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyte
from rich.console import Console
from rich.text import Text

import duckdb_mistral
from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
WIDTH, HEIGHT = 112, 70
SECONDS = 60
#: What is typed, and what the screen shows once it is done.
TYPED = (
    (
        "CREATE TABLE tickets AS FROM (VALUES (1, 'The app closes when I open a second window.'),",
        "  (2, 'Please add dark mode.'), (3, 'I was charged twice in May.')) AS ticket(id, body);",
    ),
    ("CREATE VIEW staging AS SELECT id AS custom_id, 'Summarise: ' || body AS prompt FROM tickets;",),
    ("SELECT job_id, status, total_requests, reused FROM mistral_batch_submit('staging');",),
    ("SET VARIABLE id = (SELECT submission_id FROM mistral_batch_status());",),
    ("SELECT status, succeeded_requests FROM mistral_batch_wait(getvariable('id'));",),
    (
        "SELECT t.id, r.outcome, r.content FROM tickets t",
        "JOIN mistral_batch_results(getvariable('id')) r ON r.custom_id = t.id::VARCHAR ORDER BY t.id;",
    ),
)

QUERY = """\
SELECT submission_id, status, total_requests
FROM mistral_batch_submit(
  'SELECT id AS custom_id, body AS prompt FROM tickets'
);"""


class Screen:
    """A program in a terminal, and what the terminal shows of it."""

    def __init__(self, command: list[str], environment: dict[str, str], directory: str) -> None:
        """Start the program."""
        self._screen = pyte.Screen(WIDTH, HEIGHT)
        self._stream = pyte.ByteStream(self._screen)
        self._terminal, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        self.process = subprocess.Popen(  # noqa: S603  the command that was asked for
            command, env=environment, cwd=directory, stdin=side, stdout=side, stderr=side, start_new_session=True
        )
        os.close(side)

    def type(self, line: str) -> None:
        """Type a line and the return key."""
        os.write(self._terminal, line.encode() + b"\r")

    def settle(self) -> None:
        """Read on until the last line is a prompt with nothing behind it, and nothing more comes."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if select.select([self._terminal], [], [], 1.0)[0]:
                piece = os.read(self._terminal, 65536)
                if b"\x1b[c" in piece:  # "what are you?": the shell waits for the answer
                    os.write(self._terminal, b"\x1b[?1;2c")
                self._stream.feed(piece)
            elif re.search(r" D *$", "\n".join(self.lines())):
                return
        raise TimeoutError("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Return the lines that are not empty at the end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip("\n").split("\n")

    def text(self) -> Text:
        """Return what is shown, with its colours."""
        text = Text()
        for number in range(len(self.lines())):
            row = self._screen.buffer[number]
            for column in range(WIDTH):
                character = row[column]
                text.append(character.data, style=style_of(character))
            text.append("\n")
        return text

    def close(self) -> None:
        """End the program."""
        self.type(".quit")
        with contextlib.suppress(OSError):
            while os.read(self._terminal, 65536):
                pass
        self.process.wait(SECONDS)
        os.close(self._terminal)


def style_of(character: pyte.screens.Char) -> str:
    """Return a character's look as rich writes it."""
    colour = character.fg
    if re.fullmatch(r"[0-9a-f]{6}", colour):
        colour = f"#{colour}"
    known = {"brown": "yellow", "brightbrown": "bright_yellow", "default": ""}
    name = known.get(colour, re.sub(r"^bright(?=[a-z])", "bright_", colour))
    return " ".join(part for part in ("bold" if character.bold else "", name) if part)


def without_web_fonts(svg: str) -> str:
    """Return a picture that fetches nothing."""
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


@contextlib.contextmanager
def local_server() -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield a directory, and the environment that leads to a local batch server."""
    with tempfile.TemporaryDirectory() as name, Emulator(job_seconds=2) as server:
        given = {
            "MISTRAL_SERVER_URL": server.url,
            "MISTRAL_API_KEY": "local",
            "DUCKDB_MISTRAL_HOME": f"{name}/home",
            "DUCKDB_MISTRAL_POLL_SECONDS": "0.2",
            "HOME": name,
            "TERM": "xterm-256color",
        }
        yield Path(name), {**os.environ, **given}


def session(executable: str) -> str:
    """Return the picture of a session in the shell that `executable shell` opens."""
    with local_server() as (directory, environment):
        screen = Screen([executable, "shell", "tickets.duckdb"], environment, str(directory))
        screen.settle()
        for lines in TYPED:
            for line in lines:
                screen.type(line)
            screen.settle()
        text = screen.text()
        screen.close()
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(text, end="")
    return console.export_svg(title="duckdb-mistral shell tickets.duckdb")


def harlequin() -> str:
    """Return the picture of Harlequin on a database, with the functions in its catalog and the help of one."""
    from harlequin.app import Harlequin
    from harlequin.plugins import load_adapter

    with local_server() as (directory, environment):
        os.environ.update(environment)
        database = str(directory / "tickets.duckdb")
        with duckdb_mistral.connect(database) as con:
            con.execute("CREATE TABLE tickets AS SELECT 1 AS id, 'Please add dark mode.' AS body")
        adapter = load_adapter("mistral")((database,), no_init=True)

        async def shown() -> str:
            app = Harlequin(adapter=adapter, connection_hash="pictures")
            async with app.run_test(size=(130, 24)) as pilot:
                tree = app.query_one("DatabaseTree")
                while not tree.root.children:  # type: ignore[attr-defined]
                    await pilot.pause(0.1)
                for node in tree.root.children:  # type: ignore[attr-defined]
                    node.expand()
                editor = app.editor_collection.current_editor
                editor.text = QUERY
                await pilot.press("ctrl+j")
                await pilot.pause(5)
                return app.export_screenshot(title="harlequin -a mistral tickets.duckdb")

        return asyncio.run(shown())


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shell", required=True, metavar="PATH", help="a duckdb-mistral whose environment has the extra 'shell'"
    )
    given = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "shell.svg").write_text(without_web_fonts(session(str(Path(given.shell).absolute()))), "utf-8")
    (PICTURES / "harlequin.svg").write_text(without_web_fonts(harlequin()), "utf-8")


if __name__ == "__main__":
    main()
