"""The figures that README.md shows are those that figures.py measures, and a figure that moved is named."""

import re

import pytest

import figures
from figures import ROOT

README = (ROOT / "README.md").read_text()
CLAIMS = [claim for part in figures.PARTS.values() for claim in part.claims]
NOT_MEASURED = ["3.11", "3.14", "0.8"]  # two versions of Python, and the share of the content at which is compared


@pytest.mark.parametrize("claim", CLAIMS, ids=[claim.text[:30] for claim in CLAIMS])
def test_every_claim_stands_in_the_readme(claim):
    assert len(claim.figures(README)) == len(claim.spreads) == claim.text.count("{}")


def test_no_figure_of_the_readme_is_left_out():
    """Numbers with a point, percents and "times", outside of code: each is measured, or names something else."""
    text = re.sub(
        r"(?s)```.*?```|`[^`]*`", lambda code: code[0] if "rhythm_" in code[0] or "pitch_" in code[0] else "", README
    )
    for claim in CLAIMS:
        parts = [re.escape(part) for part in claim.text.split("{}")]
        text, count = re.subn(figures.NUMBER.join(parts), "", text)
        assert count == 1, claim.text
    assert re.findall(r"(?<![\w.-])(\d+\.\d+|\d+(?= %)|\d+(?= times))(?![\w.])", text) == NOT_MEASURED


def test_a_figure_that_moved_by_more_than_its_spread_is_named():
    claim, readme = (
        figures.Claim("a distance of {}, {} times as fast", (0.1, 2)),
        "It has a distance of 0.44, 9 times as fast.",
    )
    assert claim.figures(readme) == ["0.44", "9"]
    rows, moved = figures.compare(claim, [0.54, 9], readme)
    assert len(rows) == 2 and moved == []
    for measured, expected in (([0.33, 9], ["0.44"]), ([0.44, 12], ["9"]), ([0.6, 6], ["0.44", "9"])):
        _, moved = figures.compare(claim, measured, readme)
        assert [row.split(" | ")[0] for row in moved] == [f"| {figure}" for figure in expected]
    with pytest.raises(ValueError, match=r"README.md has 'a distance of .*' 0 times, and must once; change figures.py"):
        claim.figures("It has no distance.")
