"""The image of the gateway has all modules that the gateway imports."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from testcluster.images.image import GATEWAY


def test_what_is_copied_into_the_image_is_enough_to_start(tmp_path: Path) -> None:
    for source in GATEWAY.sources:
        path = GATEWAY.context / source
        # The first folder is where a package is developed; the others are the package.
        target = tmp_path / Path(*Path(source).parts[1:])
        if len(Path(source).parts) > 1 and path.is_dir():
            shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif len(Path(source).parts) > 1:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    # Without `site`, nothing of this repository is found but the copies.
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; sys.path.append({sysconfig.get_path('purelib')!r});"
        "import galley_gateway.main, galley_operator; print(galley_operator.__file__)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout


def test_its_dockerfile_copies_the_same() -> None:
    copied = [
        line.split() for line in GATEWAY.dockerfile.read_text().splitlines() if line.startswith("COPY ")
    ]
    named = {word for words in copied for word in words[1:]}
    assert set(GATEWAY.sources) <= named
