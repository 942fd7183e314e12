"""Which prompt is drawn with what, in which batches; a stand-in draws."""

import numpy as np

from pea_jax.sampling.picture_files import GuideFiles
from pea_jax.sampling.pipeline import Sampling
from pea_jax.sampling.prompt_drawing import batches, draw_all, drawings
from pea_jax.sampling.prompt_files import Prompt
from tests.sampling.stand_ins import Conditioner, Pipeline

PROMPTS = [
    Prompt("a"),
    Prompt("b", negative_prompt="dark", seed=3, size=(16, 8), others={"source": "x"}),
    Prompt("c", seed=4, category="animals", id="c1"),
    Prompt("d", negative_prompt=""),
]
WANTED = drawings(PROMPTS, negative_prompt="ugly", seeds=[5], width=8, height=8)


def test_what_a_prompt_does_not_say_goes_for_all():
    told = [(each.negative_prompt, each.seed, each.index, each.width, each.height) for each in WANTED]
    assert told == [("ugly", 5, 0, 8, 8), ("dark", 3, 0, 16, 8), ("ugly", 4, 0, 8, 8), ("", 5, 3, 8, 8)]
    assert WANTED[1].describe() == dict(
        prompt="b", negative_prompt="dark", seed=3, index=0, width=16, height=8, source="x"
    )
    assert WANTED[2].describe() | dict(category="animals", id="c1") == WANTED[2].describe()


def test_several_seeds_give_what_each_gives_alone():
    """But a prompt with a seed of its own, which is drawn once."""

    def told(*seeds: int) -> list[tuple[str, int, int]]:
        wanted = drawings(PROMPTS, negative_prompt="", seeds=seeds, width=8, height=8)
        assert [each.row for each in wanted] == list(range(len(wanted)))
        return [(each.prompt.prompt, each.seed, each.index) for each in wanted]

    assert told(5, 7) == [("a", 5, 0), ("a", 7, 0), ("b", 3, 0), ("c", 4, 0), ("d", 5, 3), ("d", 7, 3)]
    assert set(told(5, 7)) == set(told(5)) | set(told(7))


def test_every_drawing_has_its_own_conditioning_and_noise():
    pipeline, conditioner = Pipeline(), Conditioner()
    for batch_size in (1, 2, 64):
        sampling = Sampling(batch_size=batch_size)
        drawn = {
            each.row: picture for each, picture in draw_all(pipeline, conditioner, WANTED, sampling, GuideFiles({}))
        }
        assert sorted(drawn) == [0, 1, 2, 3] and drawn[1].shape == (8, 16, 3)
        for each in WANTED:
            texts = map(ord, (each.prompt.prompt, (each.negative_prompt or "-")[0]))
            np.testing.assert_array_equal(drawn[each.row][0, 0], [*texts, 10 * each.seed + each.index])
    # Texts are encoded with the negative prompts of their batch.
    assert conditioner.asked[-2:] == [["a", "c", "d", "", "ugly"], ["b", "dark"]]


def test_batches_of_one_length():
    lengths = [[each.row for each in batch] for batch in batches(WANTED, 3)]
    assert lengths == [[0, 1], [2, 3]]
    assert [[each.row for each in batch] for batch in batches(WANTED[:3], 2)] == [[0, 1], [2, 2]]
