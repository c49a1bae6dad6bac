"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
answer_1 = 64 / 2
wrong_1 = 64


def answer_2(width):
    return rotation(-2, width)


def wrong_2(width):
    """Forward instead of back."""
    return rotation(2, width)
