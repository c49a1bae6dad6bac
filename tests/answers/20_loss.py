"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
import math

answer_1 = math.log(37000)
wrong_1 = 1 / 37000

answer_2 = math.log(math.e + 36999) - 1
wrong_2 = 0.0
