"""Tests of the page on sizing, with figures of our own."""

import os

from benchmarks.processor_time import load_in_words
from benchmarks.sizing import Backlog, Fleet, Memory, page

_MIB = 1024 * 1024


def test_the_page_has_each_figure_in_the_unit_of_its_column() -> None:
    memory = Memory(supervisor=44 * _MIB, fork_server=20 * _MIB, children=40 * _MIB)
    backlogs = [Backlog(1_000_000, 1.5, 9876.5, 450 * _MIB, 256_000_000)]
    text = page(memory, backlogs, [Fleet(8, 12_345.6)], load=0.5)
    assert "| 1,000,000 | 9,876 | 1.50 s | 450 MiB | 244 MiB |" in text
    assert "| 8 | 12,346 |" in text
    assert "takes 104 MiB (proportional set size): 44 MiB" in text
    assert "10.0 MiB for each process of handlers" in text
    assert "takes 256 bytes on disk" in text


def test_a_page_says_if_the_machine_was_busy_before() -> None:
    cores = os.cpu_count() or 1
    assert load_in_words(cores / 2) == f"load average before it {cores / 2:.1f}."
    assert "other programs used it, too" in load_in_words(cores * 3)
