"""data/numbers.py and data/programs.py: one parser, one unit, a scale that maps back, FinQA's programs."""

import math
import re
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finmatryoshka.data.finqa import execute_program, finqa_number
from finmatryoshka.data.numbers import SignedLogScaler, in_page_unit, parse_number
from finmatryoshka.data.programs import program_arguments
from finmatryoshka.data.tatqa import tatqa_number

from conftest import ROOT


@pytest.mark.parametrize(
    "text, number",
    [
        ("$ 94 million", 94e6), ("-32 ( 32 )", -32), ("( 1,234 )", -1234), ("14.6%", 0.146), ("2.23", 2.23),
        (1e18, 1e18), ("$ -5.2", -5.2), ("($1,234.5)", -1234.5), ("-15.0% ( 15.0 % )", -0.15), ("(15)%", -0.15),
        ("4.9\\n", 4.9), ("1.5e3", 1500), ("3 billion", 3e9), (7, 7), (["12"], 12), ("−4", -4),
    ],
)  # fmt: skip
def test_parse_number(text, number):
    assert parse_number(text) == pytest.approx(number, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["yes", "no", "n/a", "", " ", None, True, ["1", "2"], "fixed price", "level 3", {}, float("inf")]
)
def test_what_is_no_number_is_nan_never_zero(text):
    assert math.isnan(parse_number(text))


@given(st.floats(min_value=-1e12, max_value=1e12).filter(lambda x: x == 0 or abs(x) > 1e-3))
def test_parse_number_reads_back_what_python_writes(number):
    assert parse_number(f"{number:.6f}") == pytest.approx(float(f"{number:.6f}"))
    assert parse_number(f"{number:,.2f}") == pytest.approx(float(f"{number:.2f}"))
    assert parse_number(f"{number:.4f}%") == pytest.approx(float(f"{number:.4f}") / 100, rel=1e-9)


def documented() -> list[tuple[str, str]]:
    """The table of formats in docs/data.md: (input, value)."""
    rows = re.findall(
        r"^\| `([^`]+)` \| (\S+) \|", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    return [(text, value) for text, value in rows if re.fullmatch(r"NaN|-?[0-9.]+", value)]


def test_the_documented_formats_are_what_the_parser_gives():
    rows = documented()
    assert len(rows) > 50
    read = {text: parse_number(text) for text, _ in rows}
    assert {text: "NaN" if math.isnan(read[text]) else read[text] for text, _ in rows} == {
        text: value if value == "NaN" else float(value) for text, value in rows
    }


FIGURES = st.one_of(
    st.sampled_from([text for text, value in documented() if value != "NaN"]),
    st.builds(
        "{}{}{:,.2f}{}".format,
        st.sampled_from(["", "-", "( ", "about "]), st.sampled_from(["", "$ ", "€", "US$"]),
        st.integers(0, 10**9).map(lambda cents: cents / 100),
        st.sampled_from(["", "%", " million", "bn", " bps", " per cent"]),
    ),
)  # fmt: skip


@given(FIGURES, st.data())
def test_no_digit_of_the_input_is_left_over(text, data):
    """A digit put in anywhere changes the value or leaves none: none is overlooked."""
    value = parse_number(text)
    assert math.isfinite(value)
    place = data.draw(st.integers(0, len(text)))
    changed = parse_number(text[:place] + data.draw(st.sampled_from("123456789")) + text[place:])
    assert math.isnan(changed) or changed != value


@example(["( 1,234 )", "( 1,234 )"], " ")
@given(st.lists(FIGURES, min_size=2, max_size=3), st.sampled_from([" ", "/", "-", " to ", " ; ", ":", " and "]))
def test_two_figures_are_no_figure(texts, between):
    assert math.isnan(parse_number(between.join(texts)))


@given(st.integers(0, 10**12), st.integers(0, 99), st.booleans())
def test_groupings_of_one_number_agree(whole, cents, negative):
    american = f"{whole:,}.{cents:02d}"
    european = american.translate(str.maketrans(",.", ".,"))
    expected = float(f"{'-' if negative else ''}{whole}.{cents:02d}")
    sign = "-" if negative else ""
    # Below a thousand nothing is grouped, and a decimal comma alone is not understood.
    forms = [american, american.translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789.,"})]
    forms += [european, european.replace(".", "\u202f"), american.replace(",", "'")] if whole >= 1000 else []
    assert {parse_number(sign + form) for form in forms} == {expected}


def test_a_scale_word_or_letter_is_left_out_in_the_pages_unit():
    assert in_page_unit("$1.2bn") == in_page_unit("1.2 billion") == 1.2 and in_page_unit("£(8.1m)") == -8.1


def test_numbers_of_every_kind_and_size():
    assert (
        math.isnan(parse_number(10**400))
        and math.isnan(parse_number("9" * 400))
        and math.isnan(parse_number("9" * 60 + "e999"))
    )
    assert (
        parse_number(Decimal("1.5")) == 1.5
        and parse_number(np.float32(0.5)) == 0.5
        and math.isnan(parse_number(np.bool_(True)))
    )


@given(st.text())
def test_parse_number_takes_any_text(text):
    assert isinstance(parse_number(text), float)


@pytest.mark.parametrize(
    "answer, exe_ans, number",
    [
        ("34.7%", 0.34719, 0.34719),  # unrounded where they agree
        ("3.8%", 3.8, 0.038),  # percentage points become a fraction
        ("44%", 1.25, 0.44),  # the annotator wins a contradiction
        ("$ 94 million", 94.0, 94.0),  # the page's unit stays
        ("", 12.5, 12.5),
        ("127.40", 127.4, 127.4),
    ],
)
def test_finqa_number_joins_answer_and_exe_ans(answer, exe_ans, number):
    assert finqa_number(answer, exe_ans) == pytest.approx(number)


def test_finqa_yes_no_has_no_number():
    assert math.isnan(finqa_number("yes", "yes")) and math.isnan(finqa_number("no", 0.0))


def test_tatqa_number_turns_percent_into_a_fraction():
    assert tatqa_number(-22.22, "percent") == pytest.approx(-0.2222)
    assert tatqa_number(["4%"], "percent") == pytest.approx(0.04)
    assert tatqa_number(["$1,496.5"], "million") == 1496.5
    assert math.isnan(tatqa_number(["a", "b"]))
    assert tatqa_number(["6.14 per cent"], "percent") == pytest.approx(0.0614)


@given(st.lists(st.floats(min_value=-1e15, max_value=1e15), min_size=2, max_size=30))
def test_scaler_inverts_to_six_digits(numbers):
    scaler = SignedLogScaler.fit(numbers)
    np.testing.assert_allclose(scaler.inverse(scaler.transform(numbers)), numbers, rtol=1e-6, atol=1e-6)


def test_scaler_is_standard_on_its_training_labels_and_skips_nan():
    scaler = SignedLogScaler.fit([1, -5, 1e6, math.nan, 0.2])
    z = scaler.transform([1, -5, 1e6, 0.2])
    assert z.mean() == pytest.approx(0) and z.std() == pytest.approx(1)
    assert math.isnan(scaler.transform([math.nan])[0])
    with pytest.raises(ValueError, match="no training record has a numeric answer"):
        SignedLogScaler.fit([math.nan])


TABLE = [["", "2009", "2008"], ["total obligations", "$ 10", "20"], ["margin, net", "2%", "4%"]]


@pytest.mark.parametrize(
    "program, result",
    [
        ("subtract(5829, 5735), divide(#0, 5735)", 94 / 5735), ("divide(114, const_100)", 1.14),
        ("greater(14, 19)", "no"), ("table_sum(total obligations, none)", 30),
        ("table_average(margin, net, none)", 0.03), ("exp(2, const_3)", 8),
        ("table_max(margin, net, none), multiply(#0, const_m1)", -0.04),
    ],
)  # fmt: skip
def test_execute_program(program, result):
    assert execute_program(program, TABLE) == (pytest.approx(result) if not isinstance(result, str) else result)


@pytest.mark.parametrize(
    "nested, flat",
    [
        ("divide(subtract(5829, 5735), 5735)", "subtract(5829, 5735), divide(#0, 5735)"),
        ("add(table_sum(total obligations, none), multiply(2%, const_100))",
         "table_sum(total obligations, none), multiply(2%, const_100), add(#0, #1)"),
        ("greater(add(1, 2), add(2, 2))", "add(1, 2), add(2, 2), greater(#0, #1)"),
    ],
)  # fmt: skip
def test_nested_programs_give_what_flat_ones_give(nested, flat):
    assert execute_program(nested, TABLE) == execute_program(flat, TABLE)


@given(st.integers(1, 70))
def test_a_program_cut_off_is_refused_not_half_executed(length):
    for program in ("subtract(5829, 5735), divide(#0, 5735)", "divide(add(1, 2), table_max(margin, net, none))"):
        cut = program[:length].rstrip()
        if cut not in (program, "subtract(5829, 5735)"):
            with pytest.raises(ValueError, match="program"):
                execute_program(cut, TABLE)


def test_program_arguments_are_what_a_program_takes_from_its_page():
    program = "subtract(5829, 23.5%), divide(#0, const_100), table_max(margin, net, none), add(#1, multiply(7, #2))"
    assert program_arguments(program) == (["5829", "23.5%", "7"], ["margin, net"])


@pytest.mark.parametrize(
    "program", ["", "divide(1, 0)", "table_sum(no such row, none)", "power(1, 2)", "add(x, 1)", "add(1, 2, 3)",
                "add(#0, 1)", "add(1, 2) 3",
                "exp(-1, 0.5)", "exp(10, 999)", "add(1, 2), EOF", None, "add(greater(1, 2), 1)"],
)  # fmt: skip
def test_execute_program_says_what_is_wrong(program):
    with pytest.raises(ValueError, match="program"):
        execute_program(program, TABLE)
