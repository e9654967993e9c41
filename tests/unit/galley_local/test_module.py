"""Python files given to `galley dev`: by what name workers import them."""

import sys
from pathlib import Path

import pytest

from galley_local.errors import FilesUnusable
from galley_local.module import read_module
from galley_local.plan import Plan, read_plan

_BODY = "from galley import task\n\n@task\ndef hello() -> str:\n    return 'hello'\n"
_RELATIVE = "from .prices import PRICE\n" + _BODY
_QUEUE = """
apiVersion: galley.dev/v1alpha1
kind: TaskQueue
metadata: {name: images}
spec: {worker: {modules: [%s]}}
"""


def a_file(path: Path, body: str = _BODY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body)
    return path


async def plan_of(folder: Path, *names: str) -> Plan:
    return await read_plan([folder / name for name in names], folder)


async def test_a_file_is_a_module_of_its_own_name(tmp_path: Path) -> None:
    module = await read_module(a_file(tmp_path / "jobs.py"))
    assert (module.name, module.handlers) == ("jobs", {"default": ["hello"]})
    assert module.import_paths[0] == tmp_path


@pytest.mark.parametrize("folder", ["a:b", "with space", "ünï-日本", "per%cent", "new\nline", "back\\slash"])
async def test_a_folder_may_have_any_name(tmp_path: Path, folder: str) -> None:
    assert (await read_module(a_file(tmp_path / folder / "jobs.py"))).handlers


async def test_a_file_with_relative_imports_is_a_part_of_its_package(tmp_path: Path) -> None:
    a_file(tmp_path / "shop" / "__init__.py", "")
    a_file(tmp_path / "shop" / "prices.py", "PRICE = 1\n")
    module = await read_module(a_file(tmp_path / "shop" / "tasks.py", _RELATIVE))
    assert (module.name, module.import_paths[0]) == ("shop.tasks", tmp_path)
    package = await read_module(a_file(tmp_path / "shop" / "__init__.py", _RELATIVE))
    assert (package.name, package.import_paths[0]) == ("shop", tmp_path)


async def test_a_file_of_a_package_finds_its_neighbours_and_its_package_by_absolute_imports(
    tmp_path: Path,
) -> None:
    a_file(tmp_path / "shop" / "__init__.py", "")
    a_file(tmp_path / "shop" / "prices.py", "PRICE = 1\n")
    body = "from prices import PRICE\nfrom shop.prices import PRICE as same\n" + _BODY
    assert (await read_module(a_file(tmp_path / "shop" / "tasks.py", body))).name == "tasks"


async def test_the_advice_about_relative_imports_works(tmp_path: Path) -> None:
    file = a_file(tmp_path / "shop" / "tasks.py", _RELATIVE)
    a_file(tmp_path / "shop" / "prices.py", "PRICE = 1\n")
    with pytest.raises(FilesUnusable, match="attempted relative import") as caught:
        await read_module(file)
    assert "add an empty __init__.py to each folder it goes through, or import without" in caught.value.hint
    (tmp_path / "shop" / "__init__.py").touch()
    assert (await read_module(file)).handlers
    (tmp_path / "shop" / "__init__.py").unlink()
    file.write_text(_RELATIVE.replace("from .", "from "))
    assert (await read_module(file)).handlers


@pytest.mark.parametrize("name", ["queue", "email", "platform", "types", "time", "test"])
async def test_a_name_of_the_standard_library_is_refused_with_another(tmp_path: Path, name: str) -> None:
    file = a_file(tmp_path / f"{name}.py")
    with pytest.raises(FilesUnusable, match=f"the module '{name}' has the same name as a") as caught:
        await read_module(file)
    assert f"rename {name}.py, for example to {name}_tasks.py" in caught.value.hint
    assert (await read_module(file.rename(tmp_path / f"{name}_tasks.py"))).handlers


@pytest.mark.parametrize("name", ["galley", "msgspec", "yaml", "galley_worker"])
async def test_a_name_of_an_installed_package_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FilesUnusable, match="of an installed package"):
        await read_module(a_file(tmp_path / f"{name}.py"))


async def test_modules_of_a_manifest_may_not_have_such_names_either(tmp_path: Path) -> None:
    a_file(tmp_path / "calendar" / "__init__.py")
    a_file(tmp_path / "queue.yaml", _QUEUE % "calendar")
    with pytest.raises(FilesUnusable, match="the module 'calendar' has the same name") as caught:
        await plan_of(tmp_path, "queue.yaml")
    assert "rename calendar, for example to calendar_tasks" in caught.value.hint


async def test_a_folder_named_like_a_module_beside_the_file_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "calendar").mkdir()
    (tmp_path / "email").mkdir()
    jobs = a_file(tmp_path / "jobs.py", "import email.message, calendar\n" + _BODY)
    assert (await read_module(jobs)).handlers


async def test_a_link_is_imported_by_its_own_name_with_the_neighbours_of_both(tmp_path: Path) -> None:
    a_file(tmp_path / "store" / "prices.py", "PRICE = 1\n")
    a_file(tmp_path / "store" / "3f2a-jobs.py", "from prices import PRICE\nfrom here import HERE\n" + _BODY)
    a_file(tmp_path / "project" / "here.py", "HERE = 1\n")
    link = tmp_path / "project" / "jobs.py"
    link.symlink_to(tmp_path / "store" / "3f2a-jobs.py")
    assert (await read_module(link)).name == "jobs"


@pytest.mark.parametrize("name", ["grün.py", "my-jobs.py", "1st.py", "a b.py", "jobs.v2.py"])
async def test_a_name_workers_cannot_import_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FilesUnusable, match="is not the name of a Python module"):
        await read_module(a_file(tmp_path / name))


async def test_a_file_with_the_name_of_the_running_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FilesUnusable, match="'__main__' is the name of the running program"):
        await read_module(a_file(tmp_path / "__main__.py"))


async def test_two_files_of_one_name_cannot_be_in_one_queue_but_in_two(tmp_path: Path) -> None:
    a_file(tmp_path / "a" / "jobs.py")
    a_file(tmp_path / "b" / "jobs.py", _BODY.replace("hello", "other"))
    with pytest.raises(FilesUnusable, match=r"need different modules named 'jobs'"):
        await plan_of(tmp_path, "a/jobs.py", "b/jobs.py")
    a_file(tmp_path / "b" / "jobs.py", _BODY.replace("@task", "@task(queue='other')"))
    assert len((await plan_of(tmp_path, "a/jobs.py", "b/jobs.py")).queues) == 2


async def test_two_files_whose_imports_have_one_name_cannot_be_in_one_queue(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        body = "import prices\n" + _BODY.replace("hello", folder)
        a_file(tmp_path / folder / f"jobs_{folder}.py", body)
        a_file(tmp_path / folder / "prices.py", "PRICE = 1\n")
    with pytest.raises(FilesUnusable, match=r"need different modules named 'prices'"):
        await plan_of(tmp_path, "a/jobs_a.py", "b/jobs_b.py")


async def test_a_file_that_workers_would_not_find_first_is_refused(tmp_path: Path) -> None:
    a_file(tmp_path / "queue.yaml", _QUEUE % "jobs")
    a_file(tmp_path / "jobs.py")
    a_file(tmp_path / "new" / "jobs.py", _BODY.replace("@task", "@task(queue='images')"))
    with pytest.raises(FilesUnusable, match=r"would import .*/jobs\.py instead of .*/new/jobs\.py"):
        await plan_of(tmp_path, "queue.yaml", "new/jobs.py")


async def test_a_queue_that_may_be_a_typing_error_is_told(tmp_path: Path) -> None:
    a_file(tmp_path / "queue.yaml", _QUEUE % "jobs")
    a_file(tmp_path / "jobs.py", _BODY.replace("@task", "@task(queue='imgaes')"))
    (remark,) = (await plan_of(tmp_path, "queue.yaml", "jobs.py")).remarks
    assert (
        "has hello in queue 'imgaes', which is not declared anywhere else: did you mean 'images'?" in remark
    )
    a_file(tmp_path / "jobs.py", _BODY.replace("@task", "@task(queue='quite-different')"))
    (remark,) = (await plan_of(tmp_path, "queue.yaml", "jobs.py")).remarks
    assert "declared are images." in remark
    a_file(tmp_path / "other.py", _BODY.replace("@task", "@task(queue='unlike-all-others')"))
    *_, remark = (await plan_of(tmp_path, "queue.yaml", "jobs.py", "other.py")).remarks
    assert "declared are images." in remark, "what code alone names is not declared"


async def test_queues_that_only_python_files_declare_are_told_if_they_are_alike(tmp_path: Path) -> None:
    a_file(tmp_path / "one.py", _BODY.replace("@task", "@task(queue='images')"))
    a_file(tmp_path / "two.py", _BODY.replace("@task", "@task(queue='texts')"))
    assert (await plan_of(tmp_path, "one.py", "two.py")).remarks == []
    a_file(tmp_path / "two.py", _BODY.replace("@task", "@task(queue='imgaes')"))
    assert len((await plan_of(tmp_path, "one.py", "two.py")).remarks) == 1


async def test_a_folder_without_manifests_is_answered_with_a_file_that_works(tmp_path: Path) -> None:
    a_file(tmp_path / "shop" / "prices.py", "PRICE = 1\n")
    a_file(tmp_path / "shop" / "tasks.py")
    with pytest.raises(FilesUnusable, match="has no manifests") as caught:
        await plan_of(tmp_path, "shop")
    file = caught.value.hint.partition("galley dev ")[2]
    assert (await plan_of(tmp_path, str(Path(file).relative_to(tmp_path)))).queues


def test_names_of_the_standard_library_are_known_to_python() -> None:
    assert {"queue", "email", "platform", "calendar", "types"} <= sys.stdlib_module_names


async def test_what_a_module_prints_and_starts_has_no_part_in_what_is_read_of_it(tmp_path: Path) -> None:
    file = tmp_path / "prints.py"
    file.write_text(
        "import os, subprocess\n"
        "from galley import task\n"
        "print('one')\n"
        "os.write(1, b'two')\n"
        "subprocess.run(['echo', 'three'], check=True)\n"
        "if os.fork() == 0:\n"
        "    os.execvp('sleep', ['sleep', '5'])\n"
        "@task(queue='sums')\n"
        "def add(): ...\n"
    )
    plan = await read_plan([file], tmp_path)
    assert list(plan.queues) == [("default", "sums")]
