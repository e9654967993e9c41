"""What a mutant is."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Mutant:
    """One mistake: in `file`, `old` becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    breaks: str
    """What goes wrong in the world with it."""
    tests: tuple[str, ...]
    """Where the tests are that have to notice."""
    survives: str = ""
    """Why no test can notice, for the few that change nothing that can be seen."""

    def applied_to(self, text: str) -> str:
        """Return a source with the mistake in it.

        Raises:
            LookupError: if the old text is not there exactly once.
        """
        found = text.count(self.old)
        if found != 1:
            raise LookupError(f"mutant {self.name}: its old text is {found} times in {self.file}, not once")
        return text.replace(self.old, self.new)
