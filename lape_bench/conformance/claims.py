"""A claim of the contract, and the result of checking it on a system.

A check is a function. It returns None or a remark if its claim holds, and raises a `Verdict` otherwise.
"""

from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

from lape_bench.core.errors import FAILURES, UserError, summarize_error

ClaimStatus = Literal["ok", "FAILS", "skipped", "note"]


class ClaimResult(NamedTuple):
    """Result of one check.

    Attributes:
        group: what the claim is about: "system", "encoder" or a protocol.
        claim: what must hold.
        status: "ok", "FAILS", "skipped" if this machine cannot check the claim, or "note" for a remark.
        detail: the observation and, for a failure, its usual cause; may be empty.
    """

    group: str
    claim: str
    status: ClaimStatus
    detail: str = ""

    @property
    def holds(self) -> bool:
        """Whether the system keeps the contract, as far as it could be checked."""
        return self.status != "FAILS"


class Verdict(Exception):
    """Ends a check; the message is the result's detail."""

    status: ClassVar[ClaimStatus]


class ClaimFailed(Verdict):
    """The claim does not hold; the message gives the observation and its usual cause."""

    status = "FAILS"


class ClaimSkipped(Verdict):
    """The claim cannot be checked here; the message gives the reason."""

    status = "skipped"


class ClaimNote(Verdict):
    """A remark that breaks no claim."""

    status = "note"


def check_claim(group: str, claim: str, check: Callable[[], str | None]) -> ClaimResult:
    """Run one check and return its result, even if the check raises an error."""
    try:
        remark = check()
    except Verdict as verdict:
        return ClaimResult(group, claim, verdict.status, str(verdict))
    except UserError as error:
        return ClaimResult(group, claim, "FAILS", str(error).rstrip("."))
    except FAILURES as error:  # a plug-in may raise anything
        return ClaimResult(group, claim, "FAILS", f"it raised {summarize_error(error)}")
    return ClaimResult(group, claim, "ok", remark or "")
