"""How many queries can be found, and why the others cannot."""

from dsareid.data.matches import count_matches


def test_all_have_a_match():
    found = count_matches([(1, 1), (2, 1)], [(1, 2), (2, 2), (2, 1)])
    assert found == (2, 2, 0, 0) and found.note() == ""


def test_own_camera_and_absent():
    found = count_matches([(1, 1), (2, 1), (3, 1), (1, 2)], [(1, 1), (2, 1), (0, 5)])
    assert found == (4, 1, 2, 1)
    note = found.note()
    assert note.startswith(
        "1 of 4 queries have a match: for 1 the person is not in the gallery, for 2 the gallery"
    )
    assert "the same-camera rule removes" in note and "without the column camera" in note


def test_none_has_a_match():
    note = count_matches([(1, 1)], [(2, 1)]).note()
    assert note == "no query has a match: for 1 the person is not in the gallery"
