"""The checks of the exercises and of the zoo, a file for each subject: `exercises` lists which exercise gets which check.

A check gets the namespace of the learner's file and yields tables, (title, rows), from simple to hard; a row is a Row of the
gradient checker. The forward is compared with that of the package, because a gradient check cannot detect a wrong forward;
the backward is compared with finite differences of the learner's own forward. Where the forward of a layer is the exercise,
what the layer is made of may be written anew or taken from the package, but its function for the whole layer may not, see
`honesty`. A file of the zoo gets the check of the exercise on the same subject: the checks do not know which bug it contains.
"""
