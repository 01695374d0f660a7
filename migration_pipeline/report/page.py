"""The page: everything escaped, and within one file."""

from collections.abc import Sequence
from pathlib import Path

from migration_pipeline.core.text import visible
from migration_pipeline.report.facts import Facts
from migration_pipeline.report.folder import Kept
from migration_pipeline.report.parts import Code, Figure
from migration_pipeline.report.sections import pictures, sections, tiles
from migration_pipeline.report.verdict import cutover_in_words, verdict
from migration_pipeline.report.words import moment

TITLE = "Migration of user files from Azure Blob Storage to AWS S3"
_HERE = Path(__file__).parent


def page(facts: Facts, kept: Sequence[Kept] = ()) -> str:
    """As HTML.

    Args:
        facts: what there is to tell.
        kept: files that belong to it, for the list of their digests.
    """
    import jinja2  # noqa: PLC0415 - no other command needs it
    import markupsafe  # noqa: PLC0415 - as above

    def shown(value: object) -> object:
        return visible(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=shown,
    )
    environment.tests |= {"figure": lambda it: isinstance(it, Figure), "code": lambda it: isinstance(it, Code)}
    began, ended = facts.period
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        title=TITLE,
        style=markupsafe.Markup(style),  # noqa: S704 - our own file
        source=facts.source,
        target=facts.target,
        verdict=verdict(facts),
        cutover=cutover_in_words(facts),
        period=f"From {moment(began)} to {moment(ended)}." if began is not None else "No run has begun.",
        at=moment(facts.at),
        tiles=tiles(facts),
        pictures=pictures(facts),
        sections=sections(facts, kept),
        version=facts.versions["migration-pipeline"],
    )
