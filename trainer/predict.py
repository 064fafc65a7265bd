"""Predict the diagnosis of image files with an exported model.

Usage: python -m trainer.predict --model=DIR [--output=FILE] [--format=csv|jsonl|table] PATH [PATH ...]

A PATH is an image file or a folder of them, of any format that conversion reads, and seen as conversion sees it. It may
be in Cloud Storage, and so may the model and what is written. However many there are, rows come as they are found, and
memory doesn't grow with them; a file of results appears when it is complete.

Examples:
  python -m trainer.predict --model=runs/cervix/RUN new_images/
      a table of each image, its most probable diagnosis and the confidence in it
  python -m trainer.predict --model=runs/cervix/RUN --output=out.csv --top_k=3 new_images/ cell.png
      a CSV file with the three most probable diagnoses in each row, and the probability of each
  python -m trainer.predict --model=runs/cervix/RUN --format=jsonl new_images/ | jq 'select(.abstained)'
      rows as JSON, here those whose confidence is below the threshold that the model recommends
  python -m trainer.predict --model=runs/cervix/RUN --threshold=0.9 --output=out.csv new_images/
      the column `abstained` is true where the confidence is below 0.9
  python -m trainer.predict --model=runs/cervix/RUN --group_by=folder --group_output=slides.csv new_images/
      a verdict on each sub-folder: the mean of the probabilities of its images
  python -m trainer.predict --model=gs://lab/runs/cervix/RUN --output=gs://lab/out.csv gs://lab/new_images
      all of it in Cloud Storage

Columns: path, group (if --group_by or --group_output is given), class, confidence, abstained (if there is a threshold),
class_2, confidence_2, … (up to --top_k), a column of probability for each class, and error. A file that can't be read
as an image gets a row with its error, and the others go on.

Exit codes: 0 every file was predicted, 1 some could not be, 2 the request is wrong, 143 stopped by SIGTERM.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from itertools import islice
from typing import TYPE_CHECKING

from absl import flags
from tqdm import tqdm

from data_pipeline import cli
from trainer import predict_request
from trainer.predict_groups import Verdict, Verdicts
from trainer.predict_output import StandardOutput, tidied_on_sigterm
from trainer.predict_output import output_of as output_of  # for bench_input
from trainer.predict_request import Request, define_flags, model_is_remote, request_of
from trainer.predict_stream import predict as predict
from trainer.predict_table import FORMS, Wanted, printable
from trainer.predict_table import as_csv as as_csv
from trainer.run_folder import model_folder

if TYPE_CHECKING:
    from trainer.export import Served

GROUPS_SHOWN = 50


def predict_to(request: Request, served: "Served") -> int:
    """Predict all images of a request and write what it asks for; how many could not be predicted."""
    wanted = Wanted(served.classes, request.top_k, request.threshold_of(served.threshold), request.names_groups)
    form = FORMS[request.form](wanted, max(len(printable(str(image))) for image in request.named.images))
    of = request.groups.of
    verdicts = Verdicts(of, classes=len(served.classes))
    failed = 0
    rows = predict(served, request.named.images, batch_size=request.batch_size)
    bar = tqdm(
        rows, total=len(request.named.images), desc="predict", unit="image", leave=False, disable=_shares_tty(request)
    )
    with request.output.opened() if request.output else nullcontext(StandardOutput()) as out:
        out.write(form.header().encode(errors="backslashreplace"))
        for number, row in enumerate(bar):
            failed += row.probabilities is None
            if of:
                verdicts.add(number, row.probabilities)
            out.write(form.row(row, of[number] if of else "").encode(errors="backslashreplace"))
    if request.output:
        print(f"Predictions: {request.output} ({len(request.named.images)} files)")
    if of:
        _tell_verdicts(request, wanted, verdicts.rows())
    return failed


def _shares_tty(request: Request) -> bool:
    """Whether rows go where the progress bar would be."""
    return request.output is None and sys.stdout.isatty()


def _tell_verdicts(request: Request, wanted: Wanted, verdicts: Sequence[Verdict]) -> None:
    """Write the verdicts where they were asked for, or show the first of them."""
    # Where rows are that another program may read, what a person is told goes to stderr.
    file = sys.stderr if request.output is None and request.form != "table" else sys.stdout
    if request.group_output:
        form = FORMS[request.group_form](wanted, max(len(printable(row.group)) for row in verdicts))
        with request.group_output.opened() as out:
            for text in (form.verdict_header(), *(form.verdict(row) for row in verdicts)):
                out.write(text.encode(errors="backslashreplace"))
        print(f"Verdicts: {request.group_output} ({len(verdicts)} groups)", file=file)
        return
    if request.output:
        file = sys.stderr
    shown = list(islice(verdicts, GROUPS_SHOWN))
    form = FORMS["table"](wanted, max(len("group"), *(len(printable(row.group)) for row in shown)))
    lines = [f"\nGroups: {request.groups.description}\n", form.verdict_header(), *map(form.verdict, shown)]
    if len(verdicts) > len(shown):
        lines.append(f"… and {len(verdicts) - len(shown)} more: --group_output=FILE writes them all.\n")
    print("".join(lines), end="", file=file, flush=True)


def main(argv: Sequence[str]) -> None:
    """Predict the files of the command line."""
    request = request_of(flags.FLAGS, argv[1:])
    with ExitStack() as stack:
        if model_is_remote(flags.FLAGS):
            stack.enter_context(tidied_on_sigterm())
        folder = stack.enter_context(model_folder(flags.FLAGS.model))
        from trainer.export import load_served  # only now: it imports TensorFlow, which takes seconds

        served = load_served(folder)
    if request.named.again:
        cli.say(f"{request.named.again} of the files were named more than once, and are predicted once.")
    try:
        with tidied_on_sigterm():
            failed = predict_to(request, served)
    except BrokenPipeError:  # who reads the rows has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(cli.EXIT_FAULT) from None
    if failed:
        cli.say(f"{failed} of {len(request.named.images)} files could not be predicted.")
        raise SystemExit(cli.EXIT_FAULT)


if __name__ == "__main__":
    define_flags()
    flags.adopt_module_key_flags(predict_request)  # for --help
    cli.run(main)
