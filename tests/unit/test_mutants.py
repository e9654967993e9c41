"""The mutants of `make mutants` still fit the code."""

from collections import Counter

import pytest

from tests.mutants.all import MUTANTS
from tests.mutants.mutant import ROOT


def test_the_old_text_of_every_mutant_is_in_its_file_exactly_once() -> None:
    """If you change such a line, change its mutant, or takes that out where nothing is left to break."""
    lost = []
    for mutant in MUTANTS:
        try:
            mutant.applied_to((ROOT / mutant.file).read_text("utf-8"))
        except (LookupError, OSError) as error:
            lost.append(str(error))
    assert lost == []


def test_mutants_have_names_of_their_own_and_tests_that_exist() -> None:
    assert [name for name, count in Counter(each.name for each in MUTANTS).items() if count > 1] == []
    assert [
        each.name for each in MUTANTS for test in each.tests if not (ROOT / test.partition("::")[0]).exists()
    ] == []
    assert all(each.tests and each.breaks for each in MUTANTS)


def test_a_mutant_that_no_longer_fits_says_so() -> None:
    with pytest.raises(LookupError, match=MUTANTS[0].name):
        MUTANTS[0].applied_to("nothing of the kind")
