import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "metrics.md"
WORKER = ROOT / "worker-image" / "galley_worker" / "measures.py"
OPERATOR = ROOT / "operator" / "galley_operator"


def test_every_metric_is_on_the_page_and_no_other() -> None:
    worker = re.findall(r'"(galley_\w+)"', WORKER.read_text("utf-8"))
    texts = [path.read_text("utf-8") for path in OPERATOR.rglob("*.py")]
    operator = {name for text in texts for name in re.findall(r'\w\(\s*"(galley_operator_\w+)"', text)}
    figures = {
        f"galley_operator_{name}" for text in texts for name in re.findall(r'\bfigure\(\s*"(\w+)"', text)
    }
    assert len(worker) > 3
    assert len(figures) > 3
    listed = re.findall(r"^\| `(galley_\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(name.removesuffix("_total") for name in listed) == sorted(
        name.removesuffix("_total") for name in {*worker, *operator, *figures}
    )
