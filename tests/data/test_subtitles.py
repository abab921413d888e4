import pytest

from coca_video.data.subtitles import Cue, to_srt, to_webvtt

CUES = [Cue(0, 1.5, "a dog runs"), Cue(1.5, 3, " \n"), Cue(59.9996, 3725.0404, "salt & <b>\n\npepper --> é")]


def test_srt():
    assert to_srt(CUES) == (
        "1\n00:00:00,000 --> 00:00:01,500\na dog runs\n"
        "\n"
        "2\n00:01:00,000 --> 01:02:05,040\nsalt & <b> pepper --> é\n"
    )


def test_webvtt():
    assert to_webvtt(CUES) == (
        "WEBVTT\n"
        "\n"
        "00:00:00.000 --> 00:00:01.500\na dog runs\n"
        "\n"
        "00:01:00.000 --> 01:02:05.040\nsalt &amp; &lt;b&gt; pepper --&gt; é\n"
    )


def test_no_cues():
    assert (to_srt([]), to_webvtt([])) == ("", "WEBVTT\n")


@pytest.mark.parametrize(
    ("seconds", "stamp"),
    [
        (0.0004, "00:00:00.000"),
        (0.0006, "00:00:00.001"),
        (1.001, "00:00:01.001"),
        (59.9994, "00:00:59.999"),
        (59.9996, "00:01:00.000"),
        (3599.9999, "01:00:00.000"),
        (360_000, "100:00:00.000"),
    ],
)
def test_time_stamps_round_to_milliseconds(seconds, stamp):
    assert to_webvtt([Cue(seconds, seconds, "x")]) == f"WEBVTT\n\n{stamp} --> {stamp}\nx\n"
    stamp = stamp.replace(".", ",")
    assert to_srt([Cue(seconds, seconds, "x")]) == f"1\n{stamp} --> {stamp}\nx\n"


@pytest.mark.parametrize(("start", "end"), [(2, 1), (-1, 1), (float("nan"), 1)])
def test_a_cue_runs_forward(start, end):
    with pytest.raises(ValueError, match=f"got start={start}, end={end}"):
        Cue(start, end, "x")
