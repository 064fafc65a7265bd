"""Search for settings: train with many, drawn at random from ranges of flags, and see which are best on validation.

Usage: python -m trainer.sweep --search=FLAG:KIND:VALUES [--search=…] [--trials=20] [flags of python -m trainer]

KIND and VALUES are log:LOW:HIGH or uniform:LOW:HIGH for numbers, integer:LOW:HIGH for whole ones, choice:A,B,… for
anything. All other flags go to each trial as they are, and a flag file may hold all of them, a flag a line.

Examples:
  python -m trainer.sweep --organ=cervix --tfrecords=tfrecords --runs=runs --trials=20 \\
      --search=learning_rate:log:1e-4:1e-2 --search=batch_size:choice:16,32,64
  python -m trainer.sweep --flagfile=sweep.flags --method=halving --trials=27
  python -m trainer.sweep --flagfile=sweep.flags --trial=7             # this one alone, say on another machine
  python -m trainer.sweep --flagfile=sweep.flags --table_only

Each trial is a run of python -m trainer, RUNS/ORGAN/SWEEP-TRIAL-eEPOCHS. RUNS/ORGAN/SWEEP, or --output, gets
sweep.html, sweep.csv, and best.flags for python -m trainer --flagfile. Wrong values are told before anything is
trained, and a trial that fails is listed and left behind. Give the same command again to go on with a sweep that was
stopped, with more --trials to add some. Started several times, processes of one machine or disk share the trials: with
several GPUs, start one for each, with CUDA_VISIBLE_DEVICES=0, 1 and so on.

--method=halving trains all trials for few epochs, the best third of them (--eta=3) for three times as many, and so on
up to --epochs, each time from the beginning: so every run is one that anybody gets with its flags.

Trials are judged by --monitor on the validation split. Each run tests its model at its end, but the sweep neither reads
nor shows how well: the test split is for the one that is chosen, once.

Exit codes: 0 done, 2 the request is wrong or all trials were refused, 75 stopped by SIGTERM (run it again), anything
else a fault, or that all trials failed.
"""

from collections.abc import Sequence

from absl import flags

from data_pipeline import cli
from trainer import sweep_request
from trainer.preemption import StopSignal
from trainer.sweep_place import Place
from trainer.sweep_request import Sweep, request_of
from trainer.sweep_trials import DONE, Outcome, Trials


def main(argv: Sequence[str]) -> None:
    """Run the sweep of the command line, or the part of it that is asked for."""
    values = flags.FLAGS
    stop = StopSignal()
    stop.listen()
    sweep = request_of(values, argv[1:])
    trials = Trials(sweep, stop)
    if values.table_only:
        _show_table(sweep, trials)
        return
    trials.begin()
    for _ in trials.work():
        if sweep.only is None:  # a page to watch; of several pods, the last one makes it
            write(sweep, trials)
    outcomes = list(trials.outcomes.values())
    if sweep.only is not None:
        trials.read()
    open_ = sum(one not in trials.outcomes for rung in trials.known() for one in rung)
    if open_:
        cli.say(f"{sweep.trials - open_} of {sweep.trials} trials have ended; the last one makes the table.")
    else:
        print(write(sweep, trials), flush=True)
    _check_any_done(outcomes)


def write(sweep: Sweep, trials: Trials) -> str:
    """Write table, page and the best trial's flags; the table for a terminal, and where the page is."""
    from trainer import sweep_page, sweep_results  # only now: drawing takes two seconds to import

    output = Place.of("output", sweep.output)
    rows = sweep_results.rows_of(sweep, trials.known(), trials.outcomes)
    output.write(sweep_results.TABLE, sweep_results.as_csv(sweep, rows))
    best = sweep_results.best_of(sweep, rows)
    if best:
        output.write(sweep_results.BEST_FLAGS, sweep_results.best_flags(sweep, best))
    output.write(sweep_page.TEMPLATE, sweep_page.render(sweep, rows).encode())
    return f"{sweep_results.table(sweep, rows)}\nSweep: {sweep.output}/{sweep_page.TEMPLATE}"


def _show_table(sweep: Sweep, trials: Trials) -> None:
    """Raises `RequestError` if there is nothing to show."""
    trials.read()
    if not trials.has_begun() or not trials.outcomes:
        fix = "leave out --table_only, or repeat the flags of the sweep"
        raise cli.RequestError(f"No trial of {trials.place} has ended. To fix it: {fix}.")
    print(write(sweep, trials), flush=True)


def _check_any_done(outcomes: Sequence[Outcome]) -> None:
    """Raises `RequestError` or `FaultError` if all have failed."""
    if any(one.state == DONE for one in outcomes):
        return
    text = f"No trial succeeded. The last words of the first: {outcomes[0].error}"
    raise cli.RequestError(text) if all(one.refused for one in outcomes) else cli.FaultError(text)


if __name__ == "__main__":
    sweep_request.define_flags()
    for module in (sweep_request, *sweep_request.training_modules(flags.FLAGS)):  # for --help
        flags.adopt_module_key_flags(module)
    cli.run(main)
