"""The recipes: the paper's rows, and what each changes in a preset."""

import dataclasses

from dsareid.data.layouts.cuhk01 import DATASET as CUHK01
from dsareid.data.layouts.cuhk03 import KINDS as CUHK03
from dsareid.data.layouts.duke import DATASET as DUKE
from dsareid.data.layouts.market1501 import DATASET as MARKET
from dsareid.engine.presets import preset
from dsareid.evaluation.run_features import check_features
from dsareid.reproduce.recipes import TABLES, TITLES, Network, fine_tuning

# Tables 3, 4 and 5 as printed: mAP, rank-1, rank-5, rank-10 on Market-1501.
PRINTED = {
    "Baseline": (76.4, 91.2, 96.5, 97.9),
    "Baseline (RE)": (78.6, 92.3, 97.6, 98.3),
    "Baseline (RE+LS)": (81.2, 93.4, 97.8, 98.5),
    "Baseline (Two branches)": (83.4, 94.0, 98.0, 98.7),
    "DSA-Global (Single)": (84.7, 94.8, 98.2, 98.9),
    "DSA-Local (Single)": (83.2, 94.0, 97.9, 98.6),
    "DSA-Global (Joint)": (87.4, 95.6, 98.6, 99.1),
    "DSA-Local (Joint)": (86.5, 95.2, 98.4, 99.0),
    "DSA (Two streams fused)": (87.5, 95.8, 98.4, 99.1),
    "DSA-reID (only MF-Stream)": (87.6, 95.7, 98.4, 99.1),
    "CSA": (84.1, 94.1, 98.1, 98.8),
    "Concatenation+fc": (81.6, 93.0, 97.6, 98.6),
}
ROWS = [row for rows in TABLES.values() for row in rows]


def config(network: Network):
    return network.config(preset("paper", "data", "out"), "data", "out", 3)


def test_every_printed_row_and_its_figures():
    found = {row.name: tuple(row.paper[MARKET.name]) for t in (3, 4, 5) for row in TABLES[f"table{t}"]}
    assert found == PRINTED
    assert [len(TABLES[f"table{t}"]) for t in (3, 4, 5)] == [10, 3, 2]
    ours, tuned = TABLES["table2"]
    public = {dataset.name for dataset in (MARKET, DUKE, *CUHK03.values(), CUHK01)}
    assert ours.paper.keys() == public and tuned.paper.keys() == {CUHK01.name}
    assert TABLES.keys() == TITLES.keys()


def test_rows_that_share_a_network_share_its_training():
    assert len({row.network for row in TABLES["table3"]}) == 7
    assert len({row.network for row in TABLES["table3"][-4:]}) == 1
    named = {row.network.name: row.network for row in ROWS}
    assert all(named[row.network.name] == row.network for row in ROWS)


def test_every_row_is_matched_by_features_that_its_network_has():
    for row in ROWS:
        check_features(config(row.network), row.matched_by)


def test_what_each_network_is():
    settings = {row.network.name: config(row.network) for row in ROWS}
    paper = preset("paper", "data", "out", seed=3)
    assert settings["dsa"] == paper
    assert settings["two-branch"] == dataclasses.replace(paper, model="two-branch")
    plain, erasing, both = (settings[x] for x in ("baseline", "baseline-re", "baseline-re-ls"))
    assert [x.augment.erase for x in (plain, erasing, both)] == [0, 0.5, 0.5]
    assert [x.loss.smoothing for x in (plain, erasing, both)] == [0, 0, 0.1]
    assert {x.model for x in (plain, erasing, both)} == {"baseline"}
    assert settings["csa"] == dataclasses.replace(paper, guide_input="part-crops")
    assert settings["patches-distilled"].guide_input == "image-patches"
    for name, guidance in (("texture-of-others", "texture"), ("pooled-by-others", "pool")):
        assert (settings[name].guidance, settings[name].guide_input) == (guidance, "others")
    assert settings["dsa-concat"] == dataclasses.replace(paper, guidance="concat")
    assert settings["dsap-alone"].streams == "dsag"


def test_fine_tuning_starts_from_the_other_run_at_a_tenth_of_the_rate():
    paper = config(TABLES["table2"][0].network)
    tuned = fine_tuning(paper, "runs/first")
    assert tuned.weights == "runs/first"
    assert tuned.optim.rate == paper.optim.rate / 10
    assert dataclasses.replace(tuned, weights=paper.weights, optim=paper.optim) == paper
