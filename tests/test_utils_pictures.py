"""utils.py, what the network gets wrong, and the pictures that show it."""

import numpy as np
import pytest
import torch
from helpers import sgd
from torch import nn
from torch.utils.data import DataLoader, Subset

import utils

# --- What the network gets wrong ----------------------------------------------------------------


@pytest.fixture
def loader():
    """Four digits: 3, 5, 7, 9."""
    pixels = torch.arange(4 * 784, dtype=torch.float32).remainder(256).to(torch.uint8)
    data = utils.Digits(pixels.view(4, 28, 28), torch.tensor([3, 5, 7, 9]))
    return DataLoader(data, batch_size=4)


class Parrot(nn.Module):
    """It takes the second digit for a 1 and the fourth for a 4, the fourth more firmly."""

    def forward(self, images):
        probabilities = torch.empty(4, 10)
        for row, (guess, confidence) in enumerate([(3, 0.91), (1, 0.6), (7, 0.91), (4, 0.8)]):
            probabilities[row] = (1 - confidence) / 9
            probabilities[row, guess] = confidence
        return probabilities.log()


def pixels_in(ax):
    return torch.tensor(ax.images[0].get_array())


def test_mistakes_come_most_confident_first_and_so_does_their_grid(loader, figures):
    mistakes = utils.get_misclassified(Parrot(), "cpu", loader)
    assert mistakes["ground_truths"] == [9, 5]
    assert mistakes["predicted_vals"] == [4, 1]
    assert mistakes["confidences"] == pytest.approx([0.8, 0.6])
    assert torch.equal(mistakes["images"][0], loader.dataset[3][0])
    utils.plot_misclassified(mistakes)
    titles = [ax.get_title() for ax in figures[0].axes if ax.get_title()]
    assert titles == ["9 → 4 (80%)", "5 → 1 (60%)"]
    assert torch.equal(pixels_in(figures[0].axes[0]), loader.dataset[3][0][0])
    utils.plot_misclassified(mistakes, count=1)
    assert sum(bool(ax.images) for ax in figures[1].axes) == 1
    utils.plot_misclassified(mistakes, count=0)  # an empty grid, but no error


def test_no_mistakes_are_said_not_drawn(figures, capsys):
    nothing = {"images": [], "ground_truths": [], "predicted_vals": [], "confidences": []}
    utils.plot_misclassified(nothing)
    assert not figures and "no digit was misclassified" in capsys.readouterr().out


@pytest.mark.parametrize("classes", [5, 10, 12])
def test_the_confusion_matrix_counts_truth_by_guess(digits, figures, classes):
    digits.targets = digits.targets.clamp(max=classes - 1)
    loader = DataLoader(digits, 30)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(784, classes)).train()
    images, labels, probabilities = utils.predict(model, "cpu", loader)
    without_dropout = model[2](images.flatten(1)).softmax(dim=1).detach()
    torch.testing.assert_close(probabilities, without_dropout)  # as `test` counts them
    assert torch.equal(labels, digits.targets) and len(images) == 100
    expected = torch.zeros(classes, classes, dtype=torch.long)
    for label, row in zip(labels, probabilities):
        expected[label, row.argmax()] += 1
    matrix = utils.confusion_matrix(model, "cpu", loader)
    assert torch.equal(matrix, expected)
    utils.plot_confusion_matrix(matrix)
    ax = figures[0].axes[0]
    assert list(ax.get_xticks()) == list(ax.get_yticks()) == list(range(classes))


def test_the_accuracy_of_each_digit():
    matrix = torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    assert utils.accuracy_by_digit(matrix) == pytest.approx([75, 100, np.nan], nan_ok=True)


def test_results_table(digits, capsys):
    model = nn.Linear(784, 10)
    rows = [
        utils.result(model, digits, 20, 99.244, 61.7),
        utils.result(model, Subset(digits, [0, 1]), 1, 50, 1),
        utils.result(model, [], 1, 50, 1),  # a data set need not know where it comes from
    ]
    utils.print_results(rows)
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["network", "parameters", "epochs", "data", "accuracy", "seconds"]
    assert lines[0].split() == ["Linear", "7,850", "20", "MNIST", "99.24", "%", "62"]
    assert [line.split()[3] for line in lines] == ["MNIST", "MNIST", "other"]


# --- Pictures of digits -------------------------------------------------------------------------


def test_sample_grid_shows_twelve_digits_with_their_labels(digits, figures):
    utils.data_visualization(DataLoader(digits, batch_size=20))
    axes = figures[0].axes
    assert [ax.get_title() for ax in axes] == [str(n % 10) for n in range(12)]
    assert torch.equal(pixels_in(axes[3]), digits[3][0][0])
    width, height = figures[0].get_size_inches()
    assert 1 < width / height < 4 / 3, "room for twelve squares, and for a title above each"
    utils.data_visualization(DataLoader(digits, batch_size=5))  # fewer than twelve
    assert sum(bool(ax.images) for ax in figures[1].axes) == 5


def test_other_pictures_are_drawn_in_grey_and_in_their_own_shape(figures):
    colours, wide = torch.rand(3, 28, 28), np.ones((20, 32))
    utils.show_digits([colours, wide, wide[None]], ["three channels", "an array", "one channel"])
    pictures = [pixels_in(ax) for ax in figures[0].axes[:3]]
    torch.testing.assert_close(pictures[0], colours.mean(dim=0))
    assert [list(picture.shape) for picture in pictures] == [[28, 28], [20, 32], [20, 32]]
    sentence = r"\[channels, rows, columns\] with 1 or 3 channels, not \[32, 30, 3\]"
    with pytest.raises(ValueError, match=sentence):
        utils.show_digits([np.ones((32, 30, 3))], ["a photo, whose channels come last"])


# --- Curves -------------------------------------------------------------------------------------

CURVES = {
    "train_losses": [0.9, 0.3],
    "train_acc": [70, 95.125],
    "test_losses": [torch.tensor(0.8), 0.2],
    "test_acc": [75, 95],
}


def test_each_panel_shows_its_own_curve(figures):
    utils.plot_loss(**CURVES)
    expected = [
        ("Training loss: 0.3000 after epoch 2", [0.9, 0.3], "loss"),
        ("Test loss: 0.2000 after epoch 2", [0.8, 0.2], "loss"),
        ("Training accuracy: 95.12 % after epoch 2", [70, 95.125], "accuracy (%)"),
        ("Test accuracy: 95.00 % after epoch 2", [75, 95], "accuracy (%)"),
    ]
    for ax, (title, values, unit) in zip(figures[0].axes, expected, strict=True):
        (line,) = ax.lines
        assert line.get_xdata().tolist() == [1, 2]
        assert line.get_ydata().tolist() == pytest.approx(values)
        assert (ax.get_title(), ax.get_ylabel(), ax.get_xlim()) == (title, unit, (0.5, 2.5))
        assert all(tick == int(tick) for tick in ax.get_xticks()), "epochs are whole"


def test_curves_that_do_not_exist_yet(figures, capsys):
    utils.plot_loss([], [], [], [])
    assert not figures and "lists of losses and accuracies are empty" in capsys.readouterr().out
    utils.plot_loss([0.5], [80.0], [], [])  # trained, but not tested yet
    assert figures[0].axes[1].get_title() == "Test loss"


def test_the_growing_picture_shows_training_and_validation(monkeypatch, capsys):
    model, pictures = nn.Linear(1, 1), []
    monkeypatch.setattr(utils, "is_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda picture, **_: pictures.append(picture))
    history = utils.History(model, sgd(model), measured_on="validation")
    history.add((70.0, 0.9), (75.0, 0.8))
    history.add((90.0, 0.3), (95.0, 0.2))
    history.add((91.0, 0.2))  # whose curve is longer
    list(history.epochs(3))
    losses, accuracies = pictures[0].axes
    expected = [(losses, [0.9, 0.3, 0.2], [0.8, 0.2]), (accuracies, [70, 90, 91], [75, 95])]
    for ax, training, validation in expected:
        curves = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
        assert curves == {"training": training, "validation": validation} and ax.get_legend()
        assert ax.get_xlim() == (0.5, 3.5), "nothing is cut off"
    assert ", validation 95.00 % (loss 0.2000), " in capsys.readouterr().out


def test_axes_are_stretched_where_trainings_end(figures):
    """On a linear axis 99.2 and 99.6 % look the same; panels side by side can be compared."""
    utils.plot_loss([2.0, 0.02], [31.0, 99.2], [1.0, 0.01], [70.0, 99.6])
    losses, accuracies = figures[0].axes[:2], figures[0].axes[2:]
    assert losses[0].get_ylim() == losses[1].get_ylim() and losses[0].get_yscale() == "log"
    assert accuracies[0].get_ylim() == accuracies[1].get_ylim()
    points = [(1, accuracy) for accuracy in (31, 70, 99.2, 99.6)]
    axis = accuracies[0].transData
    places = axis.transform(points)[:, 1]
    assert list(places) == sorted(places)
    assert places[3] - places[2] > 0.1 * (places[3] - places[0])
    assert axis.inverted().transform(axis.transform(points)) == pytest.approx(np.array(points))
    utils.plot_loss([0.5], [100.0], [0.0], [100.0])  # a perfect network
    figures[1].canvas.draw()
    labels = [label.get_text() for label in figures[1].axes[2].get_yticklabels()]
    assert "99.5" in labels and "100" in labels


# --- The confusion matrix -------------------------------------------------------------------------


def test_the_counts_of_the_confusion_matrix_stand_in_their_cells(figures):
    matrix = torch.diag(torch.tensor([10, 20, 30, 40, 50, 60, 70, 80, 90, 0]))
    matrix[1, 7], matrix[7, 1] = 5, 3
    utils.plot_confusion_matrix(matrix)
    ax = figures[0].axes[0]
    counts = {text.get_position(): (text.get_text(), text.get_weight()) for text in ax.texts}
    assert counts[7, 1] == ("5", "normal"), "x is the answer, y the truth"
    assert counts[1, 7] == ("3", "normal") and counts[3, 3] == ("40", "bold")
    assert (9, 9) not in counts and len(counts) == 11
    (percent,) = ax.child_axes
    labels = [label.get_text() for label in percent.get_yticklabels()]
    assert labels[0] == "100.0 %" and labels[1] == "80.0 %" and labels[9] == "nan %"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted digit", "true digit")
    assert pixels_in(ax)[1, 7] == 5 and pixels_in(ax)[4, 4] == 0, "the mistakes are coloured"
    assert ax.images[0].get_clim() == (0, 7.5), "the number on the darkest cell can be read"


@pytest.mark.parametrize(
    ("matrix", "texts"),
    [
        (torch.tensor([[0.75, 0.25], [1 / 3, 2 / 3]]), ["0.75", "0.25", "0.33", "0.67"]),
        (np.eye(3, dtype=int), ["1"] * 3),
    ],
    ids=["shares", "an array of scikit-learn"],
)
def test_shares_and_arrays_stand_in_the_cells_as_well(figures, matrix, texts):
    utils.plot_confusion_matrix(matrix)
    assert [text.get_text() for text in figures[0].axes[0].texts] == texts


# --- Files ----------------------------------------------------------------------------------------


def test_pictures_are_saved_where_asked_but_not_by_a_smoke_test(tmp_path, figures, monkeypatch):
    picture = tmp_path / "new" / "curves.png"
    monkeypatch.setenv("SMOKE_TEST", "1")
    utils.plot_loss(**CURVES, save=picture)
    assert not picture.exists()
    monkeypatch.setenv("SMOKE_TEST", "0")
    utils.plot_loss(**CURVES, save=picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_saved_is_shown_all_the_same(figures, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    utils.plot_loss(**CURVES, save=tmp_path / "file" / "a.png")
    assert len(figures) == 1 and "a.png: File exists" in capsys.readouterr().out
