"""A run with a time limit: the epochs that are planned, those that are trained, and what its record says of them."""

from __future__ import annotations

import time

import pytest

import backends
from common.contract.watch import Quiet
from common.data import splits
from common.data.folder import ImageData
from common.method import schedules
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.training import loop, pace, time_limit
from common.training.pace import Cost
from common.training.time_limit import TimeLimit, fit_epochs
from tests.common.runs.test_experiment import read_checked
from tests.fake_backend import FakeBackend
from tests.run_experiment import make_experiment, run_experiment


class Notes(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def spec(pictures: ImageData) -> ExperimentSpec:
    return ExperimentSpec(
        data=str(pictures.root),
        image_size=64,
        batch_size=8,
        epochs=60,
        workers=0,
        schedule="cosine",
        learning_rate=1e-4,
    )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    backend = FakeBackend()
    monkeypatch.setattr(backends, "load", lambda name: backend)
    return backend


def costs_are(monkeypatch: pytest.MonkeyPatch, **costs: Cost) -> None:
    monkeypatch.setattr(time_limit, "measure_costs", lambda experiment, limit: costs)


def fitted(spec: ExperimentSpec, pictures: ImageData, limit: TimeLimit):
    return fit_epochs(make_experiment(FakeBackend(), spec, pictures), limit)


@pytest.mark.parametrize(
    ("cost", "past", "epochs"),
    [
        # Of 100 s 5 are for writing, and a tenth of the rest for what nobody foresaw: 85.5 s.
        (Cost(once=1, epoch=2), 0, 42),
        (Cost(once=1, epoch=2), 50, 19),
        (Cost(once=40, epoch=2), 0, 22),
        (Cost(once=1, epoch=84), 0, 1),
        (Cost(once=0, epoch=0.01), 0, 60),
    ],
)
def test_as_many_epochs_are_planned_as_fit(monkeypatch, spec, pictures, cost, past, epochs) -> None:
    costs_are(monkeypatch, everything=cost)
    experiment, forecast = fitted(spec, pictures, TimeLimit(100, time.perf_counter() - past))
    (phase,) = experiment.plan.phases
    assert (experiment.spec.epochs, phase.epochs) == (epochs, epochs)
    assert experiment.spec == spec.replace(epochs=epochs)
    assert (forecast.seconds, forecast.asked_epochs, forecast.planned_epochs) == (100, 60, epochs)
    assert forecast.planned_seconds == pytest.approx(past + 5 + cost.of(epochs), abs=1)
    assert forecast.note.startswith(f"time limit 1m40s: {'all 60' if epochs == 60 else f'{epochs} of 60'} epochs fit")


@pytest.mark.parametrize(
    ("head", "epochs", "phases"),
    [(Cost(1, 1), 42, [2, 40]), (Cost(40, 1), 23, [2, 21]), (Cost(81, 1), 2, [1, 1])],
)
def test_both_phases_of_a_warm_up_count(monkeypatch, spec, pictures, head, epochs, phases) -> None:
    costs_are(monkeypatch, head=head, everything=Cost(1, 2))
    changed = spec.replace(strategy="warm-up", warm_up_epochs=2)
    experiment, _ = fitted(changed, pictures, TimeLimit(100))
    assert experiment.spec.epochs == epochs
    assert [phase.epochs for phase in experiment.plan.phases] == phases


@pytest.mark.parametrize(("strategy", "fewest"), [("fine-tune", "1 epoch "), ("warm-up", "2 epochs ")])
def test_too_short_a_time_is_an_error_that_says_what_would_do(monkeypatch, spec, pictures, strategy, fewest) -> None:
    costs_are(monkeypatch, head=Cost(0, 100), everything=Cost(0, 100))
    changed = spec.replace(strategy=strategy)
    with pytest.raises(
        UserError, match=f"--time-limit 1m: {fewest}of {strategy} would take.*give it .* or more"
    ) as caught:
        fitted(changed, pictures, TimeLimit(60))
    # What it says would do, does.
    enough = {"fine-tune": 120, "warm-up": 240}[strategy]
    assert f"give it {time_limit.in_words(enough)} or more" in str(caught.value)
    assert fitted(changed, pictures, TimeLimit(enough))[0].spec.epochs == int(fewest[0])


def test_the_epochs_that_the_record_names_repeat_the_run(monkeypatch, fake, spec, tmp_path) -> None:
    costs_are(monkeypatch, everything=Cost(0, 20))
    while_it_ran: list[int] = []

    class Look(Notes):
        def on_epoch(self, metrics, predictions) -> None:
            while_it_ran.append(read_checked(tmp_path / "limited").spec.epochs)

    watch = Look()
    limited = run_experiment(spec.replace(epochs=6), tmp_path / "limited", watch, time_limit=TimeLimit(100))
    read = read_checked(tmp_path / "limited")
    assert read.to_json() == limited.to_json()
    assert "time limit 1m40s: 4 of 6 epochs fit, at 20s an epoch (everything)" in watch.lines
    assert read.spec == spec.replace(epochs=4)
    assert while_it_ran == [4] * 4
    planned = read.resolved["time_limit"]
    assert (planned["asked_epochs"], planned["planned_epochs"], planned["epochs"], planned["actual_epochs"]) == (
        6,
        4,
        4,
        4,
    )
    assert planned["planned_seconds"] == pytest.approx(85, abs=3)
    assert 0 < planned["actual_seconds"] < 30
    again = run_experiment(spec.replace(epochs=4), tmp_path / "again", Quiet())
    assert [m.loss for m in again.epochs] == [m.loss for m in limited.epochs]
    assert again.final == limited.final
    assert "time_limit" not in again.resolved


def test_epochs_that_take_longer_than_measured_are_fewer(monkeypatch, fake, spec, tmp_path) -> None:
    watch, limit = Notes(), TimeLimit(5)

    def measure(*arguments: object) -> dict[str, Cost]:
        # As if nothing had come before it, however busy this machine is.
        limit.start = time.perf_counter()
        return {"everything": Cost(0, 1e-4)}

    monkeypatch.setattr(time_limit, "measure_costs", measure)
    seen: list[float] = []
    factor = schedules.factor
    monkeypatch.setattr(schedules, "factor", lambda *arguments: seen.append(factor(*arguments)) or seen[-1])
    read = run_experiment(spec.replace(epochs=2000), tmp_path / "out", watch, time_limit=limit)
    assert time.perf_counter() - limit.start < limit.seconds
    planned = read.resolved["time_limit"]
    assert planned["planned_epochs"] == 2000
    assert 1 <= planned["epochs"] == planned["actual_epochs"] == len(read.epochs) == read.spec.epochs < 2000
    assert any("the phase everything ends after" in line for line in watch.lines)
    # The schedule follows: in the end the rate is next to nothing.
    assert seen[-1] < 0.1 < seen[0]
    assert read.status == "complete"


@pytest.mark.parametrize("strategy", ["warm-up", "feature-extraction", "scratch"])
def test_every_phase_is_measured_and_the_networks_of_the_run_are_not_touched(fake, spec, pictures, strategy) -> None:
    built = []
    fake.build_models = lambda spec: built.append(FakeBackend().build_models(spec)) or built[-1]
    changed = spec.replace(strategy=strategy, train_crop="none", flip=False)
    costs = pace.measure_costs(make_experiment(fake, changed, pictures), 10)
    names = {"warm-up": ["head", "everything"], "feature-extraction": ["head"], "scratch": ["everything"]}
    assert list(costs) == names[strategy]
    assert all(cost.epoch > 0 for cost in costs.values())
    assert len(built) == 1


def test_features_that_are_kept_cost_nothing_more(fake, spec, pictures, fresh_cache, monkeypatch) -> None:
    changed = spec.replace(strategy="feature-extraction", train_crop="none", flip=False, validation=0.3, epochs=1)
    experiment = make_experiment(fake, changed, splits.split(pictures, changed))
    slow = fake.logits
    monkeypatch.setattr(fake, "logits", lambda model, images: time.sleep(0.05) or slow(model, images))
    before = pace.measure_costs(experiment, 10)["head"]
    loop.fit(experiment, fake.build_models(changed).fine_tune)
    after = pace.measure_costs(experiment, 10)["head"]
    # 22 images in batches of 8 make 5 batches, as there are three parts of them.
    assert before.once > 5 * 0.05
    assert after.once < 0.1
    # The head's own steps are measured in either case.
    assert after.epoch < 0.2


def test_a_pace_is_that_of_the_later_batches(spec, pictures) -> None:
    meter = pace.Meter(make_experiment(FakeBackend(), spec, pictures), 10)
    waits = iter([0.2] + [0.01] * pace.MEASURED_BATCHES)
    measured = meter.pace(pace.endless(lambda epoch: [(None, None)]), lambda *batch: time.sleep(next(waits)))
    assert measured.first > 0.2
    assert 0.01 < measured.batch < 0.1
    assert measured.compiling == pytest.approx(2 * (measured.first - measured.batch))
