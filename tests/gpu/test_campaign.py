"""The campaign's clock and records, by parts that are shell-short programs; nothing is compiled."""

import json
import signal
import threading
import time

import pytest

from tests.gpu.campaign import Campaign, Part, as_row, parts, steps
from tests.gpu.campaign_parts import seconds_by_class

SAYS = ("-c", "print('{\"figure\": 1}'); print('words')")
FAILS = ("-c", "print('{\"figure\": 2}'); raise SystemExit('no card')")
HANGS = ("-c", "print('{\"figure\": 3}', flush=True); import time; time.sleep(60)")


def campaign(path, minutes=1.0, **more):
    return Campaign(path, minutes, lambda need: need != "gpu", **more)


def ends(path):
    record = json.loads(path.read_text())
    return {part["name"]: part["ended"] for part in record["parts"]}, record


def test_a_part_that_fails_hangs_or_cannot_run_costs_no_other(tmp_path, capfd):
    path = tmp_path / "record.json"
    made = campaign(path, about={"toy": True})
    made.run(
        [
            Part("fails", FAILS, 30),
            Part("hangs", HANGS, 0.3),
            Part("needs", SAYS, 30, ("torch", "gpu")),
            Part("says", SAYS, 30),
        ]
    )
    ended, record = ends(path)
    assert ended == {
        "fails": "failed with 1",
        "hangs": "cut: after 0 s",
        "needs": "skipped: there is no gpu",
        "says": "done",
    }
    assert [part["rows"] for part in record["parts"]] == [[{"figure": 2}], [{"figure": 3}], [], [{"figure": 1}]]
    assert record["parts"][0]["last"] == "no card"
    assert (record["ended"], record["toy"]) == ("done", True)
    assert "says | words" in capfd.readouterr().out


def test_what_stands_in_the_record_is_not_repeated_and_what_failed_is(tmp_path):
    path = tmp_path / "record.json"
    campaign(path).run([Part("a", SAYS, 30), Part("b", FAILS, 30)])
    campaign(path).run([Part("a", ("-c", "raise SystemExit(1)"), 30), Part("b", SAYS, 30)])
    ended, record = ends(path)
    assert ended == {"a": "done", "b": "done"}
    assert all(part["rows"] == [{"figure": 1}] for part in record["parts"])


def test_no_part_begins_when_too_little_time_is_left(tmp_path):
    path = tmp_path / "record.json"
    now = [0.0]
    made = campaign(path, 0.5, clock=lambda: now[0])
    now[0] = 15.0
    made.run([Part("late", SAYS, 30)])
    ended, record = ends(path)
    assert ended == {"late": "skipped: 15 s are left"}
    assert record["ended"] == "time was up"


def test_a_campaign_that_is_told_to_end_keeps_its_figures(tmp_path):
    path = tmp_path / "record.json"
    made = campaign(path)

    def stop():
        while not (path.exists() and json.loads(path.read_text())["parts"][0]["rows"]):
            time.sleep(0.02)
        made.stop(signal.Signals.SIGTERM.name)

    stopping = threading.Thread(target=stop)
    stopping.start()
    began = time.monotonic()
    made.run([Part("hangs", HANGS, 60), Part("says", SAYS, 30)])
    stopping.join()
    assert time.monotonic() - began < 30
    ended, record = ends(path)
    assert ended == {"hangs": "cut: SIGTERM"}
    assert record["parts"][0]["rows"] == [{"figure": 3}]
    assert record["ended"] == "SIGTERM"


def test_parts_have_names_of_their_own_and_toys_run_the_same():
    names = [part.name for part in parts(toy=False)]
    assert len(set(names)) == len(names)
    assert [part.name for part in parts(toy=True)] == names
    assert all(part.limit < 540 for part in parts(toy=False))
    assert steps("b16", "b16", "mmjax", limit=1).words[-2:] == ("b16", "mmjax")


@pytest.mark.parametrize(("line", "row"), [('{"a": 1}\n', {"a": 1}), ("{a}\n", None), ("[1]\n", None), ("", None)])
def test_rows_are_lines_that_are_objects(line, row):
    assert as_row(line) == row


def test_seconds_of_a_trace_are_summed_by_the_planners_classes():
    text = """
ENTRY %main (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  %dot = f32[8,8]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %tanh = f32[8,8]{1,0} tanh(%dot)
  ROOT %copy = f32[8,8]{0,1} copy(%tanh)
}
"""
    events = [("dot", 1.0), ("tanh", 2.0), ("dot", 0.5), ("copy", 4.0), ("memcpy", 8.0)]
    assert seconds_by_class(events, text) == {
        "products": 1.5,
        "elementwise": 2.0,
        "transposes and copies": 4.0,
        "not in the program": 8.0,
    }
