"""The functions of the tab "mae" of the live page: each takes the models and JSON values, and returns what JSON can write."""

FUNCTIONS = {}
