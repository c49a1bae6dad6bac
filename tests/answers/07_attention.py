"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
import math

answer_1 = (0.75, 0.75)
wrong_1 = (0.79, 0.79)                                          # without the square root

answer_2 = math.sqrt(64 / 512)
wrong_2 = 1 / math.sqrt(512)

answer_3 = "k"
wrong_3 = "q"
