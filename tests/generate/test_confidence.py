"""How sure a model was: the log-probabilities are transformers' own, and each token counts where it belongs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fgtools.calls.tokens import END_CALL, ESCAPE, START_CALL, START_RESPONSE
from fgtools.generate import generate_replies, generate_with_confidence
from fgtools.generate import replies as generate
from fgtools.generate.choice import log_probabilities, most_likely_tokens
from fgtools.generate.confidence import measure_confidence
from fgtools.models import load_tokenizer
from fgtools.offline.samples import build_samples
from fgtools.prompts.encode import encode_prompt
from fgtools.rows import build_rows
from tests.toys import SHARED, fresh_model, senseless_model

ROWS = build_rows(build_samples(60, 9)).rows[:12]


def generate_tokens(model, tokenizer, rows, **options):
    """Return the ids of each reply and their log-probabilities, as they reach `measure_confidence`."""
    kept, order, plain = [], [], generate.measure_confidence
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "measure_confidence", lambda *given: kept.append(given[:2]) or plain(*given))
        options = {"max_new_tokens": 24, "on_reply": lambda number, _: order.append(number), **options}
        generate_with_confidence(model, tokenizer, rows, **options)
    return [kept[order.index(number)] for number in range(len(rows))]


def score_alone(model, prompt, ids):
    """One forward pass over a prompt and its reply, without a cache: transformers' own log-probabilities."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]


@pytest.mark.parametrize(("constrained", "cap"), [(False, None), (True, None), (False, 2.0)])
def test_they_equal_those_of_one_pass_of_the_model_over_prompt_and_reply(tokenizer, constrained, cap):
    """Constrained too: the probabilities are those before the grammar rules tokens out. Tolerance: 1e-4 in fp32."""
    if constrained:
        pytest.importorskip("xgrammar")
    model = fresh_model()
    model.config.final_logit_softcapping = cap
    for row, (ids, likely) in zip(
        ROWS, generate_tokens(model, tokenizer, ROWS, constrained=constrained, batch_size=9), strict=True
    ):
        wanted = score_alone(model, encode_prompt(row, tokenizer), ids)
        assert len(likely) == len(ids) and max(likely) <= 0
        assert torch.allclose(torch.tensor(likely), wanted, atol=1e-4)


def test_a_token_that_only_the_grammar_chose_lowers_the_confidence(model, tokenizer):
    pytest.importorskip("xgrammar")

    def answer(model, budget):
        both = (
            generate_with_confidence(model, tokenizer, ROWS, max_new_tokens=budget, constrained=one)
            for one in (False, True)
        )
        return list(zip(*both, strict=True))

    same = [pair for pair in answer(model, 2) if pair[0].text == pair[1].text]  # the mark of a call, and "call:"
    assert same
    for one, other in same:
        assert one.confidence.call == pytest.approx(other.confidence.call, abs=1e-4)
    changed = [pair for pair in answer(senseless_model(tokenizer), 24) if pair[0].text != pair[1].text]
    assert changed and min(other.confidence.call for _, other in changed) < min(
        one.confidence.call for one, _ in changed
    )


def test_the_texts_are_those_without_figures_and_each_is_told_as_it_ends(model, tokenizer):
    told = {}
    replies = generate_with_confidence(model, tokenizer, ROWS, max_new_tokens=24, on_reply=told.__setitem__)
    assert [one.text for one in replies] == generate_replies(model, tokenizer, ROWS, max_new_tokens=24)
    assert told == dict(enumerate(replies)) and all(one.confidence.is_known for one in replies)


@pytest.mark.parametrize("rows", [1, 2, 9, 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_are_computed_in_fp32_whatever_the_weights(rows, dtype):
    torch.manual_seed(rows)
    head, states = torch.nn.Linear(16, 400, bias=False, dtype=dtype), torch.randn(rows, 16, dtype=dtype)
    with torch.inference_mode():
        tokens, likely = most_likely_tokens(head, states)
        wanted = head(states).double().log_softmax(-1)
    assert all(math.isclose(one, wanted[row, tokens[row]], abs_tol=1e-5) for row, one in enumerate(likely))


def test_logits_that_are_no_numbers_give_an_unknown_confidence(tokenizer):
    broken = log_probabilities(torch.full((2, 5), math.nan), torch.tensor([0, 1])).tolist()
    assert all(map(math.isnan, broken)) and not measure_confidence([5, 6], broken, tokenizer).is_known
    assert not measure_confidence([], [], tokenizer).is_known


@pytest.fixture(scope="module", params=["stand-in", "Gemma"])
def any_tokenizer(request, tokenizer):
    if request.param == "stand-in":
        return tokenizer
    if not (SHARED / "data/tokenizer").is_dir():
        pytest.skip("Gemma's tokenizer is under Gemma's terms and not here; the stand-in's runs")
    return load_tokenizer(SHARED / "data/tokenizer", chat_template="standin")


def split(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def measure(tokenizer, parts):
    """Measure a reply of (text, log-probability of each of its tokens) parts."""
    ids, likely = [], []
    for text, figure in parts:
        new = split(tokenizer, text)
        ids.extend(new)
        likely.extend([figure] * len(new))
    return measure_confidence(ids, likely, tokenizer), ids


@pytest.mark.parametrize("name", ["get_weather", "naïve.search-2", "日本_tool", "x"])
def test_the_name_and_the_call_have_the_means_of_their_tokens(any_tokenizer, name):
    parts = [("I will look. ", -9.0), (START_CALL, -0.5), ("call:", -0.5), (name, -3.0), ("{", -0.5)]
    parts += [("city:", -0.5), (ESCAPE, -0.5), ("Oslo {call:no{", -0.5), (ESCAPE, -0.5), ("}", -0.5), (END_CALL, -0.5)]
    found, ids = measure(any_tokenizer, [*parts, (START_RESPONSE, -9.0)])
    n_name, n_call = len(split(any_tokenizer, name)), len(ids) - len(split(any_tokenizer, "I will look. ")) - 1
    assert found.name == -3.0 and found.n_tokens == n_call
    assert found.call == pytest.approx((-3.0 * n_name - 0.5 * (n_call - n_name)) / n_call, rel=1e-5)
    assert found.total == pytest.approx(found.call * n_call) and found.lower == -3.0


def test_tokens_as_the_tokenizer_really_cuts_them(any_tokenizer):
    """The mark, `call`, `:` and the name may share tokens: what holds a letter of the name counts, nothing else."""
    text = f"{START_CALL}call:get_weather{{city:<escape>Oslo<escape>}}{END_CALL}{START_RESPONSE}"
    ids = split(any_tokenizer, text)
    for place in range(len(ids)):
        likely = [0.0] * len(ids)
        likely[place] = -1.0
        before, after = (any_tokenizer.decode(part) for part in (ids[:place], ids[: place + 1]))
        inside = len(before) < text.index("{") and len(after) > text.index("get_weather")
        found = measure_confidence(ids, likely, any_tokenizer)
        assert (found.name < 0) == inside and (found.call < 0) == (place < len(ids) - 1)


def test_several_calls_count_together_and_half_a_call_to_its_end(any_tokenizer):
    call = [(START_CALL, -1.0), ("call:one", -1.0), ("{}", -1.0), (END_CALL, -1.0)]
    both, _ = measure(any_tokenizer, [*call, *[(text, -3.0) for text, _ in call]])
    assert both.call == both.name == -2.0
    for cut in range(1, 4):
        half, ids = measure(any_tokenizer, call[:cut])
        assert (half.n_tokens, half.call, half.name) == (len(ids), -1.0, -1.0)
    unclosed, _ = measure(any_tokenizer, [*call[:3], *call])
    assert unclosed.call == -1.0


def test_a_reply_without_a_call_has_the_mean_of_all_and_of_its_first_token(any_tokenizer):
    found, ids = measure(any_tokenizer, [("I", -2.0), (" cannot do that.", -1.0), ("<end_of_turn>", -1.0)])
    assert found.name == -2.0 and found.n_tokens == len(ids)
    assert found.call == pytest.approx(-1 - 1 / len(ids), rel=1e-5)


@given(st.lists(st.integers(0, 400) | st.integers(46, 52), max_size=60))
def test_any_tokens_are_measured(tokenizer, ids):
    known = [one for one in ids if one < len(tokenizer)]
    found = measure_confidence(known, [-0.25] * len(known), tokenizer)
    assert found.is_known == bool(known) and (not known or found.call == found.name == -0.25)


def test_marks_in_great_number_take_linear_time(tokenizer):
    start = split(tokenizer, START_CALL)
    for ids in (start * 20_000, [*start, *split(tokenizer, "call:") * 10_000]):
        assert measure_confidence(ids, [-1.0] * len(ids), tokenizer).call == -1.0
