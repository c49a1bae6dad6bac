"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
answer_1 = (0.25, -0.25, 0.0)
wrong_1 = (0.25, 0.0, 0.0)                                      # the diagonal alone

answer_2 = {"dropout": 0.3, "rng": 0}
wrong_2 = {"mask": mask != 0}                                   # the lesson's mask; dropout is off
