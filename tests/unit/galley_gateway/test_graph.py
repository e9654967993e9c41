"""Drawings of workflows."""

from galley.workflows import StepStatus
from galley_gateway.pages.graph import COLUMNS, ROWS, WIDTH, drawing_of


def step(name: str, *after: str, state: str = "Waiting") -> StepStatus:
    return StepStatus(name, state, "orders", f"wf-{name}", after)


def test_a_step_stands_right_of_all_it_depends_on_and_no_two_overlap() -> None:
    drawn = drawing_of([step("a"), step("b"), step("c", "a"), step("d", "b", "c"), step("e", "a", "d")])
    at = {box.name: (box.x, box.y) for box in drawn.boxes}
    assert at["a"][0] == at["b"][0] < at["c"][0] < at["d"][0] < at["e"][0]
    assert len(set(at.values())) == 5
    assert len(drawn.lines) == 5
    assert drawn.width >= at["e"][0] + WIDTH
    assert drawn.left_out == 0


def test_many_steps_of_a_column_are_one_box_that_shows_the_worst() -> None:
    wide = [step(f"m{number}", "a", state="Failed" if number == 3 else "Succeeded") for number in range(500)]
    drawn = drawing_of([step("a", state="Succeeded"), *wide, step("z", "m0", "m499")])
    assert [box.state for box in drawn.boxes] == ["Succeeded", "Failed", "Waiting"]
    assert drawn.boxes[1].label == "500 steps"
    assert drawn.boxes[1].name == "500 steps: 1 failed, 499 succeeded"
    assert drawn.boxes[1].task == ""
    assert len(drawn.lines) == 2
    assert len(drawing_of([step(f"m{number}") for number in range(ROWS)]).boxes) == ROWS


def test_a_long_chain_is_drawn_in_part() -> None:
    chain = [step("s0"), *(step(f"s{number}", f"s{number - 1}") for number in range(1, 100))]
    drawn = drawing_of(chain)
    assert (len(drawn.boxes), drawn.left_out) == (COLUMNS, 100 - COLUMNS)


def test_a_workflow_whose_steps_are_not_kept_is_an_empty_drawing() -> None:
    assert drawing_of([]).boxes == ()


def test_a_long_name_is_shortened_on_the_box_and_whole_in_its_title() -> None:
    [box] = drawing_of([step("n" * 60)]).boxes
    assert (len(box.label), box.name) == (20, "n" * 60)
