"""utils.py, what the network gets wrong, and the pictures that show it."""

import numpy as np
import pytest
import torch
from matplotlib import colors
from torch import nn
from torch.utils.data import DataLoader, Subset

import utils


class Parrot(nn.Module):
    """Returns given scores, whatever it sees."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def forward(self, images):
        return self.scores[: len(images)].log()


@pytest.fixture
def parrot_and_loader():
    """Four digits, 3 5 7 9; the second and the fourth are taken for 1 and 4, the fourth more firmly."""
    scores = torch.full((4, 10), 0.01)
    for row, (guess, confidence) in enumerate([(3, 0.91), (1, 0.6), (7, 0.91), (4, 0.8)]):
        scores[row] = (1 - confidence) / 9
        scores[row, guess] = confidence
    images = torch.arange(4 * 784, dtype=torch.float32).view(4, 784).remainder(256).to(torch.uint8)
    data = utils.Digits(images.view(4, 28, 28), torch.tensor([3, 5, 7, 9]))
    return Parrot(scores), DataLoader(data, batch_size=4)


def test_mistakes_come_most_confident_first(parrot_and_loader):
    mistakes = utils.get_misclassified(*parrot_and_loader[:1], "cpu", parrot_and_loader[1])
    assert mistakes["ground_truths"] == [9, 5]
    assert mistakes["predicted_vals"] == [4, 1]
    assert mistakes["confidences"] == pytest.approx([0.8, 0.6])
    assert torch.equal(mistakes["images"][0], parrot_and_loader[1].dataset[3][0])


def test_confusion_matrix_counts_truth_by_guess(parrot_and_loader):
    matrix = utils.confusion_matrix(parrot_and_loader[0], "cpu", parrot_and_loader[1])
    expected = torch.zeros(10, 10, dtype=torch.long)
    for truth, guess in [(3, 3), (5, 1), (7, 7), (9, 4)]:
        expected[truth, guess] += 1
    assert torch.equal(matrix, expected)
    accuracy = utils.accuracy_by_digit(matrix)
    assert accuracy[3] == accuracy[7] == 100 and accuracy[5] == accuracy[9] == 0
    assert all(value != value for value in [accuracy[0], accuracy[1]]), (
        "nan where there is no such digit"
    )


@pytest.mark.parametrize("classes", [5, 12])
def test_confusion_matrix_of_other_classes(digits, figures, classes):
    digits.targets = digits.targets.clamp(max=classes - 1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, classes))
    matrix = utils.confusion_matrix(model, "cpu", DataLoader(digits, 30))
    images, labels, probabilities = utils.predict(model, "cpu", DataLoader(digits, 30))
    for truth, guess in [
        (int(label), int(row.argmax())) for label, row in zip(labels, probabilities)
    ]:
        matrix[truth, guess] -= 1
    assert matrix.shape == (classes, classes) and not matrix.any()
    utils.plot_confusion_matrix(matrix + 1)
    assert len(figures[0].axes[0].get_xticks()) == len(figures[0].axes[0].get_yticks()) == classes


def test_a_network_in_training_is_asked_as_it_answers(digits):
    """Without dropout: else the mistakes that are shown would not be those that `test` counts."""
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(784, 10))
    images, labels, probabilities = utils.predict(model.train(), "cpu", DataLoader(digits, 30))
    torch.testing.assert_close(probabilities, model[2](images.flatten(1)).softmax(dim=1).detach())
    assert torch.equal(labels, digits.targets) and len(images) == 100


def test_the_grid_of_mistakes(parrot_and_loader, figures):
    mistakes = utils.get_misclassified(parrot_and_loader[0], "cpu", parrot_and_loader[1])
    utils.plot_misclassified(mistakes)
    titles = [ax.get_title() for ax in figures[0].axes if ax.get_title()]
    assert titles == ["9 → 4 (80%)", "5 → 1 (60%)"]
    utils.plot_misclassified(mistakes, count=0)  # an empty grid, but no error


def test_no_mistakes_are_said_not_drawn(figures, capsys):
    nothing = {"images": [], "ground_truths": [], "predicted_vals": [], "confidences": []}
    utils.plot_misclassified(nothing)
    assert not figures and "no digit was misclassified" in capsys.readouterr().out


def test_sample_grid_shows_twelve_digits_with_their_labels(digits, figures):
    utils.data_visualization(DataLoader(digits, batch_size=20))
    axes = figures[0].axes
    assert [ax.get_title() for ax in axes] == [str(n % 10) for n in range(12)]
    assert axes[0].get_subplotspec().get_gridspec().get_geometry() == (3, 4)
    width, height = figures[0].get_size_inches()
    assert 1 < width / height < 4 / 3, "room for twelve squares, and for a title above each"
    utils.data_visualization(DataLoader(digits, batch_size=5))  # fewer than twelve


def test_a_picture_that_cannot_be_kept_is_shown_all_the_same(digits, figures, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    utils.data_visualization(DataLoader(digits, batch_size=20), save=tmp_path / "file" / "grid.png")
    assert len(figures) == 1 and "grid.png: File exists" in capsys.readouterr().out


def test_curves_have_titles_units_and_whole_epochs(figures):
    utils.plot_loss([0.5, 0.2], [80, 90.0], [torch.tensor(0.4), 0.1], [85, 95.125])
    axes = figures[0].axes
    assert [ax.get_title().split(":")[0] for ax in axes] == [
        "Training loss", "Test loss", "Training accuracy", "Test accuracy",
    ]  # fmt: skip
    assert axes[3].get_title() == "Test accuracy: 95.12 % after epoch 2"
    assert [ax.get_ylabel() for ax in axes] == ["loss", "loss", "accuracy (%)", "accuracy (%)"]
    assert axes[0].lines[0].get_xdata().tolist() == [1, 2] and axes[1].lines[
        0
    ].get_ydata().tolist() == [
        pytest.approx(0.4),
        0.1,
    ]
    assert all(tick == int(tick) for tick in axes[0].get_xticks())


def test_axes_are_stretched_where_trainings_end(figures):
    """Notices a linear axis, on which 99.2 and 99.6 % look the same, and panels that cannot be compared."""
    utils.plot_loss([2.0, 0.02], [31.0, 99.2], [1.0, 0.01], [70.0, 99.6])
    losses, accuracies = figures[0].axes[:2], figures[0].axes[2:]
    assert losses[0].get_ylim() == losses[1].get_ylim() and losses[0].get_yscale() == "log"
    assert accuracies[0].get_ylim() == accuracies[1].get_ylim()
    bottom, low, high, top = accuracies[0].transData.transform(
        [(1, y) for y in (31, 99.2, 99.6, 70)]
    )[:, 1]
    assert high - low > 0.1 * (high - bottom) and bottom < top < low
    utils.plot_loss([0.5], [100.0], [0.0], [100.0])  # a perfect network
    figures[1].canvas.draw()
    labels = [label.get_text() for label in figures[1].axes[2].get_yticklabels()]
    assert "99.5" in labels and "100" in labels


def test_confusion_matrix_picture_names_every_count(figures):
    matrix = torch.diag(torch.full((10,), 98))
    matrix[4, 9] = 2
    utils.plot_confusion_matrix(matrix)
    ax = figures[0].axes[0]
    assert [text.get_text() for text in ax.texts].count("98") == 10
    assert "2" in [text.get_text() for text in ax.texts]
    shown = ax.images[0].get_array()
    assert shown[4, 9] == 2 and shown[4, 4] == 0, "the mistakes are coloured, not the diagonal"
    assert colors.same_color(figures[0].get_facecolor(), "white")


def test_pictures_are_kept_where_asked_but_not_by_a_smoke_test(tmp_path, figures, monkeypatch):
    picture = tmp_path / "new" / "curves.png"
    monkeypatch.setenv("SMOKE_TEST", "1")
    utils.plot_loss([1], [1], [1], [1], save=picture)
    assert not picture.exists()
    monkeypatch.setenv("SMOKE_TEST", "0")
    utils.plot_loss([1], [1], [1], [1], save=picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert utils.plt.get_fignums() == [], "figures must be closed"


def test_the_result_of_a_subset_names_the_source_of_its_digits(digits):
    assert (
        utils.result(nn.Linear(784, 10), Subset(digits, [0, 1]), 1, 50, 1)["data"] == digits.source
    )
    assert utils.result(nn.Linear(784, 10), [], 1, 50, 1)["data"] == "other", "it need not know one"


def test_results_table(digits, capsys):
    utils.print_results([utils.result(nn.Linear(784, 10), digits, 20, 99.244, 61.7)])
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "Linear",
        "7,850",
        "20",
        "MNIST",
        "99.24",
        "%",
        "62",
    ]


# --- Each number stands where it belongs ---


def test_each_panel_shows_its_own_curve(figures):
    curves = {
        "train_losses": [0.9, 0.3],
        "train_acc": [70, 90],
        "test_losses": [0.8, 0.2],
        "test_acc": [75, 95],
    }
    utils.plot_loss(**curves)
    shown = {ax.get_title().split(":")[0]: list(ax.lines[0].get_ydata()) for ax in figures[0].axes}
    assert shown == {
        "Training loss": [0.9, 0.3],
        "Test loss": [0.8, 0.2],
        "Training accuracy": [70, 90],
        "Test accuracy": [75, 95],
    }
    assert figures[0].axes[0].get_title() == "Training loss: 0.3000 after epoch 2"
    colours = [ax.lines[0].get_color() for ax in figures[0].axes]
    assert colours == ["tab:blue", "tab:orange"] * 2, "as in the growing picture"
    assert figures[0].axes[0].get_xlim() == (0.5, 2.5)
    utils.plot_loss([], [], [], [])
    assert figures[1].axes[0].get_title() == "Training loss", (
        "before the first epoch there is nothing to say"
    )


def test_the_growing_picture_shows_training_and_test(capsys):
    history = utils.History(
        nn.Linear(1, 1), torch.optim.SGD([torch.zeros(1)], lr=0.1), measured_on="validation"
    )
    history.add((70.0, 0.9), (75.0, 0.8))
    history.add((90.0, 0.3), (95.0, 0.2))
    losses, accuracies = history._draw().axes
    for ax, training, other in [(losses, [0.9, 0.3], [0.8, 0.2]), (accuracies, [70, 90], [75, 95])]:
        curves = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
        assert curves == {"training": training, "validation": other} and ax.get_legend()
    printed = capsys.readouterr().out.splitlines()
    start = "Epoch  2: training 90.00 % (loss 0.3000), validation 95.00 % (loss 0.2000), learning rate 0.1, "
    assert len(printed) == 2 and printed[1].startswith(start)


def test_the_digits_in_the_grids_are_those_that_are_named(parrot_and_loader, figures):
    model, loader = parrot_and_loader
    utils.plot_misclassified(utils.get_misclassified(model, "cpu", loader), count=1)
    utils.data_visualization(loader)
    ((mistake, *_),) = [figures[0].axes]
    assert torch.equal(torch.tensor(mistake.images[0].get_array()), loader.dataset[3][0][0])
    assert [ax.get_title() for ax in figures[0].axes if ax.images] == ["9 → 4 (80%)"]
    for ax, (image, _) in zip(figures[1].axes, [loader.dataset[n] for n in range(4)]):
        assert torch.equal(torch.tensor(ax.images[0].get_array()), image[0])
        assert ax.images[0].get_cmap().name == "gray" and not len(ax.get_xticks())


def test_the_counts_of_the_confusion_matrix_stand_in_their_cells(figures):
    matrix = torch.diag(torch.tensor([10, 20, 30, 40, 50, 60, 70, 80, 90, 0]))
    matrix[1, 7], matrix[7, 1] = 5, 3
    utils.plot_confusion_matrix(matrix)
    ax = figures[0].axes[0]
    counts = {text.get_position(): (text.get_text(), text.get_weight()) for text in ax.texts}
    assert counts[7, 1] == ("5", "normal") and counts[1, 7] == ("3", "normal"), (
        "x is the answer, y the truth"
    )
    assert counts[3, 3] == ("40", "bold") and (9, 9) not in counts and len(counts) == 11
    (percent,) = ax.child_axes
    labels = [label.get_text() for label in percent.get_yticklabels()]
    assert labels[0] == "100.0 %" and labels[1] == "80.0 %" and labels[9] == "nan %"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted digit", "true digit")
    assert list(ax.get_xticks()) == list(ax.get_yticks()) == list(range(10))
    assert ax.images[0].get_clim() == (0, 7.5), (
        "the largest count is dark, but its number can still be read"
    )


def test_shares_stand_in_the_cells_as_well(figures):
    utils.plot_confusion_matrix(torch.tensor([[0.75, 0.25], [1 / 3, 2 / 3]]))
    texts = {text.get_position(): text.get_text() for text in figures[0].axes[0].texts}
    assert texts == {(0, 0): "0.75", (1, 0): "0.25", (0, 1): "0.33", (1, 1): "0.67"}
    assert figures[0].axes[0].images[0].get_clim() == pytest.approx((0, 0.5))


def test_pictures_with_three_channels_are_grey(figures):
    image = torch.rand(3, 28, 28)
    utils.show_digits([image], ["three channels"])
    shown = torch.tensor(figures[0].axes[0].images[0].get_array())
    torch.testing.assert_close(shown, image.sum(dim=0) / 3)


def test_arrays_are_drawn_too(figures):
    """As scikit-learn makes a confusion matrix, and as matplotlib is often given images."""
    utils.plot_confusion_matrix(np.eye(3, dtype=int))
    utils.show_digits([np.ones((28, 28))], ["one"])
    assert [text.get_text() for text in figures[0].axes[0].texts] == ["1"] * 3 and len(figures) == 2
