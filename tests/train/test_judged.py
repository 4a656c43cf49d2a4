"""What a judge's grades come to."""

from spoutnik.train.judged import Tally


def test_a_mean_of_zero_is_a_grade_and_no_grades_have_no_mean():
    assert Tally(asked=2, graded=2, points=0).figures(numbers=True)["grade"] == 0
    assert Tally(asked=2, graded=2, points=9).figures(numbers=True)["grade"] == 4.5
    assert "grade" not in Tally(asked=2, unreadable=2).figures(numbers=True)
    assert "grade" not in Tally(asked=2, graded=2).figures(numbers=False), "of pairs"
