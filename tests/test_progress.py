import io
import logging
import types

import pytest

from fer_jax.runtime import timing


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (48, "48 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (7559.9, "2 h 06 min"),
        (200 * 3600, "200 h 00 min"),
    ],
)
def test_durations_read_as_people_write_them(seconds, text):
    assert timing.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3569, "59 min"),
        (3571, "1.0 h"),
        (9.94 * 3600, "9.9 h"),
        (9.96 * 3600, "10 h"),
        (200 * 3600, "200 h"),
    ],
)
def test_rough_durations_have_no_more_digits_than_an_estimate_is_worth(seconds, text):
    assert timing.rough_duration(seconds) == text


def test_a_log_gets_a_line_now_and_then_with_the_rate_and_the_time_left(monkeypatch, caplog):
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(timing.sys, "stderr", types.SimpleNamespace(isatty=lambda: False))
    shown = timing.Progress("epoch 2/4", steps=500, batch_size=10, steps_after=(4 - 2) * 500)
    with caplog.at_level(logging.INFO, "fer_jax"):
        clock.now += timing.LINE_EVERY_SECONDS
        shown.update(120, 1.9)  # no line yet
        clock.now += 1 / 8
        shown.update(240, 1.5)
        clock.now += 1
        shown.update(250, 1.4)  # the last line is too near
    (line,) = caplog.messages
    # 120 steps in 1/8 s, whatever came before the first ones; 1,260 of three epochs are left
    assert line == "epoch 2/4 step 240/500: 960.00 steps/s, loss 1.5000, 9,600 images/s, 1 s left"
    assert shown.close() == 61.125


def test_a_slow_rate_keeps_a_decimal(monkeypatch, caplog):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(timing.sys, "stderr", types.SimpleNamespace(isatty=lambda: False))
    shown = timing.Progress("predicting", steps=15, batch_size=1, line_every_seconds=5)
    with caplog.at_level(logging.INFO, "fer_jax"):
        shown.update(1)
        clock.now += 16
        shown.update(5)
    assert caplog.messages == ["predicting step 5/15: 0.25 steps/s, 0.2 images/s, 40 s left"]


def test_the_bar_begins_with_the_first_steps_and_makes_one_estimate(monkeypatch):
    clock, terminal = types.SimpleNamespace(now=0.0), io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(timing.sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "300")
    shown = timing.Progress("epoch 1/1000", steps=500, batch_size=64, steps_after=999 * 500)
    clock.now += 30  # compiling
    assert terminal.getvalue() == ""
    shown.update(1, 6.8e19)
    for done in range(2, 100):
        clock.now += 0.1
        shown.update(done)
    shown.close()
    texts = [text for text in terminal.getvalue().split("\r") if "%" in text]
    assert texts
    assert all(len(text) <= 120 and "<" not in text and "step/s" not in text for text in texts)
    assert all("640 images/s" in text for text in texts if "images/s" in text)
    assert shown.left_seconds == pytest.approx((500_000 - 99) / 10)


def test_long_work_on_batches_is_followed_on_a_log(monkeypatch, caplog):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(timing.sys, "stderr", types.SimpleNamespace(isatty=lambda: False))
    with caplog.at_level(logging.INFO, "fer_jax"):
        for _ in timing.watched(range(100), "predicting", faces=2495, batch_size=25):
            clock.now += 1
    assert len(caplog.messages) == 100 // 6
    assert caplog.messages[0] == "predicting step 6/100: 1.00 steps/s, 25 images/s, 1 min 34 s left"


def test_the_account_of_a_start_fits_a_terminal():
    parts = dict.fromkeys(
        ("imports", "devices", "data", "model", "weights", "state", "features", "input", "compile", "step"), 123.4
    )
    text = timing.describe({"seconds": 1234.0, "parts": parts, "programs": 123, "programs_kept": 45})
    assert max(map(len, text.splitlines())) <= 120
    assert text.count("123.4 s") == 10
