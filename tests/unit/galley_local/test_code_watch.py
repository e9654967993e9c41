"""Code that is edited while `galley dev` runs."""

import os
from pathlib import Path

import pytest

from galley_local.code_watch import CodeWatch
from galley_local.plan import LocalQueue, read_plan

_BODY = "import prices\nfrom galley import task\n\n@task(queue='images')\ndef hello() -> None: ...\n"
_QUEUE = """
apiVersion: galley.dev/v1alpha1
kind: TaskQueue
metadata: {name: images}
spec: {worker: {modules: [jobs]}}
---
apiVersion: galley.dev/v1alpha1
kind: TaskQueue
metadata: {name: texts}
"""


class Ended(Exception):
    """The watch is to end."""


class Watched:
    def __init__(self) -> None:
        self.replaced: list[str] = []
        self.said: list[str] = []
        self.reread: list[Path] = []

    async def watch(self, folder: Path, *files: str) -> CodeWatch:
        plan = await read_plan([folder / file for file in files], folder)

        async def end() -> None:
            raise Ended

        async def reread(path: Path) -> list[LocalQueue]:
            self.reread.append(path)
            return list((await read_plan([folder / file for file in files], folder)).queues.values())

        watch = CodeWatch(
            plan.queues.values(), plan.manifests,
            replace=self._replace, say=self.said.append, reread=reread, tick=end,
        )  # fmt: skip
        with pytest.raises(Ended):
            await watch.run()
        return watch

    async def _replace(self, queue: LocalQueue) -> None:
        assert len(self.said) == len(self.replaced), "each is said once it has happened"
        self.replaced.append(queue.name[1])


def edit(path: Path, text: str) -> None:
    """Write as editors do: a new file in the place of the old one."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)  # noqa: PTH105


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(_BODY)
    (tmp_path / "prices.py").write_text("PRICE = 1\n")
    (tmp_path / "unused.py").write_text("")
    (tmp_path / "queue.yaml").write_text(_QUEUE)
    return tmp_path


@pytest.mark.parametrize("files", [("queue.yaml",), ("jobs.py",), ("queue.yaml", "jobs.py")])
@pytest.mark.parametrize("edited", ["jobs.py", "prices.py"])
async def test_workers_are_replaced_once_when_code_they_import_is_edited(
    project: Path, files: tuple[str, ...], edited: str
) -> None:
    watched = Watched()
    watch = await watched.watch(project, *files)
    await watch.look()
    assert watched.replaced == []
    edit(project / edited, (project / edited).read_text() + "# edited\n")
    await watch.look()
    await watch.look()
    assert watched.replaced == ["images"]
    (said,) = watched.said
    assert said.startswith(f"{edited} changed: workers of images are replaced; running tasks may finish")


async def test_files_that_are_not_imported_and_files_that_are_away_for_a_moment_do_not_count(
    project: Path,
) -> None:
    watched = Watched()
    watch = await watched.watch(project, "queue.yaml")
    edit(project / "unused.py", "X = 1\n")
    (project / "prices.py").rename(project / "away.py")
    await watch.look()
    (project / "away.py").rename(project / "prices.py")
    await watch.look()
    assert watched.replaced == []


async def test_code_that_was_broken_is_watched_and_so_is_what_it_imports_newly(project: Path) -> None:
    (project / "jobs.py").write_text("import nothing_there\n")
    watched = Watched()
    watch = await watched.watch(project, "queue.yaml")
    edit(project / "jobs.py", "import unused\n" + _BODY)
    await watch.look()
    edit(project / "unused.py", "X = 1\n")
    await watch.look()
    assert watched.replaced == ["images", "images"]


async def test_an_edited_manifest_is_read_again_once_and_its_new_modules_are_watched(project: Path) -> None:
    watched = Watched()
    watch = await watched.watch(project, "queue.yaml")
    (project / "more.py").write_text("X = 1\n")
    edit(project / "queue.yaml", _QUEUE.replace("[jobs]", "[jobs, more]"))
    await watch.look()
    await watch.look()
    assert watched.reread == [project / "queue.yaml"]
    assert watched.replaced == []
    edit(project / "more.py", "X = 2\n")
    await watch.look()
    assert watched.replaced == ["images"]


async def test_a_queue_in_a_module_of_a_manifest_that_may_be_misspelled_is_told(project: Path) -> None:
    (project / "jobs.py").write_text(_BODY.replace("'images'", "'imgaes'"))
    watched = Watched()
    await watched.watch(project, "queue.yaml")
    (said,) = watched.said
    assert "jobs.py has hello in queue 'imgaes', which is not declared anywhere else: did you mean" in said
    assert said.endswith("'images'? No worker runs them")


async def test_handlers_that_name_no_queue_belong_to_the_queue_of_their_module(project: Path) -> None:
    plain = _BODY.replace("@task(queue='images')", "@task")
    (project / "jobs.py").write_text(plain)
    watched = Watched()
    await watched.watch(project, "queue.yaml")
    assert watched.said == []
    (project / "jobs.py").write_text(plain + "@task(queue='imgaes')\ndef other() -> None: ...\n")
    await watched.watch(project, "queue.yaml")
    (said,) = watched.said
    assert "jobs.py has other in queue 'imgaes'" in said
