"""Each exercise says right to right answers, and to wrong ones what is wrong. The answers are in exercise_answers_N."""

import ast
import functools
import json
import re
from pathlib import Path

import exercise_answers_1
import exercise_answers_2
import exercise_answers_3
import exercise_answers_4
import pytest
import torch
import torch.nn.functional as F

from mmlesson import load_clip, world
from mmlesson.teach import exercises
from mmlesson.teach.exercises import check, checking, own_painting, vocabulary
from mmlesson.teach.exercises.checking import EXERCISES
from mmlesson.teach.exercises.painting import patch_side
from mmlesson.teach.exercises.words import understand

LESSONS = exercise_answers_1, exercise_answers_2, exercise_answers_3, exercise_answers_4
RIGHT = {number: answers for lesson in LESSONS for number, answers in lesson.RIGHT.items()}
WRONG = {number: answers for lesson in LESSONS for number, answers in lesson.WRONG.items()}


@pytest.fixture(autouse=True)
def a_fresh_kernel():
    """No wrong answer was given before: the first one brings the first hint."""
    checking._wrong.clear()


def test_every_exercise_is_tried():
    assert set(WRONG) == set(EXERCISES) == set(RIGHT)
    assert {number: len(answers) for number, answers in RIGHT.items() if len(answers) < 3} == {}
    assert {number: len(answers) for number, answers in WRONG.items() if len(answers) < 8} == {}


@pytest.mark.parametrize("number, place", [(number, place) for number in RIGHT for place in range(len(RIGHT[number]))])
def test_right(number, place):
    verdict = check(number, RIGHT[number][place])
    assert verdict.says.startswith(f"Exercise {number}: right. ") and verdict


@pytest.mark.parametrize("number, place", [(number, place) for number in WRONG for place in range(len(WRONG[number]))])
def test_wrong_says_what_and_hints(number, place):
    answer, says = WRONG[number][place]
    verdict = check(number, answer)
    assert verdict.says.startswith(f"Exercise {number}: not yet. ") and not verdict
    assert verdict.says.endswith(f" Hint: {EXERCISES[number].hint}")
    assert says in verdict.says.removesuffix(EXERCISES[number].hint)


@pytest.mark.parametrize("number", list(EXERCISES))
def test_a_hint_is_no_answer(number):
    for hint in (EXERCISES[number].hint, EXERCISES[number].second):
        verdict = check(number, hint)
        assert verdict.says.startswith(f"Exercise {number}: not yet. ")


@pytest.mark.parametrize("number", list(EXERCISES))
def test_two_steps_of_hints_then_where_the_solution_is(number):
    said = [check(number, b"wrong").says for _ in range(4)]
    first, second = EXERCISES[number].hint, EXERCISES[number].second
    assert said[0].endswith(f" Hint: {first}") and said[1].endswith(f" Second hint: {second}")
    assert all(each.endswith(" The solution is folded below the exercise; in a learner's edition, ask your teacher.")
               for each in said[2:])  # fmt: skip
    assert first != second and first not in said[1] and second not in said[2] and len(second.split()) > 10


def test_only_wrong_answers_lead_to_the_next_hint():
    for answer in (..., (..., ...), lambda *given: None):
        check("1.3", answer)
    check("1.4", 1)
    assert check("1.3", lambda *given: 0.0).says.endswith(EXERCISES["1.3"].hint)


@pytest.mark.parametrize("number", list(EXERCISES))
@pytest.mark.parametrize(
    "answer", [float("nan"), torch.tensor(float("nan")), b"bytes", {}, object(), lambda *given: {}]
)
def test_no_answer_breaks_a_check(number, answer):
    assert not check(number, answer)


@pytest.mark.parametrize("number", list(EXERCISES))
def test_three_dots_are_not_answered_yet(number):
    for answer in (..., (..., ...)):
        verdict = check(number, answer)
        assert "not answered yet" in verdict.says and not verdict and "Hint" not in verdict.says


@pytest.mark.parametrize("number", [number for number in RIGHT if callable(RIGHT[number][0])])
@pytest.mark.parametrize("stub", [lambda *given: None, lambda *given: ...])
def test_an_untouched_stub_gets_no_hint(number, stub):
    assert check(number, stub).says == f"Exercise {number}: not answered yet. Your function returns nothing yet."


the_clip = functools.cache(load_clip)  # the lessons' own, loaded once for all of their cells


@functools.cache
def cells(tag: str) -> dict[str, str]:
    """Number of an exercise → the source of its cell with a tag, in all four notebooks."""
    found = {}
    for path in sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
            source = "".join(cell["source"])
            if tag in cell["metadata"].get("tags", []):
                if tag == "solution":  # Python in a Markdown cell, folded
                    source = re.fullmatch(
                        r"<details><summary>.*</summary>\n\n```python\n(.*)\n```\n\n</details>", source, re.DOTALL
                    )[1]
                found[source.split('check("')[1].split('"')[0]] = source
    return found


def verdict_of(source: str) -> exercises.Verdict:
    """What the last line of a cell comes to, after the lines before it, with what its notebook has defined by then."""
    pizza = world.scene("pizza", background="turquoise", seed=2).render(256)
    a, b = exercises.two_grids()
    known = dict(
        two_grids=exercises.two_grids,
        check=check,
        torch=torch,
        F=F,
        world=world,
        clip=the_clip(),
        pizza=pizza,
        a=a,
        b=b,
    )
    *lines, last = ast.parse(source).body
    exec(compile(ast.Module(lines, []), "cell", "exec"), known)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), known)


def test_every_exercise_has_a_stub_and_a_solution():
    assert set(cells("exercise")) == set(cells("solution")) == set(EXERCISES)


@pytest.mark.parametrize("number", list(EXERCISES))
def test_the_solution_is_right_and_the_stub_is_not_answered(number):
    assert verdict_of(cells("solution")[number]).right
    stub = verdict_of(cells("exercise")[number])
    assert not stub and "not answered yet" in stub.says and "Hint" not in stub.says


@pytest.mark.parametrize("number", list(EXERCISES))
def test_no_hint_holds_a_line_of_the_solution(number):
    hint = (EXERCISES[number].hint + EXERCISES[number].second).replace(" ", "")
    lines = [line.strip().removeprefix("return ").split("  #")[0] for line in cells("solution")[number].splitlines()]
    assert [line for line in lines if len(line) > 12 and line.replace(" ", "") in hint] == []


def test_an_unknown_number_is_an_error_that_lists_the_known_ones():
    with pytest.raises(KeyError, match="1.1, 1.2"):
        check("9.9", 1)


def test_a_right_sentence_that_the_model_does_not_find_is_right():
    """What the words mean decides; the verdict says what the model makes of them."""
    verdict = check("1.1", "in front of azure, a pussycat")
    assert verdict
    assert "model finds it nearer" in verdict.says or "Its training never held" in verdict.says


def test_a_right_sentence_is_told_its_unknown_words():
    assert check("1.1", "a qwerty cat on a blue background").says.endswith(" Not known here: “qwerty”.")


def test_a_failure_of_words_that_the_model_knows_is_one_of_the_wording():
    says = check("2.8", ("the whole background of this picture is white and in it we see a swan", 22)).says
    assert "never held" in says or "it is the wording" in says
    assert "Not known here" not in check("2.8", ("in front of a green wall stands a cat", 135)).says


def test_where_the_clip_named_no_cat_before_the_verdict_says_so(monkeypatch):
    monkeypatch.setattr(own_painting, "named", lambda grids: [("owl", 9, 0.2), ("owl", 9, 0.2)])
    assert check("3.8", exercise_answers_3.edited(4, 6, 2, 2)).says.endswith("so little was to change.")


def test_a_function_may_change_what_it_is_given():
    def answer(features, query, k):
        scores = features @ query
        features.zero_()
        query.zero_()
        return scores.topk(k).indices

    assert check("2.1", answer)


def test_the_two_grids_are_the_callers_own():
    grid, other = exercises.two_grids()
    assert grid.dtype == torch.int64 and grid.shape == other.shape == (12, 12) and not torch.equal(grid, other)
    grid.zero_()
    assert torch.equal(exercises.two_grids()[0], exercise_answers_3.A)


def test_a_logit_sees_a_patch_as_large_as_the_exercise_says():
    """By gradients: on which pixels a logit in the middle depends, without group normalisation, which sees them all."""
    import copy

    from mmlesson import load_vqgan

    discriminator = copy.deepcopy(load_vqgan(device="cpu").discriminator)
    for place, layer in enumerate(discriminator.layers):
        if isinstance(layer, torch.nn.GroupNorm):
            discriminator.layers[place] = torch.nn.Identity()
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)).requires_grad_()
    discriminator(pixels)[0, 6, 6].backward()
    seen = pixels.grad[0].abs().sum(0) > 0  # [96, 96]
    side = patch_side(discriminator)
    assert seen.any(0).sum() == seen.any(1).sum() == side == 38 and seen.sum() == side**2
    assert check("3.5", side)


# ------------------------------------------------------------------------------------------- meaning


def test_every_wording_of_the_world_is_understood():
    """All captions of 300 scenes, also those that no training uses: things, background and who stands where."""
    for scene in world.sample(200, "train", seed=3) + world.sample(100, "heldout", seed=4):
        for caption in scene.captions() + scene.captions(unseen=True):
            meaning = understand(caption)
            assert sorted(meaning.things) == sorted(scene.concepts), caption
            assert meaning.background == (scene.background,), caption
            assert (meaning.unknown, meaning.negated, meaning.many) == ((), False, False), caption
            assert meaning.above == (scene.concepts if scene.relation == "above" else None), caption
            assert meaning.left == (scene.concepts if scene.relation == "left of" else None), caption


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("a cat above a dog", "a dog below a cat", True),
        ("a kitten on teal", "on a turquoise backdrop, a cat", True),
        ("a cat left of a dog", "a dog to the right of a cat", True),
        ("a cat and a dog", "a dog and a cat", True),
        ("a cat on blue", "a cat on red", False),
        ("a cat above a dog", "a dog above a cat", False),
        ("a cat", "cats", False),
        ("a cat", "no cat", False),
        ("a red cat on blue", "a blue cat on red", False),
        ("an orange on an orange background", "an orange, orange background", True),
        ("a cat chases a dog", "a dog is chased by a cat", True),
        ("a cat chases a dog", "a dog chases a cat", False),
        ("a cat watches a dog", "a cat is watching a dog", True),
        ("a cat meets a dog", "a dog meets a cat", True),
        ("a cat behind a dog", "a dog in front of a cat", True),
        ("a cat behind a dog", "a dog behind a cat", False),
        ("a large cat", "a cat that is big", True),
        ("a big cat and a small dog", "a small cat and a big dog", False),
        ("a big red cat", "a red big cat", True),
        ("two cats", "three cats", False),
        ("a cat on a dark blue background", "a cat on blue", True),
        ("a billy goat on silver", "a goat, grey backdrop", True),
    ],
)
def test_what_means_the_same(one, other, same):
    assert (understand(one).scene == understand(other).scene) is same


def test_no_synonym_takes_a_name_of_the_world():
    """Each other word for a thing or a colour is new, stands once, and belongs to what the world has."""
    names = {alias.lower(): concept.name for concept in world.concepts() for alias in (concept.name, *concept.aliases)}
    others = [other.strip() for listed in vocabulary.THINGS.values() for other in listed.split(",")]
    assert set(vocabulary.THINGS) <= set(names.values()) and len(set(others)) == len(others)
    assert [other for other in others if other in names] == []
    colours = [other for listed in vocabulary.COLOURS.values() for other in listed.split()]
    aliases = [alias for listed in world.BACKGROUND_ALIASES.values() for alias in listed]
    assert set(vocabulary.COLOURS) <= set(world.BACKGROUNDS) and len(set(colours)) == len(colours)
    assert set(colours) & {*world.BACKGROUNDS, *aliases, *names} == set()


def test_no_trait_is_a_thing_and_none_stands_twice():
    traits = [*vocabulary.TRAITS, *(other for listed in vocabulary.TRAITS.values() for other in listed.split())]
    assert len(set(traits)) == len(traits)
    assert [trait for trait in traits if understand(f"a {trait}").things] == []


@pytest.mark.parametrize("verb", vocabulary.DEEDS)
def test_a_verb_is_understood_and_says_who_does_it(verb):
    ending = "es" if verb.endswith(("s", "x", "z", "ch", "sh")) else "s"
    says = verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeiou" else verb + ending
    meaning = understand(f"a cat {says} a dog")
    assert meaning.deed == ("cat", verb, "dog") and meaning.unknown == ()


def test_a_sentence_that_contradicts_itself_says_nothing_of_place():
    assert understand("a cat above a dog and a dog above a cat").above is None
    meaning = understand("a cat over a dog, the cat under it")
    assert meaning.above is None
