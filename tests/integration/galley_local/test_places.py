"""`galley dev` in folders of all kinds and in shells that are set up for something else."""

import asyncio
import os
import subprocess
from pathlib import Path

from tests.integration.galley_local.dev_process import GALLEY, dev, environment, galley

_BODY = "from galley import task\n\n@task\ndef hello() -> str:\n    return 'hello'\n"


def _latin_1(parent: Path) -> Path:
    return Path(os.fsdecode(os.path.join(os.fsencode(parent), b"l\xe4tin")))  # noqa: PTH118


async def test_a_project_may_be_in_folders_of_any_name(tmp_path: Path) -> None:
    folder = _latin_1(tmp_path / "a:b" / "ünï-日本 quo\"te' \\ %h" / "new\nline")
    folder.mkdir(parents=True)
    (folder / "hello.py").write_text(_BODY)
    async with dev(folder, "hello.py"):
        said = await galley(folder, "submit", "default", "hello", "--wait", "50")
        assert (said.code, said.out) == (0, '"hello"\n'), said.err


async def test_a_folder_that_cannot_be_written_is_refused_with_advice_that_works(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(_BODY)
    # Where not even root may create a folder.
    said = await galley(Path("/proc"), "dev", str(tmp_path / "hello.py"))
    assert said.code == 1
    assert said.err.startswith("error: `galley dev` cannot keep its data in /proc/.galley: ")
    assert "start it in a folder you may write to, and give the files with their path" in said.err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert (await galley(elsewhere, "dev", str(tmp_path / "hello.py"), "--until-done")).code == 0


async def test_what_a_shell_has_for_a_cluster_does_not_reach_local_workers(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(_BODY)
    variables = {
        "GALLEY_CREDENTIALS": "/no/such.creds", "GALLEY_LOG_LEVEL": "info", "GALLEY_LEASE_SECONDS": "x",
        "GALLEY_WORKER": "x y", "GALLEY_HEALTH_PORT": "no port", "GALLEY_NAMESPACE": "team-a",
    }  # fmt: skip
    async with dev(tmp_path, "hello.py", **variables) as running:
        assert running.said("GALLEY_NAMESPACE is set: commands in this shell follow that")
        del variables["GALLEY_NAMESPACE"]
        said = await galley(tmp_path, "submit", "default", "hello", "--wait", "50", **variables)
        assert (said.code, said.out) == (0, '"hello"\n'), said.err


async def test_until_done_without_tasks_says_so(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(_BODY)
    said = await galley(tmp_path, "dev", "hello.py", "--until-done")
    assert (said.code, said.err) == (0, "")
    assert "the files have no tasks; " in said.out


async def test_a_package_with_relative_imports_works(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "__init__.py").touch()
    (shop / "words.py").write_text("WORD = 'hello'\n")
    (shop / "tasks.py").write_text("from .words import WORD\n" + _BODY.replace("'hello'", "WORD"))
    async with dev(tmp_path, "shop/tasks.py"):
        said = await galley(tmp_path, "submit", "default", "hello", "--wait", "50")
        assert (said.code, said.out) == (0, '"hello"\n'), said.err


async def test_files_named_like_the_standard_library_beside_the_tasks_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("import asyncio, email.message, logging.handlers\n" + _BODY)
    for name in ("queue", "email", "calendar", "platform", "selectors"):
        (tmp_path / name).mkdir()
    async with dev(tmp_path, "hello.py"):
        said = await galley(tmp_path, "submit", "default", "hello", "--wait", "50")
        assert (said.code, said.out) == (0, '"hello"\n'), said.err


async def test_a_long_folder_for_temporary_files_does_no_harm(tmp_path: Path) -> None:
    code = _BODY.replace("'hello'", "tempfile.gettempdir()")
    (tmp_path / "hello.py").write_text(f"import tempfile\n{code}")
    long = tmp_path / ("t" * 120)
    long.mkdir()
    async with dev(tmp_path, "hello.py", TMPDIR=str(long)):
        said = await galley(tmp_path, "submit", "default", "hello", "--wait", "50")
        assert (said.code, said.out) == (0, f'"{long}"\n'), said.err


async def test_an_output_that_is_full_ends_it_with_two_lines(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(_BODY)
    process = await asyncio.create_subprocess_shell(
        f"exec {GALLEY} dev hello.py > /dev/full", cwd=tmp_path, env=environment(), stderr=subprocess.PIPE
    )
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().splitlines()[0] == (
        "error: standard output cannot be written: No space left on device"
    )
    assert len(said.splitlines()) == 2


async def test_a_reader_that_goes_away_ends_it_with_the_next_line(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(_BODY)
    process = await asyncio.create_subprocess_exec(
        GALLEY, "dev", "hello.py", cwd=tmp_path, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert b"HTTP API" in await process.stdout.readline()
        assert b"serving default" in await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]
        await galley(tmp_path, "submit", "default", "hello")
        assert process.stderr is not None
        said = await process.stderr.read()
        assert (await process.wait(), said) == (0, b"")


async def test_an_encoding_without_our_characters_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(_BODY.replace("'hello'", "'grün'"))
    async with dev(tmp_path, "hello.py", PYTHONIOENCODING="ascii"):
        said = await galley(tmp_path, "submit", "default", "hello", "--wait", "50", PYTHONIOENCODING="ascii")
        assert (said.code, said.out) == (0, '"gr\\u00fcn"\n'), said.err
