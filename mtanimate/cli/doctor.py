"""`mtanimate doctor`."""

import typer

from mtanimate.cli.terminal import DEBUG, JSON, QUIET, print_json, put, reports_errors

EXAMPLE = "Example: mtanimate doctor"


@reports_errors
def command(json: bool = JSON, quiet: bool = QUIET, debug: bool = DEBUG) -> None:
    """What is installed, which devices and codecs work, what is missing and how to get it."""
    from mtanimate.diagnosis import diagnose

    findings = diagnose()
    if json:
        print_json({"ok": all(f.ok for f in findings if f.needed), "findings": [f.as_dict() for f in findings]})
    elif not quiet:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            mark = "ok" if finding.ok else ("MISSING" if finding.needed else "-")
            put(f"{mark:8}{finding.what:{width}}  {finding.detail}")
    if not all(finding.ok for finding in findings if finding.needed):
        raise typer.Exit(1)
