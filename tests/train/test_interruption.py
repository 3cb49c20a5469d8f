"""What a run hears of signals: the first one asks it to stop, and only a second Ctrl-C makes it leave at once."""

import os
import signal

import pytest

from mmjax.cli.main import main
from mmjax.train.interruption import Interruption, nothing_begun


def hear(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)  # to this very thread: the handler has run when it returns


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_again_changes_nothing(first):
    with Interruption() as interruption:
        try:
            hear(first, signal.SIGTERM, signal.SIGTERM)
        except KeyboardInterrupt:
            pytest.fail("it was interrupted at once")  # what goes through would end pytest itself
        assert interruption.signal == first
        assert interruption.asked()


def test_what_a_second_ctrl_c_does_is_told(capfd):
    with Interruption():
        hear(signal.SIGINT)
    assert (
        capfd.readouterr().err
        == "\nSIGINT: finishing this step and saving; Ctrl-C again stops at once, without saving\n"
    )


def test_ctrl_c_after_a_signal_interrupts_at_once():
    with Interruption(), pytest.raises(KeyboardInterrupt):
        hear(signal.SIGTERM, signal.SIGINT)


def test_the_end_after_sigterm_is_without_fault_and_after_ctrl_c_its_own():
    with Interruption() as interruption:
        hear(signal.SIGTERM)
        assert interruption.asked()
    end = interruption.end()
    assert isinstance(end, SystemExit)
    assert end.code == 0
    with Interruption() as interruption:
        hear(signal.SIGINT)
        assert interruption.asked()
    assert isinstance(interruption.end(), KeyboardInterrupt)


def test_sigterm_while_a_run_starts_ends_it_without_fault(monkeypatch, tmp_path, capfd):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("mmjax.experiment.load.load_experiment", lambda *_: hear(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        main(["train", "nothing.py", "--workdir", str(tmp_path / "run")])
    assert ended.value.code == 0
    assert "SIGTERM: no step is being taken, so there is nothing to save" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_once_it_trains_the_step_is_finished_first_and_after_it_that_holds_again():
    with nothing_begun():
        with Interruption() as interruption:
            hear(signal.SIGTERM)
            assert interruption.asked()
        with pytest.raises(SystemExit, match="0"):
            hear(signal.SIGTERM)
