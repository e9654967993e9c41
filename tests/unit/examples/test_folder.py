import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from examples.folder import folder, make_input
from galley.registry import REGISTRY
from galley.resources.manifest import Resource, read_manifests
from galley.resources.task import Task
from galley.resources.task_queue import InputAs, TaskQueue

EXAMPLE = Path(folder.__file__).parent
SHIPPED = EXAMPLE / "input"
PICTURES = sorted(path.name for path in SHIPPED.iterdir() if path.suffix != ".txt")
TEXTS = sorted(path.name for path in SHIPPED.glob("*.txt"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the example's input to work on, seen from a process that runs elsewhere."""
    copy = tmp_path / "example"
    shutil.copytree(SHIPPED, copy / "input")
    monkeypatch.setattr(folder, "HERE", copy)
    monkeypatch.chdir(tmp_path)
    return copy


def written(here: Path) -> list[str]:
    return sorted(str(path.relative_to(here)) for path in (here / "out").rglob("*") if path.is_file())


@pytest.mark.parametrize("name", PICTURES)
def test_a_thumbnail_is_the_picture_made_small(here: Path, name: str) -> None:
    result: dict[str, Any] = folder.thumbnail(f"input/{name}", edge=96)

    stem = name.partition(".")[0]
    assert written(here) == [f"out/thumbnails/{stem}.jpg"] == [result["thumbnail"]]
    with Image.open(here / "input" / name) as source, Image.open(here / result["thumbnail"]) as small:
        assert small.format == "JPEG"
        assert result["source"] == list(source.size)
        assert result["size"] == list(small.size)
        assert max(small.size) == 96
        assert small.width / small.height == pytest.approx(source.width / source.height, abs=0.03)
        again = source.convert("RGB").resize(small.size, Image.Resampling.LANCZOS)
        difference = ImageStat.Stat(ImageChops.difference(again, small)).mean
    assert max(difference) < 12, "it shows something else"
    assert result["bytes"] == (here / result["thumbnail"]).stat().st_size


def test_a_second_run_writes_the_same_thumbnail_over_the_first(here: Path) -> None:
    first = folder.thumbnail("input/tree.jpg")
    content = (here / "out/thumbnails/tree.jpg").read_bytes()

    assert folder.thumbnail("input/tree.jpg") == first
    assert written(here) == ["out/thumbnails/tree.jpg"]
    assert (here / "out/thumbnails/tree.jpg").read_bytes() == content


def test_a_picture_smaller_than_asked_keeps_its_size(here: Path) -> None:
    Image.new("RGB", (30, 20), "#204060").save(here / "input/tiny.png")

    result = folder.thumbnail("input/tiny.png")

    assert (result["size"], result["colour"]) == ([30, 20], "#204060")


def test_the_dominant_colour_is_that_of_the_largest_part(here: Path) -> None:
    picture = Image.new("RGB", (100, 100), "#c81e1e")
    picture.paste("#1e1ec8", (0, 0, 100, 40))
    picture.save(here / "input/flag.png")

    assert folder.thumbnail("input/flag.png", edge=100)["colour"] == "#c81e1e"


def test_what_is_transparent_becomes_white(here: Path) -> None:
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(here / "input/glass.png")

    assert folder.thumbnail("input/glass.png")["colour"] == "#ffffff"


def test_a_photograph_taken_sideways_is_turned(here: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 200), "green").save(here / "input/sideways.jpg", exif=exif)

    assert folder.thumbnail("input/sideways.jpg", edge=100)["size"] == [50, 100]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("input/none.png", r"there is no file 'input/none\.png' in example/"),
        ("input", "there is no file 'input'"),
        ("input/raven.txt", r"'input/raven\.txt' is not an image"),
        ("../secret.png", r"'\.\./secret\.png' is outside the folder"),
        ("input/../../secret.png", "is outside the folder"),
        ("/etc/passwd", "'/etc/passwd' is outside the folder"),
    ],
)
def test_a_path_that_is_no_picture_of_the_folder_is_refused(here: Path, path: str, problem: str) -> None:
    Image.new("RGB", (9, 9)).save(here.parent / "secret.png")

    with pytest.raises(folder.InputUnusable, match=problem):
        folder.thumbnail(path)

    assert written(here) == []


def test_a_link_does_not_lead_out_of_the_folder(here: Path) -> None:
    Image.new("RGB", (9, 9)).save(here.parent / "secret.png")
    (here / "input/link.png").symlink_to(here.parent / "secret.png")

    with pytest.raises(folder.InputUnusable, match="is outside the folder"):
        folder.thumbnail("input/link.png")


@pytest.mark.parametrize("edge", [0, -5, 1025])
def test_an_edge_that_makes_no_thumbnail_is_refused(here: Path, edge: int) -> None:
    with pytest.raises(folder.InputUnusable, match=f"edge is {edge}; it must be from 1 to 1024 pixels"):
        folder.thumbnail("input/life.gif", edge=edge)


def test_half_a_picture_leaves_no_thumbnail(here: Path) -> None:
    whole = (here / "input/tree.jpg").read_bytes()
    (here / "input/half.jpg").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(folder.InputUnusable, match=r"'input/half\.jpg' is damaged"):
        folder.thumbnail("input/half.jpg")

    assert written(here) == []


def test_words_are_counted_as_a_reader_would(here: Path) -> None:
    (here / "input/note.txt").write_text(
        "Über die Brücke, über die Straße! 1788 war's kalt... »Kalt?« Mind-forg'd, don\u2019t.", "utf-8"
    )

    assert folder.word_statistics("input/note.txt") == {
        "words": 11,
        "distinct": 8,
        "sentences": 4,
        "longest": "mind-forg'd",
        "top": ["brücke", "don\u2019t", "mind-forg'd", "straße", "war's"],
        "readingSeconds": 3,
    }


def test_a_letter_and_its_accent_are_one_letter(here: Path) -> None:
    (here / "input/composed.txt").write_text("h\u00f6ren sch\u00f6n", "utf-8")
    (here / "input/apart.txt").write_text("ho\u0308ren scho\u0308n", "utf-8")

    apart = folder.word_statistics("input/apart.txt")

    assert apart == folder.word_statistics("input/composed.txt")
    assert apart["top"] == ["h\u00f6ren", "sch\u00f6n"]


def test_an_empty_text_has_no_words(here: Path) -> None:
    (here / "input/empty.txt").touch()

    result = folder.word_statistics("input/empty.txt")

    assert (result["words"], result["sentences"], result["longest"], result["top"]) == (0, 0, "", [])


def test_the_commonest_words_of_the_raven_are_those_one_remembers() -> None:
    assert folder.word_statistics("input/raven.txt")["top"] == [
        "chamber", "nevermore", "raven", "lenore", "above",
    ]  # fmt: skip


def test_bytes_that_are_no_text_are_refused(here: Path) -> None:
    with pytest.raises(folder.InputUnusable, match=r"'input/tree\.jpg' is not a UTF-8 text \(byte 0\)"):
        folder.word_statistics("input/tree.jpg")


async def test_a_summary_adds_up_its_texts_and_writes_what_it_returns(here: Path) -> None:
    paths = [f"input/{name}" for name in TEXTS]
    single: list[dict[str, Any]] = [folder.word_statistics(path) for path in paths]

    result: dict[str, Any] = await folder.summary(paths)

    assert result["texts"] == len(TEXTS)
    assert result["words"] == sum(each["words"] for each in single)
    assert result["sentences"] == sum(each["sentences"] for each in single)
    assert max(each["distinct"] for each in single) < result["distinct"] < result["words"]
    assert json.loads((here / "out/summary.json").read_text("utf-8")) == result
    assert written(here) == ["out/summary.json"]


async def test_a_summary_of_a_missing_text_writes_nothing(here: Path) -> None:
    with pytest.raises(folder.InputUnusable, match=r"no file 'input/lost\.txt'"):
        await folder.summary(["input/raven.txt", "input/lost.txt"])
    with pytest.raises(folder.InputUnusable, match="paths is empty"):
        await folder.summary([])

    assert written(here) == []


SLOW = {"mandelbrot.png", "stars.jpg", "newton.webp", "lissajous.png"}
"""Pictures that `make test/deep` draws: they take three times as long as all others."""


def test_the_script_draws_the_pictures_that_ship(tmp_path: Path) -> None:
    assert sorted(make_input.PICTURES) == PICTURES
    names = [name for name in PICTURES if os.environ.get("GALLEY_DEEP") or name not in SLOW]
    make_input.make(tmp_path, names)

    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        if (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes():
            continue
        # Another Pillow brings other encoders and another rounding; the picture is the same.
        with Image.open(tmp_path / name) as drawn, Image.open(SHIPPED / name) as shipped:
            assert drawn.size == shipped.size, name
            pair = drawn.convert("RGB"), shipped.convert("RGB")
            assert max(ImageStat.Stat(ImageChops.difference(*pair)).mean) < 3, name


def test_what_ships_is_small_and_says_whose_it_is() -> None:
    assert (len(PICTURES), len(TEXTS)) == (12, 12)
    assert {Path(name).suffix for name in PICTURES} == {".jpg", ".png", ".webp", ".gif"}
    assert sum((SHIPPED / name).stat().st_size for name in PICTURES) < 1_500_000
    for name in TEXTS:
        text = (SHIPPED / name).read_text("utf-8")
        assert 3_000 < len(text.encode()) < 40_000, name
        assert ", " in text.splitlines()[0], name
        assert any(year in text.splitlines()[0] for year in ("(15", "(16", "(17", "(18")), name


def test_every_task_names_a_handler_of_its_queue_and_input_that_fits_it() -> None:
    queues = {each.metadata.name: each for each in manifests("queues.yaml") if isinstance(each, TaskQueue)}
    tasks = declared_tasks()

    assert sorted(queues) == ["images", "texts"]
    assert len({task.metadata.name for task in tasks}) == len(tasks) == 38
    for task in tasks:
        queue, name, given = queues[task.spec.queue_name], task.spec.handler, task.spec.input
        assert task.spec.priority in queue.spec.lanes
        commands = {command.name: command for command in queue.spec.handlers.commands}
        if name in commands:
            assert commands[name].input_as is InputAs.ARGS
            assert isinstance(given, list)
            paths = given
        else:
            assert isinstance(given, dict)
            bound = REGISTRY.of_queue(task.spec.queue_name)[name].signature.bind(**given).arguments
            paths = bound.get("paths") or [bound["path"]]
        assert all((EXAMPLE / str(path)).is_file() for path in paths), task.metadata.name


def test_the_manifests_work_on_every_file_and_use_three_lanes() -> None:
    specs = [task.spec for task in declared_tasks()]
    inputs = [spec.input for spec in specs if isinstance(spec.input, dict)]
    worked_on = [str(given["path"]) for given in inputs if "path" in given]

    assert sorted(worked_on) == sorted(f"input/{name}" for name in [*PICTURES, *TEXTS, "raven.txt"])
    for queue in ("images", "texts"):
        assert {spec.priority for spec in specs if spec.queue_name == queue} == {"high", "normal", "low"}


def test_exactly_one_task_is_meant_to_fail() -> None:
    given = {task.metadata.name: task.spec for task in declared_tasks() if task.spec.handler == "thumbnail"}
    broken = {name: spec for name, spec in given.items() if "txt" in str(spec.input)}

    assert list(broken) == ["thumbnail-of-a-poem"]
    retry = broken["thumbnail-of-a-poem"].retry
    assert retry is not None
    assert (retry.attempts, retry.backoff_seconds) == (2, 0.5)


def test_the_checksum_command_works_from_the_folder_of_the_manifest() -> None:
    (queue,) = [each for each in manifests("queues.yaml") if each.metadata.name == "texts"]
    assert isinstance(queue, TaskQueue)
    (checksum,) = queue.spec.handlers.commands

    command = [*checksum.command, "input/raven.txt"]
    said = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, timeout=10, check=True).stdout

    expected = hashlib.sha256((SHIPPED / "raven.txt").read_bytes()).hexdigest()
    assert said.split() == [expected, "input/raven.txt"]


def test_the_readme_shows_a_result_as_it_is(here: Path) -> None:
    lines = (EXAMPLE / "README.md").read_text("utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith('  {"thumb')]
    shown, result = json.loads(line), folder.thumbnail("input/life.gif")

    # Encoders differ by a few bytes from one Pillow to the next.
    assert shown.pop("bytes") == pytest.approx(result.pop("bytes"), rel=0.2)
    assert shown == result


def manifests(name: str) -> list[Resource]:
    return read_manifests(EXAMPLE / name)


def declared_tasks() -> list[Task]:
    return [each for each in manifests("tasks.yaml") if isinstance(each, Task)]
