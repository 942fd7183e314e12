import sys
import unicodedata

import pytest

from pea_jax.data import text_cleaning
from pea_jax.data.text_cleaning import cleaning
from pea_jax.errors import PeaError


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  красное \t\r\n яблоко ", "красное яблоко"),
        ("Tom &amp; Jerry &#39;90 &quot;x&quot;", 'Tom & Jerry \'90 "x"'),
        ("salt&nbsp;&amp;\xa0pepper", "salt & pepper"),
        ("a\x00b\x07c\x85d", "a b c d"),
        ("zero\u200bwidth, soft\u00adhyphen, \ufeffmark, \u202eback", "zerowidth, softhyphen, mark, back"),
        ("и\u0306 е\u0308", "й ё"),
        ("\u1112\u1161\u11ab", "한"),
        ("全角 １２、ﾊﾝｶｸ ①", "全角 １２、ﾊﾝｶｸ ①"),  # compatibility characters are not touched
        ("می‌خواهم 👨‍👩‍👧", "می‌خواهم 👨‍👩‍👧"),  # joiners are part of the word
        ("ខ្មែរ\u200bស្អាត", "ខ្មែរ\u200bស្អាត"),  # a space of Khmer
        ("\u061cقطة\u200f", "قطة"),
        ("", ""),
        ("\n\u200b ", ""),
    ],
)
def test_plain(text, cleaned):
    assert cleaning("plain")(text) == unicodedata.normalize("NFC", cleaned)
    assert cleaning("plain")(cleaned) == unicodedata.normalize("NFC", cleaned)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("漢字轉換，紅蘋果！", "汉字转换，红苹果！"),
        ("头发理发", "头发理发"),  # simplified already
        ("【爆款】iPhone 手機殼 12元/個", "爆款手机壳12元个"),
        ("“乾隆皇帝”：乾燥；后面?", "“乾隆皇帝”：干燥；后面?"),
        ("&#32418;&#33529;&#26524;", "红苹果"),
        ("red apple 2023", ""),
        ("12345, 678!", ""),
        ("りんご", ""),
    ],
)
def test_chinese(text, cleaned):
    """What PEA-Diffusion keeps: U+4E00-9FA5, digits and , . ! ? : ; ， 。 ！ ？ ： ； “ ”; then simplified script."""
    assert cleaning("chinese")(text) == cleaned


def test_none_keeps_every_letter():
    assert cleaning("none")(" &amp;\n ") == " &amp;\n "


def test_unknown_name():
    with pytest.raises(PeaError, match="config.data.cleaning='zh': not known; choose from none, plain, chinese"):
        cleaning("zh")


def test_without_opencc(monkeypatch):
    monkeypatch.setitem(sys.modules, "opencc", None)
    text_cleaning._simplify.cache_clear()
    with pytest.raises(
        PeaError, match=r"config.data.cleaning='chinese' needs OpenCC: pip install 'pea_jax\[chinese\]'"
    ):
        cleaning("chinese")
    assert cleaning("plain")("a") == "a"
