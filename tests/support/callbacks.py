"""Finds the callbacks of a package in its code, so that none escapes the tests that raise in each.

A callback is a method that is handed to another part: as an argument of a call, or set as an attribute of
another object. So is `run` of any part, and a method by which a part hears of changes.
"""

import ast
import inspect
from collections import defaultdict
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple


class Callback(NamedTuple):
    """A method, by where it is."""

    module: str
    owner: str
    name: str


class _Handed(NamedTuple):
    """An attribute that was handed on, and in which class of which module."""

    module: str
    owner: str
    part: ast.Attribute


class Callbacks:
    """The callbacks of a package."""

    def __init__(self, package: ModuleType, hearing: Collection[set[str]] = ()) -> None:
        """Args: hearing: what classes have by which a part hears of changes, by its protocols."""
        assert package.__file__ is not None
        self._package, self._root, self._hearing = package.__name__, Path(package.__file__).parent, hearing

    @cached_property
    def all(self) -> dict[str, Callback]:
        """The callbacks by `CLASS.METHOD`, with those that may only have the name of one."""
        return self._found(certain=False)

    @cached_property
    def certain(self) -> dict[str, Callback]:
        """Those that are certainly handed on."""
        return self._found(certain=True)

    @cached_property
    def _methods(self) -> dict[str, set[tuple[str, str]]]:
        """The methods by name: the modules and classes that have one."""
        found: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for module, node in self._classes:
            if "Protocol" in " ".join(map(ast.unparse, node.bases)):
                continue
            for each in node.body:
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and not each.decorator_list:
                    found[each.name].add((module, node.name))
        return found

    @cached_property
    def _handed(self) -> tuple[_Handed, ...]:
        return tuple(
            _Handed(module, holder.name, part)
            for module, holder in self._classes
            for node in ast.walk(holder)
            for part in _given(node)
            if isinstance(part, ast.Attribute)
        )

    @cached_property
    def _classes(self) -> tuple[tuple[str, ast.ClassDef], ...]:
        """All classes of all modules, also those within others."""
        found = []
        for path in sorted(self._root.rglob("*.py")):
            module = ".".join((self._package, *path.relative_to(self._root).with_suffix("").parts))
            waiting: list[ast.stmt] = list(ast.parse(path.read_text()).body)
            while waiting:
                node = waiting.pop()
                if isinstance(node, ast.ClassDef):
                    found.append((module, node))
                for block in ("body", "orelse", "finalbody", "handlers", "cases"):
                    waiting.extend(getattr(node, block, ()))
        return tuple(found)

    def _found(self, *, certain: bool) -> dict[str, Callback]:
        by_class: dict[tuple[str, str], set[str]] = defaultdict(set)
        for name, places in self._methods.items():
            for place in places:
                by_class[place].add(name)
        found = {Callback(*place, "run") for place, names in by_class.items() if "run" in names}
        for hearing in self._hearing:
            heard = [place for place, names in by_class.items() if hearing <= names]
            found |= {Callback(*place, each) for place in heard for each in hearing}
        for handed in self._handed:
            if not certain or ast.unparse(handed.part.value) == "self":
                found |= self._meant(handed)
        return {f"{each.owner}.{each.name}": each for each in sorted(found)}

    def _meant(self, handed: _Handed) -> set[Callback]:
        """Return the method an attribute is: of the class itself, or the only one that is so called."""
        places, part = self._methods.get(handed.part.attr, set()), handed.part
        if isinstance(part.value, ast.Name) and part.value.id == "self":
            own = (handed.module, handed.owner)
            return {Callback(*own, part.attr)} if own in places else set()
        # An attribute of another object may only have the name of a method: then nothing calls it.
        return {Callback(*place, part.attr) for place in places} if len(places) == 1 else set()


def _given(node: ast.AST) -> Iterator[ast.expr]:
    """Yield what a call is given, and what is set as an attribute of another object."""
    given: list[ast.expr] = []
    if isinstance(node, ast.Call):
        given = [*node.args, *(each.value for each in node.keywords)]
    elif isinstance(node, ast.Assign) and any(_of_another(target) for target in node.targets):
        given = [node.value]
    for each in given:
        yield from getattr(each, "elts", [each])


def _of_another(target: ast.expr) -> bool:
    targets = getattr(target, "elts", [target])
    return any(isinstance(each, ast.Attribute) and ast.unparse(each.value) != "self" for each in targets)


class Raising:
    """A method that raises once, and then does what it is there for."""

    def __init__(self, original: Any) -> None:
        self.times = 0
        self.original = original
        self.spared = 0
        """How many calls go well before the one that raises."""

    def once(self) -> None:
        if self.spared:
            self.spared -= 1
            return
        self.times += 1
        if self.times == 1:
            raise RuntimeError("raised by a test")

    @property
    def method(self) -> Any:
        if inspect.iscoroutinefunction(self.original):

            async def raising_later(*args: Any, **named: Any) -> Any:
                self.once()
                return await self.original(*args, **named)

            return raising_later

        def raising(*args: Any, **named: Any) -> Any:
            self.once()
            return self.original(*args, **named)

        return raising
