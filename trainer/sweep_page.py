"""The page of a sweep: from its rows to `sweep.html`.

    place.write("sweep.html", render(sweep, rows).encode())

One file that loads and runs nothing, in the frame of the training report. It knows no score but those of the validation
split.
"""

import shlex
from collections.abc import Sequence

from data_pipeline import page
from trainer.compare_page import TITLES, number, plain_range
from trainer.plots_sweep import against, so_far
from trainer.sweep_request import Sweep
from trainer.sweep_results import BEST_FLAGS, Row, as_good, best_of, columns, ranked
from trainer.sweep_trials import DONE, FAILED, SCORES

TEMPLATE = "sweep.html"


def render(sweep: Sweep, rows: Sequence[Row]) -> str:
    """The text of `sweep.html`; equal rows give equal text."""
    figures = (so_far(sweep, rows), *(against(sweep, rows, one) for one in sweep.space))
    context = {
        "kind": "Sweep",
        "title": sweep.organ,
        "sweep": sweep,
        "rows": ranked(sweep, rows),
        "best": best_of(sweep, rows),
        "as_good": as_good(sweep, rows),
        "failed": [row for row in rows if row.state == FAILED],
        "seconds": sum(row.outcome.seconds for row in rows if row.outcome),
        "columns": columns(sweep),
        "scores": SCORES,
        "titles": TITLES,
        "number": number,
        "plain_range": plain_range,
        "figures": [figure for figure in figures if figure],
        "base": shlex.join(sweep.base),
        "done": DONE,
        "best_flags": f"{sweep.output}/{BEST_FLAGS}",
    }
    return page.render("trainer", TEMPLATE, context)
