"""What `trainer.predict` is asked for: its flags, checked before TensorFlow is imported.

define_flags()
request = request_of(flags.FLAGS, ["new_images/"])      # raises RequestError
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from absl import flags

from data_pipeline import cli
from data_pipeline.grouping import NO_RULE, parse_rule
from data_pipeline.storage import in_bucket
from trainer.images_named import Named, find_images
from trainer.predict_groups import Groups, grouped
from trainer.predict_output import Output, output_of
from trainer.predict_stream import BATCH
from trainer.predict_table import FORMS

AUTO, NONE = "auto", "none"  # of --threshold
THRESHOLD_EXPECTED = "auto, none, or a confidence between 0 and 1"
FORM_OF_ENDING = {".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "table"}


@dataclass(frozen=True)
class Request:
    """`threshold` is AUTO, NONE or a number; `names_groups` says that rows have the group as a column."""

    named: Named
    output: Output | None
    form: str
    groups: Groups
    group_output: Output | None
    group_form: str
    names_groups: bool
    top_k: int
    threshold: str | float
    batch_size: int

    def threshold_of(self, recommended: float | None) -> float | None:
        """The confidence below which a row abstains, for a model that recommends one or none."""
        if isinstance(self.threshold, float):
            return self.threshold
        return recommended if self.threshold == AUTO else None


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """The flags of the program, added to `values`."""
    own = {"flag_values": values}
    flags.DEFINE_string(
        "model", None, "An exported model: RUN/model, or the run's folder; on a disk or at gs://.", **own
    )
    flags.DEFINE_string("output", None, "File to write, on a disk or at gs://. By default rows are printed.", **own)
    flags.DEFINE_enum(
        "format",
        None,
        list(FORMS),
        "How rows are written. By default as --output ends (.csv, .jsonl), else a table.",
        **own,
    )
    flags.DEFINE_integer("top_k", 1, "How many diagnoses are named in each row, the most probable first.", 1, **own)
    flags.DEFINE_string(
        "threshold",
        AUTO,
        "Rows of less confidence are marked as abstained. auto: as the model recommends, if it does. "
        "Or a number, or none.",
        **own,
    )
    flags.DEFINE_string(
        "group_by",
        AUTO,
        "Which images are of one slide or patient and get a verdict together, as in conversion, by FOLDER/…/FILE: "
        "auto, folder, none, regex:PATTERN or csv:FILE.",
        **own,
    )
    flags.DEFINE_string(
        "group_output", None, "File to write the verdicts on groups to. By default they are shown.", **own
    )
    flags.DEFINE_integer("batch_size", BATCH, "How many images go through the network together.", 1, **own)
    flags.mark_flag_as_required("model", values)


def request_of(values: flags.FlagValues, arguments: Sequence[str]) -> Request:
    """The request of the command line. Raises `RequestError`."""
    threshold = _threshold(values.threshold)
    rule = parse_rule(values.group_by)
    named = find_images(arguments)
    groups = grouped(named.ids, rule)
    output = output_of(values.output or "")
    group_output = output_of(values.group_output or "", flag="group_output")
    _check_outputs(named, groups, output, group_output)
    form = values.format or (_form(values.output) if values.output else "table")
    return Request(
        named=named,
        output=output,
        form=form,
        groups=groups,
        group_output=group_output,
        group_form=_form(values.group_output or ""),
        names_groups=rule.kind != NO_RULE and (values["group_by"].present > 0 or group_output is not None),
        top_k=values.top_k,
        threshold=threshold,
        batch_size=values.batch_size,
    )


def _check_outputs(named: Named, groups: Groups, output: Output | None, group_output: Output | None) -> None:
    if output:
        output.check(named.images)
    if group_output:
        group_output.check(named.images)
        if not groups.of:
            fix = f"say which images belong together, with --group_by ({groups.description})"
            raise cli.invalid_flag("group_output", expected="groups", received=str(group_output), fix=fix)
        if output and str(output) == str(group_output):
            fix = "name another file than for --output"
            raise cli.invalid_flag("group_output", expected="a file of its own", received=str(group_output), fix=fix)


def _threshold(text: str) -> str | float:
    if text in (AUTO, NONE):
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        fix = "for example --threshold=0.8, or leave it out for what the model recommends"
        raise cli.invalid_flag("threshold", expected=THRESHOLD_EXPECTED, received=text, fix=fix)
    return value


def _form(name: str) -> str:
    """As a file's name ends; CSV where that says nothing."""
    return next((form for ending, form in FORM_OF_ENDING.items() if name.lower().endswith(ending)), "csv")


def model_is_remote(values: flags.FlagValues) -> bool:
    """Whether the model has to be fetched first."""
    return in_bucket(values.model)
