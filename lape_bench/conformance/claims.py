"""A claim of the contract, and what came of holding a system against it.

A check is a function that returns when its claim holds, with a remark if there is one to make, and raises a `Verdict`
when there is something else to say.
"""

from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

from lape_bench.core.errors import FAILURES, UserError, summarize_error

ClaimStatus = Literal["ok", "FAILS", "skipped", "note"]


class ClaimResult(NamedTuple):
    """Outcome of one check.

    Attributes:
        group: what the claim is about: "system", "encoder" or a protocol.
        claim: what must hold.
        outcome: "skipped" where it could not be tried here, "note" where nothing was claimed.
        detail: what was seen, with the usual cause of a failure; may be empty.
    """

    group: str
    claim: str
    outcome: ClaimStatus
    detail: str = ""

    @property
    def holds(self) -> bool:
        """Whether the contract is kept, as far as could be tried."""
        return self.outcome != "FAILS"


class Verdict(Exception):
    """Ends a check; the message is the result's detail."""

    outcome: ClassVar[ClaimStatus]


class ClaimFailed(Verdict):
    """What was seen, and its usual cause."""

    outcome = "FAILS"


class ClaimSkipped(Verdict):
    """Why the claim cannot be tried here."""

    outcome = "skipped"


class ClaimNote(Verdict):
    """Something worth knowing that breaks no claim."""

    outcome = "note"


def hold(group: str, claim: str, check: Callable[[], str | None]) -> ClaimResult:
    """Run one check."""
    try:
        remark = check()
    except Verdict as verdict:
        return ClaimResult(group, claim, verdict.outcome, str(verdict))
    except UserError as error:
        return ClaimResult(group, claim, "FAILS", str(error).rstrip("."))
    except FAILURES as error:  # a plug-in may fail in any way; the check says how
        return ClaimResult(group, claim, "FAILS", f"it raised {summarize_error(error)}")
    return ClaimResult(group, claim, "ok", remark or "")
