"""Two functions never share a handler name silently; one function may be defined again."""

import importlib
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import galley.handler
from galley import task
from galley.errors import HandlerExists
from galley.registry import Registry

DECORATOR = """
def logged(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Give each test a registry of its own."""
    own = Registry()
    monkeypatch.setattr(galley.handler, "REGISTRY", own)
    return own


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to import modules from."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def module(folder: Path, name: str, body: str) -> ModuleType:
    (folder / f"{name}.py").write_text("from galley import task\n" + body)
    importlib.invalidate_caches()
    return importlib.import_module(name)


@pytest.mark.parametrize(
    "body",
    [
        "@task\ndef mail(): return 1\n@task\ndef mail(): return 2\n",
        "@task\ndef mail(): return 1\n@task(name='mail')\ndef other(): return 2\n",
        DECORATOR + "@task\n@logged\ndef charge(): ...\n@task\n@logged\ndef refund(): ...\n",
        DECORATOR
        + "@task\n@logged\n@logged\ndef charge(): ...\n@task\n@logged\n@logged\ndef refund(): ...\n",
        "for _ in range(2):\n    @task(name='mail')\n    def mail(): ...\n",
        "def make(kind):\n    @task(name='mail')\n    def mail(): return kind\nmake(1)\nmake(2)\n",
        "class S:\n    def mail(self): ...\ntask(S().mail)\ntask(S().mail)\n",
        "from functools import partial\ntask(name='p')(partial(pow, 1))\ntask(name='p')(partial(pow, 2))\n",
        "task(name='one')(lambda: 1)\ntask(name='one')(lambda: 2)\n",
        "class C:\n    def __call__(self): ...\ntask(name='c')(C())\ntask(name='c')(C())\n",
    ],
)
def test_a_name_used_twice_in_a_module_is_an_error_at_import(folder: Path, body: str) -> None:
    with pytest.raises(HandlerExists) as refused:
        module(folder, "twice", body)
    assert refused.value.first.count("twice.py:") == 1
    assert refused.value.second.count("twice.py:") == 1
    assert "name=" in refused.value.hint


def test_both_places_are_named_with_their_line(folder: Path) -> None:
    with pytest.raises(HandlerExists) as refused:
        module(folder, "shop", "@task\ndef mail(): ...\n\n\n@task\ndef mail(): ...\n")
    place = folder / "shop.py"
    assert (refused.value.first, refused.value.second) == (f"shop.mail ({place}:2)", f"shop.mail ({place}:6)")


def test_a_decorator_without_wraps_is_blamed(folder: Path) -> None:
    with pytest.raises(HandlerExists) as refused:
        module(folder, "shop", DECORATOR + "@task\n@logged\ndef a(): ...\n@task\n@logged\ndef b(): ...\n")
    assert "functools.wraps" in refused.value.hint
    assert "shop.logged.<locals>.wrapper" in refused.value.first


def test_wrappers_of_one_decorator_in_two_modules_are_two_functions(folder: Path) -> None:
    (folder / "deco.py").write_text(DECORATOR)
    module(folder, "first", "from deco import logged\n@task\n@logged\ndef charge(): ...\n")
    with pytest.raises(HandlerExists):
        module(folder, "second", "from deco import logged\n@task\n@logged\ndef charge(): ...\n")


def test_equal_names_in_two_modules_are_two_functions(folder: Path) -> None:
    module(folder, "first", "@task\ndef mail(): ...\n")
    with pytest.raises(HandlerExists, match=r"first\.mail \(.*second\.mail \("):
        module(folder, "second", "@task\ndef mail(): ...\n")


def test_a_reloaded_module_replaces_its_own_handlers(folder: Path, registry: Registry) -> None:
    first = module(
        folder, "shop", DECORATOR + "@task\n@logged\ndef a(): return 1\n@task\ndef b(): return 1\n"
    )
    (folder / "shop.py").write_text(
        "from galley import task\n\n\n" + DECORATOR + "@task\n@logged\ndef a(): return 2\n"
        "@task\ndef b(): return 2\n"
    )
    second = importlib.reload(first)
    assert registry.of_queue("default") == {"wrapper": second.a, "b": second.b}
    assert second.a() == 2


def test_a_module_imported_again_replaces_its_own_handlers(folder: Path, registry: Registry) -> None:
    module(folder, "shop", "@task\ndef mail(): return 1\n")
    del sys.modules["shop"]
    again = module(folder, "shop", "@task\ndef mail(): return 2\n")
    assert registry.of_queue("default") == {"mail": again.mail}


def test_a_file_may_be_the_program_and_a_module_of_it(folder: Path, registry: Registry) -> None:
    module(folder, "shop", "@task\ndef mail(): return 1\n")
    ran = runpy.run_path(str(folder / "shop.py"), run_name="__main__")
    assert registry.of_queue("default") == {"mail": ran["mail"]}


def cell(source: str, names: dict[str, Any], number: int) -> None:
    """Execute a cell as a notebook does: each is a file and a code object of its own."""
    exec(compile(source, f"<cell {number}>", "exec"), names)


def test_a_cell_executed_again_replaces_its_handler(registry: Registry) -> None:
    names: dict[str, Any] = {"task": task, "__name__": "a_notebook"}
    compiled = compile("@task\ndef mail(): return 1\n", "<cell>", "exec")
    exec(compiled, names)
    exec(compiled, names)
    cell("\n@task\ndef mail(): return 2\n", names, 2)
    assert registry.of_queue("default")["mail"]() == 2


def test_a_notebook_does_not_confuse_wrappers_of_one_decorator() -> None:
    names: dict[str, Any] = {"task": task, "__name__": "a_notebook"}
    cell(DECORATOR, names, 1)
    cell("@task\n@logged\ndef charge(): ...", names, 2)
    cell("@task\n@logged\ndef charge(): ...", names, 3)
    with pytest.raises(HandlerExists):
        cell("@task\n@logged\ndef refund(): ...", names, 4)


def test_a_handler_twice_in_one_cell_is_an_error() -> None:
    with pytest.raises(HandlerExists):
        cell("@task\ndef a(): ...\n@task\ndef a(): ...", {"task": task, "__name__": "a_notebook"}, 1)


@pytest.mark.parametrize("_time", [1, 2])
def test_a_function_that_declares_a_handler_may_run_again(registry: Registry, _time: int) -> None:
    def declare() -> Any:
        @task
        def mail() -> int:
            return 1

        return mail

    declare()
    again = declare()
    assert registry.of_queue("default") == {"mail": again}


def test_a_function_that_closes_over_itself_can_be_compared() -> None:
    def declare() -> Any:
        @task
        def mail(n: int) -> int:
            return mail(n - 1) if n else 0

        def inner(n: int) -> int:
            return inner(n - 1) if n else 0

        return task(name="inner")(inner)

    declare()
    assert declare()(3) == 0


def test_the_same_function_may_be_declared_again_and_for_another_queue(registry: Registry) -> None:
    def mail() -> int:
        return 1

    first = task(queue="a")(mail)
    second = task(queue="b")(first)
    third = task(queue="a")(first)
    assert registry.of_queue("a") == {"mail": third}
    assert registry.of_queue("b") == {"mail": second}
    assert second.function is third.function is mail
