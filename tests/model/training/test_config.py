"""Learning rate schedules and time budgets."""

import pytest

from model.training.config import MIN_RATE_FRACTION, FitConfig, TableSchedule


def rates(schedule: str, epochs: int = 4, steps: int = 10) -> list[float]:
    config = FitConfig("sgd", 1.0, epochs, schedule=schedule, warmup_epochs=0.5)
    return [config.learning_rate_at(step, steps, epochs) for step in range(epochs * steps)]


def test_a_rate_warms_up_and_falls_along_a_cosine() -> None:
    found = rates("cosine")
    assert found[:5] == sorted(found[:5])
    assert found[5:] == sorted(found[5:], reverse=True)
    assert found[5] == pytest.approx(1.0)
    assert found[-1] == pytest.approx(MIN_RATE_FRACTION, abs=0.01)


def test_steps_fall_to_a_tenth_at_each_third() -> None:
    assert sorted({round(rate, 4) for rate in rates("step")[5:]}) == [0.01, 0.1, 1.0]


def test_a_constant_rate_stays() -> None:
    assert set(rates("constant")[5:]) == {1.0}


def test_epochs_are_planned_to_fit_the_budget() -> None:
    config = FitConfig("adam", 1.0, 12, time_budget=1000)
    assert config.plan(0.1, 100) == (12, 100)
    assert config.plan(1.0, 100) == (8, 100)
    assert config.plan(10.0, 100) == (3, 28)
    assert FitConfig("adam", 1.0, 12).plan(10.0, 100) == (12, 100)


def test_a_training_slower_than_planned_ends_in_time() -> None:
    config = FitConfig("adam", 1.0, 12, time_budget=1000)
    assert config.epochs_in_budget(2, 8, 200) == 8
    assert config.epochs_in_budget(2, 8, 500) == 4
    assert config.epochs_in_budget(2, 8, 1200) == 2
    assert FitConfig("adam", 1.0, 12).epochs_in_budget(2, 8, 1e9) == 8


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.02])
def test_each_optimizer_works_with_and_without_weight_decay(name: str, weight_decay: float) -> None:
    config = FitConfig(name, 0.1, epochs=1, weight_decay=weight_decay)
    optimizer = config.build_optimizer(TableSchedule(config, 1), None)
    assert optimizer.weight_decay == (weight_decay or None)
