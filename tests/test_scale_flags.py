"""Where the work is done, by the flags."""

from __future__ import annotations

import argparse
import sys

import pytest

from occport.commands.scale_flags import add_scale_arguments, outcomes
from occport.errors import UserError
from occport.use import ray_pool, work
from ray_plans import CountingPlan, tasks


def flags(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_scale_arguments(parser)
    return parser.parse_args(words)


def test_one_worker_is_this_process_and_needs_no_ray(monkeypatch) -> None:
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, None)
    got = list(outcomes(flags(), CountingPlan(damaged=(3,)), tasks(5)))
    assert [outcome.number for outcome in got] == [0, 1, 2, 3, 4]
    assert [outcome.error for outcome in got if outcome.error] == ["image of frame 3: got a text"]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--workers", "3"), (3, None)),
        (("--address", "head:6379"), (1, "head:6379")),
        (("--workers", "8", "--address", "auto"), (8, "auto")),
    ],
)
def test_several_workers_or_an_address_go_to_ray(words, wanted, monkeypatch) -> None:
    asked: list[object] = []

    def pool(plan, tasks, workers, address):
        asked.append((plan, [task.number for task in tasks], workers, address))
        return work.run_here(plan, tasks)

    monkeypatch.setattr(ray_pool, "run_on_ray", pool)
    assert len(list(outcomes(flags(*words), CountingPlan(), tasks(4)))) == 4
    assert asked == [(CountingPlan(), [0, 1, 2, 3], *wanted)]


@pytest.mark.parametrize("number", ["0", "-2"])
def test_less_than_one_worker_is_refused_at_once(number) -> None:
    with pytest.raises(UserError) as caught:
        outcomes(flags(f"--workers={number}"), CountingPlan(), tasks(4))
    assert str(caught.value) == f"--workers: expected 1 or more, got {number}"


def test_the_help_says_what_a_cluster_needs(capsys) -> None:
    with pytest.raises(SystemExit):
        flags("--help")
    said = " ".join(capsys.readouterr().out.split())
    for part in ("pip install 'occport[ray]'", "shared file system", "--threads"):
        assert part in said
