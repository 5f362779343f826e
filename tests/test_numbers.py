"""training/numbers.py: one parser, one unit, a scale that maps back, FinQA's programs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finmatryoshka.data.finqa import execute_program, finqa_number
from finmatryoshka.data.numbers import SignedLogScaler, parse_number
from finmatryoshka.data.tatqa import tatqa_number


@pytest.mark.parametrize(
    "text, number",
    [
        ("$ 94 million", 94e6), ("-32 ( 32 )", -32), ("( 1,234 )", -1234), ("14.6%", 0.146), ("2.23", 2.23), (1e18, 1e18),
        ("$ -5.2", -5.2), ("($1,234.5)", -1234.5), ("-15.0% ( 15.0 % )", -0.15), ("(15)%", -0.15), ("4.9\\n", 4.9),
        ("1.5e3", 1500), ("3 billion", 3e9), (7, 7), (["12"], 12), ("−4", -4),
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
        ("subtract(5829, 5735), divide(#0, 5735)", 94 / 5735), ("divide(114, const_100)", 1.14), ("greater(14, 19)", "no"),
        ("table_sum(total obligations, none)", 30), ("table_average(margin, net, none)", 0.03), ("exp(2, const_3)", 8),
        ("table_max(margin, net, none), multiply(#0, const_m1)", -0.04),
    ],
)  # fmt: skip
def test_execute_program(program, result):
    assert execute_program(program, TABLE) == (pytest.approx(result) if not isinstance(result, str) else result)


@pytest.mark.parametrize("program", ["", "divide(1, 0)", "table_sum(no such row, none)", "power(1, 2)", "add(x, 1)"])
def test_execute_program_says_what_is_wrong(program):
    with pytest.raises(ValueError, match="program"):
        execute_program(program, TABLE)
