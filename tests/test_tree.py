"""Parameter trees: leaves keep their places and their names, and trees of other shapes are refused."""
import numpy as np
import pytest

from tinymae import tree


def example():
    return {"embed": {"w": np.ones((2, 3)), "b": np.zeros(3)}, "blocks": [{"g": np.full(2, 5.0)}, {"g": np.arange(4.0)}]}


PATHS = ["embed.w", "embed.b", "blocks.0.g", "blocks.1.g"]


def test_leaves_come_in_order_with_their_paths():
    t = example()
    found = dict(tree.leaves(t))
    assert list(found) == PATHS
    assert found["blocks.1.g"] is t["blocks"][1]["g"]


def test_a_leaf_alone_is_a_tree():
    assert list(tree.leaves(3)) == [("", 3)] and list(tree.leaves(3, "x")) == [("x", 3)]
    assert tree.map(lambda a, b: a - b, 5, 3) == 2


def test_map_keeps_the_shape_and_the_trees():
    t = example()
    doubled = tree.map(lambda leaf: 2 * leaf, t)
    assert [path for path, _ in tree.leaves(doubled)] == PATHS
    np.testing.assert_array_equal(doubled["blocks"][1]["g"], [0, 2, 4, 6])
    np.testing.assert_array_equal(t["blocks"][1]["g"], [0, 1, 2, 3])


def test_map_matches_several_trees_by_name():
    a, b, c = ({"x": [1, 2], "y": 3}, {"y": 30, "x": [10, 20]}, {"x": [100, 200], "y": 300})
    assert tree.map(lambda *leaves: sum(leaves), a, b, c) == {"x": [111, 222], "y": 333}


@pytest.mark.parametrize(("first", "other", "message"), [
    ({"w": 1, "b": 2}, {"w": 1}, r"expected the keys \['b', 'w'\], got the keys \['w'\]"),
    ({"w": 1}, {"w": 1, "b": 2}, r"expected the keys \['w'\], got the keys \['b', 'w'\]"),
    ({"w": 1}, [1], r"expected the keys \['w'\], got a list of 1"),
    ({"w": 1}, 1.5, r"expected the keys \['w'\], got a leaf \(float\)"),
    ([1, 2], [1, 2, 3], "expected a list of 2, got a list of 3"),
    ([1, 2], {"w": 1}, r"expected a list of 2, got the keys \['w'\]"),
    ([1, 2], np.ones(2), r"expected a list of 2, got a leaf \(ndarray\)"),
    (np.ones(2), [1, 2], "expected a leaf, got a list of 2"),
    (np.ones(2), {}, r"expected a leaf, got the keys \[\]"),
    ({"x": [{"w": 1}]}, {"x": [{"v": 1}]}, r"expected the keys \['w'\], got the keys \['v'\]"),
])
def test_map_refuses_trees_of_other_shapes(first, other, message):
    with pytest.raises(ValueError, match="trees differ: " + message):
        tree.map(lambda *leaves: None, first, other)
    with pytest.raises(ValueError, match="trees differ: " + message):
        tree.map(lambda *leaves: None, first, first, other)


def test_unflatten_undoes_leaves():
    t = example()
    flat = dict(reversed(list(tree.leaves(t))))         # in whatever order
    again = tree.unflatten(flat, tree.map(lambda _: None, t))
    assert list(tree.leaves(again)) == list(tree.leaves(t))
    assert isinstance(again["blocks"], list) and again["embed"]["w"] is t["embed"]["w"]


def test_unflatten_names_what_is_missing_and_what_is_left_over():
    t = example()
    flat = dict(tree.leaves(t))
    del flat["embed.b"], flat["blocks.1.g"]
    with pytest.raises(ValueError, match=r"2 of 4 leaves are missing, the first is 'embed\.b'"):
        tree.unflatten(flat, t)
    flat = dict(tree.leaves(t)) | {"z": 1, "blocks.2.g": 1}
    with pytest.raises(ValueError, match=r"2 leaves have no place in the tree, the first is 'blocks\.2\.g'"):
        tree.unflatten(flat, t)


def test_add_is_fresh():
    a, b = example(), example()
    total = tree.add(a, b)
    for (path, x), (_, y) in zip(tree.leaves(total), tree.leaves(example()), strict=True):
        np.testing.assert_array_equal(x, 2 * y, err_msg=path)
    for t in (a, b):
        for (path, x), (_, y) in zip(tree.leaves(t), tree.leaves(example()), strict=True):
            np.testing.assert_array_equal(x, y, err_msg=path)
    assert not any(np.shares_memory(x, y) for (_, x), (_, y) in zip(tree.leaves(total), tree.leaves(a), strict=True))


def test_add_to_writes_into_the_total_only():
    total, part = example(), example()
    arrays = dict(tree.leaves(total))
    assert tree.add_to(total, part) is total
    for path, leaf in tree.leaves(total):
        assert leaf is arrays[path]
        np.testing.assert_array_equal(leaf, 2 * dict(tree.leaves(example()))[path], err_msg=path)
    for (path, x), (_, y) in zip(tree.leaves(part), tree.leaves(example()), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=path)


def test_add_to_matches_by_name():
    total = {"w": np.array([1.0]), "b": np.array([2.0])}
    tree.add_to(total, {"b": np.array([20.0]), "w": np.array([10.0])})
    assert (total["w"], total["b"]) == (11, 22)


def test_add_to_refuses_trees_of_other_shapes():
    for part in ({"w": np.ones(1)}, {"w": np.ones(1), "b": np.ones(1), "c": np.ones(1)}, {"w": np.ones(1), "c": np.ones(1)}):
        with pytest.raises(ValueError):
            tree.add_to({"w": np.ones(1), "b": np.ones(1)}, part)


def test_count():
    assert tree.count(example()) == 6 + 3 + 2 + 4
    assert tree.count({}) == tree.count([]) == 0
    assert tree.count({"token": np.zeros((1, 1, 8)), "empty": np.zeros((0, 3))}) == 8
