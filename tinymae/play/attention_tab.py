"""The functions of the tab "attention" of the live page: each takes the models and JSON values, and returns what JSON can write."""

FUNCTIONS = {}
