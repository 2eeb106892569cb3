"""What the benchmark of the flag store's way makes of its measurements."""

from benchmarks.propagation import Trip, _table


def test_the_table_has_a_row_for_each_number_of_pods_and_way() -> None:
    """Medians, with the shortest and the longest trip; rows of one number of pods stand together."""
    trips = [
        Trip(pods, how, first=pods + seconds, last=pods + 2 * seconds)
        for pods in (3, 1)
        for how in ("operator", "touched", "untouched", "abort")
        for seconds in (0.1, 0.5, 0.2)
    ]
    rows = _table(trips).splitlines()[2:]
    assert len(rows) == 8
    assert rows[0] == (
        "| 1 | `spec.version`, the operator does the rest | 3 | 1.20 (1.10 to 1.50) | 1.40 (1.20 to 2.00) |"
    )
    assert [row.split("|")[1].strip() for row in rows] == ["1"] * 4 + ["3"] * 4
    assert rows[1].startswith("| 1 | the action `abort`, the operator does the rest | 3 | 1.20 ")
    assert rows[7].startswith("| 3 | the ConfigMap by hand, pods left alone | 3 | 3.20 ")
