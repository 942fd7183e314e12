"""Grids as files: where the pictures are, that the labels are drawn in letters and not in boxes."""

import unicodedata

import numpy as np
import pytest
from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from PIL import Image

from pea_jax import grids
from pea_jax.grids import save_grid

TITLES, LABELS = ["English teacher", "student"], ["красное яблоко\nred apple", "велосипед", "ґудзик"]


def pictures(rows: int, columns: int, height: int = 12, width: int = 20) -> np.ndarray:
    """Each of one colour of its own; no two alike, none white or grey."""
    colours = np.stack([np.full(rows * columns, 200), np.arange(rows * columns) * 7, np.zeros(rows * columns)], -1)
    colours = colours.reshape(rows, columns, 1, 1, 3).astype(np.uint8)
    return np.broadcast_to(colours, (rows, columns, height, width, 3))


def test_every_picture_is_in_its_place(tmp_path):
    rows = pictures(3, 2)
    canvas = save_grid(tmp_path / "new" / "grid.png", rows, column_titles=TITLES, row_labels=LABELS)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "grid.png")), canvas)
    corners = np.zeros((3, 2, 2), int)
    for row in range(3):
        for column in range(2):
            where = np.argwhere((canvas == rows[row, column, 0, 0]).all(-1))
            assert len(where) == 12 * 20
            corners[row, column] = where.min(0)
    assert (np.diff(corners[..., 0], axis=0) > 12).all() and (np.diff(corners[..., 0], axis=1) == 0).all()
    assert (np.diff(corners[..., 1], axis=1) > 20).all() and (np.diff(corners[..., 1], axis=0) == 0).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["grid.png"]


def test_titles_and_labels_are_whole(tmp_path):
    """Ink nowhere touches the border, nor a label the pictures, nor a title the next one."""
    canvas = save_grid(tmp_path / "grid.png", pictures(3, 2), column_titles=TITLES, row_labels=LABELS)
    ink = (canvas != 255).any(-1)
    assert not ink[0].any() and not ink[-1].any() and not ink[:, 0].any() and not ink[:, -1].any()
    left = np.argwhere((canvas[..., 0] == 200) & (canvas[..., 2] == 0)).min(0)[1]
    assert ink[:, : left - 8].any() and not ink[20:, left - 8 : left].any()


def test_scale_enlarges(tmp_path):
    canvas = save_grid(tmp_path / "grid.png", pictures(1, 1), column_titles=[""], row_labels=["x"], scale=3)
    assert (canvas == [200, 0, 0]).all(-1).sum() == 9 * 12 * 20


def test_labels_taller_than_pictures_do_not_overlap(tmp_path):
    label = "\n".join("абвгд")
    one = save_grid(tmp_path / "one.png", pictures(1, 1), column_titles=["t"], row_labels=[label])
    two = save_grid(tmp_path / "two.png", pictures(2, 1), column_titles=["t"], row_labels=[label, label])
    assert two.shape[0] - one.shape[0] > 5 * 12


def test_a_long_label_makes_no_other_row_taller(tmp_path):
    sizes = [
        save_grid(tmp_path / "grid.png", pictures(len(labels), 1), column_titles=["t"], row_labels=labels).shape[0]
        for labels in (["x"], ["x", "x"], ["long " * 500], ["x", "long " * 500, "x"])
    ]
    assert sizes[3] - sizes[2] == 2 * (sizes[1] - sizes[0])


@pytest.mark.parametrize("label", ["очень длинная подпись " * 20 + "\nend", "很长" * 200], ids=["words", "no spaces"])
def test_long_labels_are_broken(tmp_path, label):
    short = save_grid(tmp_path / "short.png", pictures(1, 1), column_titles=["t"], row_labels=["x"])
    long = save_grid(tmp_path / "long.png", pictures(1, 1), column_titles=["t"], row_labels=[label])
    assert long.shape[1] - short.shape[1] < grids.LONGEST * 14 and long.shape[0] > 6 * 14


@pytest.mark.parametrize("text", ["красное яблоко", "Їжак ґудзик є", "mạng nhện đỏ", "çğış", "häßlich – “größer”"])
def test_no_boxes_in_place_of_letters(text):
    font = grids._fonts([text])[text]
    box = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(letter)) != box for letter in set(text) - {" "})


def test_missing_letters_are_reported(monkeypatch, caplog):
    only = font_manager.findfont("DejaVu Sans")
    monkeypatch.setattr(grids, "_font_files", lambda: iter([only]))
    grids._fonts(["красное", "\u2067ца\u2069\ufe0f\u200b\u3000"])  # invisible ones are in few fonts
    assert not caplog.records
    grids._fonts(["红 apple", "红"])
    assert len(caplog.records) == 1
    assert "红" in caplog.text


def test_a_font_with_the_letters_is_preferred(monkeypatch):
    """What decides is the letters that a font has, not its name."""
    first, second = (font_manager.findfont(name) for name in ("cmr10", "DejaVu Serif"))
    monkeypatch.setattr(grids, "_font_files", lambda: iter([first, second]))
    fonts = grids._fonts(["apple", "яблоко"])
    assert [font.path for font in fonts.values()] == [first, second]


def test_a_caption_and_its_english_may_need_two_fonts(tmp_path, monkeypatch, caplog):
    """As Noto's of Thai, Khmer or Hindi, which have no Latin letters."""
    latin, arabic = tmp_path / "latin.ttf", tmp_path / "arabic.ttf"
    for path, letters in ((latin, "a cat"), (arabic, "قطة")):
        font = TTFont(font_manager.findfont("DejaVu Sans"))
        subsetter = subset.Subsetter()
        subsetter.populate(text=letters)
        subsetter.subset(font)
        font.save(path)
    monkeypatch.setattr(grids, "_font_files", lambda: iter([str(latin), str(arabic)]))
    save_grid(tmp_path / "grid.png", pictures(1, 1), column_titles=["a"], row_labels=["قطة\na cat"])
    assert "no font" not in caplog.text


@pytest.mark.parametrize(("label", "shaped"), [("قطة", True), ("חתול", True), ("किताब", True), ("кот แมว", False)])
def test_what_pillow_cannot_shape_is_told(monkeypatch, caplog, label, shaped):
    """Its wheels load FriBidi where the system has it, and else draw Arabic from the left, letter by letter."""
    monkeypatch.setattr(grids.features, "check", lambda name: False)
    grids._fonts([label])
    assert ("install FriBidi" in caplog.text) == shaped


def test_no_line_begins_with_a_mark():
    thai, hindi = "หน้าต่างที่" * 30, "किताबें" * 30
    for text in (thai, hindi):
        lines = grids._broken(text).split("\n")
        assert "".join(lines) == text and len(lines) > 2
        assert not any(unicodedata.category(line[0]).startswith("M") for line in lines)


def test_fonts_that_cannot_be_read_are_passed_over(tmp_path, monkeypatch):
    """matplotlib's list of them is in a cache folder, which machines may share that have other fonts."""
    only, broken = font_manager.findfont("DejaVu Sans"), tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(grids, "_font_files", lambda: iter([only, str(tmp_path / "gone.ttf"), str(broken)]))
    assert grids._fonts(["红"])["红"].path == only


def test_a_row_without_label_is_refused(tmp_path):
    with pytest.raises(ValueError):
        save_grid(tmp_path / "grid.png", pictures(2, 1), column_titles=["t"], row_labels=["one"])
    assert not any(tmp_path.iterdir())
