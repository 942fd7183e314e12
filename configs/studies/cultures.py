"""Study 7: concepts without an English counterpart, learnt from native pictures alone.

Japanese, of which emoji have most. `CULTURAL` was picked by hand from the names of Unicode CLDR: things and signs that
English describes where Japanese has a name ("fish cake with swirl" is naruto, "goblin" a tengu); 48 concepts that the
English teacher can draw. Flags it has never drawn: they were left out of its training. Three times the same training:
without these concepts; with them native (no English, learnt from the picture); with them as pairs, in which the teacher
of flags knows no better.

    python -m benchmarks.studies --study cultures --workdir runs/studies
"""

from benchmarks.studies.records import Records
from benchmarks.studies.study import HELD_OUT, TRAIN, Names, Study, Variant

FLAGS = "assets/emoji/flags-train-00000.tar"
CULTURAL = """
    🏯 🏣 🔰 🉑 🈸 🉐 ㊗️ 🈹 🈚 🈁 🈷️ 🈵 🈶 🈺 🈴 🈲 🈯 ㊙️ 🈂️ 🈳 🗼 🍱 🚅 🎏 🍛 🍡 🍥 🎴 🪭 🍤 👺 👹 ♨️ 👘
    🏩 🗾 🎑 📛 🍙 🍶 🍜 🍣 🎋 🎐 🏮 🗻 ⛩️ 🍵
"""
KEYS = tuple("-".join(f"{ord(character):x}" for character in emoji) for emoji in CULTURAL.split())

STUDY = Study(
    title="Can concepts be learnt that English has no word for?",
    variants=(
        Variant("never shown", language="ja", records=Records(left_out=KEYS)),
        Variant("shown natively", language="ja", records=Records(native_keys=KEYS, native_more=FLAGS)),
        Variant("shown as pairs with English", language="ja", records=Records(more=FLAGS)),
    ),
    names={
        "cultural": Names(TRAIN, keys=KEYS),
        "flags": Names(FLAGS, count=60),
        "others": Names(TRAIN, count=150, without=KEYS),
    },
    corpus=f"{TRAIN} {HELD_OUT} {FLAGS}",
)
