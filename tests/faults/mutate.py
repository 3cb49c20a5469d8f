"""Takes each mechanism that protects a run away, in a copy, and shows that its test then fails.

python -m tests.faults.mutate --json experiments/records/mutate.json
python -m tests.faults.mutate --only lock spike

Every test is first seen to pass on the copy as it is. A mutation whose text is no longer in its file is an error.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.machine import machine

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 600  # seconds for one test
READERS = "tests/data/workers/test_readers.py"


@dataclass(frozen=True)
class Mutation:
    """A mechanism: of which promise ("What a run survives" in experiments/README.md), the text that does it, what takes
    its place, and the test that must notice."""

    promise: int
    file: str
    text: str
    instead: str
    test: str


MUTATIONS = {
    # 1: resumed bit for bit
    "the data goes on at the restored step": Mutation(
        *(1, "data/pipeline.py", "[step * count + index :: count]", "[index::count]"),
        "tests/data/test_pipeline.py::test_resuming_at_a_step_goes_on_bit_for_bit",
    ),
    "later lines of the metrics are dropped": Mutation(
        *(1, "runtime/metrics.py", 'in found if line["step"] <= step]', "in found]"),
        "tests/runtime/test_metrics.py::test_going_on_drops_what_came_after_the_checkpoint",
    ),
    "the whole state is restored, the average too": Mutation(
        *(1, "train/step.py", "ema=keep(moved, state.ema),", "ema=keep(params, state.ema),"),
        "tests/train/test_step.py::test_ema_starts_from_the_parameters_and_follows_them",
    ),
    "the hash of a batch is that of its examples": Mutation(
        *(1, "train/step.py", "for part in (id[:, 0], id[:, 1]):", "for part in (id[:, 0],):"),
        "tests/train/test_step.py::test_the_hash_of_a_batch_goes_by_its_examples_and_their_rows",
    ),
    "a record that was damaged isn't read": Mutation(
        *(1, "experiment/record.py", "if not digests.unbroken(record):", "if False:"),
        "tests/runtime/test_copies.py::test_no_bit_of_a_record_can_be_flipped_unseen",
    ),
    "what is damaged comes back from the copies": Mutation(
        *(1, "train/loop.py", "hosts.first(partial(copies.mend, workdir, print))", "pass"),
        "tests/runtime/test_copies.py::test_a_run_goes_on_with_what_it_began_with",
    ),
    "tokenizers have digests": Mutation(
        *(1, "data/tokenizers/files.py", "if listed.is_file() and (problems", "if False and (problems"),
        "tests/runtime/test_copies.py::test_without_copies_what_is_damaged_is_refused_by_name",
    ),
    "a cached tokenizer has a digest": Mutation(
        *(1, "data/tokenizers/sentence_piece.py", "or (seal.is_file() and", "or (False and"),
        "tests/data/tokenizers/test_sentence_piece.py::test_training_happens_once_and_depends_on_captions_and_settings",
    ),
    "a model is read with the copies": Mutation(
        *(
            1,
            "interop/resolve.py",
            "tokenizers = copies.whole(Path(path), TOKENIZERS)",
            "tokenizers = Path(path / TOKENIZERS)",
        ),
        "tests/runtime/test_copies.py::test_a_model_is_read_with_the_copies_and_says_so",
    ),
    "lost lines of the metrics come back": Mutation(
        *(1, "runtime/metrics.py", "copy = copies.of_step(workdir, step) / FILE", 'copy = workdir / "nothing"'),
        "tests/runtime/test_copies.py::test_metrics_that_were_lost_come_back",
    ),
    "lost bad examples come back": Mutation(
        *(
            1,
            "train/bad_examples.py",
            "copy = copies.of_step(workdir, start) / self.path.name",
            'copy = workdir / "nothing"',
        ),
        "tests/runtime/test_copies.py::test_bad_examples_that_were_lost_come_back",
    ),
    "bytes that are no text": Mutation(
        *(1, "runtime/jsonl.py", "content.split(", "content.decode().encode().split("),
        "tests/runtime/test_copies.py::test_metrics_that_were_lost_come_back",
    ),
    "the best stay although their scores are lost": Mutation(
        *(1, "runtime/retention.py", "*(self.held - scores.keys()), ", ""),
        "tests/runtime/test_retention.py::test_what_is_held_stays",
    ),
    "an export has digests": Mutation(
        *(1, "interop/bundle.py", "if (folder / digests.NAME).is_file() and", "if False and"),
        "tests/interop/test_bundle.py::test_no_bit_is_flipped_unseen",
    ),
    "embeddings are compared with their digests": Mutation(
        *(1, "data/embedding_files.py", 'if told["digests"][name] != digest(folder, name):', "if False:"),
        "tests/data/test_embedding_files.py::test_a_bit_that_was_flipped_is_seen",
    ),
    # 2: other machines
    "batched first and sliced after": Mutation(
        *(2, "data/pipeline.py", ".batch(rows)[step * count + index :: count]", "[index::count].batch(rows)[step:]"),
        "tests/data/test_pipeline.py::test_the_global_batch_is_the_same_for_any_number_of_hosts",
    ),
    "keys go by the row of the global batch": Mutation(
        *(2, "data/chains.py", '{"index": np.uint32(place)', '{"index": np.uint32(0)'),
        "tests/multiprocess/test_agreement.py::test_a_mesh_of_woven_hosts_permutes_the_batch_and_index_tells_how",
    ),
    # 3: SIGTERM
    "SIGTERM is heard": Mutation(
        *(3, "train/interruption.py", "SIGNALS = (signal.SIGINT, signal.SIGTERM)", "SIGNALS = (signal.SIGINT,)"),
        "tests/multiprocess/test_training.py::test_sigterm_in_one_stops_both_and_one_process_goes_on",
    ),
    "SIGTERM that comes twice changes nothing": Mutation(
        *(3, "train/interruption.py", "if number == signal.SIGINT:", "if True:"),
        "tests/train/test_interruption.py::test_sigterm_again_changes_nothing",
    ),
    "SIGTERM while a run starts": Mutation(
        *(3, "train/interruption.py", "raise SystemExit(0)", "raise SystemExit(1)"),
        "tests/train/test_interruption.py::test_sigterm_while_a_run_starts_ends_it_without_fault",
    ),
    "SIGTERM before a supervised run hears it": Mutation(
        *(3, "train/supervise.py", "if relay.heard == signal.SIGTERM and code == -signal.SIGTERM:", "if False:"),
        "tests/train/test_supervise.py::test_sigterm_before_the_run_hears_signals_is_an_end_without_fault",
    ),
    "the hosts agree on the step": Mutation(
        *(3, "train/run.py", "Interruption(hosts.Largest(setup.mesh))", "Interruption()"),
        "tests/multiprocess/test_training.py::test_sigterm_in_one_stops_both_and_one_process_goes_on",
    ),
    # 4: a checkpoint is whole or it isn't there
    "digests are compared": Mutation(
        *(
            4,
            "runtime/files/digests.py",
            'if read["of this list"] != _of_list(pairs):',
            'return []\n        if read["blake2b"]:',
        ),
        "tests/runtime/test_checkpoints.py::test_damage_to_any_file_is_seen_named_and_set_aside",
    ),
    "a damaged checkpoint is set aside, not overwritten": Mutation(
        *(4, "runtime/checkpoints.py", "next(name for name in names if not name.exists())", "next(names)"),
        "tests/runtime/test_checkpoints.py::test_what_was_set_aside_is_never_overwritten",
    ),
    "--strict": Mutation(
        *(4, "train/loop.py", "whole_step(workdir, strict=strict, say=print)", "whole_step(workdir, say=print)"),
        "tests/train/test_loop.py::test_a_damaged_checkpoint_is_set_aside_and_the_run_ends_as_it_did",
    ),
    "names, shapes and dtypes are compared": Mutation(
        *(4, "runtime/checkpoints.py", "if here != there]", "if False]"),
        "tests/runtime/test_checkpoints.py::test_a_mismatch_lists_both_sides",
    ),
    "parameters alone are checked too": Mutation(
        *(4, "runtime/checkpoints.py", "if problems := digests.problems(path):", "if problems := []:"),
        "tests/runtime/test_checkpoints.py",
    ),
    "a full disk is told, and what is there stays": Mutation(
        *(
            4,
            "runtime/checkpoints.py",
            "except Exception as error:  # OSError",
            "except ZeroDivisionError as error:  # OSError",
        ),
        "tests/runtime/test_checkpoints.py::test_a_disk_that_fills_while_saving_is_an_error_and_leaves_the_step_before",
    ),
    "a full disk is told in one line": Mutation(
        *(4, "cli/main.py", "if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):"),
        "if True:",
        "tests/cli/test_main.py::test_a_full_disk_is_one_line_with_its_place_and_what_is_free",
    ),
    "and without the tracebacks of Orbax's threads": Mutation(
        *(
            4,
            "runtime/checkpoints.py",
            "record.levelno >= logging.ERROR and not record.exc_info",
            "record.levelno >= 40",
        ),
        "tests/runtime/test_checkpoints.py::test_a_disk_that_fills_while_saving_is_an_error_and_leaves_the_step_before",
    ),
    "what TensorBoard's disk refuses is told where it is written": Mutation(
        *(4, "runtime/tensorboard.py", "        self._events.flush()", "        pass"),
        "tests/runtime/test_tensorboard.py::test_a_full_disk_is_an_error_where_it_is_written_and_no_thread_tells_of_it",
    ),
    # 5: bad examples
    "what PIL raises is a bad example": Mutation(
        *(5, "data/decoding/pictures.py", "except Exception as error:", "except OSError as error:"),
        "tests/data/transforms/test_image.py::test_what_is_no_picture_at_all_is_undecodable_too",
    ),
    "a picture's size is looked at first": Mutation(
        *(5, "data/decoding/pictures.py", "picture.width * picture.height > most_pixels", "False"),
        "tests/data/transforms/test_image.py::test_a_picture_that_is_too_large_to_unpack_is_told_by_its_header",
    ),
    "a sound's length is looked at first": Mutation(
        *(5, "data/decoding/sounds.py", "if frames <= most else None", "if True else None"),
        "tests/data/transforms/test_audio.py::test_a_sound_that_is_too_long_to_unpack_is_told_by_its_header",
    ),
    "NaN in a waveform": Mutation(
        *(5, "data/decoding/loudness.py", "if not np.isfinite(loudest):", "if False:"),
        "tests/data/transforms/test_audio.py::test_samples_that_are_not_finite_are_bad",
    ),
    "what is bad is marked": Mutation(
        *(5, "data/chains.py", "np.asarray(value.code, np.uint8)", "np.asarray(0, np.uint8)"),
        "tests/data/test_chains.py::test_what_is_bad_is_zeros_and_named_in_the_log_a_few_times",
    ),
    "bad examples are counted": Mutation(
        *(5, "train/guard.py", '"bad": counts["bad"] + now,', '"bad": counts["bad"],'),
        "tests/train/test_bad_examples.py::test_they_are_counted_by_kind_in_the_metrics",
    ),
    "they are named, once": Mutation(
        *(5, "train/bad_examples.py", "self._known.add((source, identity, modality))", "pass"),
        "tests/train/test_bad_examples.py::test_each_record_is_written_down_once_with_its_step",
    ),
    "too many stop the run": Mutation(
        *(5, "train/bad_examples.py", "if share > most and (seen >= LEAST or (last and share == 1)):", "if False:"),
        "tests/train/test_bad_examples.py::test_too_many_stop_the_run_saved_with_a_summary_and_a_higher_bound_lets_it_go_on",
    ),
    # 6: bad steps
    "a loss that isn't finite is skipped": Mutation(
        *(6, "train/guard.py", "jnp.isfinite(loss) & jnp.isfinite(gradient_norm)", "jnp.isfinite(gradient_norm)"),
        "tests/train/test_guard.py::test_what_is_not_finite_is_skipped_and_counted",
    ),
    "a skipped step leaves the optimiser alone": Mutation(
        *(6, "train/step.py", "opt_state=keep(opt_state, state.opt_state),", "opt_state=opt_state,"),
        "tests/train/test_step.py::test_a_step_that_is_not_finite_changes_nothing_but_the_clock",
    ),
    "a skipped step leaves the parameters alone": Mutation(
        *(6, "train/step.py", "jnp.where(good, -lr * u, 0)", "-lr * u"),
        "tests/train/test_step.py::test_a_step_that_is_not_finite_changes_nothing_but_the_clock",
    ),
    "a spike is skipped": Mutation(
        *(6, "train/guard.py", "good &= ~spikes", "pass"),
        "tests/train/test_step.py::test_a_spike_changes_nothing_but_the_clock_and_without_the_rule_it_does",
    ),
    "too many in a row stop the run": Mutation(
        *(6, "train/loop.py", "if log.bad_in_a_row > experiment.most_bad_steps:", "if False:"),
        "tests/train/test_replay.py::test_a_run_of_bad_steps_stops_and_says_which",
    ),
    "NaN of a row that isn't valid stays out of the gradient": Mutation(
        *(6, "objectives/contrastive/objective.py", "selected(valid(batch, view.input), encoded[view].embedding)"),
        "encoded[view].embedding",
        "tests/objectives/contrastive/test_objective.py::test_nan_in_a_row_that_is_not_valid_is_in_no_gradient",
    ),
    "and of all towers": Mutation(
        *(6, "objectives/pretrainer.py", "**present(batch)}", "**batch}"),
        "tests/objectives/test_pretrainer.py"
        "::test_nan_in_a_row_that_is_not_valid_is_in_no_loss_no_metric_and_no_gradient",
    ),
    "ids outside the vocabulary make NaN too": Mutation(
        *(6, "objectives/contract.py", " or x.dtype == jnp.int32", ""),
        "tests/objectives/test_pretrainer.py"
        "::test_nan_in_a_row_that_is_not_valid_is_in_no_loss_no_metric_and_no_gradient",
    ),
    "a mean over nothing is a number": Mutation(
        *(
            6,
            "models/layers/pooling.py",
            "(total / counts).astype(",
            "(total / mask.sum(axis=1, keepdims=True)).astype(",
        ),
        "tests/models/towers/test_contract.py::test_no_pooling_makes_nan_where_nothing_is_real_nor_of_its_gradient",
    ),
    "attention to nothing is a number": Mutation(
        *(6, "models/layers/attention.py", "jnp.where(seen, logits, jnp.finfo(logits.dtype).min)"),
        "jnp.where(seen, logits, -jnp.inf)",
        "tests/models/towers/test_contract.py::test_no_tower_makes_nan_of_a_row_of_nothing_nor_of_its_gradient",
    ),
    "and of that of next-sentence prediction": Mutation(
        *(
            6,
            "objectives/next_sentence.py",
            "selected(valid(batch, self.modality), encoded[self.views()[0]].embedding)",
        ),
        "encoded[self.views()[0]].embedding",
        "tests/objectives/test_next_sentence.py::test_it_equals_numpy_over_the_valid_rows_alone",
    ),
    "fp16 is warned of": Mutation(
        *(6, "experiment/definition.py", 'value == "float16"', 'value == "float8"'),
        "tests/experiment/test_definition.py::test_what_computes_in_fp16_is_named_for_no_loss_is_scaled",
    ),
    # 7: a host that dies or hangs
    "heartbeats": Mutation(
        *(7, "runtime/hosts.py", "heartbeat_timeout_seconds=heartbeat,", "heartbeat_timeout_seconds=3600,"),
        "tests/faults/test_hosts.py::test_a_host_that_hangs_ends_the_other_within_a_minute",
    ),
    "a run that dies is started again": Mutation(
        *(7, "train/supervise.py", "if code in (0, USER, CTRL_C) or relay.heard:", "if True:"),
        "tests/train/test_supervise.py::test_what_dies_is_started_again_until_it_ends",
    ),
    "an error that would come again is the last word": Mutation(
        *(7, "train/supervise.py", "if code in (0, USER, CTRL_C) or", "if code in (0, CTRL_C) or"),
        "tests/train/test_supervise.py::test_an_end_an_error_that_would_come_again_and_ctrl_c_are_the_last_word",
    ),
    "a reader that hangs is noticed": Mutation(
        *(7, "runtime/prefetch.py", "self._ready.get(timeout=self._patience)", "self._ready.get()"),
        "tests/runtime/test_mesh.py::test_a_source_that_hangs_is_told_after_its_time",
    ),
    "of the readers the one that is stopped is named": Mutation(
        *(7, "runtime/prefetch.py", "[pid for pid in readers if _stopped(pid)]", "[]"),
        "tests/runtime/test_mesh.py::test_of_the_processes_that_read_the_one_that_is_stopped_is_named",
    ),
    "a reader that is killed is told": Mutation(
        *(
            7,
            "data/workers/readers.py",
            "if (found := KILLED.search(str(error))) is None:",
            "if (found := None) is None:",
        ),
        f"{READERS}::test_a_reader_that_is_killed_is_told_and_the_end_leaves_nothing",
    ),
    "readers end when the run does": Mutation(
        *(7, "data/workers/readers.py", "    parent.join()", "    threading.Event().wait()"),
        f"{READERS}::test_a_kill_of_the_training_process_takes_its_readers_along_and_their_memory",
    ),
    "one that is stopped is woken for it": Mutation(
        *(
            7,
            "data/workers/readers.py",
            "prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)",
            "prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)",
        ),
        f"{READERS}::test_a_kill_of_the_training_process_takes_its_readers_along_and_their_memory",
    ),
    "they remove what they had sent": Mutation(
        *(7, "data/workers/readers.py", "address.discard_dead(wait=True)", "pass"),
        f"{READERS}::test_a_kill_of_the_training_process_takes_its_readers_along_and_their_memory",
    ),
    "or the next run does": Mutation(
        *(7, "data/workers/parcels.py", "Address(path.stem).discard_dead(wait=False)", "pass"),
        f"{READERS}::test_what_a_kill_of_all_leaves_the_next_run_removes_and_no_more_than_that",
    ),
    "of the dead alone": Mutation(
        *(7, "data/workers/parcels.py", "fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_UN"),
        f"{READERS}::test_what_a_kill_of_all_leaves_the_next_run_removes_and_no_more_than_that",
    ),
    "a batch that is taken leaves no memory": Mutation(
        *(
            7,
            "data/workers/parcels.py",
            "    finally:\n        memory.close()\n        memory.unlink()",
            "    finally:\n        pass",
        ),
        "tests/data/workers/test_parcels.py::test_a_batch_comes_out_as_it_went_in_and_its_memory_is_gone",
    ),
    "no space in shared memory": Mutation(
        *(7, "data/workers/parcels.py", "os.posix_fallocate(descriptor, 0, max(size, 1))", "pass"),
        "tests/data/workers/test_parcels.py::test_without_space_or_without_shared_memory_the_batch_goes_as_it_is",
    ),
    "semaphores are named after their makers": Mutation(
        *(7, "data/workers/readers.py", "        semaphores.name_ours()\n", ""),
        f"{READERS}::test_what_a_kill_of_all_leaves_the_next_run_removes_and_no_more_than_that",
    ),
    "the next run removes those of the dead": Mutation(
        *(
            7,
            "data/workers/semaphores.py",
            '["semprefix"] = f"/{PREFIX}-{maker}"  # type: ignore[attr-defined]\n    sweep()',
        ),
        '["semprefix"] = f"/{PREFIX}-{maker}"',
        f"{READERS}::test_what_a_kill_of_all_leaves_the_next_run_removes_and_no_more_than_that",
    ),
    "and none of the living": Mutation(
        *(7, "data/workers/semaphores.py", 'and _maker(int(pid)) != f"{there}-{pid}-{started}"', ""),
        f"{READERS}::test_what_a_kill_of_all_leaves_the_next_run_removes_and_no_more_than_that",
    ),
    "a number that another process has now is no life": Mutation(
        *(7, "data/workers/semaphores.py", '!= f"{there}-{pid}-{started}"', "is None"),
        f"{READERS}::test_names_of_other_makers_are_told_from_those_of_the_dead",
    ),
    "nor can it be told in another space of processes": Mutation(
        *(7, "data/workers/semaphores.py", "if there == space and", "if"),
        f"{READERS}::test_names_of_other_makers_are_told_from_those_of_the_dead",
    ),
    "a signal reaches the supervised run": Mutation(
        *(
            7,
            "train/supervise.py",
            "            self._process.send_signal(number)\n\n    def",
            "            pass\n\n    def",
        ),
        "tests/train/test_supervise.py::test_a_signal_reaches_the_run_once_and_its_end_counts",
    ),
    "a terminal's Ctrl-C is not passed on a second time": Mutation(
        *(7, "train/supervise.py", "if number == signal.SIGINT and _foreground():", "if False:"),
        "tests/train/test_supervise.py::test_ctrl_c_on_a_terminal_which_reaches_both_is_heard_once",
    ),
    # 8: two runs on one workdir
    "lock": Mutation(
        *(8, "runtime/lock.py", "fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass"),
        "tests/runtime/test_lock.py::test_a_second_run_is_refused_and_told_who_has_it",
    ),
    # 9: no code from data, nothing written elsewhere, no bombs
    "experiment.json names nothing off the list": Mutation(
        *(9, "experiment/record.py", "or called not in names:", "or False:"),
        "tests/experiment/test_record.py::test_nothing_off_the_list_is_imported",
    ),
    "arrays between hosts hold no objects": Mutation(
        *(
            9,
            "runtime/hosts.py",
            "isinstance(value, np.ndarray) and value.dtype != object",
            "isinstance(value, np.ndarray)",
        ),
        "tests/runtime/test_hosts.py::test_nothing_else_can_be_said",
    ),
    "names in a record are plain": Mutation(
        *(9, "runtime/files/names.py", 'and not {*"/\\\\"} & {*name}', ""),
        "tests/runtime/files/test_names.py::test_what_leads_elsewhere_is_refused",
    ),
    "all names that become files are looked at": Mutation(
        *(9, "experiment/definition.py", "        self._check_names()\n", ""),
        "tests/experiment/test_confined.py::test_names_that_lead_elsewhere_are_refused_by_every_command",
    ),
    "a record's tokenizers come from its workdir": Mutation(
        *(9, "experiment/confined.py", "if modality in kept or", "if True or modality in kept or"),
        "tests/experiment/test_confined.py::test_tokenizers_come_from_the_workdir_alone",
    ),
    "nothing is built where a record says": Mutation(
        *(9, "experiment/confined.py", "if named and (command := source.to_build()) is not None:", "if False:"),
        "tests/experiment/test_confined.py::test_nothing_is_built_where_a_record_says",
    ),
    "datasets have plain names": Mutation(
        *(9, "data/datasets/prepare.py", 'for part in re.split("[/:]", name):', "for part in ():"),
        "tests/experiment/test_confined.py::test_datasets_have_plain_names",
    ),
    "links out of a workdir are not written through": Mutation(
        *(9, "experiment/confined.py", "if stat.S_ISLNK(mode) and not Path(", "if False and not Path("),
        "tests/experiment/test_confined.py::test_links_out_of_a_workdir_are_not_written_through",
    ),
    "tokenizers are not read through links": Mutation(
        *(9, "data/tokenizers/files.py", "or not Path(os.path.realpath(file)).is_relative_to(home)", ""),
        "tests/experiment/test_confined.py::test_a_tokenizer_that_is_a_link_elsewhere_or_a_pipe_is_not_read",
    ),
    "nesting is bounded": Mutation(
        *(9, "experiment/record.py", "if len(path) > DEEPEST:", "if False:"),
        "tests/experiment/test_record.py::test_parts_within_parts_without_end_are_refused",
    ),
    "what is no file is not opened": Mutation(
        *(9, "runtime/files/regular.py", "    if not stat.S_ISREG(mode):", "    if False:"),
        "tests/runtime/files/test_regular.py::test_what_is_no_file_is_named_and_not_opened",
    ),
    "commands look at the record first": Mutation(
        *(
            9,
            "runtime/files/json_text.py",
            'return regular.content(path).decode("utf-8")',
            'return path.read_bytes().decode("utf-8")',
        ),
        "tests/runtime/files/test_regular.py::test_no_command_waits_for_a_record_that_is_no_file",
    ),
    "lines of metrics are a file's": Mutation(
        *(9, "runtime/jsonl.py", "regular.content(path, LARGEST)", "path.read_bytes()"),
        "tests/runtime/files/test_regular.py::test_nothing_waits_for_numbers_or_digests_that_are_no_files",
    ),
    "a stopped reader is woken for the end": Mutation(
        *(7, "data/workers/readers.py", "os.kill(pid, signal.SIGCONT)", "pass"),
        f"{READERS}::test_readers_are_woken_before_they_are_waited_for",
    ),
    "digests are those of files": Mutation(
        *(
            9,
            "runtime/files/digests.py",
            "        regular.check(path)",
            "        return 0, ''",
        ),  # to open a pipe would take for ever
        "tests/runtime/files/test_regular.py::test_nothing_waits_for_numbers_or_digests_that_are_no_files",
    ),
    "a text is of a bounded size": Mutation(
        *(9, "runtime/files/regular.py", "    if size > most:", "    if False:"),
        "tests/runtime/files/test_regular.py::test_what_is_too_large_is_not_read",
    ),
    "deep JSON is an error of JSON": Mutation(
        *(9, "runtime/files/json_text.py", "except RecursionError:", "except ZeroDivisionError:"),
        "tests/runtime/files/test_json_text.py::test_what_is_no_json_is_a_value_error",
    ),
    "sizes beyond any array": Mutation(
        *(9, "experiment/bounds.py", "abs(value) > LARGEST", "False"),
        "tests/experiment/test_bounds.py::test_numbers_that_can_not_be_are_named_by_their_paths",
    ),
    "weights are finite": Mutation(
        *(9, "experiment/bounds.py", "(math.isinf(value) and name not in UNBOUNDED)", "False"),
        "tests/experiment/test_bounds.py::test_numbers_that_can_not_be_are_named_by_their_paths",
    ),
    "an archive's sizes are looked at first": Mutation(
        *(9, "runtime/files/archives.py", "if unpacked > max(SMALL, TIMES * size):", "if False:"),
        "tests/runtime/files/test_archives.py::test_pytorch_s_zip_is_looked_at_before_it_is_opened",
    ),
    "an archive's names are looked at first": Mutation(
        *(
            9,
            "interop/big_vision/layout.py",
            "found, notes = named(table)",
            "found, notes = named(archives.npz(path, table))",
        ),
        "tests/runtime/files/test_archives.py::test_what_is_no_model_is_refused_by_its_names_before_it_is_unpacked",
    ),
    "an array fills its member": Mutation(
        *(9, "runtime/files/archives.py", "if said != there or min(shape, default=0) < 0:", "if False:"),
        "tests/runtime/files/test_archives.py::test_heads_that_lie_are_told",
    ),
    "numbers in the place of texts": Mutation(
        *(9, "interop/onnx.py", "if not isinstance(value, memoryview):", "if False:"),
        "tests/interop/test_onnx.py::test_what_is_no_such_file_says_why",
    ),
    # 10: a visitor of the page reads what was uploaded, and nothing else
    "only what lies below the folder of uploads": Mutation(
        *(10, "inference/demo/uploads.py", "if not real.is_relative_to(home):", "if False:"),
        "tests/inference/demo/test_uploads.py::test_a_visitor_reads_nothing_that_was_not_uploaded",
    ),
    "by its real path": Mutation(
        *(
            10,
            "inference/demo/uploads.py",
            "Path(os.path.realpath(path)), os.path.realpath(folder)",
            "Path(path), str(folder)",
        ),
        "tests/inference/demo/test_uploads.py::test_only_regular_files_below_the_folder_of_a_bounded_size",
    ),
    "regular files alone": Mutation(
        *(10, "inference/demo/uploads.py", "if not stat.S_ISREG(found.st_mode):", "if False:"),
        "tests/inference/demo/test_uploads.py::test_a_visitor_reads_nothing_that_was_not_uploaded",
    ),
    "pages of others are refused": Mutation(
        *(10, "inference/demo/uploads.py", "elif not reads and self._foreign(scope, headers):", "elif False:"),
        "tests/inference/demo/test_uploads.py::test_uploads_and_calls_of_other_pages_are_refused",
    ),
    "what goes on beyond its bound is cut off": Mutation(
        *(10, "inference/demo/uploads.py", "if came > most:", "if False:"),
        "tests/inference/demo/test_uploads.py::test_what_is_too_large_is_cut_off",
    ),
    "older uploads make room": Mutation(
        *(10, "inference/demo/uploads.py", "self._sweep(self._room - size)", "pass"),
        "tests/inference/demo/test_uploads.py::test_the_disk_of_uploads_is_bounded_and_emptied",
    ),
    "what has been there for a while goes": Mutation(
        *(10, "inference/demo/uploads.py", "if now - written > self._kept or", "if"),
        "tests/inference/demo/test_uploads.py::test_the_disk_of_uploads_is_bounded_and_emptied",
    ),
    "other doors of gradio": Mutation(
        *(10, "inference/demo/uploads.py", "if CLOSED.match(path):", "if False:"),
        "tests/inference/demo/test_uploads.py::test_other_doors_of_gradio_are_closed",
    ),
}


def copied(folder: Path) -> Path:
    """A copy of what git knows of, and of what it would add."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def passes(copy: Path, test: str) -> tuple[bool, str]:
    """Whether a test passes on the copy, and the end of what pytest said; errors of pytest itself are raised."""
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(words, cwd=copy, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return False, f"not over after {PATIENCE} s"
    last = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR")) or " in " in line][-2:]
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{test}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.returncode == 0, " ".join(" ".join(last).split())[:200]


def mutated(copy: Path, mutation: Mutation) -> tuple[bool, str]:
    """Whether the test passes without the mechanism (it must not), and what pytest said."""
    file = copy / "mmjax" / mutation.file
    before = file.read_text(encoding="utf-8")
    if before.count(mutation.text) != 1:
        raise RuntimeError(f"{mutation.file} has {mutation.text!r} {before.count(mutation.text)} times, not once")
    file.write_text(before.replace(mutation.text, mutation.instead), encoding="utf-8")
    try:
        return passes(copy, mutation.test)
    finally:
        file.write_text(before, encoding="utf-8")


def pass_together(copy: Path, tests: Sequence[str]) -> set[str]:
    """Which of the tests pass on the copy: all in one process, and those that fail there once more, each alone."""
    words = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, cwd=copy, env=environment, capture_output=True, text=True)
    lines = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith("PASSED ")]
    bad = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    found = {test for test in tests if any(line.startswith(test) for line in lines)}
    found -= {test for test in tests if any(line.startswith(test) for line in bad)}
    return found | {test for test in set(tests) - found if passes(copy, test)[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORD", default=[""], help="mechanisms whose name has such a word")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time (default: a core each)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    chosen = {name: m for name, m in MUTATIONS.items() if any(word in name for word in arguments.only)}
    tests = sorted({mutation.test for mutation in chosen.values()})
    with tempfile.TemporaryDirectory() as name:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for job in range(arguments.jobs):
            copies.put(copied(Path(name) / str(job)))

        def as_it_is(part: list[str]) -> set[str]:
            copy = copies.get()
            try:
                return pass_together(copy, part)
            finally:
                copies.put(copy)

        def without(item: tuple[str, Mutation]) -> dict[str, Any]:
            mechanism, mutation = item
            began, copy = time.monotonic(), copies.get()
            try:
                passed, said = mutated(copy, mutation)
            finally:
                copies.put(copy)
            result = {"promise": mutation.promise, "mechanism": mechanism, "file": f"mmjax/{mutation.file}"}
            result |= {"test": mutation.test, "with_it": "passes" if mutation.test in sound else "FAILS"}
            result |= {"without_it": "PASSES" if passed else "fails", "said": said}
            print(json.dumps(result | {"seconds": round(time.monotonic() - began)}), flush=True)
            return result

        with ThreadPoolExecutor(arguments.jobs) as pool:
            parts = [tests[job :: arguments.jobs] for job in range(arguments.jobs)]
            sound = set().union(*pool.map(as_it_is, [part for part in parts if part]))
            print(f"{len(sound)} of {len(tests)} tests pass on the copy as it is", flush=True)
            results = list(pool.map(without, chosen.items()))
    table = Table("promise", "mechanism", "with it", "without it")
    for result in results:
        table.add_row(str(result["promise"]), result["mechanism"], result["with_it"], result["without_it"])
    Console().print(table)
    wrong = [r["mechanism"] for r in results if r["with_it"] != "passes" or r["without_it"] != "fails"]
    record = {
        "command": "python -m tests.faults.mutate " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "orbax-checkpoint", "grain", "pytest")},
        "mutations": results,
        "unnoticed": wrong,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{len(results) - len(wrong)} of {len(results)} mechanisms are held by a test")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
