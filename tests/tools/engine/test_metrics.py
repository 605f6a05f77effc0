import math

import pytest
import torch

from models.act.codebook import codebook_perplexity
from tools.engine.metrics import (
    CategoryTable,
    better,
    f_score,
    mean_class_accuracy,
    overall_accuracy,
    reconstruction_metrics,
)

# two points against three; nearest distances 0 and 0.3 one way, 0, 0.4 and 0 the other way round
PREDICTION = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
TRUTH = torch.tensor([[[0.0, 0, 0], [0, 0.4, 0], [1, 0.3, 0]]])


def test_reconstruction_metrics_by_hand():
    metrics = reconstruction_metrics(PREDICTION, TRUTH)
    forward, backward = (0 + 0.3) / 2, (0 + 0.4 + 0.3) / 3
    assert metrics["CDL1"].tolist() == pytest.approx([1000 * (forward + backward) / 2])
    assert metrics["CDL2"].tolist() == pytest.approx([1000 * (0.09 / 2 + (0.16 + 0.09) / 3)])
    assert metrics["F-Score"].tolist() == pytest.approx([2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3)])


@pytest.mark.parametrize(("threshold", "precision", "recall"), [(0.01, 1 / 2, 1 / 3), (0.35, 1, 2 / 3), (0.5, 1, 1)])
def test_f_score_threshold_is_euclidean(threshold, precision, recall):
    expected = 2 * precision * recall / (precision + recall)
    assert f_score(PREDICTION, TRUTH, threshold).item() == pytest.approx(expected)


def test_f_score_threshold_is_exclusive():
    apart = torch.tensor([[[0.5, 0.0, 0.0]]])
    origin = torch.zeros(1, 1, 3)
    assert f_score(origin, apart, 0.5).item() == 0
    assert f_score(origin, apart, 0.51).item() == 1


def test_f_score_of_each_cloud_and_zero_where_nothing_is_near():
    truth = torch.zeros(2, 4, 3)
    prediction = torch.stack([torch.zeros(5, 3), torch.ones(5, 3)])
    assert f_score(prediction, truth).tolist() == [1, 0]


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(2, 4, 3\)"):
        f_score(torch.zeros(1, 4, 3), torch.zeros(2, 4, 3))


def make_table(taxonomies=None):
    table = CategoryTable(["chair", "table", "night stand"], taxonomies)
    table.add(torch.tensor([0, 0, 2]), {"F-Score": torch.tensor([0.25, 0.75, 1.0]), "CDL1": torch.tensor([1.0, 3, 8])})
    table.add(torch.tensor([0]), {"F-Score": torch.tensor([0.5]), "CDL1": torch.tensor([5.0])})
    return table


def test_overall_counts_every_category_alike_and_skips_empty_ones():
    assert make_table().overall() == {"F-Score": (0.5 + 1) / 2, "CDL1": (3 + 8) / 2}


def test_table_text():
    assert make_table().render() == (
        "Category     #  F-Score   CDL1\n"
        "chair        3    0.500  3.000\n"
        "night stand  1    1.000  8.000\n"
        "Overall      4    0.750  5.500")


def test_table_text_with_taxonomies():
    assert make_table(["03001627", "04379243", "03729826"]).render() == (
        "Taxonomy  Category     #  F-Score   CDL1\n"
        "03001627  chair        3    0.500  3.000\n"
        "03729826  night stand  1    1.000  8.000\n"
        "Overall                4    0.750  5.500")


def test_empty_table():
    assert CategoryTable(["chair"]).overall() == {}
    assert CategoryTable(["chair"]).render() == "Category  #\nOverall   0"


def test_accuracies_by_hand():
    label = torch.tensor([0, 0, 0, 0, 2, 2])
    prediction = torch.tensor([0, 0, 0, 1, 1, 2])
    assert overall_accuracy(prediction, label) == pytest.approx(100 * 4 / 6)
    # class 1 does not occur: the mean is over classes 0 and 2
    assert mean_class_accuracy(prediction, label, 4) == pytest.approx(100 * (3 / 4 + 1 / 2) / 2)


def test_codebook_perplexity_by_hand():
    assert codebook_perplexity(torch.full((2, 5), 3), 8) == pytest.approx(1)
    assert codebook_perplexity(torch.arange(8).view(2, 4), 8) == pytest.approx(8)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert codebook_perplexity(torch.tensor([1, 1, 1, 6]), 8) == pytest.approx(math.exp(entropy))


@pytest.mark.parametrize(("name", "one", "other", "expected"), [
    ("CDL1", 1.0, 2.0, True), ("CDL2", 2.0, 1.0, False), ("CDL1-coarse", 1.0, 2.0, True), ("loss", 1.0, 2.0, True),
    ("F-Score", 1.0, 2.0, False), ("OA", 2.0, 1.0, True), ("SVM", 1.0, 1.0, False), ("CDL1", 1.0, 1.0, False),
    ("OA", math.nan, 1.0, False), ("CDL1", math.nan, 1.0, False), ("OA", 1.0, math.nan, True),
    ("OA", math.nan, math.nan, False),
])
def test_better(name, one, other, expected):
    assert better(name, one, other) is expected
