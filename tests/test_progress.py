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
    # 240 steps in 60.125 s; 1,260 of three epochs are left
    assert line == "epoch 2/4 step 240/500: 3.99 steps/s, loss 1.5000, 40 images/s, 5 min 16 s left"
    assert shown.close() == 61.125
