"""What holds for every figure: caption, page, fonts and settings; that nothing is written into; and how a figure is saved."""
import os
import re
import subprocess
import sys
import textwrap
import warnings
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from figure_parts import caption, images, maps, rng, scores, sines, softmax_rows, tick_labels
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from tinymae import messages, plot
from tinymae.masks import causal_mask
from tinymae.ops.positional import sinusoidal_interleaved
from tinymae.plot import Panel, style
from tinymae.train.optim import noam

READ = "How to read it: from left to right."
CHINESE = list("我有一只猫")
PINYIN = "wo you yi zhi mao".split()                            # for figures that any machine can draw
SENTENCE = "The animal didn't cross the street because it was too tired .".split()
WORDS = "a am i thanks student <eos>".split()
CAUSAL = causal_mask(5)[0, 0]


def cloud(count, groups):
    places = rng().normal(size=(groups, count, 2))
    return {f"group {i}": (where, [f"word{j}" for j in range(count)]) for i, where in enumerate(places)}


def curves(curves, **options):
    return plot.curves(curves, "step", "loss", READ, **options)


def heatmaps(panels, **options):
    return plot.heatmaps(panels, "key", "query", READ, **options)


# Figures with a caption of their own, small and large.
FIGURES = {
    "attention": lambda **o: plot.attention(softmax_rows(2, 3, 5), **o),
    "attention_over_picture": lambda **o: plot.attention_over_picture(
        images(1, 8, 12)[0], 0.5 * softmax_rows(3, 6), 0.9 * softmax_rows(3, 6), 4, (2, 3), **o
    ),
    "rollout_over_pictures": lambda **o: plot.rollout_over_pictures(images(2, 8, 12), softmax_rows(2, 6), (2, 3), **o),
    "attention_lines": lambda **o: plot.attention_lines(SENTENCE, softmax_rows(8, 12, 12), 7, **o),
    "encoder_decoder": lambda **o: plot.encoder_decoder(2, 2, **o),
    "learning_rates": lambda **o: plot.learning_rates({"noam": [noam(i, 8, 9) for i in range(1, 40)], "one": [1e-3]}, **o),
    "loss_curve": lambda **o: plot.loss_curve(np.arange(60), rng().random(60) + 1, **o),
    "masks": lambda **o: plot.masks(scores(), CAUSAL, PINYIN, WORDS[:5], **o),
    "output_probabilities": lambda **o: plot.output_probabilities(np.eye(6)[[2, 1, 0, 4, 5]], softmax_rows(5, 6), WORDS, **o),
    "output_probabilities, stacked": lambda **o: plot.output_probabilities(np.eye(30)[:4], softmax_rows(4, 30), WORDS * 5, **o),
    "position_grid": lambda **o: plot.position_grid(sines(12, 8), (3, 4), **o),
    "position_rotation": lambda **o: plot.position_rotation(sinusoidal_interleaved(30, 8), 5, **o),
    "positional_encoding": lambda **o: plot.positional_encoding(sines(10, 8), **o),
    "reconstructions": lambda **o: plot.reconstructions(*[images() for _ in range(4)], **o),
    "shuffle": lambda **o: plot.shuffle(images(1, 6, 6)[0], [2, 0, 3, 1], [1, 3, 0, 2], 2, (2, 2), **o),
}
# Figures whose caption the caller writes.
CAPTIONED = {
    "curves": lambda: curves({"with": rng().random(9), "without": (np.arange(5), rng().random(5))}, levels={"ln V": 0.7}),
    "curves, eight": lambda: curves(
        {f"run {i}": rng().random(30) for i in range(8)}, levels={"a": 0.1, "b": 0.9}, markers=True
    ),
    "curves, log": lambda: curves({"error": (10.0 ** np.arange(-9, 0), 10.0 ** np.arange(9))}, xscale="log", yscale="log"),
    "curves, narrow log": lambda: curves({"norm": np.linspace(0.3, 0.8, 9)}, yscale="log"),
    "heatmaps": lambda: heatmaps(
        [Panel("weights", rng().random((3, 4))), Panel("gradient", rng().normal(size=(3, 4)), 3, signed=True)]
    ),
    "heatmaps, tokens": lambda: heatmaps(
        [Panel("a", rng().random((5, 5)), down=list("abcde"), across=["<Begin>", *"bcde"])] * 4
    ),
    "heatmaps, large": lambda: heatmaps([Panel("a", rng().random((40, 60)))], columns=1),
    "points": lambda: plot.points(cloud(6, 2), "first", "second", READ),
    "points, many": lambda: plot.points(cloud(10, 8), "first", "second", READ),
}


# ---- all functions -----------------------------------------------------------------------------------------------------

def test_every_function_has_an_example():
    assert {name.partition(",")[0] for name in FIGURES | CAPTIONED} == set(plot.__all__) - {"Panel", "save"}


@pytest.fixture(scope="module")
def figures():
    """Every figure, drawn once, under settings of the reader that must neither reach it nor be changed."""
    with matplotlib.rc_context({"font.size": 23.0, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        drawn = {name: draw() for name, draw in (FIGURES | CAPTIONED).items()}
        assert dict(matplotlib.rcParams) == before
    return drawn


@pytest.mark.parametrize("name", FIGURES | CAPTIONED)
def test_every_figure_has_a_caption_readable_letters_and_the_width_of_half_a_screen(name, figures, tmp_path):
    """It is saved, which arranges and draws it, as a small PNG of its own size in a new folder; then its parts are checked."""
    figure = figures[name]
    assert type(figure) is style.Page
    assert caption(figure).startswith("How to read it:")
    assert 1000 <= figure.get_figwidth() * figure.dpi <= 1400
    path = plot.save(figure, str(tmp_path / "new" / "folder" / f"{name}.png"))
    assert path == tmp_path / "new" / "folder" / f"{name}.png"
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) < 300_000
    assert int.from_bytes(content[16:20], "big") == round(figure.get_figwidth() * figure.dpi)
    assert list(path.parent.iterdir()) == [path]                       # and no temporary file
    inside = figure.bbox
    for text in figure.findobj(matplotlib.text.Text):
        assert "$" not in text.get_text(), "TeX that is not interpreted"
        if text.get_text() and text.get_visible():
            assert text.get_fontsize() >= (7 if name.startswith("heatmaps") else 9), text        # 7: numbers in small cells
    box = figure._supxlabel.get_window_extent()
    assert box.x0 >= inside.x0 and box.x1 <= inside.x1 and box.y0 >= inside.y0, "caption off the page"
    for ax in figure.axes:
        if ax.get_visible() and ax.axison:
            tight = ax.get_tightbbox()
            assert tight.y0 >= box.y1 - 1, "the caption overlaps the figure"
            assert tight.x0 >= -1 and tight.x1 <= inside.x1 + 1 and tight.y1 <= inside.y1 + 1, "off the page"


@pytest.mark.parametrize("name", CAPTIONED)
def test_every_axis_has_its_label(name, figures):
    for ax in figures[name].axes:
        if ax.axison and ax.get_label() != "<colorbar>":
            assert ax.get_xlabel() and ax.get_ylabel()


@pytest.mark.parametrize("name", FIGURES)
def test_a_caption_of_ones_own_replaces_the_text(name):
    assert caption(FIGURES[name](caption="mine")) == "mine"


def test_settings_backend_and_pyplot_are_left_as_they_were(figures, tmp_path):
    with matplotlib.rc_context({"font.size": 23.0, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        for name in ("attention", "attention_lines", "points"):
            plot.save(figures[name], tmp_path / "a.png")
        with pytest.raises(ValueError):
            plot.attention(np.zeros(3))
        with pytest.raises(TypeError):
            plot.learning_rates([1.0])
        with pytest.raises(TypeError):
            curves([1.0])
        assert dict(matplotlib.rcParams) == before
        # The reader's settings do not reach the figures either.
        for name in ("learning_rates", "loss_curve"):
            assert figures[name].axes[0].get_facecolor() == (1, 1, 1, 1)
    assert plt.get_fignums() == []


def test_importing_needs_no_display_and_changes_no_setting(tmp_path):
    code = (
        "import matplotlib, warnings\n"
        "warnings.simplefilter('error')\n"
        "before = dict.copy(matplotlib.rcParams)\n"
        "from tinymae import plot\n"
        "assert dict.copy(matplotlib.rcParams) == before, 'import changed the settings'\n"
        "plot.save(plot.attention([[0.5, 0.5]]), 'a.png')\n"
        "assert dict.copy(matplotlib.rcParams) == before, 'drawing changed the settings or chose a backend'\n"
    )
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    quiet = {key: value for key, value in os.environ.items() if key not in screens}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=tmp_path, env=quiet, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "a.png").is_file()


def test_inputs_are_not_written_into():
    table, weights, four = sines(6, 4), softmax_rows(2, 3, 3), [images() for _ in range(4)]
    losses = 1 + rng().random(40)
    for array in (table, weights, losses, *four):
        array.flags.writeable = False
    plot.positional_encoding(table)
    plot.position_grid(table, (2, 3))
    plot.attention(weights)
    plot.reconstructions(*four)
    plot.loss_curve(np.arange(40), losses)


# ---- languages -------------------------------------------------------------------------------------------------------

class Marks:
    """A catalog in which the translation of each sentence is that sentence between marks."""

    @staticmethod
    def gettext(sentence):
        return f"«{sentence}»"


@pytest.fixture
def marked(monkeypatch):
    monkeypatch.setattr(messages, "_catalog", lambda *names: Marks)


def unmarked(text):
    """What is left of a text without what stands between marks, which may be nested."""
    text, count = " ".join(text.split()), 1
    while count:
        text, count = re.subn("«[^«»]*»", "", text)
    return text


# The other sentences of these figures.
ALTERNATIVES = {
    "attention, vmax": lambda: plot.attention(softmax_rows(2, 3, 5), vmax=0.1),
    "attention, one": lambda: plot.attention(softmax_rows(3, 5)),
    "attention, one, vmax": lambda: plot.attention(softmax_rows(3, 5), vmax=0.1),
    "attention_lines, cut": lambda: plot.attention_lines(SENTENCE, 0.5 * softmax_rows(8, 12, 12), 7),
    "curves": lambda: plot.curves({"one": [1.0, np.nan]}, "one", "one", READ),
    "encoder_decoder, norm first": lambda: plot.encoder_decoder(1, 1, norm_first=True),
    "heatmaps": lambda: plot.heatmaps([Panel("one", np.full((2, 2), 7.0))], "one", "one", READ),
    "loss_curve, all": lambda: plot.loss_curve(
        np.arange(60), np.where(np.arange(60) == 3, 99, 3 + rng().random(60)), learning_rates=rng().random(60),
        evaluations={20: 3.2, 50: 3.1}, baselines={"one": 3.6},
    ),
    "masks, outside": lambda: plot.masks(9 * scores(), CAUSAL & (np.arange(5) > 0)[:, None]),
    "positional_encoding, outside": lambda: plot.positional_encoding(3 * sines(10, 8)),
    "reconstructions, one": lambda: plot.reconstructions(*[images(1) for _ in range(4)]),
    "shuffle, wrong": lambda: plot.shuffle(images(1, 6, 6)[0], [2, 0, 3, 1], [0, 1, 2, 3], 2, (2, 2)),
}


@pytest.mark.parametrize("draw", (FIGURES | ALTERNATIVES).values(), ids=FIGURES | ALTERNATIVES)
def test_every_sentence_of_a_figure_can_be_translated(draw, marked):
    figure = draw()
    figure.draw_without_rendering()
    own = {*SENTENCE, *PINYIN, *WORDS, "one", "noam"}                   # the caller's words
    left = {unmarked(text.get_text()) for text in figure.findobj(matplotlib.text.Text)}
    assert [text for text in left if re.search("[A-Za-z]{2}", text) and text.rstrip(":. 0123456789") not in own] == []
    assert "«" in caption(figure)


def test_a_caption_of_ones_own_is_looked_up(marked):
    assert caption(plot.attention(softmax_rows(3, 3), caption="mine")) == "«mine»"


def test_without_a_catalog_the_sentences_are_english():
    """As whole sentences: each with one space after the last."""
    figure = ALTERNATIVES["loss_curve, all"]()
    assert caption(figure) == (
        "How to read it: thin, the loss of each step; thick, the median of 3 steps; lower is better. Dots are losses on the "
        "validation set. Dashed lines are losses that the run should fall below. The loss axis does not start at 0. 1 of 60 "
        "steps lie above the figure, the highest is 99 at step 3."
    )
    assert "weights of the others sum to 1. Scores run from" in caption(ALTERNATIVES["masks, outside"]())


# ---- fonts -----------------------------------------------------------------------------------------------------------

def fake_font(path, characters, family="WenQuanYi Zen Hei"):
    """A font whose every character is a square: enough to see which font is chosen."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((0, 700))
    pen.lineTo((700, 700))
    pen.lineTo((700, 0))
    pen.closePath()
    square = pen.glyph()
    names = [".notdef", *(f"u{ord(c):04X}" for c in characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"u{ord(c):04X}" for c in characters})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def no_chinese(monkeypatch):
    """A machine with no other fonts than Matplotlib's own."""
    others = [font for font in font_manager.fontManager.ttflist if font.name not in style.FALLBACKS]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", others)


@pytest.fixture
def some_chinese(no_chinese, tmp_path):
    """A machine with one more font, which has these five characters."""
    fake_font(tmp_path / "square.ttf", "我有一只猫")
    font_manager.fontManager.addfont(tmp_path / "square.ttf")


# Each function that draws strings of the caller, with Chinese in all of them.
IN_CHINESE = {
    "attention": lambda: plot.attention(softmax_rows(4, 5, 5), CHINESE, CHINESE, caption="我有一只猫"),
    "attention_lines": lambda: plot.attention_lines(CHINESE, softmax_rows(2, 5, 5), 4, caption="我有一只猫"),
    "curves": lambda: plot.curves({"我": [1.0, 2.0]}, "有", "一只", "我有一只猫", levels={"猫": 1.5}),
    "heatmaps": lambda: plot.heatmaps([Panel("我", np.eye(5), down=CHINESE, across=CHINESE)], "有", "一只", "我有一只猫"),
    "learning_rates": lambda: plot.learning_rates({"猫": [1e-3, 2e-3]}, caption="我有一只猫"),
    "masks": lambda: plot.masks(scores(), CAUSAL, CHINESE, CHINESE, caption="我有一只猫"),
    "output_probabilities": lambda: plot.output_probabilities(np.eye(5), softmax_rows(5, 5), CHINESE, caption="我有一只猫"),
    "points": lambda: plot.points({"我": (rng().normal(size=(5, 2)), CHINESE)}, "有", "一只", "我有一只猫"),
    "reconstructions": lambda: plot.reconstructions(*[images() for _ in range(4)], title="猫", mode="我有一只"),
    "reconstructions, title": lambda: plot.reconstructions(*[images() for _ in range(4)], title="The cat", mode="我有一只"),
}


@pytest.mark.parametrize("draw", IN_CHINESE.values(), ids=IN_CHINESE)
def test_every_string_falls_back_to_a_font_that_has_its_letters(some_chinese, draw, caplog):
    figure = draw()
    figure.draw_without_rendering()                        # a missing glyph is a warning, and warnings are errors
    assert not caplog.records, "a font without bold, or one that is not there"
    drawn = [text for text in figure.findobj(matplotlib.text.Text) if set(text.get_text()) & set("".join(CHINESE))]
    assert drawn and all(text.get_fontfamily() == ["DejaVu Sans", "WenQuanYi Zen Hei"] for text in drawn)
    assert "#" not in "".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_the_fallbacks_of_this_machine_are_drawn_with_and_none_that_it_has_not(caplog):
    families = style.fallback_families()
    assert set(families) <= {font.name for font in font_manager.fontManager.ttflist} & set(style.FALLBACKS)
    assert families == sorted(families, key=style.FALLBACKS.index) and len(set(style.FALLBACKS)) == len(style.FALLBACKS)
    figure = plot.attention(softmax_rows(2, 2), ["a", "b"], ["c", "d"])
    assert figure._supxlabel.get_fontfamily() == ["DejaVu Sans", *families]
    figure.draw_without_rendering()
    assert not caplog.records


def test_ligatures_and_hearts_are_no_chinese(no_chinese, tmp_path):
    """DejaVu Sans has them; what it lacks of joiners and selectors is invisible, and a line feed is escaped."""
    tokens = ["ﬁnd", "❤️", "étudiant", "→", "a\u2067b\u2069", "\n", "a\tb"]
    figure = plot.attention(softmax_rows(7, 7), tokens, tokens)
    (ax,) = maps(figure)
    assert [token.replace("\ufe0f", "") for token in tick_labels(ax.yaxis)[:4]] == ["ﬁnd", "❤", "étudiant", "→"]
    assert tick_labels(ax.xaxis)[5:] == ["\\n", "a\\tb"]
    assert "counted from 0" not in caption(figure)
    plot.save(figure, tmp_path / "a.png")


def test_only_the_tokens_without_a_font_are_numbered_and_one_warning_says_so(some_chinese, tmp_path):
    tokens = ["我", "狗", "a", "有\U0001f984", "3"]
    message = r"no font on this machine has U\+72D7, U\+1F984: .*'Noto Sans CJK SC'.*'Noto Emoji'"
    with pytest.warns(UserWarning, match=message) as caught:
        figure = plot.attention(softmax_rows(5, 5), tokens, list("abcde"), caption="mine")
    assert len(caught) == 1
    assert caught[0].filename == __file__                  # it points at the caller's line
    (ax,) = maps(figure)
    assert tick_labels(ax.yaxis) == ["我", "#1", "a", "#3", "3"] and tick_labels(ax.xaxis) == list("abcde")
    assert caption(figure) == "mine #1 is token 1, counted from 0: no font here has its characters."
    plot.save(figure, tmp_path / "a.png")


CHINESE_TOKENS = {
    "attention": lambda: plot.attention(softmax_rows(4, 5, 5), CHINESE, CHINESE),
    "attention_lines": lambda: plot.attention_lines(CHINESE, softmax_rows(2, 5, 5), 4),
    "heatmaps": lambda: heatmaps([Panel("a", np.eye(5), down=CHINESE, across=CHINESE)]),
    "masks": lambda: plot.masks(scores(), CAUSAL, CHINESE, CHINESE),
    "output_probabilities": lambda: plot.output_probabilities(np.eye(5), softmax_rows(5, 5), CHINESE),
    "points": lambda: plot.points({"words": (rng().normal(size=(5, 2)), CHINESE)}, "first", "second", READ),
}


@pytest.mark.parametrize("draw", CHINESE_TOKENS.values(), ids=CHINESE_TOKENS)
def test_without_a_chinese_font_tokens_are_numbered_and_one_warning_says_so(no_chinese, draw):
    with pytest.warns(UserWarning, match="tokens with them are numbered; install a font that has them") as caught:
        figure = draw()
    assert len(caught) == 1 and caught[0].filename == __file__
    figure.draw_without_rendering()                                     # warns of a missing letter, which is an error here
    texts = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    assert {"#0", "#1", "#2", "#3", "#4"} <= set(texts)
    assert not any(letter in text for text in texts for letter in CHINESE)
    assert "#0 is token 0, counted from 0: no font here has its characters" in caption(figure)


def test_wide_letters_take_the_room_of_two():
    assert style.longest(["ab", "猫"]) == 2 and style.longest(["ﬁnd", "猫狗"]) == 4 and style.longest(["\uff21b"]) == 3
    text = "How to read it: " + "我有一只猫，" * 40 + "the end"
    lines = style.wrapped(text, 102)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(90 < sum(1 + style.is_wide(letter) for letter in line) <= 102 for line in lines[:-1])
    assert not any(line.startswith("，") for line in lines)
    assert style.wrapped("a b " * 60, 102) == textwrap.wrap("a b " * 60, 102)


@pytest.mark.parametrize("width", range(16, 40))
def test_a_chinese_line_is_filled_also_around_latin_words_and_has_its_punctuation(width):
    text = "红色大于 0，蓝色小于 0。中：白色（“可以”关注）；右：softmax 之后的权重，接到它的“相加”。橙线"
    lines = style.wrapped(text, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert not any(line[0] in "，。：；）”" or line[-1] in "（“" for line in lines)
    assert all(width - 10 < sum(1 + style.is_wide(letter) for letter in line) <= width for line in lines[:-1])


def test_a_chinese_caption_stays_on_the_page(some_chinese):
    figure = plot.attention([[0.5, 0.5]], caption="我有一只猫" * 40)
    figure.draw_without_rendering()
    box = figure._supxlabel.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0


@pytest.fixture
def chinese(monkeypatch):
    monkeypatch.setenv("LANGUAGE", "zh_CN")


@pytest.fixture
def much_chinese(no_chinese, tmp_path):
    """A machine with one more font, which has the letters of our catalog."""
    catalog = (messages.CATALOGS / "zh_CN" / "LC_MESSAGES" / "tinymae.mo").read_bytes().decode("utf-8", "ignore")
    fake_font(tmp_path / "square.ttf", sorted(letter for letter in set(catalog) if style.is_wide(letter)))
    font_manager.fontManager.addfont(tmp_path / "square.ttf")


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_chinese_if_a_font_has_it(much_chinese, chinese, draw):
    figure = draw()
    figure.draw_without_rendering()                                     # a missing letter is a warning, and so an error
    assert caption(figure).startswith("读图：") and "。 " not in caption(figure)


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_english_if_no_font_has_the_language_and_a_warning_says_so(no_chinese, chinese, draw):
    with pytest.warns(UserWarning, match="这台机器的字体都没有“.”字：图中的文字改用英文.*'Noto Sans CJK SC'") as caught:
        figure = draw()
    assert len(caught) == 1
    figure.draw_without_rendering()
    assert caption(figure).startswith("How to read it:")
    assert not any(style.is_wide(letter) for text in figure.findobj(matplotlib.text.Text) for letter in text.get_text())
    assert messages.language() == "zh_CN"                               # of what is printed


# ---- save ------------------------------------------------------------------------------------------------------------

DRAW = """
import sys
from tinymae import plot
image = [[[[i * j % 256] * 3 for i in range(8)] for j in range(8)]]
import numpy as np
figures = plot.attention_lines(["a", "b"], [[[0.25, 0.75], [0.5, 0.5]]], 0), plot.reconstructions(*[np.array(image, "u1")] * 4)
for i, figure in enumerate(figures):
    for suffix in ("png", "svg", "pdf"):
        plot.save(figure, f"{sys.argv[1]}{i}.{suffix}")
"""


def test_save_gives_the_same_bytes_for_the_same_figure(tmp_path):
    """On another day and in another process, too."""
    for name, day in (("a", "0"), ("b", "86400")):
        environment = os.environ | {"SOURCE_DATE_EPOCH": day}
        subprocess.run([sys.executable, "-c", DRAW, name], cwd=tmp_path, env=environment, check=True)
    for suffix, begin in {"png": b"\x89PNG\r", "svg": b"<?xml", "pdf": b"%PDF-"}.items():
        for i in range(2):
            first, second = ((tmp_path / f"{name}{i}.{suffix}").read_bytes() for name in "ab")
            assert first == second and first.startswith(begin)
            assert f"atplotlib v{matplotlib.__version__}".encode() not in first


@pytest.mark.parametrize("said", ["A row is a query & a column a key.", "每行是一个查询。"])
def test_the_caption_is_in_the_file(tmp_path, said):
    figure = plot.attention(softmax_rows(3, 3), caption=said + " mine" * 30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)        # a machine without a Chinese font
        for suffix in ("PNG", "svg", "pdf"):
            plot.save(figure, tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / "a.PNG") as picture:
        assert picture.info["Description"] == figure.get_supxlabel()
        assert set(picture.info) <= {"Description", "dpi"}
    described = ElementTree.parse(tmp_path / "a.svg").find(".//{http://purl.org/dc/elements/1.1/}description")
    assert described.text.split() == figure.get_supxlabel().split()
    assert b"/Subject" in (tmp_path / "a.pdf").read_bytes()


def test_letters_of_an_svg_are_outlines(tmp_path):
    """So it needs no font, whatever the reader has set."""
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        path = plot.save(plot.attention(softmax_rows(3, 3)), tmp_path / "a.svg")
    assert not list(ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text"))


def test_a_failing_save_leaves_the_old_picture_and_no_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    figure = plot.attention(softmax_rows(3, 3))

    def breaks(part, **options):
        part.write(b"half a picture")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", breaks)
    with pytest.raises(OSError, match="disk full"):
        plot.save(figure, path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_save_writes_beside_the_place_and_then_replaces(tmp_path, monkeypatch):
    moves = []
    replace = os.replace

    def watched(source, target):
        assert source.read_bytes().startswith(b"\x89PNG") and not target.exists()
        moves.append((source, target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    path = plot.save(plot.attention(softmax_rows(3, 3)), tmp_path / "a.png")
    ((source, target),) = moves
    assert source.parent == target.parent == tmp_path and target == path and source != target


def test_save_refuses_what_is_not_a_figure_a_folder_and_another_suffix(tmp_path):
    figure = plot.attention(softmax_rows(3, 3))
    with pytest.raises(TypeError, match="ndarray"):
        plot.save(np.zeros(3), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"must end in \.png, \.svg or \.pdf, got '.*a\.jpg'"):
        plot.save(figure, tmp_path / "a.jpg")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        plot.save(figure, tmp_path / "folder.png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.png"]
