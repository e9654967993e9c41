"""The example in JavaScript, written from the OpenAPI document and Standard Webhooks alone."""

import asyncio
import re
import shutil
from pathlib import Path
from typing import Final

from testcluster.errors import CannotRunHere
from testcluster.progress import say
from testcluster.toolchain import Need, ensure
from tests.integration.galley_local.dev_process import dev
from tests.support.cannot_run import cannot_run
from tests.support.port import free_port

EXAMPLE: Final = Path(__file__).parents[3] / "examples/javascript"


async def test_a_program_in_javascript_submits_waits_cancels_and_serves_handlers(tmp_path: Path) -> None:
    try:
        ensure((Need("node", "nodejs", lambda: shutil.which("node") is not None),), say)
    except CannotRunHere as error:
        cannot_run("the example in JavaScript", str(error))
    folder = tmp_path / "javascript"
    shutil.copytree(EXAMPLE, folder)
    port = free_port()
    queue = folder / "queue.yaml"
    queue.write_text(queue.read_text().replace("8480", str(port)))
    async with dev(folder, "queue.yaml") as running:
        await running.says("are signed with the key in")
        address = running.lines[0].rpartition(" ")[2]
        walk = await asyncio.create_subprocess_exec(
            "node", "walk.mjs", address, ".galley/signing/hooks/key", str(port), cwd=folder,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(60):
            told, _ = await walk.communicate()
        assert walk.returncode == 0, (told.decode(), running.lines)
    assert re.fullmatch(
        'count: Succeeded {"words":5,"attempt":1}\n'
        'count, failing once: {"words":0,"attempt":2}\n'
        "wait: Cancelled\n"
        "refused: RequestInvalid: body: Invalid enum value 'urgent' .*\n",
        told.decode(),
    ), told.decode()
