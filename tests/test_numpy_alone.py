"""The core needs NumPy and the standard library alone: so "pure NumPy" is true, and the same code runs in a browser."""
import subprocess
import sys

CORE = (
    "tinymae.blocks", "tinymae.init", "tinymae.masks", "tinymae.tree", "tinymae.trace", "tinymae.files", "tinymae.train.optim",
    "tinymae.arguments", "tinymae.weights.shipped",
    "tinymae.ops", "tinymae.models", "tinymae.gradcheck",               # of these three every module
)

SCRIPT = f'''
import importlib, pkgutil, sys

allowed = {{*sys.stdlib_module_names, "numpy", "tinymae"}}


class OnlyNumPy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError(f"{{name}} is neither NumPy nor the standard library")


sys.meta_path.insert(0, OnlyNumPy())
core = []
for name in {CORE!r}:
    module = importlib.import_module(name)
    inner = [each.name for each in pkgutil.iter_modules(module.__path__, name + ".")] if hasattr(module, "__path__") else []
    core += [name, *inner]
    for each in inner:
        importlib.import_module(each)
assert len(core) > 30, core

import numpy as np

from tinymae.gradcheck import gradcheck
from tinymae.gradcheck.cases import checks
from tinymae.models.mae import MAEConfig, mae_backward, mae_forward, mae_init
from tinymae.models.transformer import TransformerConfig, transformer_backward, transformer_forward, transformer_init
from tinymae.models.vit import ViTConfig, vit_backward, vit_forward, vit_init
from tinymae.train.optim import AdamW

rng = np.random.default_rng(0)
images, noise, labels = rng.random((4, 8, 8, 1), dtype=np.float32), rng.random((4, 4)), np.arange(4) % 3
ids = np.concatenate([rng.integers(3, 9, (4, 5)), np.full((4, 1), 2)], axis=1)
mae, vit = MAEConfig(8, 4, 1, 8, 1, 2, 8, 1, 2), ViTConfig(8, 4, 1, 3, 8, 1, 2)
transformer = TransformerConfig(9, 9, 8, 1, 1, 2, 16, dropout=0.0)
for name, init, forward, backward in (
    ("mae", mae_init, lambda p: mae_forward(images, p, mae, noise), mae_backward),
    ("vit", vit_init, lambda p: vit_forward(images, labels, p, vit), vit_backward),
    ("transformer", transformer_init, lambda p: transformer_forward(ids, ids, p, transformer), transformer_backward),
):
    params = init({{"mae": mae, "vit": vit, "transformer": transformer}}[name], rng)
    optimizer, losses = AdamW(params), []
    for step in range(30):
        loss, cache = forward(params)
        optimizer.step(params, backward(1.0, cache), 1e-2)
        losses.append(float(loss))
    assert losses[-1] < 0.9 * losses[0], (name, losses)
    print(name, "learns")
for check in checks():                          # one number of each tensor; `python -m tinymae gradcheck` has them all
    rows = gradcheck(check.forward, check.backward, *check.args, samples=1, **check.options)
    assert all(row.ok for row in rows), (check.name, rows)
others = {{name.partition(".")[0] for name in sys.modules if not name.startswith("_")}} - allowed
print("gradients ok; others:", sorted(others & {{"scipy", "matplotlib", "PIL", "sklearn", "tqdm", "threadpoolctl"}}))
'''


def test_the_core_needs_numpy_alone():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:4] == ["mae learns", "vit learns", "transformer learns", "gradients ok; others: []"]
